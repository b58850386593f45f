"""What the model was shown, looked at once more after the scores: hashes of the frames of a fixed sample of clips, so
that two machines or two decoders that disagree are told apart before anyone argues about weights, and pictures for
``report.html``."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtp.contracts import Task, member
from vtp.data.table import media_id
from vtp.eval.evaluator import Evaluator
from vtp.eval.report_page import Picked, picked
from vtp.eval.task import TaskResult
from vtp.media.backends import DEFAULT
from vtp.page import jpeg
from vtp.types import Sample

__all__ = ["Looked", "look", "look_or_error", "shown_frames"]

HASHED = 16  # clips
PACKAGES = {"pyav": "av", "torchcodec": "torchcodec", "decord": "decord"}  # of the decoders


@dataclass(slots=True)
class Looked:
    """What was found.

    Attributes:
        frames: what report.json holds under ``frames``, by decoder; None where the model takes no video, or no clip
            has any.
        worst, best: items of the page.
        pictures: id of a sample -> JPEG in base64.
    """

    frames: dict[str, Any] | None = None
    worst: list[Picked] = field(default_factory=list)
    best: list[Picked] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)


def look(evaluator: Evaluator, task: Any, result: TaskResult) -> Looked:
    """Decode a few clips again, once each. Every process calls it.

    Args:
        evaluator: that scored ``result``.
        task: gives the samples of the split.
        result: with its predictions.
    """
    if "video" not in evaluator.modalities:
        worst, best = picked(result.predictions, ())
        return Looked(None, worst, best)
    samples = member(task, Task, "samples")(result.split)
    worst, best = picked(result.predictions, samples)
    unread = {name for ledger in (result.ledger, *result.ledgers.values()) for name in ledger.missing}
    hashed = _fixed(samples, unread)
    wanted = {clip.id: clip for clip in (*hashed.values(), *(c for one in (*worst, *best) for c in one.clips))}
    wanted = {name: clip for name, clip in wanted.items() if clip.video is not None}
    if not wanted:
        return Looked(None, worst, best)
    found = evaluator.run(
        list(wanted.values()), _seen, drop=("audio", "text"), what="clips", label="clips again", strict=False
    )
    digests = dict(zip(found.ids, found.arrays.get("sha256", ()), strict=True))
    means = dict(zip(found.ids, found.arrays.get("mean", ()), strict=True))
    pictures = {name: jpeg(frame) for name, frame in zip(found.ids, found.arrays.get("middle", ()), strict=True)}
    items = {
        name: {"sha256": bytes(digests[clip.id]).hex(), "mean": round(float(means[clip.id]), 4)}
        if clip.id in digests
        else {"missing": found.misses.get(clip.id, "no video")}
        for name, clip in hashed.items()
    }
    return Looked(_record(evaluator, items), worst, best, pictures)


def look_or_error(evaluator: Evaluator, task: Any, result: TaskResult) -> Looked | Exception:
    """:func:`look`, or the exception that it ended with: decoration must not cost a report."""
    try:
        return look(evaluator, task, result)
    except Exception as error:
        return error


def shown_frames(ctx: Any) -> Tensor:
    """The frames that the model is shown, uint8 (B, T, H, W, 3), or (B, V, T, H, W, 3) of several views."""
    frames: Tensor = ctx.batch.inputs["video"]["frames"]  # a row per clip
    return frames if ctx.batch.media_rows is None else frames[ctx.batch.media_rows]


def _seen(ctx: Any) -> dict[str, Tensor]:
    """Per row the hash of its frames (B, 32), their mean (B,), and the one in the middle (B, H, W, 3)."""
    frames = shown_frames(ctx).cpu()
    digests = [hashlib.sha256(np.ascontiguousarray(clip.numpy()).tobytes()).digest() for clip in frames]
    clip = frames if frames.ndim == 5 else frames[:, 0]
    return {
        "sha256": torch.tensor([list(digest) for digest in digests], dtype=torch.uint8),
        "mean": frames.flatten(1).double().mean(dim=1).float(),
        "middle": clip[:, clip.shape[1] // 2],
    }


def _fixed(samples: Iterable[Sample], unread: Collection[str]) -> dict[str, Sample]:
    """The clips whose names have the smallest hashes, by name: a choice that depends on neither the order of the table
    nor on how much of it is evaluated. ``unread``: ids and names of what could not be read."""
    clips: dict[str, Sample] = {}
    for sample in samples:
        if sample.video is not None and sample.id not in unread and media_id(sample) not in unread:
            clips.setdefault(media_id(sample), sample)
    chosen = sorted(clips, key=lambda name: hashlib.sha256(name.encode("utf-8", "backslashreplace")).digest())[:HASHED]
    return {name: clips[name] for name in sorted(chosen)}


def _record(evaluator: Evaluator, items: Mapping[str, Any]) -> dict[str, Any]:
    spec = evaluator.bare_model.specs()["video"]
    asked = str(evaluator.facts.get("decoder", "auto"))
    backend = DEFAULT if asked == "auto" else asked
    everything = "".join(f"{name}\t{one.get('sha256', '')}\n" for name, one in items.items())
    found = {
        "version": _version(backend),
        "cached": evaluator.facts.get("cache") is not None,
        "frames": evaluator.frames,
        "size": spec.size,
        "sha256": hashlib.sha256(everything.encode("utf-8", "backslashreplace")).hexdigest(),
        "items": dict(items),
    }
    return {backend: found}


def _version(backend: str) -> str | None:
    """Of the package that decodes, and of the libraries behind it where it tells them."""
    try:
        version = metadata.version(PACKAGES.get(backend, backend))
    except metadata.PackageNotFoundError:
        return None
    if backend == "pyav":
        import av

        named = (f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in ("libavcodec", "libswscale"))
        version += f" ({', '.join(named)})"
    return version
