"""A copy of a module whose weights are an average over the steps: MoCo's key encoder, BYOL's target, a teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vtp.errors import ConfigError
from vtp.types import StepDone

__all__ = ["Momentum", "own_share"]


class Momentum(nn.Module):
    """average <- m * average + (1 - m) * weight after every update of the weights; buffers are copied.

    It gets no gradient, is always in eval mode (no dropout), is saved and restored with the model, and starts as a
    copy of the weights that training starts from. The engine updates it, once per step and equally under every
    strategy: shards are averaged where they lie. Call it within ``features`` or ``forward`` of an objective, as the
    module that it copies.

    Args:
        source: what is averaged; stays where it is, and is not part of this module.
        m: share of the average that stays, in [0, 1], or a function of :class:`vtp.types.StepDone` that gives it.

    Attributes:
        module: the averaged copy.
        updates: how often it was updated, int64 scalar.

    Raises:
        ConfigError: ``m`` is out of range.

    Example::

        self.teacher = Momentum(context.encoders["video"], 0.99)
        self.target = Momentum(self.head, lambda done: 1 - 0.01 * (1 - done.step / done.total_steps))
        ...
        key = self.target(self.teacher(**ctx.inputs("video")).pooled())
    """

    after_step_on_shards = True
    updates: Tensor

    def __init__(self, source: nn.Module, m: float | Callable[[StepDone], float] = 0.996) -> None:
        super().__init__()
        if not callable(m) and not 0 <= m <= 1:
            raise ConfigError(f"the momentum m={m} must be in [0, 1], for example 0.996")
        self.m = m
        self._source = (source,)  # in a tuple, so that it is not a part of this module
        self.module = copy.deepcopy(source).requires_grad_(False).eval()
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """What the averaged copy gives, without a gradient."""
        with torch.no_grad():
            return self.module(*arguments, **named)

    def train(self, mode: bool = True) -> Momentum:
        """The copy stays in eval mode."""
        super().train(mode)
        self.module.eval()
        return self

    @torch.no_grad()
    def after_step(self, done: StepDone) -> None:
        """Take in the present weights."""
        m = float(self.m(done)) if callable(self.m) else self.m
        own, source = self._weights()
        torch._foreach_lerp_(own, source, 1 - m)
        self._copy_buffers()
        self.updates += 1

    @torch.no_grad()
    def restart(self) -> None:
        """Make the present weights the average."""
        own, source = self._weights()
        torch._foreach_copy_(own, source)
        self._copy_buffers()

    def _weights(self) -> tuple[list[Tensor], list[Tensor]]:
        own, source = self.module.parameters(), self._source[0].parameters()
        return [own_share(p) for p in own], [own_share(p) for p in source]

    def _copy_buffers(self) -> None:
        for own, source in zip(self.module.buffers(), self._source[0].buffers(), strict=True):
            own.copy_(source)


def own_share(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: all of it, or its shard under fsdp2; shares memory."""
    plain = tensor.detach()
    return plain.to_local() if isinstance(plain, DTensor) else plain
