"""What is asked of a media file, and which frames and pixels of the file that means. Imports no decoder."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vtp.media.info import MediaError, VideoInfo
from vtp.types import Clip, MediaRef

__all__ = ["EVERYTHING", "Reader", "Size", "Times", "Wanted", "cut", "picture_may_lack", "target_size"]

Times = Callable[[VideoInfo], npt.NDArray[Any]]
Size = int | tuple[int, int] | None

_WIDEST = 8  # long side over short side at most; a longer picture is squeezed, or 10,000 x 16 would need gigabytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader is to give of one file.

    Attributes:
        times: chooses frames, given the times at which frames are shown: returns seconds (floats; the frame on screen
            then) or positions in the span (integers). A pure function; :mod:`vtp.media.sampling` has them. None takes
            all frames.
        size: ``(height, width)``, or the short side in pixels with the long side to scale; None as stored. Of the
            upright picture.
        sample_rate: of the wanted sound in Hz, mixed to one channel; None leaves the sound alone.
        video: False reads no frames, for sound alone.
    """

    times: Times | None = None
    size: Size = None
    sample_rate: int | None = None
    video: bool = True

    def positions(self, info: VideoInfo) -> npt.NDArray[np.int64]:
        """The frames of ``info`` that are wanted, as positions."""
        return info.positions(np.arange(info.count) if self.times is None else self.times(info))


class Reader(Protocol):
    """What reads media for the loaders: :class:`vtp.media.MediaReader`, or a cache in front of it."""

    def read(self, ref: MediaRef, wanted: Wanted) -> Clip: ...


EVERYTHING = Wanted()  # all frames as they are stored, no sound


def cut(info: VideoInfo, ref: MediaRef) -> tuple[VideoInfo, int]:
    """The frames on screen during [start, end), and the place of the first one in ``info``. The frame that is on screen
    at ``start`` belongs to it.

    Raises:
        MediaError: if there is none.
    """
    start = -math.inf if ref.start is None else ref.start
    end = math.inf if ref.end is None else ref.end
    if start >= info.end or end <= start:
        raise MediaError(f"the span [{ref.start}, {ref.end}) lies outside the {info.end:.2f} s of video", "span")
    if end <= info.start:
        raise MediaError(
            f"the span [{ref.start}, {ref.end}) ends before the video, which begins at {info.start:.2f} s", "span"
        )
    first = max(int(np.searchsorted(info.timestamps, start + 1e-6, side="right")) - 1, 0)
    last = max(int(np.searchsorted(info.timestamps, end - 1e-6, side="left")), first + 1)
    return info.cut(first, last, min(end, info.end)), first


@contextlib.contextmanager
def picture_may_lack(clip: Clip) -> Iterator[None]:
    """Where the span holds no frame, but sound, the picture is what is missing."""
    try:
        yield
    except MediaError as error:
        if error.kind != "span" or clip.waveform is None:
            raise
        clip.missing["video"], clip.timestamps = error.reason, np.zeros(0)


def target_size(height: int, width: int, size: Size) -> tuple[int, int]:
    """(height, width) of the result for an upright picture of ``height`` x ``width``."""
    if size is None:
        return height, width
    if isinstance(size, tuple):
        return size
    long = min(round(max(height, width) * size / min(height, width)), _WIDEST * size)
    return (size, long) if height <= width else (long, size)
