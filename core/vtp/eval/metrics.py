"""Retrieval and question-answering metrics: pure functions of scores and relevance, safe for ties and for scores that
are not numbers.

Shapes: Q queries, G candidates (the gallery). ``sim[i, j]`` is the float32 score of candidate j for query i, higher is
better.

    rank of a query = 1 + irrelevant candidates that score strictly higher than its best relevant one + tie term

The tie term is named in every report. With t irrelevant and p relevant candidates sharing the best relevant score:

    expected      t / (p + 1)   mean over all orders of the tied ones; R@K is the probability of the first K (default)
    pessimistic   t             ties count against the model
    optimistic    0             ties count for the model (legacy: a collapsed model is perfect)
    average       (t + p - 1) / 2   the middle of the tied block, the relevant ones counted as well (legacy)

``average`` is what the evaluation of collaborative-experts and of Frozen computes: it counts positions from 0, takes
the mean one of all columns with the best relevant score, and asks for position == 0 for R@1 and position < K for other
K. A rank is that position + 1.

A query whose relevant candidates all lack a finite score, or whose row holds any other score that is not finite, is a
miss: it has the last rank, G, and is in no first K. A candidate without any finite score (a video that could not be
decoded) stays in the gallery and is ranked last by everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

__all__ = [
    "TIE_RULES",
    "Ranks",
    "TieRule",
    "accuracy_by_type",
    "dual_softmax",
    "rank_queries",
    "retrieval_metrics",
    "sanity_warnings",
]

TieRule = Literal["expected", "pessimistic", "optimistic", "average"]
TIE_RULES: tuple[TieRule, ...] = get_args(TieRule)

Array = npt.NDArray[Any]
_CHUNK = 1 << 24  # elements of a block of rows: keeps temporary arrays near 100 MB whatever the size of the matrix


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where the best relevant candidate of each query stands; the tie rule is chosen when it is read.

    Attributes:
        higher: int64 (Q,), candidates that are not relevant and score strictly higher.
        tied: int64 (Q,), candidates that are not relevant and score exactly the same.
        positives: int64 (Q,), relevant candidates that share the best relevant score, at least 1.
        miss: bool (Q,), True = no usable score; counts as the last rank.
        gallery: number of candidates G, missing ones included.
    """

    higher: Array
    tied: Array
    positives: Array
    miss: Array
    gallery: int

    def __len__(self) -> int:
        return len(self.higher)

    def take(self, rows: Array) -> Ranks:
        """The ranks of some of the queries (an index or a bool array)."""
        return Ranks(self.higher[rows], self.tied[rows], self.positives[rows], self.miss[rows], self.gallery)

    def values(self, ties: TieRule = "expected") -> Array:
        """Rank of each query, float64 (Q,), 1 = best; misses have the last rank, G."""
        term = {
            "expected": self.tied / (self.positives + 1),
            "pessimistic": self.tied,
            "optimistic": np.zeros(len(self)),
            "average": (self.tied + self.positives - 1) / 2,
        }[ties]
        return np.where(self.miss, float(self.gallery), 1.0 + self.higher + term)

    def hits(self, k: int, ties: TieRule = "expected") -> Array:
        """Credit of each query for being in the first ``k``, float64 (Q,) in [0, 1].

        Under the expected rule this is the probability that the first of p relevant candidates, shuffled among t tied
        ones, lies in the ``k - higher`` places that are left: 1 - C(t + p - places, p) / C(t + p, p). The other rules
        give 0 or 1. Misses give 0.
        """
        if ties == "average" and k > 1:  # position < k, counted from 0
            return np.where(self.miss, 0.0, self.values(ties) - 1 < k).astype(np.float64)
        if ties != "expected":
            return np.where(self.miss, 0.0, self.values(ties) <= k).astype(np.float64)
        outside = np.ones(len(self))  # probability that the places seen so far hold no relevant candidate
        for place in range(k):
            left = np.maximum(self.tied - place, 0) / np.maximum(self.tied + self.positives - place, 1)
            outside *= np.where(place < k - self.higher, left, 1.0)
        return np.where(self.miss, 0.0, 1.0 - outside)


