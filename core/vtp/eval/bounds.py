"""Between which values a metric must lie, whatever the items that could not be evaluated would have scored.

That a missing item counts as a miss is no such bound: a candidate that is missing stands in nobody's way either, and a
hub that goes missing makes the queries right that it was nearest to. Each score of a missing item may be any number, by
itself; with the worst and the best choice, metrics take the two values that are given here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.eval.metrics import Ranks, TieRule

__all__ = ["Bounds", "between", "rank_bounds"]

Array = npt.NDArray[Any]
Bounds = dict[str, tuple[float, float]]
"""Metric -> its least and its largest value."""


def rank_bounds(
    ranks: Ranks, hidden: Array | int, unknown: Array, *, own: Array | int = 0, ties: TieRule = "expected"
) -> tuple[Ranks, Ranks]:
    """The worst and the best ranks that queries can have.

    At worst every wrong candidate without scores stands above all that have some, at best below.

    Args:
        ranks: as counted, where what is missing has no score.
        hidden: int (Q,), wrong candidates of each query that have no scores, or one number for all.
        unknown: bool (Q,), queries that were not evaluated themselves, or one of whose relevant candidates was not: at
            best that one is first.
        own: int (Q,), relevant candidates that have no scores. Under the rule ``average`` they do harm where they tie.
        ties: the rule under which the ranks will be read.
    """
    none = np.zeros_like(ranks.higher)
    positives = ranks.positives + own if ties == "average" else ranks.positives
    worst = Ranks(ranks.higher + hidden, ranks.tied, positives, ranks.miss, ranks.gallery)
    best = Ranks(
        np.where(unknown, none, ranks.higher),
        np.where(unknown, none, ranks.tied),
        np.where(unknown, none + 1, ranks.positives),
        ranks.miss & ~unknown,
        ranks.gallery,
    )
    return worst, best


def between(metrics: Callable[[Any], Mapping[str, float]], worst: Any, best: Any) -> Bounds:
    """The values of ``metrics(worst)`` and ``metrics(best)``, the smaller one first: of ranks, small ones are good."""
    low, high = metrics(worst), metrics(best)
    return {name: (min(low[name], high[name]), max(low[name], high[name])) for name in low}
