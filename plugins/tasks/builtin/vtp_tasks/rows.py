"""What the reports of the tasks share: facts, the comparison with the protocol, percentages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from vtp.eval.evaluator import Evaluator
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.eval.metrics import TieRule
from vtp.eval.protocol import Match, Measured
from vtp.eval.protocol import Protocol as Benchmark
from vtp.eval.recount import Recount
from vtp.eval.task import TaskResult
from vtp.types import Sample

__all__ = [
    "References",
    "add_counts",
    "add_credits",
    "add_evaluated_only",
    "add_references",
    "compare",
    "facts",
    "percent",
]

References = dict[str, dict[str, float]] | None  # published results by label: metric -> value


class Measuring(Protocol):
    """What a task says of itself to be reported and compared with its protocol."""

    dataset: Any
    protocol: Benchmark

    @property
    def ties(self) -> TieRule | None:
        """None where nothing is ranked."""


def facts(task: Measuring, evaluator: Evaluator, limited: bool) -> dict[str, Any]:
    """What every report says of how it was measured; ``limited`` = items were left out by ``data.limit_eval``."""
    return {"tie_rule": task.ties, "limit": evaluator.limit, "limited": limited, **evaluator.input_facts()}


def percent(values: Any) -> float:
    """The mean of shares or truths in percent; NaN without any."""
    return 100.0 * float(np.mean(values)) if len(values) else float("nan")


def add_counts(result: TaskResult, recount: Any, seed: int) -> Recount:
    """Give a result the metrics, the intervals over clips and the bounds that ``recount`` counts from its
    predictions."""
    counted: Recount = recount(result.predictions, result.facts)
    result.metrics |= counted.metrics
    result.intervals |= counted.intervals(seed)
    result.bounds |= counted.bounds
    return counted


def add_credits(result: TaskResult, credits: Mapping[str, Any]) -> None:
    """Add rows of accuracies, and what every question earned in them to its line: `vtp verify` counts them again.

    Args:
        result: with predictions.
        credits: label of a row -> float64 (Q,), in the order of the predictions.
    """
    for label, values in credits.items():
        result.rows[label] = {"accuracy": percent(values)}
    for place, line in enumerate(result.predictions if credits else ()):
        line["rows"] = {label: float(values[place]) for label, values in credits.items()}


def add_evaluated_only(result: TaskResult, credit: Any) -> None:
    """Where something is missing, add the row that leaves it out; ``credit`` is that of every expected item."""
    if 0 < result.ledger.coverage < 1:
        result.rows[EVALUATED_ONLY] = {"accuracy": percent(credit[result.ledger.mask()])}


def add_references(result: TaskResult, references: References) -> None:
    """Put published results beside the own ones, under labels that say what they are."""
    result.references = {f"published: {label}": dict(values) for label, values in (references or {}).items()}


def compare(
    task: Measuring, evaluator: Evaluator, result: TaskResult, samples: Sequence[Sample], **options: Any
) -> Match:
    """Compare a result with the task's protocol; one that is not the official one says why.

    Args:
        task: whose result it is.
        evaluator: that measured it.
        result: with its metrics and the facts ``limit`` and ``limited``; gets ``protocol``.
        samples: every item that the result counts.
        options: those of the task that change the number; None = it cannot be told.
    """
    limit = result.facts["limit"] if result.facts["limited"] else None
    measured = Measured(tuple(result.metrics), task.ties, evaluator.frames, limit, options)
    match = task.protocol.match(samples, task.dataset.name, result.split, measured)
    result.protocol = match.record()
    if not match.official and not match.own:
        result.warnings.append(match.line())
    return match
