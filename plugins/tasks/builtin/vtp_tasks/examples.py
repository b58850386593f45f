"""Choosing a few items for the figure of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor

__all__ = ["evenly", "frames_of"]

T = TypeVar("T")


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` items, evenly spaced."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def frames_of(ctx: Any) -> dict[str, Tensor]:
    """Evaluation function: the frames that the model is shown, uint8 (B, T, H, W, 3); of several views the first."""
    frames: Tensor = ctx.batch.inputs["video"]["frames"]  # (clips, T, H, W, 3) or (clips, V, T, H, W, 3)
    if ctx.batch.media_rows is not None:
        frames = frames[ctx.batch.media_rows]  # (B, ...)
    return {"frames": frames if frames.ndim == 5 else frames[:, 0]}
