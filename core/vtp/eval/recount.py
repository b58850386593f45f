"""What a report says, counted again from the lines of predictions.jsonl: without the model, the media or the data set.

A task that can do so has ``recount(lines, facts)``, which gives a :class:`Recount`. The task uses it itself when it
evaluates, so what `vtp verify` computes is what the report was made by, and `vtp compare` has one value per query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.eval.bounds import Bounds
from vtp.eval.significance import bootstrap_interval
from vtp.types import Sample

__all__ = ["Items", "Recount"]

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Items:
    """One value per query, of which a metric is the mean or the median.

    Attributes:
        ids: of the queries, Q.
        clips: the clip of each: queries about one clip are no independent witnesses.
        values: float64 (Q,).
        scale: what the mean is multiplied with: 100 of credits, for percent.
        median: whether the metric is the median.
        falls: whether small values are good, as of ranks.
        among: how many candidates are ranked, 0 where nothing is.
    """

    ids: Sequence[str]
    clips: Sequence[str]
    values: npt.NDArray[Any]
    scale: float = 100.0
    median: bool = False
    falls: bool = False
    among: int = 0

    def metric(self) -> float:
        """The metric; NaN without a query."""
        if not len(self.values):
            return float("nan")
        return self.scale * float(np.median(self.values) if self.median else np.mean(self.values))

    def interval(self, seed: int) -> tuple[float, float]:
        """Its 95 % interval over clips, see :func:`vtp.eval.significance.bootstrap_interval`."""
        statistic = np.median if self.median else np.mean
        low, high = bootstrap_interval(self.values, statistic, clusters=self.clips, seed=seed)
        return self.scale * low, self.scale * high


@dataclass(slots=True)
class Recount:
    """What follows from lines.

    Attributes:
        metrics: as in the report; those that lines cannot tell are left out.
        items: metric -> its values per query, of those that are a mean or a median.
        bounds: see :mod:`vtp.eval.bounds`.
        rows: further rows of the report that lines can tell: label -> metric -> value.
        row_items: of those, label -> metric -> its values per query, as of the headline in ``items``.
        cuts: name -> what ``protocol.cuts`` of the report says of a cut that was scored: ``counts``, ``sha256``,
            ``metrics`` and ``difference``, as far as lines can tell.
        samples: the items as the protocol's form reads them, with ids, clips, texts and labels.
        expected: how many items the ledger must have.
        missing: id -> reason of those that could not be evaluated.
        derived: per line the fields that follow from its others, such as ``credit``.
    """

    metrics: dict[str, float]
    items: dict[str, Items] = field(default_factory=dict)
    bounds: Bounds = field(default_factory=dict)
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    row_items: dict[str, dict[str, Items]] = field(default_factory=dict)
    cuts: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    expected: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    derived: list[dict[str, Any]] = field(default_factory=list)

    def intervals(self, seed: int) -> dict[str, tuple[float, float]]:
        """95 % interval of every metric that has :attr:`items`."""
        return {name: items.interval(seed) for name, items in self.items.items()}

    def row_intervals(self, seed: int) -> dict[str, dict[str, tuple[float, float]]]:
        """The same of every row that has :attr:`row_items`."""
        return {
            label: {name: items.interval(seed) for name, items in of_row.items()}
            for label, of_row in self.row_items.items()
        }
