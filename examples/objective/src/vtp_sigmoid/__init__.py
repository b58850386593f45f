"""The pairwise sigmoid loss as a plugin of vtp."""
