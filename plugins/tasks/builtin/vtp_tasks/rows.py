"""What the reports of the tasks share: facts, the comparison with the protocol, what follows from predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from vtp.eval.evaluator import Evaluator
from vtp.eval.metrics import TieRule
from vtp.eval.protocol import Match, Measured
from vtp.eval.protocol import Protocol as Benchmark
from vtp.eval.recount import Recount
from vtp.eval.task import TaskResult
from vtp.types import Sample

__all__ = [
    "References",
    "add_counts",
    "add_references",
    "compare",
    "facts",
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


def add_counts(result: TaskResult, recount: Any, seed: int) -> Recount:
    """Give a result the metrics, the intervals over clips, the bounds and the rows that ``recount`` counts from its
    predictions, which hold what rows need. A row that is there keeps its place and what lines cannot tell."""
    counted: Recount = recount(result.predictions, result.facts)
    result.metrics |= counted.metrics
    result.intervals |= counted.intervals(seed)
    result.bounds |= counted.bounds
    for label, row in counted.rows.items():
        result.rows[label] = result.rows.get(label, {}) | row
    result.row_intervals |= counted.row_intervals(seed)
    return counted


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
