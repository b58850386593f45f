"""What the reports of all tasks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from vtp.eval.evaluator import Evaluator
from vtp.eval.metrics import TieRule
from vtp.eval.protocol import Match, Measured
from vtp.eval.protocol import Protocol as Benchmark
from vtp.eval.task import TaskResult
from vtp.types import Sample

__all__ = ["compare"]


class Measuring(Protocol):
    """What a task says of itself to be compared with its protocol."""

    dataset: Any
    protocol: Benchmark
    ties: TieRule


def compare(
    task: Measuring, evaluator: Evaluator, result: TaskResult, samples: Sequence[Sample], **options: Any
) -> Match:
    """Compare a result with the task's protocol. If it is not the official one, it loses the official name and says
    why.

    Args:
        task: whose result it is.
        evaluator: that measured it.
        result: with its metrics and the facts ``limit`` and ``limited``; gets ``protocol``, and maybe another name.
        samples: every item that the result counts.
        options: those of the task that change the number; None = it cannot be told.
    """
    limit = result.facts["limit"] if result.facts["limited"] else None
    measured = Measured(tuple(result.metrics), task.ties, evaluator.frames, limit, options)
    match = task.protocol.match(samples, task.dataset.name, result.split, measured)
    result.protocol = match.record()
    if not match.official and not match.own:
        result.task = match.name
        result.warnings.append(match.line())
    return match
