"""Several views of one video for evaluation: windows of frames spread over it, times crops along its longer side. The
video is decoded once for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vtp.media.info import VideoInfo
from vtp.media.sampling import Picks, multi_clip
from vtp.media.transforms import EvalTransform

__all__ = ["View", "Windows"]


@dataclass(frozen=True, slots=True)
class Windows:
    """A frame sampler that takes the frames of ``clips`` windows, one window after the other."""

    clips: int

    def __call__(
        self,
        info: VideoInfo,
        *,
        frames: int,
        stride: int | None = None,
        generator: np.random.Generator | None = None,
    ) -> Picks:
        """Positions (clips * frames,); never random."""
        return multi_clip(info, frames=frames, stride=stride, clips=self.clips).ravel()


@dataclass
class View:
    """A clip transform that cuts the frames of :class:`Windows` into views.

    Attributes:
        size: side of a view in pixels.
        clips: windows.
        crops: crops along the longer side, the centre for 1.
    """

    size: int
    clips: int
    crops: int
    decode_size: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.decode_size = self.size

    def __call__(self, frames: npt.NDArray[np.uint8], seed: int | None = None) -> npt.NDArray[np.uint8]:
        """(clips * T, H, W, 3) -> (clips * crops, T, size, size, 3), the crops of the first window first."""
        cut = EvalTransform(self.size, crops=self.crops)(frames)
        cut = cut.reshape(self.crops, self.clips, -1, *cut.shape[-3:])
        return np.ascontiguousarray(cut.swapaxes(0, 1).reshape(self.clips * self.crops, *cut.shape[2:]))
