"""What is drawn once per step, equally for all processes and micro-batches, and the curriculum that it decides on."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from vtp.model.context import ForwardContext

__all__ = ["curriculum_share", "mines_now", "step_uniform"]


def step_uniform(ctx: ForwardContext, name: str, count: int = 1) -> Tensor:
    """Uniform numbers in [0, 1), float64 (``count``,) on the CPU, from a generator keyed by the model's seed, the step
    and ``name``."""
    key = repr((ctx.model.seed, ctx.step, name)).encode()
    number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
    return torch.rand(count, generator=torch.Generator().manual_seed(number), dtype=torch.float64)


def curriculum_share(step: int, change_iter: int, change_rate: float) -> float:
    """Share of the steps that mine after ``step`` updates of the weights: it grows by ``change_rate`` every
    ``change_iter`` updates, up to 1 (hard sample curriculum learning, CNVid-3.5M)."""
    return min(step // change_iter * change_rate, 1.0)


def mines_now(ctx: ForwardContext, change_iter: int | None, change_rate: float, processes: int | None = None) -> bool:
    """Whether this step mines: always without ``change_iter``, else with probability :func:`curriculum_share`.

    Args:
        processes: draw as the released code does: an integer below 100 per process, whose mean over the processes is
            held against the share, which makes it nearly a threshold.
    """
    if change_iter is None:
        return True
    share = curriculum_share(ctx.step, change_iter, change_rate)
    drawn = step_uniform(ctx, "univl.hscl", processes or 1)
    if processes is not None:
        drawn = (drawn * 100).floor() / 100
    return bool(drawn.mean() < share)
