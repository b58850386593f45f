"""From decoded frames to upright RGB at one size."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter

from vtp.media.request import Size, target_size

__all__ = ["Converter", "is_still", "pixel_aspect"]

_SQUARE = 0.01  # how far a pixel's width over height may be from 1 to count as square: encoders round
_STRETCHED = 8.0  # above this, or below its inverse, the number is taken for a mistake of the file
# What a picture file says is its resolution in print, which nobody applies on a screen.
_STILLS = ("image2", "gif", "apng")
_HEIF = ("avif", "avis", "heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1")


def _name_unknown(cls: Any, value: object) -> Any:
    """A member of PyAV's ``Type`` for side data that it has no name for: FFmpeg 8 attaches EXIF (31) to photos, and
    PyAV 18 refuses to look at the side data of such a frame altogether."""
    if not isinstance(value, int):
        return None
    member = object.__new__(cls)
    member._name_, member._value_ = f"TYPE_{value}", value
    return cls._value2member_map_.setdefault(value, member)


Type._missing_ = classmethod(_name_unknown)  # type: ignore[assignment, method-assign]


class Converter:
    """Converts frames of one stream, all to the size that its first frame asks for; keeps the scaler between frames.

    Args:
        size: as in :class:`vtp.media.Wanted`.
        stored: (width, height) of the stream's frames, as the container says.
        first: looks up (width, height) of the first frame that decodes; called when another size than ``stored`` comes
            out, as after a change of resolution in a broadcast.
    """

    def __init__(self, size: Size, stored: tuple[int, int], first: Callable[[], tuple[int, int]]) -> None:
        self.size = size
        self.stored = stored
        self.first: Callable[[], tuple[int, int]] | None = first
        self.scaler = VideoReformatter()

    def __call__(self, frame: Any) -> npt.NDArray[np.uint8]:
        """uint8 (H, W, 3)."""
        if self.first is not None and (frame.width, frame.height) != self.stored:
            self.stored, self.first = self.first(), None
        swap, flip_x, flip_y = _orientation(frame)
        width, height = self.stored
        height, width = target_size(*((width, height) if swap else (height, width)), self.size)
        if swap:
            height, width = width, height
        scaled = self.scaler.reformat(frame, width, height, "rgb24", interpolation="BILINEAR", threads=1)
        picture = np.asarray(scaled.to_ndarray(), np.uint8)
        if swap:
            picture = picture.swapaxes(0, 1)
        return np.ascontiguousarray(picture[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def is_still(container: Any) -> bool:
    """Whether an open container is a picture file, or an animated one."""
    form = container.format.name
    return form in _STILLS or form.endswith("_pipe") or container.metadata.get("major_brand") in _HEIF


def pixel_aspect(container: Any, stream: Any) -> float:
    """Width over height of the stream's pixels; 1 for pictures, and where the file says nothing or nonsense. Frames are
    given as they are stored all the same, as the published code for these data sets has them."""
    ratio = stream.sample_aspect_ratio
    if not ratio or ratio == 1 or is_still(container):
        return 1.0
    aspect = float(ratio)
    return aspect if abs(aspect - 1) > _SQUARE and 1 / _STRETCHED <= aspect <= _STRETCHED else 1.0


def _orientation(frame: Any) -> tuple[bool, bool, bool]:
    """(swap axes, then mirror x, then mirror y), from the display matrix of the frame.

    The matrix maps a stored point (x, y) to the displayed (a x + c y, b x + d y); only quarter turns and mirrors are
    meant by cameras.
    """
    for data in frame.side_data:  # not .get(): what it costs to miss is felt with short clips
        if data.type == Type.DISPLAYMATRIX:
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
            return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)
    return False, False, False
