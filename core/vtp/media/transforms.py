"""Augmentation and cropping of whole clips: every frame of a clip gets the same geometry and the same colours.

Clips stay uint8 (T, H, W, 3): that is what workers hand over (a quarter of the bytes), normalising happens on the
device. The work is done by ``torchvision.transforms.v2`` on the clip as a (T, 3, H, W) tensor. Those transforms draw
from torch's global generator, so it is forked and seeded per clip: the result depends on the clip and the seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms import v2

from vtp.errors import ConfigError
from vtp.media.frames import resize
from vtp.media.request import Size
from vtp.media.sampling import crop_offsets
from vtp.types import VideoSpec

__all__ = ["ClipTransform", "EvalTransform", "TrainTransform", "eval_transform"]

Frames = npt.NDArray[np.uint8]


class ClipTransform(Protocol):
    """From decoded frames (T, H, W, 3) to the square clip that an encoder wants; ``seed`` None means no randomness.

    Attributes:
        decode_size: short side in pixels at which frames should be decoded, or (height, width); None = as stored.
    """

    @property
    def decode_size(self) -> Size: ...

    def __call__(self, frames: Frames, seed: int | None) -> Frames: ...


class EvalTransform:
    """Short side to ``resize`` (by the decoder), then the centre ``size`` x ``size``; or ``crops`` windows along the
    longer side; or the whole picture squeezed into the square.

    Args:
        size: side of the result.
        resize: short side before the crop; None is ``size``. 256 for size 224 is the other common recipe.
        crops: with more than one, the result is (crops, T, size, size, 3).
        squeeze: of one view without ``resize``: nothing is cut off, and the shape of the picture changes.
        resample: of one view: ``decoder``, or how frames of the stored size are scaled here, see
            :class:`vtp.types.VideoSpec`.
    """

    def __init__(
        self,
        size: int,
        *,
        resize: int | None = None,
        crops: int = 1,
        squeeze: bool = False,
        resample: Literal["decoder", "bilinear", "bicubic"] = "decoder",
    ) -> None:
        self.size = size
        self.short = resize or size
        self.crops = crops
        self.squeeze = squeeze and resize is None and crops == 1
        self.resample = None if resample == "decoder" or crops > 1 else v2.InterpolationMode(resample)
        by_decoder: Size = (size, size) if self.squeeze else self.short
        self.decode_size: Size = by_decoder if self.resample is None else None

    def __call__(self, frames: Frames, seed: int | None = None) -> Frames:
        if self.resample is not None:
            shape = [self.size, self.size] if self.squeeze else [self.short]
            clip = v2.functional.resize(_to_tensor(frames), shape, self.resample, antialias=True)
            return _to_frames(v2.functional.center_crop(clip, [self.size, self.size]))
        if self.squeeze:
            return resize(frames, (self.size, self.size))
        if min(frames.shape[1:3]) != self.short:  # the reader did not resize
            frames = _resize_short(frames, self.short)
        height, width = frames.shape[1:3]
        places = crop_offsets(height, width, self.size, self.crops)
        views = [frames[:, top : top + self.size, left : left + self.size] for top, left in places]
        return views[0] if self.crops == 1 else np.stack(views)


def eval_transform(spec: VideoSpec, resize: int | None = None) -> EvalTransform:
    """What an encoder is shown in evaluation; ``resize`` is the short side before the crop, None that of the crop."""
    return EvalTransform(spec.size, resize=resize, squeeze=spec.squeeze, resample=spec.resample)


class TrainTransform:
    """RandAugment, a random crop, a flip and random erasing, in this order, drawn once per clip. By default only the
    crop.

    Args:
        size: side of the result.
        crop_scale: smallest and largest share of the picture's area that the crop keeps, to be scaled to ``size``.
            Captions name things: the default keeps at least half.
        crop_ratio: smallest and largest width / height of the cropped part.
        short_side: the other kind of crop: the short side is scaled to a random number of pixels in this range, both
            ends included, and a square of ``size`` is cut at a random place. Frames are decoded at the larger end.
        decode_size: short side at which frames are decoded before the crop; None is 8/7 of ``size`` (256 for 224). 0
            keeps the stored size, as in recipes that crop at full resolution.
        flip: probability of a mirror image. 0 by default, because captions and questions say left and right.
        randaugment: (operations, magnitude of 31) of ``v2.RandAugment``, None = off.
        erase: probability that a random box is overwritten with noise, the same box in all frames.

    Raises:
        ConfigError: if ``short_side`` begins below ``size``.
    """

    def __init__(
        self,
        size: int,
        *,
        crop_scale: Sequence[float] = (0.5, 1.0),
        crop_ratio: Sequence[float] = (3 / 4, 4 / 3),
        short_side: Sequence[int] | None = None,
        decode_size: int | None = None,
        flip: float = 0.0,
        randaugment: Sequence[int] | None = None,
        erase: float = 0.0,
    ) -> None:
        self.size = size
        self.decode_size: int | None = round(size * 8 / 7) if decode_size is None else decode_size or None
        steps: list[torch.nn.Module] = []
        if randaugment is not None:
            steps.append(v2.RandAugment(randaugment[0], randaugment[1], interpolation=v2.InterpolationMode.BILINEAR))
        if short_side is None:
            steps.append(v2.RandomResizedCrop(size, tuple(crop_scale), tuple(crop_ratio), antialias=True))
        else:
            smallest, self.decode_size = short_side
            if smallest < size:
                raise ConfigError(
                    f"data.short_side=[{smallest},{self.decode_size}] must begin at the encoder's size or above, "
                    f"here {size}: a smaller picture holds no such square."
                )
            steps += [v2.RandomResize(smallest, self.decode_size + 1, antialias=True), v2.RandomCrop(size)]
        if flip:
            steps.append(v2.RandomHorizontalFlip(flip))
        if erase:
            steps.append(_Erase(erase))
        self.steps = v2.Compose(steps)

    def __call__(self, frames: Frames, seed: int | None) -> Frames:
        if seed is None:
            raise ValueError("TrainTransform is random and needs a seed; use EvalTransform in evaluation")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _to_frames(self.steps(_to_tensor(frames)))


class _Erase(torch.nn.Module):
    """Overwrite one box of the clip with noise: 2 % to a third of the area, the same box and the same noise in every
    frame."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        if torch.rand(()) >= self.probability:
            return clip
        height, width = clip.shape[-2:]
        for _ in range(10):
            area = height * width * float(torch.empty(()).uniform_(0.02, 1 / 3))
            aspect = float(torch.empty(()).uniform_(float(np.log(0.3)), float(np.log(1 / 0.3))).exp())
            tall, wide = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if tall < height and wide < width:
                top = int(torch.randint(height - tall + 1, ()))
                left = int(torch.randint(width - wide + 1, ()))
                noise = torch.randint(256, (3, tall, wide), dtype=torch.uint8)
                erased: torch.Tensor = v2.functional.erase(clip, top, left, tall, wide, noise)
                return erased
        return clip


def _to_tensor(frames: Frames) -> torch.Tensor:
    """(T, H, W, 3) array -> (T, 3, H, W) tensor, channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)


def _to_frames(clip: torch.Tensor) -> Frames:
    frames: Frames = clip.permute(0, 2, 3, 1).contiguous().numpy()
    return frames


def _resize_short(frames: Frames, size: int) -> Frames:
    return _to_frames(v2.functional.resize(_to_tensor(frames), [size], antialias=True))
