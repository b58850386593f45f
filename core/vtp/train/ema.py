"""Exponential moving average of the trainable weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vtp.model.momentum import own_share

__all__ = ["Average"]


class Average:
    """average <- d * average + (1 - d) * weight after every update, d = min(decay, (1 + n) / (10 + n)) after n updates.

    The ramp lets a short run forget its random start. Works on shards, so it needs no communication.

    Args:
        parameters: (name, parameter) of the trainable parameters.
        decay: of the average, in [0, 1).
    """

    def __init__(self, parameters: list[tuple[str, torch.nn.Parameter]], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._weights = [parameter for _, parameter in parameters]
        self.tensors: dict[str, Tensor] = {name: parameter.detach().clone() for name, parameter in parameters}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(
            [own_share(t) for t in self.tensors.values()], [own_share(w) for w in self._weights], 1 - decay
        )

    @torch.no_grad()
    def restart(self) -> None:
        """Make the present weights the average."""
        torch._foreach_copy_([own_share(t) for t in self.tensors.values()], [own_share(w) for w in self._weights])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model; the weights come back afterwards."""
        own = [own_share(weight).clone() for weight in self._weights]
        self._copy([own_share(t) for t in self.tensors.values()])
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, values: list[Tensor]) -> None:
        torch._foreach_copy_([own_share(weight) for weight in self._weights], values)
