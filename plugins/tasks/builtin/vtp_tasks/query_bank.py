"""Querybank normalisation (QB-Norm, arXiv:2112.12777, "Dynamic Inverted Softmax"): candidates that are near to many
training queries, the hubs, are taken down.

Only queries whose first candidate is the first candidate of a query of the bank are normalised. No other test query is
looked at; training queries are, so it is a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.data.table import evenly
from vtp.eval.embedding import embedding
from vtp.eval.evaluator import Evaluator
from vtp.eval.scores import DualSoftmax, Embeddings, Scores
from vtp.eval.search import search
from vtp.types import Sample

__all__ = ["BETA", "QueryBank", "bank_of", "normalised"]

Array = npt.NDArray[Any]
BETA = 20.0  # inverse temperature


class QueryBank:
    """Scores of which those of some queries are ``beta * score - log sum over the bank of exp(beta * bank score)``.

    Args:
        scores: the raw ones, (Q, G).
        rows: bool (Q,), the queries to normalise.
        hubness: float32 (G,), that logarithm of each candidate.
        beta: inverse temperature.
    """

    def __init__(self, scores: Scores, rows: Array, hubness: Array, beta: float = BETA) -> None:
        self.scores = scores
        self.shape, self.tile_shape = scores.shape, scores.tile_shape
        self.rows, self.hubness, self.beta = rows, hubness.astype(np.float32), np.float32(beta)

    def tile(self, rows: Array, columns: Array) -> Array:
        raw = self.scores.tile(rows, columns)
        return np.where(self.rows[rows, None], self.beta * raw - self.hubness[columns], raw)

    def pairs(self, rows: Array, columns: Array) -> Array:
        raw = self.scores.pairs(rows, columns)
        return np.where(self.rows[rows], self.beta * raw - self.hubness[columns], raw)


def normalised(scores: Scores, bank: Scores, best: Array, missing: Array, beta: float = BETA) -> QueryBank:
    """Normalise by a bank.

    Args:
        scores: of the test queries, (Q, G).
        bank: of the queries of the bank, (B, G), with the same candidates.
        best: int64 (Q,), the first candidate of each test query, -1 for none.
        missing: bool (G,), candidates without scores.
        beta: inverse temperature.
    """
    nothing = np.zeros(0, np.int64)
    firsts = search(bank, nothing, nothing, missing_columns=missing, top=1).first.index[:, 0]
    active = np.zeros(bank.shape[1], bool)
    active[firsts[firsts >= 0]] = True
    sums = DualSoftmax(bank, 0, np.zeros(bank.shape[0], bool), missing, 1 / beta)
    with np.errstate(divide="ignore"):
        hubness = np.where(sums.total > 0, sums.top + np.log(sums.total), 0.0)
    return QueryBank(scores, active[best] & (best >= 0), hubness, beta)


def bank_of(evaluator: Evaluator, objective: str, texts: Sequence[str], size: int, gallery: Embeddings) -> Embeddings:
    """Scores of ``size`` evenly spaced distinct texts with the candidates of ``gallery``."""
    chosen = evenly(list(dict.fromkeys(texts)), size)
    samples = [Sample(f"bank {i}", texts=(text,)) for i, text in enumerate(chosen)]
    media = tuple(m for m in evaluator.modalities if m != "text")
    found = evaluator.run(samples, embedding(objective, "text"), drop=media, what="texts", label="query bank")
    vectors = found.arrays["embedding"]
    finite = np.isfinite(vectors.reshape(len(vectors), -1)).all(1)
    return Embeddings(vectors[finite], gallery.embeddings[1], None, gallery.index[1])
