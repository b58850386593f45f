"""Tools that run once, before training: look at media, pack them, cache them. The loader of ``vtp.data`` knows none."""

GO_ON = "Free some space and give the same command again: it goes on where it stopped."
