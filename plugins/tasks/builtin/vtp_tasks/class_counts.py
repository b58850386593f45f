"""The numbers of classification from the lines of predictions.jsonl alone, see :mod:`vtp.eval.recount` and
:mod:`vtp_tasks.lines`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.eval.bounds import between, rank_bounds
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.eval.metrics import Ranks, accuracy_by_type
from vtp.eval.recount import Recount
from vtp.types import Sample
from vtp_tasks.lines import (
    Facts,
    Lines,
    derived,
    items_of,
    labels_of,
    lost,
    of_credits,
    percent,
    ranks_of,
    ranks_of_row,
)

__all__ = ["BLIND", "Classes", "average_precision", "classes"]

Array = npt.NDArray[Any]
BLIND = "without looking"  # the row in which every item has the same scores


@dataclass(slots=True)
class Classes:
    """Items with their classes and what was scored.

    Attributes:
        classes: of each item, N.
        ranks: of the best of them.
        known: bool (N,), whether the model knows one of them.
        ties: tie rule of ranks.
        several: whether an item may have several.
        index: class -> column of ``scores``.
        scores: (N, C), NaN where missing; needed for several classes alone.
    """

    classes: Sequence[Sequence[str]]
    ranks: Ranks
    known: Array
    ties: Any
    several: bool
    index: Mapping[str, int]
    scores: Array | None = None

    def metrics(self, rows: Array | None = None) -> dict[str, float]:
        """In percent, over the items of ``rows`` (bool (N,)), None = all of them."""
        ranks = self.ranks if rows is None else self.ranks.take(rows)
        found = {"top1": percent(ranks.hits(1, self.ties)), "top5": percent(ranks.hits(5, self.ties))}
        if self.several and self.scores is None:
            return found
        values = [value for value, _ in self.by_class(rows).values()]
        mean = {"map" if self.several else "mean_class": float(np.mean(values)) if values else float("nan")}
        return mean | found if self.several else found | mean

    def by_class(self, rows: Array | None = None) -> dict[str, tuple[float, int]]:
        """Class -> (average precision, or top-1, in percent; its items), most items first; classes that no item of
        ``rows`` has are left out."""
        places: list[int] = list(range(len(self.classes))) if rows is None else np.flatnonzero(rows).tolist()
        if not self.several:
            credit = self.ranks.hits(1, self.ties)
            known = [place for place in places if self.classes[place]]
            return accuracy_by_type(credit[known], [self.classes[place][0] for place in known])
        items: dict[str, list[int]] = {}
        for row, place in enumerate(places):
            for name in self.classes[place]:
                items.setdefault(name, []).append(row)
        found = {}
        for name in sorted(items, key=lambda name: (-len(items[name]), name)):
            right = np.zeros(len(places), bool)
            right[items[name]] = True
            column = self.index.get(name)
            known_scores = self.scores if column is not None else None
            value = 0.0 if known_scores is None else average_precision(known_scores[places, column], right)
            found[name] = (100 * value, len(items[name]))
        return found

    def flat(self) -> dict[str, float]:
        """All metrics, and the first of them by class."""
        found = self.metrics()
        if self.several and self.scores is None:
            return found
        first = "map" if self.several else "top1"
        return found | {f"{first}/{name}": value for name, (value, _) in self.by_class().items()}

    def ends(self, missing: Array) -> tuple[Classes, Classes]:
        """The worst and the best: of a missing item all scores are unknown. At best those of its classes are above all
        others and of the other classes it is never found, at worst the other way round."""
        right = np.zeros((len(self.classes), max(len(self.index), 1)), bool)
        for row, names in enumerate(self.classes):
            right[row, [self.index[name] for name in names if name in self.index]] = True
        ends = []
        both = zip(rank_bounds(self.ranks, 0, missing & self.known), (~right, right), strict=True)
        for ranks, found in both:
            scores = None if self.scores is None else self.scores.copy()
            if scores is not None:
                scores[missing] = np.where(found[missing], np.finfo(np.float32).max, np.nan)
            ends.append(replace(self, ranks=ranks, scores=scores))
        return ends[0], ends[1]


def classes(lines: Lines, facts: Facts) -> Recount:
    """Of classification: one line per item."""
    missing, found = lost(lines), [line["classes"] for line in lines]
    told = [line.get("scores") for line in lines]
    table = _table(lines, facts, ranks_of(lines, facts["classes"]), told, missing)
    counted = of_credits(lines, _credits(table))
    counted.metrics = table.flat()
    top1 = counted.items["top1"].values
    for name in () if table.several else table.by_class():
        counted.items |= items_of(lines, {f"top1/{name}": top1}, np.array([name in own for own in found], bool))
    if missing.any():
        counted.bounds = between(Classes.flat, *table.ends(missing))
    if 0 < missing.sum() < len(lines):
        _add_row(counted, EVALUATED_ONLY, lines, table, ~missing)
    for label in labels_of(lines):
        rows = [line["rows"][label] for line in lines]
        ranks = ranks_of_row([[] if row is None else row["rank"] for row in rows], facts["classes"])
        gone = np.array([row is None for row in rows], bool)
        scores = [None if row is None else row.get("scores") for row in rows]
        if label == BLIND:  # of what has one score everywhere, the average precision does not depend on it
            scores = [[0.0] * len(facts["class_names"] or ())] * len(lines)
        _add_row(counted, label, lines, _table(lines, facts, ranks, scores, gone))
    counted.derived = derived(table.ranks, table.ties, "credit")
    counted.samples = [
        Sample(line["id"], None, None, ("",), {}, {"labels": line["classes"], "video_id": line["video"]})
        for line in lines
    ]
    return counted


def _table(
    lines: Lines, facts: Facts, ranks: Ranks, told: Sequence[Sequence[float | None] | None], missing: Array
) -> Classes:
    """``told`` are the scores of each item, None where they are not told: of several classes they are needed, of all
    items but those that are missing."""
    several = facts["several"]
    index = {name: place for place, name in enumerate(facts["class_names"] or ())}
    scores = None
    if several and all(one is not None or gone for one, gone in zip(told, missing, strict=True)):
        nothing = [np.nan] * len(index)
        table = [nothing if one is None else one for one in told]
        scores = np.array(table, np.float32).reshape(len(lines), len(index))
    known = np.array([line["known"] for line in lines], bool)
    return Classes([line["classes"] for line in lines], ranks, known, facts["tie_rule"], several, index, scores)


def _credits(table: Classes) -> dict[str, Array]:
    return {f"top{k}": table.ranks.hits(k, table.ties) for k in (1, 5)}


def _add_row(counted: Recount, label: str, lines: Lines, table: Classes, rows: Array | None = None) -> None:
    counted.rows[label] = table.metrics(rows)
    counted.row_items[label] = items_of(lines, _credits(table), rows)


def average_precision(scores: Array, right: Array) -> float:
    """Area under the steps of precision over recall, in [0, 1].

    Items of one score are found together, so the value depends on no order. Those without a finite score are not found.

    Args:
        scores: float (N,).
        right: bool (N,), the items of the class; NaN is returned where there is none.
    """
    if not right.any():
        return float("nan")
    found = np.isfinite(scores)
    order = np.argsort(-scores[found], kind="stable")
    ordered, hits = scores[found][order], right[found][order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(ordered) else np.zeros(0, np.int64)
    recalled = np.cumsum(hits)[ends]
    precision = recalled / (ends + 1)
    return float((np.diff(recalled, prepend=0) * precision).sum() / right.sum())
