"""Who is found first, exactly, without ever holding the matrix of scores: ranks and first candidates in both
directions, tile by tile.

Q queries (rows) and G candidates (columns). A tile of scores is made, every row and every column of it is compared with
the score of its own relevant candidate, which was made before, and the tile is forgotten: memory grows with Q + G.

Ranks are exact, ties included, only if a pair has the same score to the last bit wherever it stands in a tile. A matrix
product does not promise that (OpenBLAS sums in another order at other columns), so :class:`Embeddings` makes all tiles
of one shape, tries whether equal vectors get equal scores all over it, and multiplies in float64 where they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from vtp.eval.metrics import Ranks
from vtp.progress import bar

__all__ = [
    "DualSoftmax",
    "Embeddings",
    "First",
    "Found",
    "Matrix",
    "Overlaid",
    "Scores",
    "Shuffled",
    "log_sum_exp",
    "search",
]

Array = npt.NDArray[Any]
ROWS, COLUMNS = 1024, 1984  # of a tile; a byte counts the eighth of a row, so at most 8 * 255 columns
_STRIP = 64  # rows of a tile that are compared at once: 64 x 1,984 floats stay in the cache
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
        tile = [min(limit, -(-max(count, 1) // _STEP) * _STEP) for limit, count in zip(most, self.shape, strict=True)]
        self.tile_shape = tile[0], tile[1]
        width = rows.shape[-1]
        self._given = [torch.zeros(side, n, width) for side, n in zip(self.tile_shape, vectors, strict=True)]
        self._product = torch.zeros([len(given) * given.shape[1] for given in self._given])
        self.double = not self._gives_equal_scores()

    def tile(self, rows: Array, columns: Array) -> Array:
        for given, found, index, wanted in zip(self._given, self.embeddings, self.index, (rows, columns), strict=True):
            part = np.asarray(found[index[wanted]], np.float32)
            given[: len(wanted)] = torch.from_numpy(part.reshape(len(wanted), *given.shape[1:]))
        return self._multiply()[: len(rows), : len(columns)]

    def pairs(self, rows: Array, columns: Array) -> Array:
        out = np.empty(len(rows), np.float32)
        step = min(self.tile_shape)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            out[part] = self.tile(rows[part], columns[part]).diagonal()
        return out

    def _multiply(self) -> Array:
        a, b = (given.view(-1, given.shape[-1]) for given in self._given)
        if self.double:
            self._product.copy_(a.double() @ b.double().T)
        else:
            torch.mm(a, b.T, out=self._product)
        found: Array = self._product.numpy()
        return found if self.single else log_sum_exp(found, *(len(given) for given in self._given))

    def _gives_equal_scores(self) -> bool:
        """Whether equal vectors have equal scores in every place of a tile."""
        self.double = False
        generator = torch.Generator().manual_seed(0)
        for given in self._given:
            given[:] = torch.randn(given.shape[1:], generator=generator)
        found = self._multiply()
        equal = bool((found == found[0, 0]).all())
        for given in self._given:
            given.zero_()
        return equal


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
        for rows, columns in _tiles(scores, np.flatnonzero(~missing_rows), np.flatnonzero(~missing_columns)):
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
        places = _places(rows, self.shape[0]), _places(columns, self.shape[1])
        at = np.flatnonzero(places[0][self.rows] >= 0)
        at = at[places[1][self.columns[at]] >= 0]
        tile[places[0][self.rows[at]], places[1][self.columns[at]]] = self.values[at]
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


def _places(index: Array, count: int) -> Array:
    """int64 (count,): where in ``index`` a number stands, -1 for nowhere."""
    out = np.full(count, -1, np.int64)
    out[index] = np.arange(len(index))
    return out


@dataclass(frozen=True, slots=True)
class First:
    """The first k candidates of each asker, best first; equal scores in the order of the candidates.

    Attributes:
        index: int64 (N, k), -1 behind the last.
        scores: float32 (N, k), -inf behind the last.
    """

    index: Array
    scores: Array


@dataclass(frozen=True, slots=True)
class Found:
    """What :func:`search` found.

    Attributes:
        forward: ranks of the queries among the candidates.
        back: ranks of the candidates among the queries.
        sets: ranks of the candidates among sets of queries, if there are sets.
        first, first_back: first candidates of the queries, and first queries of the candidates.
    """

    forward: Ranks
    back: Ranks
    sets: Ranks | None
    first: First
    first_back: First


def search(
    scores: Scores,
    rows: Array,
    columns: Array,
    *,
    missing_rows: Array | None = None,
    missing_columns: Array | None = None,
    sets: Array | None = None,
    top: int = 0,
    label: str = "compare",
    shown: bool = False,
) -> Found:
    """Rank queries among candidates and candidates among queries; equal to what :func:`vtp.eval.metrics.rank_queries`
    finds on the whole matrix and on its transpose.

    Args:
        scores: of Q queries and G candidates.
        rows, columns: int64 (P,), the relevant pairs, each once.
        missing_rows, missing_columns: bool, what was not scored; it keeps its place and ranks last.
        sets: int64 (Q,), the set of each query, which is the candidate (column) that it is relevant for. Each set is
            one thing that can be found, scored by its best query.
        top: how many first candidates to keep.
        label: of the progress bar.
        shown: whether there is one.
    """
    queries, gallery = scores.shape
    missing_rows = np.zeros(queries, bool) if missing_rows is None else missing_rows
    missing_columns = np.zeros(gallery, bool) if missing_columns is None else missing_columns
    kept = ~(missing_rows[rows] | missing_columns[columns])
    rows, columns = rows[kept], columns[kept]
    own = scores.pairs(rows, columns)
    own[~np.isfinite(own)] = -np.inf
    here_rows, here_columns = np.flatnonzero(~missing_rows), np.flatnonzero(~missing_columns)
    if sets is not None:  # the queries of a set stand together
        here_rows = here_rows[np.argsort(sets[here_rows], kind="stable")]
    forward, back = _Counts(queries, rows, own), _Counts(gallery, columns, own)
    of_sets = None if sets is None else _SetCounts(sets, back.own)
    first, first_back = _Best(queries, min(top, gallery)), _Best(gallery, min(top, queries))
    total = -(-len(here_rows) // scores.tile_shape[0]) * -(-len(here_columns) // scores.tile_shape[1])
    with bar(label, shown) as show:
        for done, (r, c) in enumerate(_tiles(scores, here_rows, here_columns)):
            tile = scores.tile(r, c)
            if not _all_finite(tile):
                _silence(tile, r, c, (rows, columns), forward, back)
            _compare(tile, (forward.bar[r], back.bar[c]), (r, c), forward, back)
            if of_sets is not None:
                of_sets.count(tile, r, c)
            if top:
                first.offer(tile, r, c)
                first_back.offer(tile.T, c, r)
            show(done + 1, total)
    return Found(
        forward.ranks(gallery, missing_rows),
        back.ranks(queries, missing_columns),
        None if of_sets is None else of_sets.ranks(back, missing_columns),
        first.found(),
        first_back.found(),
    )


def _tiles(scores: Scores, rows: Array, columns: Array) -> Iterator[tuple[Array, Array]]:
    height, width = scores.tile_shape
    for i in range(0, len(rows), height):
        for j in range(0, len(columns), width):
            yield rows[i : i + height], columns[j : j + width]


class _Counts:
    """Of each asker: the score of its best relevant candidate, and how many score higher or the same."""

    def __init__(self, count: int, index: Array, own: Array) -> None:
        self.own = np.full(count, -np.inf, np.float32)
        np.maximum.at(self.own, index, own)
        self.bar = np.where(self.own == -np.inf, np.float32(np.inf), self.own)
        self.positives = np.bincount(index[own == self.own[index]], minlength=count)
        self.higher = np.zeros(count, np.int64)
        self.equal = np.zeros(count, np.int64)
        self.broken = np.zeros(count, bool)

    def ranks(self, gallery: int, missing: Array) -> Ranks:
        miss = missing | self.broken | (self.own == -np.inf)
        tied = np.maximum(self.equal - self.positives, 0)
        return Ranks(self.higher, tied, np.maximum(self.positives, 1), miss, gallery)


def _all_finite(x: Array) -> bool:
    """In one pass without a copy; sums of float32 that overflow give False, too."""
    with np.errstate(invalid="ignore", over="ignore"):
        return bool(np.isfinite(x.sum()))


def _silence(
    tile: Array, rows: Array, columns: Array, relevant: tuple[Array, Array], forward: _Counts, back: _Counts
) -> None:
    """Scores that are no numbers are below all others; one of a wrong candidate spoils the asker."""
    bad = ~np.isfinite(tile)
    tile[bad] = -np.inf
    r, c = _places(rows, len(forward.own))[relevant[0]], _places(columns, len(back.own))[relevant[1]]
    inside = (r >= 0) & (c >= 0)
    bad[r[inside], c[inside]] = False
    forward.broken[rows] |= bad.any(1)
    back.broken[columns] |= bad.any(0)


def _compare(tile: Array, bars: tuple[Array, Array], at: tuple[Array, Array], forward: _Counts, back: _Counts) -> None:
    """Count what is higher and what is equal, by rows and by columns."""
    height, width = tile.shape
    flags = np.zeros((min(_STRIP, height), -(-width // 8) * 8), bool)
    by_row = {"higher": np.zeros(height, np.int64), "equal": np.zeros(height, np.int64)}
    by_column = {"higher": np.zeros(width, np.int64), "equal": np.zeros(width, np.int64)}
    tests: dict[str, Callable[..., Array]] = {"higher": np.greater, "equal": np.equal}
    for start in range(0, height, _STRIP):
        strip = tile[start : start + _STRIP]
        flag = flags[: len(strip)]
        for name, test in tests.items():
            test(strip, bars[0][start : start + _STRIP, None], out=flag[:, :width])
            eighths = flag.view(np.uint64).sum(1)  # eight counters of a byte in one number
            by_row[name][start : start + _STRIP] = eighths.view(np.uint8).reshape(-1, 8).sum(1)
            test(strip, bars[1], out=flag[:, :width])
            by_column[name] += np.add.reduce(flag.view(np.uint8), axis=0, dtype=np.uint8)[:width]
    for counts, index, found in ((forward, at[0], by_row), (back, at[1], by_column)):
        counts.higher[index] += found["higher"]
        counts.equal[index] += found["equal"]


class _SetCounts:
    """Counts of sets of queries, each scored by its best query. The queries of a set come one after another."""

    def __init__(self, sets: Array, own: Array) -> None:
        self.sets = sets
        self.bar = np.where(own == -np.inf, np.float32(np.inf), own)
        self.own = own
        self.higher = np.zeros(len(own), np.int64)
        self.equal = np.zeros(len(own), np.int64)
        self.broken = np.zeros(len(own), bool)
        self.open = np.full(len(own), -np.inf, np.float32)  # the best so far of the set that the last rows belong to
        self.open_set = np.full(len(own), -1, np.int64)

    def count(self, tile: Array, rows: Array, columns: Array) -> None:
        present, starts = np.unique(self.sets[rows], return_index=True)
        best = np.maximum.reduceat(tile, starts, axis=0)
        goes_on = self.open_set[columns] == present[0]
        self._close(columns[~goes_on])
        best[0] = np.where(goes_on, np.maximum(best[0], self.open[columns]), best[0])
        self._add(columns, best[:-1])
        self.open[columns], self.open_set[columns] = best[-1], present[-1]

    def _close(self, columns: Array) -> None:
        columns = columns[self.open_set[columns] >= 0]
        self._add(columns, self.open[None, columns])

    def _add(self, columns: Array, best: Array) -> None:
        self.higher[columns] += np.add.reduce(best > self.bar[columns], axis=0, dtype=np.int64)
        self.equal[columns] += np.add.reduce(best == self.bar[columns], axis=0, dtype=np.int64)
        if not _all_finite(best):
            self.broken[columns] |= (best == -np.inf).any(0)

    def ranks(self, back: _Counts, missing: Array) -> Ranks:
        self._close(np.arange(len(self.own)))
        miss = missing | self.broken | (self.own == -np.inf)
        tied = np.maximum(self.equal - 1, 0)  # one of them is its own set
        return Ranks(self.higher, tied, np.ones(len(self.own), np.int64), miss, len(np.unique(self.sets)))


class _Best:
    """The first k of each asker, of all tiles so far."""

    def __init__(self, count: int, k: int) -> None:
        self.k = k
        self.scores = np.full((count, k), -np.inf, np.float32)
        self.index = np.full((count, k), -1, np.int64)

    def offer(self, tile: Array, askers: Array, candidates: Array) -> None:
        """``tile`` (len(askers), len(candidates)); of equal scores those that are offered earlier come first."""
        worst = self.scores[askers, -1]
        some = np.flatnonzero(tile.max(1) > worst)
        if not len(some):
            return
        part, worst = tile[some], worst[some]
        if (fresh := worst == -np.inf).any() and part.shape[1] > self.k:
            cut = np.partition(part[fresh], part.shape[1] - self.k, axis=1)[:, part.shape[1] - self.k]
            worst[fresh] = np.nextafter(cut, np.float32(-np.inf))
        row, column = np.nonzero(part > worst[:, None])
        old = np.repeat(np.arange(len(some)), self.k)
        row = np.concatenate([old, row])
        scores = np.concatenate([self.scores[askers[some]].ravel(), part[row[len(old) :], column]])
        index = np.concatenate([self.index[askers[some]].ravel(), candidates[column]])
        order = np.lexsort((-scores, row))
        starts = np.searchsorted(row[order], np.arange(len(some)))
        chosen = order[starts[:, None] + np.arange(self.k)]
        self.scores[askers[some]], self.index[askers[some]] = scores[chosen], index[chosen]

    def found(self) -> First:
        return First(self.index, self.scores)
