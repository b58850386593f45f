"""SimVTP's frame samplers: the windows of pre-training and of fine-tuning, each as described and as the released code
computes it (``..._released``). :class:`vtp.contracts.Sampler` says what a sampler is."""

from __future__ import annotations

import numpy as np

from vtp.media.info import VideoInfo
from vtp.media.sampling import Picks

__all__ = ["simvtp_finetune", "simvtp_finetune_released", "simvtp_pretrain", "simvtp_pretrain_released"]


def simvtp_pretrain(
    info: VideoInfo, *, frames: int, stride: int | None = 4, generator: np.random.Generator | None = None
) -> Picks:
    """SimVTP's pre-training window: ``frames`` frames, ``stride`` apart, at a random offset; short clips end with their
    last reachable frame.

    A clip of D >= frames * stride frames has its offset drawn from [0, D - frames * stride], both ends included. A
    shorter one starts at 0, advances while the next frame exists (<= D - 1), and repeats the last frame reached.
    """
    return _simvtp_window(info.count, frames, stride or 4, generator, last=info.count - 1)


def simvtp_pretrain_released(
    info: VideoInfo, *, frames: int, stride: int | None = 4, generator: np.random.Generator | None = None
) -> Picks:
    """The same as the released code computes it: a short clip advances only while the next frame is < D - 1, so its
    last frame is never used."""
    return _simvtp_window(info.count, frames, stride or 4, generator, last=max(info.count - 2, 0))


def _simvtp_window(count: int, frames: int, stride: int, generator: np.random.Generator | None, last: int) -> Picks:
    spare = count - frames * stride
    if spare < 0:
        window: Picks = np.minimum(stride * np.arange(frames), last // stride * stride)
        return window
    offset = spare // 2 if generator is None else int(generator.integers(spare + 1))
    return offset + stride * np.arange(frames)


def simvtp_finetune(
    info: VideoInfo, *, frames: int, stride: int | None = 4, generator: np.random.Generator | None = None
) -> Picks:
    """SimVTP's fine-tuning frames with every reachable frame used: ``frames`` points spread evenly over a window of
    frames * stride frames.

    The window ends anywhere in the clip (random, or in the middle without a generator), its first and last frame
    included; a clip shorter than the window is the window.
    """
    span = min(frames * (stride or 4), info.count)
    spare = info.count - span
    start = spare // 2 if generator is None else int(generator.integers(spare + 1))
    return start + np.linspace(0, span - 1, frames).round().astype(np.int64)


def simvtp_finetune_released(
    info: VideoInfo, *, frames: int, stride: int | None = 4, generator: np.random.Generator | None = None
) -> Picks:
    """The same as the released code computes it.

    D > span = frames * stride: the end is drawn from [span, D), and the points linspace(end - span, end) are truncated
    and clipped to end - 1, so that the last frame of a clip is never used. D <= span: linspace(0, D) over D // stride
    points, padded with D, clipped to D - 1, so that the last frame repeats.
    """
    stride = stride or 4
    span, count = frames * stride, info.count
    if count > span:
        end = (span + count) // 2 if generator is None else int(generator.integers(span, count))
        window: Picks = np.minimum(np.linspace(end - span, end, frames).astype(np.int64), end - 1)
        return window
    points = np.linspace(0, count, min(count // stride, frames))
    points = np.concatenate([points, np.full(frames - len(points), count)]).astype(np.int64)
    padded: Picks = np.minimum(points, count - 1)
    return padded
