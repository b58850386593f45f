"""Loss of a masked autoencoder against the hidden pixels, read from the decoder's bytes: no normalised copy of the
video, no boolean indexing, and the gradient is written in the same pass.

    pred    (B, N, P * C)      N hidden tokens, P = p0 * p1 * p2 pixels, channels fastest, as VideoMAE's decoder has it
    target  z                  per token, from x = (pixel / 255 - mean) / std:
        channel   z = (x - mean_P(x)) / (std_P(x) + 1e-6)          each channel by itself (VideoMAE, arXiv:2203.12602)
        patch     z = (x - mean(x)) / sqrt(var(x) + 1e-6)          all values together (MAE, arXiv:2111.06377)
        none      z = x
    loss    mean (pred - z)^2 over everything; variances divide by n - 1

Order: definition, kernel T3, fallback, registration, public functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from vtp_kernels.configs import pixel_warps
from vtp_kernels.dispatch import Backend, jit, on_device, tl, use_triton
from vtp_kernels.masking import MaskKind
from vtp_kernels.tubelets import (
    MAX_CHANNELS,
    Geometry,
    affine,
    geometry,
    kernel_constants,
    padded,
    per_channel,
    take_tokens,
    token_origin,
    token_pixels,
)

__all__ = ["NORMS", "masked_patch_loss", "masked_pixel_loss", "masked_pixel_loss_reference"]

Norm = Literal["none", "channel", "patch"]
NORMS = ("none", "channel", "patch")
EPS = 1e-6


def masked_pixel_loss_reference(
    pred: Tensor,
    video: Tensor,
    drop: Tensor,
    tubelet: Sequence[int],
    norm: Norm,
    mean: Sequence[float],
    std: Sequence[float],
    kind: MaskKind,
) -> Tensor:
    """What the kernel must equal: the target spelt out, in at least float32."""
    shape = geometry(video, tubelet, kind, mean, std)
    wide = torch.promote_types(pred.dtype, torch.float32)
    x = take_tokens(video, drop, shape, kind).to(wide).flatten(2, 4)  # (B, N, P, C)
    x = (x / 255 if video.dtype == torch.uint8 else x).sub(x.new_tensor(mean)) / x.new_tensor(std)
    if norm == "channel":
        x = (x - x.mean(2, keepdim=True)) / (x.std(2, keepdim=True) + EPS)
    elif norm == "patch":
        x = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True) + EPS).sqrt()
    return (pred.to(wide) - x.flatten(2)).square().mean() if pred.numel() else pred.to(wide).sum()


@jit()
def _loss_kernel(
    pred, video, drop, partial, grad, n_drop, n_rows, grad_factor, eps,
    stride_pb, stride_pn, stride_b, stride_t, stride_h, stride_w, stride_c, f0, f1, f2, f3, s0, s1, s2, s3,
    TIME: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, P0: tl.constexpr, P1: tl.constexpr,
    P2: tl.constexpr, C: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, KIND: tl.constexpr, NORM: tl.constexpr, SAME_SCALE: tl.constexpr,
    GRAD: tl.constexpr,
):  # fmt: skip
    """T3: one hidden token per program: target, squared error, and error * grad_factor."""
    row = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    time, height, width = token_origin(drop, sample, row, n_drop, TIME, HEIGHT, WIDTH, KIND)
    n_pixels: tl.constexpr = P0 * P1 * P2
    pixel = tl.arange(0, BLOCK_P)[:, None]
    channel = tl.arange(0, BLOCK_C)[None, :]
    inside = (pixel < n_pixels) & (channel < C)
    x = token_pixels(
        video,
        sample,
        time,
        height,
        width,
        pixel,
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
    # Bytes are normalised as they are, where sums are exact: rescaled first, a token of one colour would get the
    # rounding error of its mean, times 1e6.
    factor = per_channel(channel, f0, f1, f2, f3)
    if NORM == 1:
        x = tl.where(inside, x - (tl.sum(x, 0) / n_pixels)[None, :], 0.0)  # lanes beyond the token must stay 0
        deviation = tl.sqrt(tl.sum(x * x, 0) / (n_pixels - 1))[None, :]
        x = x * factor / (deviation * factor + eps)
    elif NORM == 2:
        if SAME_SCALE:
            unit = f0
        else:
            unit = 1.0
            x = tl.where(inside, x * factor - per_channel(channel, s0, s1, s2, s3), 0.0)
        x = tl.where(inside, x - tl.sum(tl.sum(x, 0), 0) / (n_pixels * C), 0.0)
        x = x * unit / tl.sqrt(tl.sum(tl.sum(x * x, 0), 0) / (n_pixels * C - 1) * unit * unit + eps)
    else:
        x = x * factor - per_channel(channel, s0, s1, s2, s3)
    at = pixel * C + channel
    error = (
        tl.load(pred + sample * stride_pb + row.to(tl.int64) * stride_pn + at, mask=inside, other=0.0).to(tl.float32)
        - x
    )
    error = tl.where(inside, error, 0.0)
    tl.store(partial + sample * n_rows + row, tl.sum(tl.sum(error * error, 0), 0))
    if GRAD:
        out = grad + (sample * n_rows + row) * (n_pixels * C) + at
        tl.store(out, (error * grad_factor).to(grad.dtype.element_ty), mask=inside)


@jit()
def _scale_kernel(x, factor, n, BLOCK: tl.constexpr):
    """x *= factor, in place; nothing is read or written when the factor is 1, the usual case, and the host need not
    know."""
    value = tl.load(factor)
    if value != 1.0:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        kept = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
        tl.store(x + at, (kept * value).to(x.dtype.element_ty), mask=at < n)


SCALE_BLOCK = 4096


def _same_scale(factor: Sequence[float], shift: Sequence[float]) -> bool:
    """Whether all channels have one mean and std, which a normalisation over all of them removes."""
    return len(set(factor)) == 1 and len(set(shift)) == 1


def _stored_factor(pred: Tensor) -> float:
    """What the forward pass multiplies the error with. float16 keeps the bare error: 2 / numel is below its smallest
    number."""
    return 1.0 if pred.dtype == torch.float16 else 2.0 / max(pred.numel(), 1)


def _launch(
    pred: Tensor,
    video: Tensor,
    drop: Tensor,
    shape: Geometry,
    norm: str,
    mean: list[float],
    std: list[float],
    kind: str,
    want_grad: bool,
) -> tuple[Tensor, Tensor]:
    batch, n_rows, _ = pred.shape
    partial = torch.empty(batch, n_rows, dtype=torch.float32, device=pred.device)
    grad = _empty_grad(pred, want_grad)
    factor, shift = affine(video, mean, std)
    block_p, block_c = 1 << (shape.pixels - 1).bit_length(), 1 << (shape.channels - 1).bit_length()
    if pred.numel():
        with on_device(pred):
            _loss_kernel[(n_rows, batch)](
                pred, video, drop, partial, grad, drop.shape[1], n_rows, _stored_factor(pred), EPS, *pred.stride()[:2],
                *video.stride(),
                *padded(factor), *padded(shift), BLOCK_P=block_p, BLOCK_C=block_c, NORM=NORMS.index(norm),
                SAME_SCALE=_same_scale(factor, shift), GRAD=want_grad,
                **kernel_constants(shape, kind), num_warps=pixel_warps(block_p * block_c),
            )  # fmt: skip
    return partial.sum() / max(pred.numel(), 1), grad


def _fallback(
    pred: Tensor,
    video: Tensor,
    drop: Tensor,
    shape: Geometry,
    norm: str,
    mean: list[float],
    std: list[float],
    kind: MaskKind,
    want_grad: bool,
) -> tuple[Tensor, Tensor]:
    """Gather the bytes first, then work in place on one float copy of the hidden tokens."""
    wide = torch.promote_types(pred.dtype, torch.float32)
    factor, shift = affine(video, mean, std)
    x = take_tokens(video, drop, shape, kind).to(wide).flatten(2, 4)  # (B, N, P, C), ours
    if pred.numel() == 0:
        return x.new_zeros(()), _empty_grad(pred, want_grad)
    unit = x.new_tensor(factor)
    if norm == "none" or (norm == "patch" and not _same_scale(factor, shift)):
        x.mul_(unit).sub_(x.new_tensor(shift))
        unit = torch.ones_like(unit)
    if norm != "none":
        variance, centre = torch.var_mean(x, (2,) if norm == "channel" else (2, 3), keepdim=True)
        unit = unit if norm == "channel" else unit[0]
        deviation = variance.sqrt().mul(unit).add_(EPS) if norm == "channel" else (variance * unit**2).add_(EPS).sqrt_()
        x.sub_(centre).mul_(unit / deviation)
    error = (
        torch.sub(pred, x.flatten(2), out=x.view(pred.shape))
        if pred.dtype == wide
        else x.view(pred.shape).neg_().add_(pred)
    )
    flat = error.flatten()
    loss = (torch.dot(flat, flat) / max(pred.numel(), 1)).to(wide)
    grad = error.mul_(_stored_factor(pred)).to(pred.dtype) if want_grad else _empty_grad(pred, False)
    return loss, grad


def _empty_grad(pred: Tensor, want_grad: bool) -> Tensor:
    return torch.empty(pred.shape if want_grad else (0,), dtype=pred.dtype, device=pred.device)


@torch.library.custom_op("vtp_kernels::pixel_loss", mutates_args=(), device_types="cuda")
def _pixel_loss(
    pred: Tensor,
    video: Tensor,
    drop: Tensor,
    tubelet: list[int],
    norm: str,
    mean: list[float],
    std: list[float],
    kind: str,
    want_grad: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Loss, and the stored gradient (empty if not wanted)."""
    shape = geometry(video, tubelet, kind, mean, std)
    if shape.channels > MAX_CHANNELS or not use_triton(
        backend, pred.device, torch.promote_types(pred.dtype, video.dtype)
    ):
        return _fallback(pred, video, drop, shape, norm, mean, std, kind, want_grad)
    return _launch(pred, video, drop, shape, norm, mean, std, kind, want_grad)


