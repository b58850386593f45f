"""What an evaluation gives back, and the choices that tasks have in common.

``vtp run`` asks a task (:class:`vtp.contracts.Task`) for its samples, its answer list and its labels, trains, and calls
``evaluate``. The task decides nothing about devices, ranks, batches or files: it hands a function of the forward pass
to the :class:`~vtp.eval.evaluator.Evaluator`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from vtp.contracts import Dataset, Task, member
from vtp.data.keys import hash64
from vtp.data.table import clip_names, select
from vtp.errors import ConfigError, DataError
from vtp.eval.ledger import Ledger
from vtp.spans import whole_clip
from vtp.types import Sample

__all__ = [
    "SELECTION_RULES",
    "ReportTable",
    "TaskResult",
    "carve_validation",
    "check_scored",
    "resolve_selection",
]

SELECTION_RULES = ("last", "val", "test(!)")


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table of a report as plain data; :func:`vtp.eval.report.render` draws it.

    Attributes:
        title, columns: headings.
        rows: cells; numbers are shown with two decimals, None as a dash.
        notes: lines below the table, the coverage line first.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class TaskResult:
    """What an evaluation found. Everything in it can be written as JSON, see :mod:`vtp.eval.report`.

    Attributes:
        task: name of the task class, or of the benchmark; of a run that differs from it, the name of its protocol
            record, such as ``msrvtt_1ka@my_data``.
        split: ``train``, ``val`` or ``test``.
        metrics: flat names, over ALL expected items, the headline first. Percent for accuracies and R@K.
        ledger: of the items that metrics count (questions, queries).
        predictions: one JSON-able dict per query, with ``id``.
        protocol: the record of :class:`vtp.eval.protocol.Match`.
        tables: to print.
        intervals: metric -> 95 % bootstrap interval, over clips with all their queries.
        bounds: where items are missing, metric -> its least and largest value over all scores that they could have
            had, see :mod:`vtp.eval.bounds`; a metric for which nobody can tell is not in it.
        rows: further score rows that must not be mixed with the headline, by label: re-ranked, DSL, evaluated items
            only, baselines.
        row_intervals: label of a row -> as ``intervals``.
        ledgers: further ledgers by name, such as the gallery's.
        facts: tie rule, dtype, limits, sampling and whatever else one must know to measure it again.
        warnings: what a reader must know before using a number.
        references: published results to read beside one's own, by label: metric -> value. Nobody here measured them.
        chart: for the figure: series -> group -> percent, such as model -> question type -> accuracy, or direction ->
            R@K -> its value.
    """

    task: str
    split: str
    metrics: dict[str, float]
    ledger: Ledger
    predictions: list[dict[str, Any]] = field(default_factory=list)
    protocol: dict[str, Any] = field(default_factory=dict)
    tables: list[ReportTable] = field(default_factory=list)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    row_intervals: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    chart: dict[str, dict[str, float]] = field(default_factory=dict)
    references: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, int]:
        """What of -> how many could not be evaluated: of the items that metrics count, and of further ones such as the
        gallery. Empty for a complete result."""
        ledgers = (self.ledger, *self.ledgers.values())
        return {ledger.what: len(ledger.missing) for ledger in reversed(ledgers) if ledger.missing}

    @property
    def title(self) -> str:
        """What tables and figures call it: the task, or NAME@DATASET where there is a benchmark and this is not it."""
        official = self.protocol.get("official", True) or self.protocol["official_name"] is None
        return self.task if official else str(self.protocol["name"])

    def record(self) -> dict[str, Any]:
        """What report.json stores of it; predictions have a file of their own, tables and chart are drawn."""
        return {
            "task": self.task,
            "split": self.split,
            "metrics": self.metrics,
            "intervals": self.intervals,
            "incomplete": bool(self.missing),
            "bounds": self.bounds,
            "rows": self.rows,
            "row_intervals": self.row_intervals,
            "references": self.references,
            "ledger": self.ledger.record(),
            "ledgers": {label: ledger.record() for label, ledger in self.ledgers.items()},
            "modality_coverage": self.ledger.modality_coverage(),
            "protocol": self.protocol,
            "facts": self.facts,
        }


def check_scored(task: Any, dataset: Any, split: str, *, judged: bool = True, others: Sequence[str] = ()) -> None:
    """Whether a split of a task can be scored, or with ``judged=False`` predicted: said before the first step, not
    after the last one.

    Args:
        others: splits that the task could be pointed at instead, for the message.

    Raises:
        DataError: it is empty, or the task refuses its items.
    """
    if judged:
        member(task, Task, "check_split")(split)
    if len(task.samples(split)):
        return
    hints = []
    for other in (one for one in others if one != split):
        with suppress(DataError, ConfigError):
            if count := len(task.samples(other)):
                hints.append(f"task.split={other} takes that split ({count:,} items)")
    raise DataError(
        f"{member(dataset, Dataset, 'name')}: there is nothing in the {split} split to evaluate. "
        f"{'; '.join([*hints, 'mode=train trains without an evaluation'])}."
    )


def resolve_selection(selection: str | None, has_validation: bool) -> str:
    """The rule by which a checkpoint is chosen: as asked for; by default ``val`` if there is a validation split, else
    ``last``.

    Raises:
        ConfigError: an unknown rule, or ``val`` without a validation split.
    """
    if selection is None:
        return "val" if has_validation else "last"
    if selection == "test":
        raise ConfigError(
            "task.selection=test chooses the checkpoint by the test set. If you want that, write "
            "task.selection='test(!)'; reports say so."
        )
    if selection not in SELECTION_RULES:
        raise ConfigError(f"task.selection={selection!r} must be one of {', '.join(SELECTION_RULES)}, or null.")
    if selection == "val" and not has_validation:
        raise ConfigError(
            "task.selection=val: the data set has no validation split. Use task.selection=last, or carve one with "
            "data.val_share."
        )
    return selection


def carve_validation(samples: Sequence[Sample], share: float, seed: int) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Split training samples into training and validation so that no clip is in both.

    A clip goes to validation when a hash of (seed, clip) falls below ``share``: the choice depends on nothing else, so
    it survives a reordered or longer file. Spans of one clip stay together.

    Returns:
        what is left for training, and the validation samples; views of a table that can give them (``select``).
    """
    import numpy as np

    threshold = int(share * 2**64)
    names = map(whole_clip, clip_names(samples))
    held_out = np.fromiter((hash64(f"{seed}\0{name}") < threshold for name in names), bool, count=len(samples))
    return select(samples, np.flatnonzero(~held_out)), select(samples, np.flatnonzero(held_out))
