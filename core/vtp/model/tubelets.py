"""Tubelets: the cubes of p0 frames x p x p pixels behind one video token, and the patches of a spectrogram. Everything
here looks only at the ones it is asked for: nine tenths of a clip are hidden and need no embedding, one tenth is
visible and is no target. Kernels of vtp-kernels where they run (:mod:`vtp.model.kernels`), plain PyTorch elsewhere.

video   float (B, T, C, H, W), normalised, or uint8 (B, T, H, W, C) as decoded
index   int64 (B, K)   positions in the flattened grid (T', H', W'), T' slowest
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from vtp.errors import ConfigError
from vtp.model.kernels import operators
from vtp.model.objective import masked_mean
from vtp.types import VideoSpec

__all__ = [
    "Grid",
    "gather_patches",
    "gather_tubelets",
    "masked_pixel_loss",
    "normalised_pixels",
    "pixels",
    "sizes",
    "spectrogram_clip",
    "unpatch",
]


@dataclass(frozen=True, slots=True)
class Grid:
    """How a clip is cut.

    Attributes:
        shape: tokens per axis (T', H', W').
        tubelet: frames per token, p0.
        patch: pixels per token and axis, (p, p).
    """

    shape: tuple[int, int, int]
    tubelet: int
    patch: tuple[int, int]

    @property
    def tokens(self) -> int:
        """N = T' * H' * W'."""
        t, h, w = self.shape
        return t * h * w

    @classmethod
    def of(cls, video: Tensor, shape: Sequence[int]) -> Grid:
        """The cut of ``video`` (..., T, C, H, W) or uint8 (..., T, H, W, C) into ``shape`` tokens.

        Raises:
            ConfigError: if the clip cannot be cut into equal cubes.
        """
        t, h, w = shape
        frames, height, width = sizes(video)
        if not (t and h and w) or frames % t or height % h or width % w:
            raise ConfigError(
                f"a clip of {frames} frames of {width}x{height} pixels cannot be cut into {t}x{h}x{w} tokens. "
                f"Every axis must be a multiple."
            )
        return cls((t, h, w), frames // t, (height // h, width // w))


def sizes(video: Tensor) -> tuple[int, int, int]:
    """(T, H, W) of a clip of either layout."""
    if video.dtype == torch.uint8:
        return video.shape[-4], video.shape[-3], video.shape[-2]
    return video.shape[-4], video.shape[-2], video.shape[-1]


def gather_tubelets(
    video: Tensor, index: Tensor | None, grid: Grid, mean: Tensor, scale: Tensor, spec: VideoSpec
) -> Tensor:
    """Normalised pixels of some tubelets in the order of a Conv3d weight, (B, K, C * p0 * p * p).

    Args:
        video: float (B, T, C, H, W), taken as normalised already, or uint8 (B, T, H, W, C).
        index: which ones; None = all N.
        grid: how the clip is cut.
        mean: (C,), in bytes; used for uint8.
        scale: (C,), 1 / standard deviation in bytes; used for uint8.
        spec: the same two numbers on the host.
    """
    if index is not None and (ops := _kernels(video)) is not None:
        size = (grid.tubelet, *grid.patch)
        found: Tensor = ops.gather_tubelets(video, index.int(), size, spec.mean, spec.std, mean.dtype, kind="token")
        return found
    if video.dtype == torch.uint8:
        cubes = (_take(video, index, grid).to(mean.dtype) - mean) * scale
    else:
        cubes = _take(video, index, grid)
    return cubes.permute(0, 1, 5, 2, 3, 4).flatten(2)


def gather_patches(
    spectrogram: Tensor, index: Tensor | None, patch: tuple[int, int], mean: float, std: float
) -> Tensor:
    """Normalised values of some patches of a spectrogram in the order of a Conv2d weight, (B, K, p1 * p2).

    Args:
        spectrogram: float (B, F, M), F steps of time and M bins, or its transpose: whatever axis is first is slowest.
        index: int64 (B, K), which patches of the F' x M' ones; None = all of them.
        patch: (p1, p2), steps and bins of a patch.
        mean, std: of the values.
    """
    if index is not None and (ops := operators(spectrogram.device)) is not None:
        found: Tensor = ops.gather_patches(spectrogram, index.int(), patch, mean, std, spectrogram.dtype)
        return found
    clip = spectrogram_clip(spectrogram)
    grid = Grid.of(clip, (1, spectrogram.shape[1] // patch[0], spectrogram.shape[2] // patch[1]))
    return (_take(clip, index, grid).flatten(2) - mean) / std


def spectrogram_clip(spectrogram: Tensor) -> Tensor:
    """(B, F, M) as a clip of one frame with one channel, (B, 1, 1, F, M), for :func:`pixels` and
    :func:`masked_pixel_loss` with a mean of 0 and a deviation of 1: its patches are tubelets of one frame."""
    return spectrogram[:, None, None]


def pixels(video: Tensor, index: Tensor | None, grid: Grid, mean: Tensor, std: Tensor) -> Tensor:
    """Pixels in [0, 1] of some tubelets, float (B, K, P, C) with P = p0 * p * p positions; the target of MVM.

    Args:
        video: float (B, T, C, H, W), normalised with ``mean`` and ``std`` ((C,), of values in [0, 1]), or uint8
            (B, T, H, W, C).
        index: which ones; None = all N.
        grid: how the clip is cut.
    """
    cubes = _take(video, index, grid).flatten(2, 4)
    return cubes.to(mean.dtype) / 255 if video.dtype == torch.uint8 else cubes * std + mean


def normalised_pixels(values: Tensor) -> Tensor:
    """(u - mean) / (standard deviation + 1e-6) over the positions of each tubelet and channel: (..., P, C) -> the same.

    The deviation is the unbiased one, and 1e-6 is added behind the root (section "Implementation" of VideoMAE,
    arXiv:2203.12602, as its released code does it).
    """
    centred = values - values.mean(dim=-2, keepdim=True)  # on a CPU two passes beat torch.var_mean
    var = centred.square().sum(dim=-2, keepdim=True) / (values.shape[-2] - 1)
    return centred / (var.sqrt() + 1e-6)


def masked_pixel_loss(
    pred: Tensor, video: Tensor, hidden: Tensor, rows: Tensor, grid: Grid, mean: Tensor, std: Tensor, normalise: bool
) -> Tensor:
    """Mean squared error against the hidden tubelets of the clips that are there, a float32 scalar.

    Args:
        pred: (B, K, P * C), channel fastest.
        video, grid, mean, std: as in :func:`pixels`.
        hidden: int64 (B, K).
        rows: bool (B,), clips that are there; the others are black, as the loader leaves them.
        normalise: against pixels normalised per tubelet and channel, or against the pixels themselves.
    """
    if (ops := _kernels(video)) is not None:
        # of a black clip the target is 0 either way: with a prediction of 0 it adds nothing to the mean over B clips
        own = pred.masked_fill(~rows[:, None, None], 0.0)
        size, norm = (grid.tubelet, *grid.patch), "channel" if normalise else "none"
        loss: Tensor = ops.masked_pixel_loss(own, video, hidden.int(), size, norm=norm, kind="token")
        return loss * (len(rows) / rows.sum().clamp(min=1))
    with torch.no_grad():
        target = pixels(video, hidden, grid, mean.float(), std.float())
        if normalise:
            target = normalised_pixels(target)
    return masked_mean(mse_loss(pred.float(), target.flatten(2), reduction="none").mean(dim=(1, 2)), rows)


def _kernels(video: Tensor) -> ModuleType | None:
    """vtp-kernels, if ``kernels=`` allows it and the clip is one for it: bytes on a GPU. Its PyTorch fallbacks are not
    used."""
    return operators(video.device) if video.dtype == torch.uint8 and video.device.type == "cuda" else None


def unpatch(values: Tensor, grid: Grid) -> Tensor:
    """All tubelets of a clip, (B, N, P, C), back in place: (B, T, H, W, C)."""
    t, h, w = grid.shape
    p0, (p1, p2) = grid.tubelet, grid.patch
    cubes = values.reshape(len(values), t, h, w, p0, p1, p2, values.shape[-1])
    cubes = cubes.permute(0, 1, 4, 2, 5, 3, 6, 7)
    return cubes.reshape(len(values), t * p0, h * p1, w * p2, values.shape[-1])


def _take(video: Tensor, index: Tensor | None, grid: Grid) -> Tensor:
    """Tubelets (B, K, p0, p, p, C), channel last; copies only the ones that ``index`` names."""
    t, h, w = grid.shape
    p0, (p1, p2) = grid.tubelet, grid.patch
    if video.dtype == torch.uint8:
        cubes = video.reshape(-1, t, p0, h, p1, w, p2, video.shape[-1]).permute(0, 1, 3, 5, 2, 4, 6, 7)
    else:
        cubes = video.reshape(-1, t, p0, video.shape[-3], h, p1, w, p2).permute(0, 1, 4, 6, 2, 5, 7, 3)
    if index is None:
        return cubes.flatten(1, 3)
    rows = torch.arange(len(video), device=video.device)[:, None]
    space = h * w
    return cubes[rows, index // space, index % space // w, index % w]
