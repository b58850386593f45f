"""Re-ranking: a matching head that reads picture and text together re-orders the first k candidates of each query.

The result is a score row of its own. With as many candidates as there are clips it is the order of the head alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.eval.evaluator import Collected, Evaluator
from vtp.types import Modality
from vtp_tasks.matching import PAIR_BATCH, match_texts
from vtp_tasks.pairs import Pairs

__all__ = ["Order", "rerank", "score_pairs"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Order:
    """What is re-ordered.

    Attributes:
        sim: (Q, G) raw scores.
        chosen: int64 (Q, k), the first k candidates of each query, -1 where there are fewer.
    """

    sim: Array
    chosen: Array

    def wanted(self) -> Array:
        """bool (Q, G), the pairs to be matched."""
        out = np.zeros(self.sim.shape, bool)
        rows, columns = np.nonzero(self.chosen >= 0)
        out[rows, self.chosen[rows, columns]] = True
        return out

    def scores(self, matched: Array) -> Array:
        """(Q, G) scores in the new order: chosen candidates by ``matched`` (Q, G), above all others, which keep theirs.

        Places stand in for scores, equal ones for ties, so that no scale has to be invented: float32 holds integers up
        to 2**24 exactly. A chosen candidate whose match is not a finite number, and every candidate without a raw
        score, is NaN.
        """
        out = np.full(self.sim.shape, np.nan, np.float32)
        for row, (raw, chosen) in enumerate(zip(self.sim, self.chosen, strict=True)):
            chosen = chosen[chosen >= 0]
            rest = np.isfinite(raw)
            rest[chosen] = False
            out[row, rest] = np.unique(raw[rest], return_inverse=True)[1]
            places = np.unique(matched[row, chosen], return_inverse=True)[1] + len(raw)
            out[row, chosen] = np.where(np.isfinite(matched[row, chosen]), places, np.nan)
        return out


def rerank(sim: Array, k: int, seed: int) -> Order:
    """Choose the first ``k`` candidates of every query; among equal scores at the edge chance decides, from
    ``seed``."""
    shuffle = np.random.default_rng(seed).permutation(sim.shape[1])
    usable = np.where(np.isfinite(sim), sim, -np.inf)[:, shuffle]
    chosen = shuffle[np.argsort(-usable, axis=1, kind="stable")[:, :k]]
    chosen[~np.isfinite(np.take_along_axis(sim, chosen, axis=1))] = -1
    return Order(sim, chosen)


def score_pairs(
    evaluator: Evaluator,
    pairs: Pairs,
    wanted: Array,
    objective: str,
    what: str = "videos",
    *,
    drop: Sequence[Modality] = (),
    pair_batch: int = PAIR_BATCH,
) -> tuple[Array, Collected]:
    """Scores of the wanted (query, clip) pairs by a matching head: log-odds of "they match", or its one number.

    Args:
        wanted: bool (Q, G).
        objective: which has the head, see :func:`check_matches`.
        what: names the clips.
        drop: modalities of the clips to withhold.
        pair_batch: pairs that are fused at once.

    Returns:
        float32 (Q, G), NaN for pairs that were not wanted or could not be scored; and which clips were evaluated.
    """
    by_text = np.zeros((len(pairs.texts), len(pairs.videos)), bool)  # distinct texts: equal captions are matched once
    np.logical_or.at(by_text, pairs.text_of, wanted)
    texts_of = [np.flatnonzero(column) for column in by_text.T]
    given = evaluator, pairs.videos, pairs.texts, texts_of, objective, what
    matched, collected = match_texts(*given, drop=drop, pair_batch=pair_batch)
    scores = np.full(by_text.shape, np.nan, np.float32)
    for video, texts in enumerate(texts_of):
        scores[texts, video] = matched[video, : len(texts)]
    return scores[pairs.text_of], collected
