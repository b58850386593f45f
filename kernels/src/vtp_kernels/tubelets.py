"""Read only the visible tubelets of raw frames, normalise them and lay them out for the patch embedding: a masked
autoencoder keeps 10 % of the pixels, so 90 % need not be converted, permuted or multiplied.

    video  (B, T, H, W, C)           uint8 as the decoder gives it, or float
    out    (B, N, C * p0 * p1 * p2)  in the order of ``Conv3d.weight.flatten(1)``, so that
                                     ``functional.linear(out, weight.flatten(1), bias)`` embeds the tokens

Order: geometry shared with the loss, definition, kernel T2, fallback, registration, public functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vtp_kernels.configs import pixel_warps
from vtp_kernels.dispatch import Backend, jit, on_device, tl, use_triton
from vtp_kernels.masking import KINDS, MaskKind, grid_index

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "gather_patches", "gather_tubelets", "gather_tubelets_reference"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_CHANNELS = 4  # channels whose mean and std a kernel takes as numbers


class Geometry(NamedTuple):
    """How a video divides into tokens."""

    grid: tuple[int, int, int]  # (T', H', W')
    tubelet: tuple[int, int, int]
    channels: int

    @property
    def pixels(self) -> int:
        """Values per channel of a token."""
        return math.prod(self.tubelet)

    def tokens(self, ids: int, kind: str) -> int:
        """Tokens that ``ids`` positions stand for."""
        return {"tube": ids * self.grid[0], "token": ids, "frame": ids * self.grid[1] * self.grid[2]}[kind]


def geometry(video: Tensor, tubelet: Sequence[int], kind: str, mean: Sequence[float], std: Sequence[float]) -> Geometry:
    """Check shapes once for all."""
    if (
        video.dim() != 5
        or len(tubelet) != 3
        or any(size % p for size, p in zip(video.shape[1:4], tubelet, strict=True))
    ):
        raise ValueError(
            f"video {tuple(video.shape)} must be (B, T, H, W, C), T, H, W multiples of the tubelet {tuple(tubelet)}."
        )
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} must be one of {', '.join(KINDS)}.")
    if len(mean) != video.shape[4] or len(std) != video.shape[4]:
        raise ValueError(
            f"mean {tuple(mean)} and std {tuple(std)} must have one number for each of the {video.shape[4]} channels."
        )
    time, height, width = (size // p for size, p in zip(video.shape[1:4], tubelet, strict=True))
    return Geometry((time, height, width), (tubelet[0], tubelet[1], tubelet[2]), video.shape[4])


def affine(video: Tensor, mean: Sequence[float], std: Sequence[float]) -> tuple[list[float], list[float]]:
    """Factor and shift per channel: normalised = stored * factor - shift, bytes being in units of 1/255."""
    unit = 1 / 255 if video.dtype == torch.uint8 else 1.0
    return [unit / s for s in std], [m / s for m, s in zip(mean, std, strict=True)]


def take_tokens(video: Tensor, ids: Tensor, shape: Geometry, kind: MaskKind) -> Tensor:
    """(B, N, p0, p1, p2, C) as stored; reads only the tokens asked for."""
    (time, height, width), (p0, p1, p2) = shape.grid, shape.tubelet
    index = grid_index(ids, shape.grid, kind)
    cells = video.reshape(-1, time, p0, height, p1, width, p2, shape.channels).permute(0, 1, 3, 5, 2, 4, 6, 7)
    sample = torch.arange(len(video), device=video.device)[:, None]
    space = index % (height * width)
    return cells[sample, index // (height * width), space // width, space % width]


def gather_tubelets_reference(
    video: Tensor,
    keep: Tensor,
    tubelet: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    kind: MaskKind,
) -> Tensor:
    """What the kernel must equal: normalise all pixels, cut all tokens, select."""
    shape = geometry(video, tubelet, kind, mean, std)
    wide = torch.float64 if video.dtype in (torch.uint8, torch.float64) else torch.float32
    pixels = video.to(wide) / 255 if video.dtype == torch.uint8 else video.to(wide)
    pixels = (pixels - pixels.new_tensor(mean)) / pixels.new_tensor(std)
    (time, height, width), (p0, p1, p2) = shape.grid, shape.tubelet
    cells = pixels.reshape(-1, time, p0, height, p1, width, p2, shape.channels).permute(0, 1, 3, 5, 7, 2, 4, 6)
    tokens = cells.reshape(len(video), time * height * width, -1)
    index = grid_index(keep, shape.grid, kind)
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[2])).to(dtype)


@jit()
def token_origin(
    ids, sample, row, n_ids, TIME: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, KIND: tl.constexpr
):
    """(t, h, w) in the grid of the row-th token; KIND 0 tube, 1 token, 2 frame."""
    if KIND == 0:
        time = row // n_ids
        space = tl.load(ids + sample * n_ids + row % n_ids)
    elif KIND == 1:
        token = tl.load(ids + sample * n_ids + row)
        time = token // (HEIGHT * WIDTH)
        space = token % (HEIGHT * WIDTH)
    else:
        time = tl.load(ids + sample * n_ids + row // (HEIGHT * WIDTH))
        space = row % (HEIGHT * WIDTH)
    return time, space // WIDTH, space % WIDTH


@jit()
def per_channel(channel, a0, a1, a2, a3):
    """The number of each channel."""
    return tl.where(channel == 0, a0, tl.where(channel == 1, a1, tl.where(channel == 2, a2, a3)))


@jit()
def token_pixels(
    video, sample, time, height, width, pixel, channel, inside, stride_b, stride_t, stride_h, stride_w, stride_c,
    P0: tl.constexpr, P1: tl.constexpr, P2: tl.constexpr,
):  # fmt: skip
    """Stored values of one token as float32."""
    t = time * P0 + pixel // (P1 * P2)
    h = height * P1 + pixel // P2 % P1
    w = width * P2 + pixel % P2
    base = video + sample * stride_b
    at = (
        t.to(tl.int64) * stride_t
        + h.to(tl.int64) * stride_h
        + w.to(tl.int64) * stride_w
        + channel.to(tl.int64) * stride_c
    )
    return tl.load(base + at, mask=inside, other=0).to(tl.float32)


@jit()
def _gather_kernel(
    video, keep, out, n_keep, n_rows, stride_b, stride_t, stride_h, stride_w, stride_c, f0, f1, f2, f3, s0, s1, s2, s3,
    TIME: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, P0: tl.constexpr, P1: tl.constexpr,
    P2: tl.constexpr, C: tl.constexpr,
    BLOCK: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """T2: one token per program, lanes in the order of the output."""
    row = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    time, height, width = token_origin(keep, sample, row, n_keep, TIME, HEIGHT, WIDTH, KIND)
    lane = tl.arange(0, BLOCK)
    pixels: tl.constexpr = P0 * P1 * P2
    inside = lane < C * pixels
    channel = lane // pixels
    x = token_pixels(
        video,
        sample,
        time,
        height,
        width,
        lane % pixels,
        channel,
        inside,
        stride_b,
        stride_t,
        stride_h,
        stride_w,
        stride_c,
        P0,
        P1,
        P2,
    )
    x = x * per_channel(channel, f0, f1, f2, f3) - per_channel(channel, s0, s1, s2, s3)
    at = (sample * n_rows + row) * (C * pixels) + lane
    tl.store(out + at, x.to(out.dtype.element_ty), mask=inside)


def kernel_constants(shape: Geometry, kind: str) -> dict[str, int]:
    """Compile-time numbers shared by the gather and the loss."""
    names = ("TIME", "HEIGHT", "WIDTH", "P0", "P1", "P2", "C", "KIND")
    return dict(zip(names, (*shape.grid, *shape.tubelet, shape.channels, KINDS.index(kind)), strict=True))


def padded(numbers: Sequence[float]) -> list[float]:
    """Numbers for MAX_CHANNELS channels."""
    return [*numbers, *[0.0] * (MAX_CHANNELS - len(numbers))]


@torch.library.custom_op("vtp_kernels::gather_tubelets", mutates_args=(), device_types="cuda")
def _gather_tubelets(
    video: Tensor,
    keep: Tensor,
    tubelet: list[int],
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    kind: str,
    backend: str,
) -> Tensor:
    shape = geometry(video, tubelet, kind, mean, std)
    factor, shift = affine(video, mean, std)
    if shape.channels > MAX_CHANNELS or not use_triton(backend, video.device, torch.promote_types(video.dtype, dtype)):
        return _fallback(video, keep, shape, factor, shift, dtype, kind)
    out = _empty_tokens(video, keep, shape, dtype, kind)
    if out.numel():
        block = max(16, 1 << (out.shape[2] - 1).bit_length())
        with on_device(video):
            _gather_kernel[(out.shape[1], out.shape[0])](
                video, keep, out, keep.shape[1], out.shape[1], *video.stride(), *padded(factor), *padded(shift),
                BLOCK=block, **kernel_constants(shape, kind), num_warps=pixel_warps(block),
            )  # fmt: skip
    return out


def _fallback(
    video: Tensor,
    keep: Tensor,
    shape: Geometry,
    factor: Sequence[float],
    shift: Sequence[float],
    dtype: torch.dtype,
    kind: MaskKind,
) -> Tensor:
    stored = take_tokens(video, keep, shape, kind).permute(0, 1, 5, 2, 3, 4)  # (B, N, C, p0, p1, p2)
    wide = torch.promote_types(torch.float32, torch.promote_types(video.dtype, dtype))
    per_channel_shape = (-1, 1, 1, 1)
    pixels = stored.to(wide, memory_format=torch.contiguous_format)
    pixels.mul_(pixels.new_tensor(factor).view(per_channel_shape)).sub_(
        pixels.new_tensor(shift).view(per_channel_shape)
    )
    return pixels.flatten(2).to(dtype)


def _empty_tokens(video: Tensor, keep: Tensor, shape: Geometry, dtype: torch.dtype, kind: str) -> Tensor:
    return video.new_empty(len(video), shape.tokens(keep.shape[1], kind), shape.channels * shape.pixels, dtype=dtype)


@torch.library.custom_op("vtp_kernels::gather_tubelets_backward", mutates_args=(), device_types="cuda")
def _gather_backward(
    grad: Tensor, video: Tensor, keep: Tensor, tubelet: list[int], mean: list[float], std: list[float], kind: str
) -> Tensor:
    """Gradient of a float source: every kept token goes back to its place, the others get 0."""
    shape = geometry(video, tubelet, kind, mean, std)
    (time, height, width), (p0, p1, p2) = shape.grid, shape.tubelet
    index = grid_index(keep, shape.grid, kind)
    factor = grad.new_tensor(affine(video, mean, std)[0]).view(-1, 1, 1, 1)
    values = grad.unflatten(2, (shape.channels, p0, p1, p2)) * factor
    cells = torch.zeros((len(video), time * height * width, *values.shape[2:]), dtype=video.dtype, device=video.device)
    cells[torch.arange(len(video), device=video.device)[:, None], index] = values.to(video.dtype)
    cells = cells.unflatten(1, (time, height, width)).permute(0, 1, 5, 2, 6, 3, 7, 4)  # (B, T', p0, H', p1, W', p2, C)
    return cells.reshape(video.shape)


@_gather_tubelets.register_fake
def _(video, keep, tubelet, mean, std, dtype, kind, backend):
    return _empty_tokens(video, keep, geometry(video, tubelet, kind, mean, std), dtype, kind)


@_gather_backward.register_fake
def _(grad, video, keep, tubelet, mean, std, kind):
    return torch.empty(video.shape, dtype=video.dtype, device=video.device)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    video, keep, tubelet, mean, std, _, kind, _ = inputs
    ctx.save_for_backward(video, keep)
    ctx.rest = (tubelet, mean, std, kind)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (_gather_backward(grad, *ctx.saved_tensors, *ctx.rest), *[None] * 7)


_gather_tubelets.register_kernel("cpu")(_gather_tubelets._init_fn)
_gather_backward.register_kernel("cpu")(_gather_backward._init_fn)
_gather_tubelets.register_autograd(_backward, setup_context=_setup_context)


def gather_tubelets(
    video: Tensor,
    keep: Tensor,
    tubelet: Sequence[int] = (2, 16, 16),
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: torch.dtype = torch.float32,
    *,
    kind: MaskKind = "tube",
    backend: Backend = "auto",
) -> Tensor:
    """Normalised pixels of the visible tokens only.

    Args:
        video: uint8 (B, T, H, W, C), or float in its own units; any strides.
        keep: int32 (B, K) from ``tube_keep_ids``.
        tubelet: (p0, p1, p2), frames and pixels per token; T, H and W are multiples.
        mean, std: per channel, of values in [0, 1] for uint8 (bytes are divided by 255) and in the source's units for
            float.
        dtype: of the result.
        kind: what ``keep`` counts: ``tube`` places, ``token`` positions or ``frame`` numbers.
        backend: ``auto``, ``triton`` or ``torch``.

    Returns:
        (B, N, C * p0 * p1 * p2), tokens in ascending order, values in the order (C, p0, p1, p2) of ``Conv3d.weight``.
    """
    return _gather_tubelets(video, keep, list(tubelet), list(mean), list(std), dtype, kind, backend)


def gather_patches(
    spectrogram: Tensor,
    keep: Tensor,
    patch: Sequence[int] = (16, 16),
    mean: float = 0.0,
    std: float = 1.0,
    dtype: torch.dtype = torch.float32,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Normalised values of the visible patches of a spectrogram (B, F, M): (B, K, p1 * p2), in the order of
    ``Conv2d.weight`` with one channel.

    ``keep`` (B, K) counts patches, F' * M' of them with F' slowest; whole time steps are ``keep`` of frames repeated
    over M'.
    """
    video = spectrogram[:, None, :, :, None]
    return _gather_tubelets(video, keep, [1, *patch], [mean], [std], dtype, "token", backend)
