"""``shapes``: a generated data set in MSR-VTT's on-disk format, in which every answer can be seen or heard."""

from vtp_datasets.shapes.dataset import Shapes

__all__ = ["Shapes"]
