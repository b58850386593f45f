"""Scores of Q queries and G candidates that are made tile by tile, when they are asked for: cosines of embeddings, and
what is made of other scores.

Ranks are exact, ties included, only if a pair has the same score to the last bit wherever it stands in a tile. A matrix
product does not promise that (OpenBLAS sums in another order at other columns), so :class:`Embeddings` makes all tiles
of one shape, tries whether equal vectors get equal scores all over it, and multiplies in float64 where they do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["DualSoftmax", "Embeddings", "Matrix", "Overlaid", "Scores", "Shuffled", "log_sum_exp", "places", "tiles"]

Array = npt.NDArray[Any]
ROWS, COLUMNS = 1024, 1984  # of a tile; a byte counts the eighth of a row, so at most 8 * 255 columns
_STEP = 64  # tiles of small sets are multiples of it
_PRODUCTS = 1 << 22  # cosines of a tile where clips have several vectors


class Scores(Protocol):
    """Scores of Q queries and G candidates, made when they are asked for. A pair has the same score, to the last bit,
    in every tile.

    Attributes:
        shape: (Q, G).
        tile_shape: the largest tile.
    """

    shape: tuple[int, int]
    tile_shape: tuple[int, int]

    def tile(self, rows: Array, columns: Array) -> Array:
        """float32 (R, C) of some queries and candidates, of which the caller may write over until the next call."""
        ...

    def pairs(self, rows: Array, columns: Array) -> Array:
        """float32 (P,): ``rows[i]`` with ``columns[i]``."""
        ...


class Matrix:
    """Scores that are there: (Q, G), ranked in float32."""

    tile_shape = (ROWS, COLUMNS)

    def __init__(self, scores: Array) -> None:
        self.scores = scores
        self.shape: tuple[int, int] = scores.shape

    def tile(self, rows: Array, columns: Array) -> Array:
        return np.array(self.scores[np.ix_(rows, columns)], np.float32)

    def pairs(self, rows: Array, columns: Array) -> Array:
        return np.array(self.scores[rows, columns], np.float32)


class Embeddings:
    """Cosines, in float32, of embeddings of unit length: (N, E) of queries and (M, E) of candidates.

    Where a candidate (or a query) has n vectors, (M, n, E), its score is the logarithm of the sum of the exponentials
    of its n cosines, without a temperature: the multi-clip similarity of UniVL and SNP-S3.

    Args:
        rows, columns: the embeddings; arrays on the disk are read tile by tile.
        row_of, column_of: int64 (Q,) and (G,), which embedding a query or a candidate has; None = its own.
    """

    def __init__(
        self, rows: Array, columns: Array, row_of: Array | None = None, column_of: Array | None = None
    ) -> None:
        self.embeddings = rows, columns
        self.index = tuple(
            np.arange(len(given)) if of is None else np.asarray(of, np.int64)
            for given, of in ((rows, row_of), (columns, column_of))
        )
        self.shape = len(self.index[0]), len(self.index[1])
        self.single = rows.ndim == columns.ndim == 2
        vectors = [1 if given.ndim == 2 else given.shape[1] for given in (rows, columns)]
        most = ROWS, COLUMNS
        if vectors != [1, 1]:
            side = max(_STEP, int((_PRODUCTS / (vectors[0] * vectors[1])) ** 0.5) // _STEP * _STEP)
            most = min(ROWS, side), min(COLUMNS, side)
        self.tile_shape = _side(self.shape[0], most[0]), _side(self.shape[1], most[1])
        width = rows.shape[-1]
        self._given = [torch.zeros(side, n, width) for side, n in zip(self.tile_shape, vectors, strict=True)]
        self._product = torch.zeros([len(given) * given.shape[1] for given in self._given])
        self.double = not self._gives_equal_scores()

    def tile(self, rows: Array, columns: Array) -> Array:
        self._fill((rows, columns))
        return self._multiply(*self.tile_shape)[: len(rows), : len(columns)]

    def pairs(self, rows: Array, columns: Array) -> Array:
        out = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _STEP):
            part = slice(start, start + _STEP)
            self._fill((rows[part], columns[part]))
            out[part] = self._multiply(_STEP, _STEP).diagonal()[: len(rows[part])]
        return out

    def _fill(self, wanted: tuple[Array, Array]) -> None:
        for given, found, index, some in zip(self._given, self.embeddings, self.index, wanted, strict=True):
            part = np.asarray(found[index[some]], np.float32)
            given[: len(some)] = torch.from_numpy(part.reshape(len(some), *given.shape[1:]))

    def _multiply(self, rows: int, columns: int) -> Array:
        """Of the first that are filled in: (rows, columns), in a buffer."""
        a, b = (
            given[:count].view(-1, given.shape[-1]) for given, count in zip(self._given, (rows, columns), strict=True)
        )
        product = self._product.view(-1)[: len(a) * len(b)].view(len(a), len(b))
        if self.double:
            product.copy_(a.double() @ b.double().T)
        else:
            torch.mm(a, b.T, out=product)
        found: Array = product.numpy()
        return found if self.single else log_sum_exp(found, rows, columns)

    def _gives_equal_scores(self) -> bool:
        """Whether equal vectors have equal scores in every place of a tile, large or small."""
        self.double = False
        generator = torch.Generator().manual_seed(0)
        for given in self._given:
            given[:] = torch.randn(given.shape[1:], generator=generator)
        score = self._multiply(_STEP, _STEP)[0, 0].copy()
        equal = all((self._multiply(*shape) == score).all() for shape in ((_STEP, _STEP), self.tile_shape))
        for given in self._given:
            given.zero_()
        return equal


def _side(count: int, most: int) -> int:
    """So that the last of equal tiles is nearly full."""
    tiles = -(-max(count, 1) // most)
    return -(-max(count, 1) // (tiles * _STEP)) * _STEP


def log_sum_exp(cosines: Array, rows: int, columns: int) -> Array:
    """(rows * n, columns * m) cosines of n and m vectors each -> float32 (rows, columns)."""
    x = cosines.reshape(rows, -1, columns, cosines.shape[1] // columns)
    top = x.max((1, 3))
    found: Array = top + np.log(np.exp(x - top[:, None, :, None]).sum((1, 3)))
    return found


class DualSoftmax:
    """Scores times their softmax over all queries, or where ``over`` is 1, over all candidates, times their number; see
    :func:`vtp.eval.metrics.dual_softmax`. What is missing takes part in no sum.

    Args:
        scores: the raw ones.
        over: the axis of those that ask.
        missing_rows, missing_columns: bool (Q,) and (G,).
        temperature: of the softmax.
    """

    def __init__(
        self, scores: Scores, over: int, missing_rows: Array, missing_columns: Array, temperature: float = 1.0
    ) -> None:
        self.scores = scores
        self.shape, self.tile_shape = scores.shape, scores.tile_shape
        self.over = over
        self.temperature = np.float32(temperature)
        count = self.shape[1 - over]
        self.top = np.full(count, -np.inf, np.float32)
        self.total = np.zeros(count)
        for rows, columns in tiles(scores, np.flatnonzero(~missing_rows), np.flatnonzero(~missing_columns)):
            tile = scores.tile(rows, columns)
            tile = np.where(np.isfinite(tile), tile / self.temperature, -np.inf)
            own = rows if over else columns
            top = np.maximum(self.top[own], tile.max(over, initial=-np.inf))
            usable = np.where(np.isfinite(top), top, np.float32(0.0))
            weight = np.exp(tile - np.expand_dims(usable, over)).sum(over, dtype=np.float64)
            self.total[own] = self.total[own] * np.exp(self.top[own] - usable) + weight
            self.top[own] = top
        self.top = np.where(np.isfinite(self.top), self.top, np.float32(0.0))
        self.factor = (self.shape[over] / np.where(self.total > 0, self.total, 1.0)).astype(np.float32)

    def tile(self, rows: Array, columns: Array) -> Array:
        own = rows if self.over else columns
        top, factor = (np.expand_dims(given[own], self.over) for given in (self.top, self.factor))
        return self._weighted(self.scores.tile(rows, columns), top, factor)

    def pairs(self, rows: Array, columns: Array) -> Array:
        own = rows if self.over else columns
        return self._weighted(self.scores.pairs(rows, columns), self.top[own], self.factor[own])

    def _weighted(self, raw: Array, top: Array, factor: Array) -> Array:
        found: Array = raw * (np.exp(raw / self.temperature - top) * factor)
        return found


class Overlaid:
    """Scores of which some pairs have others.

    Args:
        scores: what lies below.
        rows, columns: int64 (P,), the pairs, each once.
        values: float32 (P,).
    """

    def __init__(self, scores: Scores, rows: Array, columns: Array, values: Array) -> None:
        self.scores = scores
        self.shape, self.tile_shape = scores.shape, scores.tile_shape
        order = np.lexsort((columns, rows))
        self.rows, self.columns, self.values = rows[order], columns[order], values[order].astype(np.float32)
        self.keys = self.rows * self.shape[1] + self.columns

    def tile(self, rows: Array, columns: Array) -> Array:
        tile = self.scores.tile(rows, columns)
        at_row, at_column = places(rows, self.shape[0]), places(columns, self.shape[1])
        at = np.flatnonzero(at_row[self.rows] >= 0)
        at = at[at_column[self.columns[at]] >= 0]
        tile[at_row[self.rows[at]], at_column[self.columns[at]]] = self.values[at]
        return tile

    def pairs(self, rows: Array, columns: Array) -> Array:
        found = self.scores.pairs(rows, columns)
        if len(self.keys):
            wanted = rows * self.shape[1] + columns
            at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
            found = np.where(self.keys[at] == wanted, self.values[at], found)
        return found


class Shuffled:
    """The same scores in another order of queries and candidates, so that chance decides which of equal scores comes
    first.

    Args:
        rows, columns: int64 (Q,) and (G,), which query and candidate stands at each place.
    """

    def __init__(self, scores: Scores, rows: Array, columns: Array) -> None:
        self.scores = scores
        self.shape, self.tile_shape = scores.shape, scores.tile_shape
        self.rows, self.columns = rows, columns

    def tile(self, rows: Array, columns: Array) -> Array:
        return self.scores.tile(self.rows[rows], self.columns[columns])

    def pairs(self, rows: Array, columns: Array) -> Array:
        return self.scores.pairs(self.rows[rows], self.columns[columns])


def places(index: Array, count: int) -> Array:
    """int64 (count,): where in ``index`` a number stands, -1 for nowhere."""
    out = np.full(count, -1, np.int64)
    out[index] = np.arange(len(index))
    return out


def tiles(scores: Scores, rows: Array, columns: Array) -> Iterator[tuple[Array, Array]]:
    height, width = scores.tile_shape
    for i in range(0, len(rows), height):
        for j in range(0, len(columns), width):
            yield rows[i : i + height], columns[j : j + width]
