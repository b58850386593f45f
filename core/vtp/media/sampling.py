"""Which frames of a clip are taken: samplers as :class:`vtp.contracts.Sampler` says, and the windows and crops of
evaluation. All are pure functions; seconds are right for variable frame rates too, positions are for samplers that are
defined on frames."""

from __future__ import annotations

import inspect
import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.contracts import Sampler
from vtp.errors import ConfigError, PluginError
from vtp.media.info import VideoInfo
from vtp.registry import did_you_mean

__all__ = [
    "SAMPLERS",
    "crop_offsets",
    "dense",
    "every",
    "find_sampler",
    "multi_clip",
    "random_segment",
    "uniform",
]

Picks = npt.NDArray[Any]


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
    info: VideoInfo,
    *,
    frames: int,
    stride: int | None = None,
    generator: np.random.Generator | None = None,
    clips: int = 1,
) -> Picks:
    """``frames`` frames, ``stride`` apart (1 if None), from a random place; without a generator from the middle.

    The window covers frames * stride source frames. A shorter clip is taken from its first frame and its last one is
    repeated. Of several windows, one after the other in the result, each begins in its own part of the places where one
    fits; without a generator they are those of :func:`multi_clip`.
    """
    stride = stride or 1
    if generator is None:
        return multi_clip(info, frames=frames, stride=stride, clips=clips).ravel()
    places = max(info.count - frames * stride, 0) + 1  # where a window may begin
    edges = np.arange(clips + 1) * places // clips
    first = np.array([generator.integers(low, max(high, low + 1)) for low, high in pairwise(edges.tolist())])
    windows: Picks = np.minimum(first[:, None] + stride * np.arange(frames), info.count - 1)
    return windows.ravel()


def every(
    info: VideoInfo, *, frames: int = 0, stride: int | None = None, generator: np.random.Generator | None = None
) -> Picks:
    """All frames, in order."""
    return np.arange(info.count)


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


SAMPLERS: dict[str, Sampler] = {
    "uniform": uniform,
    "segment": random_segment,
    "dense": dense,
    "every": every,
}


def find_sampler(name: str) -> Sampler | None:
    """The sampler that ``data.sampler=name`` chooses, of the core or of a plugin; ``auto`` is None, which lets the
    pipeline choose by mode and video spec.

    Raises:
        ConfigError: for an unknown name.
        PluginError: if the plugin's sampler cannot be imported, called or sent to a loader worker.
    """
    if name == "auto" or name in SAMPLERS:
        return SAMPLERS.get(name)
    from vtp.components import renamed_option
    from vtp.plugins import addon_hint, host  # only now: it reads the metadata of all installed packages

    registry = host().registry
    known = ["auto", *SAMPLERS, *(entry.name for entry in registry.entries("sampler"))]
    if name not in known:
        if now := renamed_option(f"data.sampler/{name}"):
            raise ConfigError(now)
        hint = addon_hint(name) or did_you_mean(name, known)
        raise ConfigError(f"data.sampler={name}: no such frame sampler.{hint} Known: {', '.join(known)}.")
    entry = registry.get("sampler", name)
    sampler: Sampler = entry.load()
    try:
        pickle.dumps(sampler)
        inspect.signature(sampler).bind(None, frames=1, stride=None, generator=None)
    except Exception as error:  # pickle raises nearly anything
        raise PluginError(
            f"data.sampler={name}: {entry.target} of {entry.origin} must be a picklable callable "
            f"(info, *, frames, stride, generator), but: {error}"
        ) from error
    return sampler
