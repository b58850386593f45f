"""The learning rate as a function of the step, so that there is no scheduler state that a resumed run could lose."""

from __future__ import annotations

import math
from bisect import bisect_right

from vtp.train.config import TrainConfig

__all__ = ["learning_rate", "warmup_steps"]


def warmup_steps(config: TrainConfig, total: int) -> int:
    """Number of warm-up steps W of a run of ``total`` steps."""
    return min(total, round(config.warmup * total) if config.warmup < 1 else int(config.warmup))


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """Learning rate of the update number ``step`` (0-based) of ``total``.

    Warm-up is ``linspace(start, lr, W)``: its last value is ``lr``. ``start`` is ``warmup_lr``, or lr / W, which
    gives the usual lr * (step + 1) / W. Then, for i = step - W of n = total - W steps, cosine is
    ``min_lr + (lr - min_lr) / 2 * (1 + cos(pi * i / n))``. With ``warmup_lr=0`` this is the schedule of SimVTP and
    VideoMAE. ``schedule=step`` counts its milestones from the start of training, as AntMMF does.
    """
    warm = warmup_steps(config, total)
    if step < warm:
        start = config.lr / warm if config.warmup_lr is None else config.warmup_lr
        if warm == 1:
            return start
        return start + (config.lr - start) * step / (warm - 1)
    progress = (step - warm) / max(1, total - warm)
    if config.schedule == "cosine":
        return config.min_lr + 0.5 * (config.lr - config.min_lr) * (1 + math.cos(math.pi * progress))
    if config.schedule == "linear":
        return config.lr + (config.min_lr - config.lr) * progress
    if config.schedule == "step":
        return config.lr * config.lr_decay ** bisect_right(config.lr_milestones, step)
    return config.lr