@torch.library.custom_op("vtp_kernels::scale_", mutates_args=("x",), device_types="cuda")
def _scale(x: Tensor, factor: Tensor, backend: str) -> None:
    """Multiply a contiguous tensor in place by a scalar tensor."""
    if not use_triton(backend, x.device, x.dtype):
        x.mul_(factor)
    elif x.numel():
        with on_device(x):
            _scale_kernel[(-(-x.numel() // SCALE_BLOCK),)](x, factor, x.numel(), BLOCK=SCALE_BLOCK, num_warps=8)


@_pixel_loss.register_fake
def _(pred, video, drop, tubelet, norm, mean, std, kind, want_grad, backend):
    return pred.new_empty((), dtype=torch.promote_types(pred.dtype, torch.float32)), _empty_grad(pred, want_grad)


@_scale.register_fake
def _(x, factor, backend):
    return None


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.rest = inputs[3:]
    ctx.buffer = output[1]
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_loss: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    """The first call hands over the buffer that the forward pass wrote; a second one (``retain_graph=True``) writes a
    new one, because the first now belongs to the caller."""
    pred = ctx.saved_tensors[0]
    backend = ctx.rest[-1]
    buffer, ctx.buffer = ctx.buffer, None
    if buffer is None:
        _, buffer = _pixel_loss(pred.detach(), *ctx.saved_tensors[1:], *ctx.rest)
    wanted = 2.0 / max(pred.numel(), 1)
    stored = _stored_factor(pred)
    factor = grad_loss if wanted == stored else grad_loss * (wanted / stored)
    if (
        type(buffer) is not Tensor
    ):  # traced: the compiler takes no writes to saved tensors, and fuses the product with what follows
        return (buffer * factor, *[None] * 9)
    _scale(buffer, factor, backend)
    return (buffer, *[None] * 9)


_pixel_loss.register_kernel("cpu")(_pixel_loss._init_fn)
_scale.register_kernel("cpu")(_scale._init_fn)
_pixel_loss.register_autograd(_backward, setup_context=_setup_context)


def masked_pixel_loss(
    pred: Tensor,
    video: Tensor,
    drop: Tensor,
    tubelet: Sequence[int] = (2, 16, 16),
    *,
    norm: Norm = "channel",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    kind: MaskKind = "tube",
    backend: Backend = "auto",
) -> Tensor:
    """Mean squared error between the decoder's output and the hidden tubelets, normalised per token.

    Args:
        pred: (B, N, p0 * p1 * p2 * C), float32, float16 or bfloat16, tokens in the order of ``drop``, channels fastest.
        video: uint8 (B, T, H, W, C), or float; any strides. Gets no gradient.
        drop: int32 (B, n) from ``tube_keep_ids``.
        tubelet: (p0, p1, p2).
        norm: ``channel`` is VideoMAE, ``patch`` is MAE, ``none`` takes the pixels as they are.
        mean, std: per channel, before ``norm``; None is 0 and 1 (VideoMAE un-normalises first, which is the same).
        kind: what ``drop`` counts, as in ``gather_tubelets``.
        backend: ``auto``, ``triton`` or ``torch``.

    Returns:
        Scalar, float32 (float64 for a float64 ``pred``).
    """
    channels = video.shape[-1]
    mean, std = [0.0] * channels if mean is None else list(mean), [1.0] * channels if std is None else list(std)
    shape = geometry(video, tubelet, kind, mean, std)
    want = (len(video), shape.tokens(drop.shape[1], kind), shape.pixels * channels)
    if pred.shape != want:
        raise ValueError(f"pred {tuple(pred.shape)} must be {want}: samples, hidden tokens, values per token.")
    if shape.pixels * (channels if norm == "patch" else 1) < 2 and norm != "none":
        raise ValueError(
            f"norm={norm!r} divides by a standard deviation, but tubelet {tuple(tubelet)} has a single value."
        )
    if norm not in NORMS:
        raise ValueError(f"norm={norm!r} must be one of {', '.join(NORMS)}.")
    pred = pred if pred.stride(-1) == 1 else pred.contiguous()
    want_grad = torch.is_grad_enabled() and pred.requires_grad
    return _pixel_loss(pred, video, drop, list(tubelet), norm, mean, std, kind, want_grad, backend)[0]


def masked_patch_loss(
    pred: Tensor,
    spectrogram: Tensor,
    drop: Tensor,
    patch: Sequence[int] = (16, 16),
    *,
    norm: Norm = "patch",
    mean: float = 0.0,
    std: float = 1.0,
    backend: Backend = "auto",
) -> Tensor:
    """The same loss against the hidden patches of a spectrogram (B, F, M); pred (B, n, p1 * p2), ``drop`` (B, n)
    counts patches, F' slowest."""
    video = spectrogram[:, None, :, :, None]
    return masked_pixel_loss(
        pred, video, drop, (1, *patch), norm=norm, mean=[mean], std=[std], kind="token", backend=backend
    )
