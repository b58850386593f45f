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
from vtp.eval.scores import Overlaid, Scores
from vtp.eval.search import First
from vtp.types import Modality
from vtp_tasks.matching import PAIR_BATCH, match_texts
from vtp_tasks.pairs import Pairs

__all__ = ["Order", "score_pairs", "score_some"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Order:
    """What is re-ordered: the first candidates of every asker.

    Attributes:
        askers, candidates: int64 (P,), the pairs to be matched.
        back: whether clips ask, and texts are the candidates.
    """

    askers: Array
    candidates: Array
    back: bool = False

    @classmethod
    def of(cls, first: First, back: bool) -> Order:
        askers, places = np.nonzero(first.index >= 0)
        return cls(askers, first.index[askers, places], back)

    @property
    def pairs(self) -> tuple[Array, Array]:
        """Queries and clips, int64 (P,) each."""
        return (self.candidates, self.askers) if self.back else (self.askers, self.candidates)

    def scores(self, raw: Scores, matched: Array) -> Scores:
        """Scores in the new order: chosen pairs by ``matched`` (P,), above all others, which keep theirs.

        Places stand in for the scores of chosen pairs, equal ones for ties, so that no scale has to be invented: powers
        of two far above every cosine, of which float32 tells 2**23 apart. One whose match is not a finite number is
        NaN.
        """
        order = np.lexsort((matched, self.askers))  # what is no number comes last
        askers, sorted_matches = self.askers[order], matched[order]
        begins = np.r_[True, askers[1:] != askers[:-1]]
        steps = np.cumsum(begins | np.r_[True, sorted_matches[1:] != sorted_matches[:-1]])
        place = np.empty(len(order), np.int64)
        place[order] = steps - steps[begins][np.cumsum(begins) - 1] if len(order) else 0
        values = np.where(np.isfinite(matched), np.ldexp(2.0**23 + place, 77), np.nan)
        return Overlaid(raw, *self.pairs, values)


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


def score_some(
    evaluator: Evaluator,
    pairs: Pairs,
    queries: Array,
    clips: Array,
    objective: str,
    what: str = "videos",
    *,
    drop: Sequence[Modality] = (),
    pair_batch: int = PAIR_BATCH,
) -> Array:
    """As :func:`score_pairs`, for a list of pairs, int64 (P,) each: float32 (P,)."""
    count = len(pairs.texts)
    keys, place = np.unique(clips * count + pairs.text_of[queries], return_inverse=True)
    texts_of = np.split(keys % count, np.searchsorted(keys, count * np.arange(1, len(pairs.videos))))
    given = evaluator, pairs.videos, pairs.texts, texts_of, objective, what
    matched, _ = match_texts(*given, drop=drop, pair_batch=pair_batch)
    lengths = np.array([len(texts) for texts in texts_of], np.int64)
    starts = np.cumsum(lengths) - lengths
    owner = np.repeat(np.arange(len(texts_of)), lengths)
    found: Array = matched[owner, np.arange(len(keys)) - starts[owner]][place]
    return found
