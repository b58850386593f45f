"""How a training is: whether it can learn anything, and how much memory it took."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from vtp.train.callbacks import Callback

if TYPE_CHECKING:
    from vtp.train.trainer import Trainer

__all__ = ["NoGradient", "peak_memory_gb"]

_LINES = 3


class NoGradient(Callback):
    """Warns when the first lines of metrics.jsonl have no gradient: one answer for all questions, or one clip per step
    in a contrastive loss, whose loss is 0 from the start."""

    def __init__(self) -> None:
        self._losses: list[float] | None = []  # of lines without a gradient; None once there was one, or it was said

    def on_log(self, trainer: Trainer, *, step: int, line: Mapping[str, Any], **facts: Any) -> None:
        if self._losses is None:
            return
        if line["grad_norm"] != 0:
            self._losses = None
            return
        self._losses.append(line["loss"])
        if len(self._losses) == _LINES:
            self._say(trainer, step)

    def on_fit_end(self, trainer: Trainer, *, step: int, error: BaseException | None, **facts: Any) -> None:
        if self._losses and error is None:
            self._say(trainer, step)

    def _say(self, trainer: Trainer, step: int) -> None:
        losses, self._losses = sorted(set(self._losses or ())), None
        shown = f"{losses[0]:.4g}" if len(losses) == 1 else f"{losses[0]:.4g} to {losses[-1]:.4g}"
        trainer.warn(
            f"nothing is learned: up to step {step} the loss is {shown} and its gradient is 0. "
            "Are all answers alike, or is a contrastive batch a single clip?"
        )


def peak_memory_gb(device: torch.device) -> float:
    """Largest memory use so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
