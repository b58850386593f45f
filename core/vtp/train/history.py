"""What training has shown so far: losses since the last log line, and the evaluations that pick the best checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vtp import distributed
from vtp.train.step import Observation

__all__ = ["Evaluations", "StepValues", "Window"]


@dataclass(frozen=True)
class StepValues:
    """One step over all processes, as numbers: averages weighted by the items of each objective."""

    step: int
    lr: float
    grad_norm: float | None
    losses: dict[str, float]
    metrics: dict[str, float]
    items: dict[str, float]


class Window:
    """The steps since the last line of metrics.jsonl: device scalars until :meth:`fetch`, numbers afterwards."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, float, list[Observation], Tensor | None]] = []
        self._steps: list[StepValues] = []
        self.restart()

    def restart(self) -> None:
        """Start counting time and clips from now."""
        self._started = time.perf_counter()
        self._waited = 0.0
        self._timed = 0
        self._clips = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in here is waiting for data."""
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time in here does not count: evaluations and checkpoints."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._started += time.perf_counter() - started

    def add(self, step: int, lr: float, clips: int, seen: list[Observation], norm: Tensor | None) -> None:
        """Note one step. Does not wait for the device."""
        self._pending.append((step, lr, seen, norm))
        self._clips += clips
        self._timed += 1

    def fetch(self) -> list[StepValues]:
        """Bring the pending steps over in one transfer and combine the processes. All ranks call it."""
        scalars: list[Tensor] = []
        for _, _, seen, norm in self._pending:
            for one in seen:
                scalars += [one.loss, one.weight, *one.metrics.values()]
            if norm is not None:
                scalars.append(norm)
        numbers = iter(torch.stack([s.float().reshape(()) for s in scalars]).tolist() if scalars else [])
        own: list[dict[str, Any]] = []
        for step, lr, seen, norm in self._pending:
            parts = [(o.name, next(numbers), next(numbers), {m: next(numbers) for m in o.metrics}) for o in seen]
            own.append({"step": step, "lr": lr, "parts": parts, "norm": None if norm is None else next(numbers)})
        self._pending.clear()
        ranks = distributed.gather_objects(own) if own else []
        fresh = [_combine([steps[i] for steps in ranks]) for i in range(len(own))]
        self._steps += fresh
        return fresh

    def line(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """Means over the fetched steps, as in metrics.jsonl. ``weights`` are those of the objectives."""
        steps = self._steps
        losses = _means(step.losses for step in steps)
        norm = steps[-1].grad_norm
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        return {
            "step": steps[-1].step,
            "loss": sum(weights[name] * value for name, value in losses.items()),
            "losses": losses,
            "metrics": _means(step.metrics for step in steps),
            "items": {name: sum(step.items.get(name, 0.0) for step in steps) for name in losses},
            "lr": steps[-1].lr,
            "grad_norm": norm if norm is not None and math.isfinite(norm) else None,
            "timing": {
                "clips_per_s": round(self._clips / elapsed, 3),
                "data_wait": round(min(1.0, self._waited / elapsed), 4),
                "step_ms": round(1000 * elapsed / max(1, self._timed), 3),
            },
        }

    def clear(self) -> None:
        """Forget the steps and start the next line."""
        self._steps.clear()
        self.restart()

    def state_dict(self) -> list[dict[str, Any]]:
        """Fetched steps without a line yet, so that a continued run writes the line that an unbroken one writes."""
        return [dict(vars(step)) for step in self._steps]

    def load_state_dict(self, steps: Iterable[dict[str, Any]]) -> None:
        """Take over the steps of a checkpoint."""
        self._steps = [StepValues(**step) for step in steps]


def _combine(ranks: list[dict[str, Any]]) -> StepValues:
    losses: dict[str, list[float]] = {}
    metrics: dict[str, list[float]] = {}
    for rank in ranks:
        for name, loss, weight, values in rank["parts"]:
            _accumulate(losses, name, loss, weight)
            for metric, value in values.items():
                _accumulate(metrics, f"{name}/{metric}", value, weight)
    return StepValues(
        step=ranks[0]["step"],
        lr=ranks[0]["lr"],
        grad_norm=ranks[0]["norm"],
        losses={name: total / weight if weight else total for name, (total, weight) in losses.items()},
        metrics={name: total / weight for name, (total, weight) in metrics.items() if weight},
        items={name: weight for name, (_, weight) in losses.items()},
    )


def _accumulate(sums: dict[str, list[float]], name: str, value: float, weight: float) -> None:
    entry = sums.setdefault(name, [0.0, 0.0])
    entry[0] += value * weight if weight else value  # without items a loss is 0, unless it is NaN: let that through
    entry[1] += weight


def _means(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean per name over the rows that have it."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    return {name: sum(column) / len(column) for name, column in values.items()}


@dataclass
class Evaluations:
    """The evaluations of a run, and what follows from them alone: the best one, and whether to stop.

    Nothing is counted on the side, so a continued run cannot forget its best value.

    Attributes:
        monitor: (metric, "max" or "min"), or None: then there is no best one.
        patience, min_delta: as in TrainConfig.
        entries: ``{"step": int, "metrics": {name: number, or None where it was NaN or infinite}}`` in order.
    """

    monitor: tuple[str, str] | None = None
    patience: int | None = None
    min_delta: float = 0.0
    entries: list[dict[str, Any]] = field(default_factory=list)

    def add(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Note an evaluation; True if it is the best so far."""
        plain = {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}
        self.entries.append({"step": step, "metrics": plain})
        return self.best() == step

    def covers(self, step: int) -> bool:
        """Whether ``step`` has been evaluated."""
        return any(entry["step"] == step for entry in self.entries)

    def best(self) -> int | None:
        """Step of the best finite value; the earliest of equal ones."""
        scores = [(self._score(entry), -entry["step"]) for entry in self.entries]
        best = max(scores, default=(-math.inf, 0))
        return None if best[0] == -math.inf else -best[1]

    def exhausted(self) -> bool:
        """Whether the last ``patience`` evaluations brought no improvement by more than ``min_delta``."""
        if self.patience is None or self.monitor is None:
            return False
        best, since = -math.inf, 0
        for entry in self.entries:
            score = self._score(entry)
            if score > best + self.min_delta:
                best, since = score, 0
            else:
                since += 1
        return since >= self.patience

    def _score(self, entry: Mapping[str, Any]) -> float:
        """The monitored value, larger is better."""
        value = entry["metrics"].get(self.monitor[0]) if self.monitor is not None else None
        if value is None or self.monitor is None:
            return -math.inf
        return float(value) if self.monitor[1] == "max" else -float(value)
