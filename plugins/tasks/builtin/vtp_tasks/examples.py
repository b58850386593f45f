"""Choosing a few items for the figure of a run."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["frames_of"]


def frames_of(ctx: Any) -> dict[str, Tensor]:
    """Evaluation function: the frames that the model is shown, uint8 (B, T, H, W, 3); of several views the first."""
    frames: Tensor = ctx.batch.inputs["video"]["frames"]  # (clips, T, H, W, 3) or (clips, V, T, H, W, 3)
    if ctx.batch.media_rows is not None:
        frames = frames[ctx.batch.media_rows]  # (B, ...)
    return {"frames": frames if frames.ndim == 5 else frames[:, 0]}
