"""The losses of a model's objectives over a table that it is not trained on.

A loss of rows that are compared with each other depends on which rows these are, so the table is cut into blocks of
``data.eval_batch`` rows, the same ones on any number of processes, and random masks are drawn by the block: the same
weights give the same losses, today, after a resume, and for 1 and for 8 processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtp.contracts import Objective, member
from vtp.data.keys import hash64
from vtp.eval.evaluator import Evaluator
from vtp.eval.ledger import Ledger
from vtp.types import LossOutput, Sample

__all__ = ["Losses", "objective_losses"]

_PARTED = "\0"  # between the name of an objective and what is said of it


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses over a table.

    Attributes:
        weights: factor of each objective in the total.
        sums: objective -> metric (``loss`` among them) -> sum over items, each with its weight.
        items: objective -> number of items that took part: rows, or words.
        ledger: of the rows.
    """

    weights: Mapping[str, float]
    sums: Mapping[str, Mapping[str, float]]
    items: Mapping[str, float]
    ledger: Ledger = field(default_factory=lambda: Ledger(()))

    def metrics(self) -> dict[str, float]:
        """``loss``, the weighted sum of the objectives, ``loss/<objective>``, and ``<objective>/<metric>`` for what it
        measures besides. NaN for an objective without any item, which the sum leaves out."""
        items = {name: count or float("nan") for name, count in self.items.items()}
        means = {name: {m: total / items[name] for m, total in row.items()} for name, row in self.sums.items()}
        found = {"loss": sum(self.weights[name] * row["loss"] for name, row in means.items() if self.items[name])}
        found |= {f"loss/{name}": row["loss"] for name, row in means.items()}
        return found | {f"{n}/{m}": value for n, row in means.items() for m, value in row.items() if m != "loss"}

    @classmethod
    def together(cls, parts: Iterable[Losses]) -> Losses:
        """Of several tables as of one."""
        found = list(parts)
        names = dict.fromkeys(name for part in found for name in part.sums)
        present = dict.fromkeys(modality for part in found for modality in part.ledger.present)
        return cls(
            found[0].weights,
            {name: _added([part.sums.get(name, {}) for part in found]) for name in names},
            _added([part.items for part in found]),
            Ledger(
                tuple(row for part in found for row in part.ledger.expected),
                {row: reason for part in found for row, reason in part.ledger.missing.items()},
                found[0].ledger.what,
                {m: sum(part.ledger.present.get(m, 0) for part in found) for m in present},
            ),
        )


def objective_losses(evaluator: Evaluator, samples: Sequence[Sample], *, what: str = "samples") -> Losses:
    """Losses of all objectives of the evaluator's model over ``samples``; every process calls it and gets the same.

    Args:
        evaluator: with a model that has objectives.
        samples: the table.
        what: plural noun for messages.
    """
    collected = evaluator.run(samples, _block, what=what, label="losses", whole_batches=True)
    weights = dict(evaluator.bare_model.weights)
    sums: dict[str, dict[str, float]] = {name: {"loss": 0.0} for name in weights}
    items = dict.fromkeys(weights, 0.0)
    for key, values in collected.arrays.items():
        name, _, metric = key.partition(_PARTED)
        weight = collected.arrays[f"{name}{_PARTED}weight"].astype(np.float64)
        if metric == "weight":
            items[name] = float(weight.sum())
        else:  # a block without items may hold anything
            sums[name][metric] = float(np.where(weight > 0, values * weight, 0.0).sum())
    return Losses(weights, sums, items, collected.ledger)


def _block(ctx: Any) -> dict[str, Tensor]:
    """Loss, metrics and weight of every objective over a block, spread over its rows."""
    ctx.batch.step = hash64("\0".join(ctx.batch.ids)) >> 1  # what random masks are drawn by
    objectives = ctx.model.objectives
    rows = len(ctx.batch)
    for objective in objectives.values():
        objective.plan(ctx)
    found: dict[str, Tensor] = {}
    for name, objective in objectives.items():
        output = _loss(objective, ctx)
        values = {"loss": output.loss, **output.metrics, "weight": output.weight / rows}
        for metric, value in values.items():
            found[f"{name}{_PARTED}{metric}"] = value.detach().float().reshape(1).expand(rows)
    return found


def _loss(objective: Any, ctx: Any) -> LossOutput:
    if not member(objective, Objective, "contrastive"):
        output: LossOutput = objective(ctx)
        return output
    features = objective.features(ctx)
    with torch.autocast(ctx.device.type, enabled=False):  # as in training
        whole = {name: value.float() if value.is_floating_point() else value for name, value in features.items()}
        output = objective.loss_from_features(whole)
    return output


def _added(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: sum(row.get(name, 0.0) for row in rows) for name in names}
