"""Querybank normalisation (QB-Norm, arXiv:2112.12777, "Dynamic Inverted Softmax"): candidates that are near to many
training queries, the hubs, are taken down.

Only queries whose first candidate is the first candidate of a query of the bank are normalised. No other test query is
looked at; training queries are, so it is a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.contracts import Table, member
from vtp.data.table import clip_names, evenly
from vtp.eval.scores import DualSoftmax, Embeddings, Scores
from vtp.eval.search import search
from vtp.types import Sample
from vtp_tasks.sides import Side

__all__ = ["BETA", "QueryBank", "bank_items", "bank_scores", "normalised"]

Array = npt.NDArray[Any]
BETA = 20.0  # inverse temperature


class QueryBank:
    """Scores of which those of some askers are ``beta * score - log sum over the bank of exp(beta * bank score)``.

    Args:
        scores: the raw ones, (Q, G).
        active: bool (Q,), the askers to normalise; with ``back`` (G,).
        hubness: float32 (G,), that logarithm of each candidate; with ``back`` (Q,).
        beta: inverse temperature.
        back: whether the columns ask, and rows are the candidates.
    """

    def __init__(
        self, scores: Scores, active: Array, hubness: Array, beta: float = BETA, *, back: bool = False
    ) -> None:
        self.scores = scores
        self.shape, self.tile_shape = scores.shape, scores.tile_shape
        self.active, self.hubness, self.beta, self.back = active, hubness.astype(np.float32), np.float32(beta), back

    def tile(self, rows: Array, columns: Array) -> Array:
        raw = self.scores.tile(rows, columns)
        if self.back:
            return np.where(self.active[columns], self.beta * raw - self.hubness[rows, None], raw)
        return np.where(self.active[rows, None], self.beta * raw - self.hubness[columns], raw)

    def pairs(self, rows: Array, columns: Array) -> Array:
        raw = self.scores.pairs(rows, columns)
        askers, candidates = (columns, rows) if self.back else (rows, columns)
        return np.where(self.active[askers], self.beta * raw - self.hubness[candidates], raw)


def normalised(
    scores: Scores, bank: Scores, best: Array, missing: Array, beta: float = BETA, *, back: bool = False
) -> QueryBank:
    """Normalise by a bank.

    Args:
        scores: of the test queries, (Q, G).
        bank: of the queries of the bank, (B, G), with the same candidates; with ``back`` (Q, B).
        best: int64 (Q,), the first candidate of each test query, -1 for none; with ``back`` (G,).
        missing: bool (G,), candidates without scores; with ``back`` (Q,).
        beta: inverse temperature.
        back: whether the columns ask, and rows are the candidates.
    """
    nothing = np.zeros(0, np.int64)
    none = np.zeros(bank.shape[1 if back else 0], bool)
    rows, columns = (missing, none) if back else (none, missing)
    found = search(bank, nothing, nothing, missing_rows=rows, missing_columns=columns, top=1)
    firsts = (found.first_back if back else found.first).index[:, 0]
    active = np.zeros(len(missing), bool)
    active[firsts[firsts >= 0]] = True
    sums = DualSoftmax(bank, 1 if back else 0, rows, columns, 1 / beta)
    with np.errstate(divide="ignore"):
        hubness = np.where(sums.total > 0, sums.top + np.log(sums.total), 0.0)
    return QueryBank(scores, active[best] & (best >= 0), hubness, beta, back=back)


def bank_items(table: Sequence[Sample], side: Side, size: int) -> list[Sample]:
    """``size`` evenly spaced training items of a side: distinct texts, clips, or samples with the text and the media of
    their clip."""
    if side == ("text",):
        texts = list(dict.fromkeys(member(table, Table, "all_texts")()))
        return [Sample(f"bank {i}", texts=(text,)) for i, text in enumerate(evenly(texts, size))]
    if "text" in side:
        told = [row for row in range(len(table)) if table[row].texts]
        return [
            replace(table[row], id=f"bank {i}", texts=table[row].texts[:1]) for i, row in enumerate(evenly(told, size))
        ]
    first = {name: row for row, name in reversed(list(enumerate(clip_names(table))))}
    rows = evenly(sorted(first.values()), size)
    return [replace(table[row], id=f"bank {i}", texts=()) for i, row in enumerate(rows)]


def bank_scores(vectors: Array, candidates: Embeddings, *, back: bool = False) -> Embeddings:
    """Scores (B, G) of the embeddings of a bank with the candidates of a matrix of scores, its columns, or with
    ``back`` (Q, B) its rows. An embedding that is no number is left out."""
    finite = np.isfinite(vectors.reshape(len(vectors), -1)).all(1)
    if back:
        return Embeddings(candidates.embeddings[0], vectors[finite], candidates.index[0], None)
    return Embeddings(vectors[finite], candidates.embeddings[1], None, candidates.index[1])
