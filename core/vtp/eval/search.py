"""Who is found first, exactly, without ever holding the matrix of scores: ranks and first candidates in both
directions, tile by tile.

Q queries (rows) and G candidates (columns). A tile of scores is made, every row and every column of it is compared with
the score of its own relevant candidate, which was made before, and the tile is forgotten: memory grows with Q + G.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.eval.metrics import Ranks
from vtp.eval.scores import Scores, places, tiles
from vtp.progress import bar

__all__ = ["First", "Found", "search"]

Array = npt.NDArray[Any]
_STRIP = 64  # rows of a tile that are compared at once: 64 x 1,984 floats stay in the cache


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
        for done, (r, c) in enumerate(tiles(scores, here_rows, here_columns)):
            tile = scores.tile(r, c)
            if not _all_finite(tile):
                _silence(tile, r, c, (rows, columns), forward, back)
            _compare(tile, (forward.bar[r], back.bar[c]), (r, c), forward, back)
            if of_sets is not None:
                of_sets.count(tile, r, c)
            if top:
                first.offer(tile, r, c, 0)
                first_back.offer(tile, c, r, 1)
            show(done + 1, total)
    return Found(
        forward.ranks(gallery, missing_rows),
        back.ranks(queries, missing_columns),
        None if of_sets is None else of_sets.ranks(back, missing_columns),
        first.found(),
        first_back.found(),
    )


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
    r, c = places(rows, len(forward.own))[relevant[0]], places(columns, len(back.own))[relevant[1]]
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

    def offer(self, tile: Array, askers: Array, candidates: Array, axis: int) -> None:
        """A tile, of which ``askers`` are the rows, or with ``axis=1`` the columns; of equal scores those that are
        offered earlier come first."""
        worst = self.scores[askers, -1]
        fresh = np.flatnonzero(worst == -np.inf)
        if len(fresh) and len(candidates) > self.k:
            lines = tile[:, fresh].T if axis else tile[fresh]
            cut = np.partition(lines, len(candidates) - self.k, axis=1)[:, len(candidates) - self.k]
            worst[fresh] = np.nextafter(cut, np.float32(-np.inf))
        found = _above(tile, worst if axis else worst[:, None])
        asker, candidate = found[::-1] if axis else found
        if not len(asker):
            return
        better = np.zeros(len(askers), bool)
        better[asker] = True
        some = askers[better]
        place = (np.cumsum(better) - 1)[asker]
        owner = np.concatenate([np.repeat(np.arange(len(some)), self.k), place])
        scores = np.concatenate([self.scores[some].ravel(), tile[found]])
        index = np.concatenate([self.index[some].ravel(), candidates[candidate]])
        order = _by_owner_and_score(owner, scores)
        counts = np.bincount(owner)
        chosen = order[(np.cumsum(counts) - counts)[:, None] + np.arange(self.k)]
        self.scores[some], self.index[some] = scores[chosen], index[chosen]

    def found(self) -> First:
        return First(self.index, self.scores)


def _above(tile: Array, bar: Array) -> tuple[Array, Array]:
    """Rows and columns, int64, of what is above ``bar`` (R, 1) or (C,), row by row."""
    height, width = tile.shape
    flags = np.zeros((min(_STRIP, height), -(-width // 8) * 8), bool)
    rows, columns = [], []
    for start in range(0, height, _STRIP):
        strip = tile[start : start + _STRIP]
        flag = flags[: len(strip)]
        np.greater(strip, bar if bar.ndim == 1 else bar[start : start + _STRIP], out=flag[:, :width])
        words = np.flatnonzero(flag.view(np.uint64))  # few of them hold anything
        word, byte = np.nonzero(flag.reshape(-1, 8)[words])
        row, column = np.divmod(words[word] * 8 + byte, flags.shape[1])
        rows.append(row + start)
        columns.append(column)
    return np.concatenate(rows), np.concatenate(columns)


def _by_owner_and_score(owner: Array, scores: Array) -> Array:
    """The order by owner, then from the highest score down, then as they stand: sorted as one number of 64 bits."""
    bits = (scores + np.float32(0.0)).view(np.uint32).astype(np.uint64)  # -0 and 0 are equal
    falling = np.where(bits >> 31 == 1, bits, bits ^ 0x7FFFFFFF)
    shift = len(owner).bit_length()
    if int(owner.max(initial=0)).bit_length() + 32 + shift > 64:
        return np.asarray(np.lexsort((falling, owner)))
    key = (owner.astype(np.uint64) << 32 | falling) << shift | np.arange(len(owner), dtype=np.uint64)
    return (np.sort(key) & ((1 << shift) - 1)).astype(np.int64)
