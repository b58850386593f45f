"""Which frames of a clip are taken. Every sampler is ``(info, *, frames, stride, generator) -> array`` and a pure
function of these.

Floats are seconds (the frame shown at that moment, right for variable frame rates too), integers are frame positions
inside the span, for samplers that are defined on frames. ``generator=None`` asks for the deterministic middle, which is
what evaluation uses.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vtp.errors import ConfigError
from vtp.media.info import VideoInfo

__all__ = [
    "SAMPLERS",
    "FrameSampler",
    "crop_offsets",
    "dense",
    "every",
    "find_sampler",
    "multi_clip",
    "random_segment",
    "simvtp_finetune",
    "simvtp_finetune_legacy",
    "simvtp_pretrain",
    "simvtp_pretrain_legacy",
    "uniform",
]

Picks = npt.NDArray[Any]


class FrameSampler(Protocol):
    """Chooses ``frames`` frames of the stream that ``info`` describes."""

    def __call__(
        self, info: VideoInfo, *, frames: int, stride: int | None, generator: np.random.Generator | None
    ) -> Picks: ...


def uniform(
    info: VideoInfo, *, frames: int, stride: int | None = None, generator: np.random.Generator | None = None
) -> Picks:
    """The middle of each of ``frames`` equal parts of the time shown, in seconds. Never random."""
    return _moments(info, np.full(frames, 0.5))


def random_segment(
    info: VideoInfo, *, frames: int, stride: int | None = None, generator: np.random.Generator | None = None
) -> Picks:
    """A random moment in each of ``frames`` equal parts (TSN, arXiv:1608.00859); without a generator their middles."""
    return _moments(info, np.full(frames, 0.5) if generator is None else generator.random(frames))


def _moments(info: VideoInfo, inside: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """One moment per part, at the share ``inside`` in [0, 1) of it."""
    return info.start + (np.arange(len(inside)) + inside) * ((info.end - info.start) / len(inside))


def dense(
    info: VideoInfo, *, frames: int, stride: int | None = None, generator: np.random.Generator | None = None
) -> Picks:
    """``frames`` frames, ``stride`` apart (1 if None), from a random place; without a generator from the middle.

    The window covers frames * stride source frames. A shorter clip is taken from its first frame and its last one is
    repeated.
    """
    stride = stride or 1
    spare = info.count - frames * stride
    first = 0
    if spare > 0:
        first = spare // 2 if generator is None else int(generator.integers(spare + 1))
    window: Picks = np.minimum(first + stride * np.arange(frames), info.count - 1)
    return window


def every(
    info: VideoInfo, *, frames: int = 0, stride: int | None = None, generator: np.random.Generator | None = None
) -> Picks:
    """All frames, in order."""
    return np.arange(info.count)


def simvtp_pretrain(
    info: VideoInfo, *, frames: int, stride: int | None = 4, generator: np.random.Generator | None = None
) -> Picks:
    """SimVTP's pre-training window: ``frames`` frames, ``stride`` apart, at a random offset; short clips end with their
    last reachable frame.

    A clip of D >= frames * stride frames has its offset drawn from [0, D - frames * stride], both ends included. A
    shorter one starts at 0, advances while the next frame exists (<= D - 1), and repeats the last frame reached.
    """
    return _simvtp_window(info.count, frames, stride or 4, generator, last=info.count - 1)


def simvtp_pretrain_legacy(
    info: VideoInfo, *, frames: int, stride: int | None = 4, generator: np.random.Generator | None = None
) -> Picks:
    """The same as the original code computes it: a short clip advances only while the next frame is < D - 1, so its
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


def simvtp_finetune_legacy(
    info: VideoInfo, *, frames: int, stride: int | None = 4, generator: np.random.Generator | None = None
) -> Picks:
    """The same as the original code computes it.

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


def multi_clip(info: VideoInfo, *, frames: int, stride: int | None = None, clips: int) -> npt.NDArray[np.int64]:
    """Positions of ``clips`` evenly spread windows of one video, int64 (clips, frames): the time half of multi-view
    evaluation.

    With a stride, windows of frames * stride source frames spread from the first to the last place where one fits (one
    clip: the middle). Without, the video is cut into frames * clips parts and clip k takes the k-th of every ``clips``
    consecutive ones, so that together the views see more. Decode ``.ravel()`` once and reshape.
    """
    if stride is None:
        return info.positions(uniform(info, frames=frames * clips)).reshape(frames, clips).T.copy()
    spare = max(info.count - frames * stride, 0)
    first = np.array([spare // 2]) if clips == 1 else np.linspace(0, spare, clips).round().astype(np.int64)
    return np.minimum(first[:, None] + stride * np.arange(frames), info.count - 1)


def crop_offsets(height: int, width: int, size: int, crops: int) -> list[tuple[int, int]]:
    """(top, left) of ``crops`` square windows spread evenly over the longer side, centred on the shorter one; one crop
    is the centre crop.

    The space half of multi-view evaluation, for frames whose short side is already ``size`` or larger.
    """
    tall, wide = height - size, width - size
    if tall < 0 or wide < 0:
        raise ValueError(
            f"a crop of {size} pixels does not fit into {width}x{height}: resize the short side to {size} or more first"
        )
    shares = [0.5] if crops == 1 else [k / (crops - 1) for k in range(crops)]
    if wide >= tall:
        return [(tall // 2, round(share * wide)) for share in shares]
    return [(round(share * tall), wide // 2) for share in shares]


SAMPLERS: dict[str, FrameSampler] = {
    "uniform": uniform,
    "segment": random_segment,
    "dense": dense,
    "every": every,
    "simvtp_pretrain": simvtp_pretrain,
    "simvtp_pretrain_legacy": simvtp_pretrain_legacy,
    "simvtp_finetune": simvtp_finetune,
    "simvtp_finetune_legacy": simvtp_finetune_legacy,
}


def find_sampler(name: str) -> FrameSampler | None:
    """The sampler of that name; ``auto`` is None, which lets the pipeline choose by mode and video spec."""
    if name == "auto":
        return None
    if name not in SAMPLERS:
        raise ConfigError(f"frame sampler {name!r} does not exist. Known: auto, {', '.join(SAMPLERS)}.")
    return SAMPLERS[name]
