"""What parts of the model do after every update of the weights."""

from __future__ import annotations

from typing import Any

import torch

from vtp.contracts import Part, member, offers
from vtp.model.momentum import Momentum
from vtp.train.parallel import Parallel
from vtp.types import StepDone

__all__ = ["AfterStep"]


class AfterStep:
    """Calls ``after_step`` of every module that has it: inner ones first, so that an objective finds its averages up to
    date; and before all others those that work on shards.

    Args:
        parallel: the wrapped model.
    """

    def __init__(self, parallel: Parallel) -> None:
        self._parallel = parallel
        parts = [module for module in reversed(list(parallel.model.modules())) if offers(module, "after_step")]
        self._on_shards: list[Any] = [part for part in parts if member(part, Part, "after_step_on_shards")]
        self._on_whole: list[Any] = [part for part in parts if not member(part, Part, "after_step_on_shards")]
        self._averages = [part for part in parts if isinstance(part, Momentum)]

    def begin(self) -> None:
        """Before the first step of a run: averages without a history start from the weights that the run starts
        from."""
        self._parallel.reshard()
        for average in self._averages:
            if not average.updates:
                average.restart()

    def __call__(self, step: int, total_steps: int) -> None:
        """Once per update, on all ranks."""
        if not self._on_shards and not self._on_whole:
            return
        done = StepDone(step, total_steps)
        with torch.no_grad():
            self._parallel.reshard()  # what is still gathered from the forward pass is older than the shards
            for part in self._on_shards:
                part.after_step(done)
            if self._on_whole:
                with self._parallel.whole():
                    for part in self._on_whole:
                        part.after_step(done)