def rank_queries(
    sim: Array, relevant: Array | Sequence[Sequence[int] | Array], *, missing: Array | None = None
) -> Ranks:
    """Find the rank of the best relevant candidate of every query.

    Args:
        sim: (Q, G) scores; ranked in float32 whatever they come in.
        relevant: bool (Q, G), or for each query the indices of its relevant candidates (none = a miss).
        missing: bool (G,), candidates that were not scored. They keep their place in the gallery and rank last. None
            takes the columns without any finite score.

    Raises:
        ValueError: the shapes do not fit.
    """
    sim = np.asarray(sim)
    if sim.ndim != 2:
        raise ValueError(f"sim must have two axes, queries and candidates, but has shape {sim.shape}")
    queries, gallery = sim.shape
    shape = relevant.shape if isinstance(relevant, np.ndarray) and relevant.dtype == bool else None
    is_matrix = shape is not None
    if len(relevant) != queries or shape not in (None, sim.shape):
        raise ValueError(
            f"relevant must be bool {sim.shape} or {queries} lists of indices, but has {len(relevant)} rows"
        )
    out = [np.zeros(queries, np.int64) for _ in range(3)]
    miss = np.zeros(queries, bool)
    step = max(1, _CHUNK // max(gallery, 1))
    blocks = [slice(start, min(start + step, queries)) for start in range(0, queries, step)]
    if missing is None:
        missing = np.ones(gallery, bool)
        for rows in blocks:
            missing &= ~np.isfinite(sim[rows]).any(0)
    for rows in blocks:
        block = sim[rows].astype(np.float32)
        positive = np.asarray(relevant[rows], bool) if is_matrix else _relevance_matrix(relevant[rows], gallery)
        parts = _rank_block(block, positive & ~missing, ~positive & ~missing)
        for column, part in zip((*out, miss), parts, strict=True):
            column[rows] = part
    return Ranks(out[0], out[1], out[2], miss, gallery)


def _relevance_matrix(lists: Any, gallery: int) -> Array:
    matrix = np.zeros((len(lists), gallery), bool)
    for row, columns in zip(matrix, lists, strict=True):
        row[np.asarray(columns, np.int64)] = True
    return matrix


def _rank_block(sim: Array, positive: Array, negative: Array) -> tuple[Array, Array, Array, Array]:
    finite = np.isfinite(sim)
    miss = ~(positive & finite).any(1) | (negative & ~finite).any(1)
    best = np.where(positive & finite, sim, -np.inf).max(1, keepdims=True, initial=-np.inf)
    higher = (negative & (sim > best)).sum(1)
    tied = (negative & (sim == best)).sum(1)
    positives = np.maximum((positive & (sim == best)).sum(1), 1)
    return higher, tied, positives, miss


def retrieval_metrics(ranks: Ranks, *, ties: TieRule = "expected", ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """``r1``, ``r5``, ``r10`` in percent of all queries, and ``mdr``, ``mnr``, the median and the mean rank. NaN
    without a query."""
    if not len(ranks):
        return {**{f"r{k}": float("nan") for k in ks}, "mdr": float("nan"), "mnr": float("nan")}
    values = ranks.values(ties)
    recalls = {f"r{k}": 100.0 * float(ranks.hits(k, ties).mean()) for k in ks}
    return {**recalls, "mdr": float(np.median(values)), "mnr": float(values.mean())}


def sanity_warnings(metrics: dict[str, float]) -> list[str]:
    """What cannot be true of one set of ranks: R@K that falls with K, or a median rank above 1 when more than half of
    the queries are at 1."""
    found = []
    if metrics["r1"] > 50 and metrics["mdr"] > 1:
        found.append(f"R@1 = {metrics['r1']:.1f} % means that the median rank is 1, not {metrics['mdr']:g}")
    if not metrics["r1"] <= metrics["r5"] <= metrics["r10"]:
        found.append(f"R@1, R@5, R@10 must not fall: {metrics['r1']:.1f}, {metrics['r5']:.1f}, {metrics['r10']:.1f}")
    return found


def dual_softmax(sim: Array, temperature: float = 1.0) -> Array:
    """Scores times their softmax over the QUERY axis (DSL of CAMoE, arXiv:2109.04290): float32 (Q, G).

    It sees all queries at once and assumes that they pair one to one with the candidates, so it is reported as a row
    of its own, never mixed with raw scores. Rows and columns that hold no finite score stay as they are and take part
    in no sum.
    """
    sim = np.asarray(sim, np.float32)
    finite = np.isfinite(sim)
    scaled = np.where(finite, sim / temperature, -np.inf)
    top = scaled.max(0, keepdims=True, initial=-np.inf)
    weight = np.exp(scaled - np.where(np.isfinite(top), top, 0.0))  # (Q, G), 0 where there is no score
    total = weight.sum(0, keepdims=True)
    prior = weight / np.where(total > 0, total, 1.0) * len(sim)
    return np.where(finite, np.where(finite, sim, 0.0) * prior, np.nan).astype(np.float32)


def accuracy_by_type(credit: Array, types: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Mean credit in percent and number of questions per type, most frequent type first (ties by name)."""
    names, where, counts = np.unique(
        np.asarray(types, dtype=object).astype(str), return_inverse=True, return_counts=True
    )
    sums = np.bincount(where, weights=np.asarray(credit, np.float64), minlength=len(names))
    order = sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))
    return {str(names[i]): (100.0 * float(sums[i]) / int(counts[i]), int(counts[i])) for i in order}
