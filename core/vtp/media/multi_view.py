"""Several views of one video: windows of frames, in evaluation times crops along its longer side. The video is decoded
once for all of them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vtp.contracts import Sampler
from vtp.errors import PluginError
from vtp.media.info import VideoInfo
from vtp.media.request import Size
from vtp.media.sampling import Picks, multi_clip
from vtp.media.transforms import ClipTransform, EvalTransform

__all__ = ["InWindows", "View", "Windows"]


@dataclass(frozen=True, slots=True)
class Windows:
    """A frame sampler that takes the frames of ``clips`` windows, one window after the other.

    Attributes:
        clips: windows.
        sampler: what chooses them: one with a parameter ``clips`` chooses them itself; of any other, asked for clips *
            frames frames, the k-th window is the k-th ``frames`` of them. None is :func:`multi_clip`, never random.
    """

    clips: int
    sampler: Sampler | None = None

    def __call__(
        self,
        info: VideoInfo,
        *,
        frames: int,
        stride: int | None = None,
        generator: np.random.Generator | None = None,
    ) -> Picks:
        """Positions or seconds, (clips * frames,).

        Raises:
            PluginError: the sampler gives another number of them.
        """
        if self.sampler is None:
            return multi_clip(info, frames=frames, stride=stride, clips=self.clips).ravel()
        many: dict[str, int] = {"frames": frames * self.clips}
        if "clips" in inspect.signature(self.sampler).parameters:
            many = {"frames": frames, "clips": self.clips}
        picks = self.sampler(info, **many, stride=stride, generator=generator)
        if len(picks) != frames * self.clips:
            name = getattr(self.sampler, "__name__", type(self.sampler).__name__)
            raise PluginError(
                f"the sampler {name} gave {len(picks)} frames for {self.clips} windows of {frames}, expected "
                f"{frames * self.clips}. Choose another data.sampler, or data.train_clips=1."
            )
        return picks


@dataclass(frozen=True, slots=True)
class InWindows:
    """A clip transform that changes the frames of :class:`Windows` alike, as one clip, and parts them afterwards."""

    transform: ClipTransform
    clips: int

    @property
    def decode_size(self) -> Size:
        return self.transform.decode_size

    def __call__(self, frames: npt.NDArray[np.uint8], seed: int | None = None) -> npt.NDArray[np.uint8]:
        """(clips * T, H, W, 3) -> (clips, T, size, size, 3)."""
        made = self.transform(frames, seed)
        return made.reshape(self.clips, -1, *made.shape[1:])


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
