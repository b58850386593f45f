"""Tools that run once, before training: look at media, pack them, cache them. The loader of ``vtp.data`` knows none."""
