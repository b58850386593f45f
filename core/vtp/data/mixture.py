"""Several tables in one epoch: how many rows of each, and in which order.

Everything here is a function of the tables, the options, a seed and the number of an epoch, so that a run that is
resumed, or runs on other processes, sees the same rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vtp.data.keys import keyed_generator
from vtp.errors import ConfigError
from vtp.types import Sample

__all__ = ["Mixture"]

# (place of the part, generator) -> an order of all its rows
Arrange = Callable[[int, np.random.Generator], npt.NDArray[np.integer[Any]]]


@dataclass(frozen=True)
class Mixture:
    """What a table that joins others says about them (:attr:`vtp.contracts.Table.mixture`).

    An epoch has as many rows as all parts together, N. Without ``weights`` and ``temperature`` every row comes once.
    With them a part gets its share of the N rows, and its own epochs follow each other without a gap: a part with a
    large share begins anew within an epoch of the mix, one with a small share goes on in the next.

    Attributes:
        tables: part -> its rows, none of them empty; in the joined table the parts lie one after another.
        weights: part -> its share of an epoch, up to a factor.
        temperature: t of shares proportional to n^t, n being the rows of a part: 1 is every row once, 0 equal shares.
        turns: the parts come one after another within an epoch, instead of shuffled.
        batches: ``part`` = all rows of a global batch are of one part; ``mixed`` = of any.
    """

    tables: Mapping[str, Sequence[Sample]]
    weights: Mapping[str, float] | None = None
    temperature: float | None = None
    turns: bool = False
    batches: Literal["mixed", "part"] = "mixed"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parts, in the order of their rows."""
        return tuple(self.tables)

    @cached_property
    def bounds(self) -> npt.NDArray[np.int64]:
        """int64 (K + 1,): part i has the rows [bounds[i], bounds[i + 1]) of the joined table."""
        return np.cumsum([0, *map(len, self.tables.values())], dtype=np.int64)

    @cached_property
    def shares(self) -> npt.NDArray[np.float64]:
        """float64 (K,): share of each part in the rows of an epoch."""
        sizes = np.diff(self.bounds).astype(np.float64)
        if self.weights is not None:
            found = np.array([self.weights[name] for name in self.names], np.float64)
        else:
            found = sizes if self.temperature is None else sizes**self.temperature
        shares: npt.NDArray[np.float64] = found / found.sum()
        return shares

    def part_of(self, row: int) -> int:
        """Place in ``names`` of the part that a row of the joined table belongs to."""
        return bisect_right(self._starts, row) - 1

    @cached_property
    def _starts(self) -> list[int]:
        """``bounds`` for single rows: in a list of few numbers they are found faster than NumPy is called."""
        return [int(bound) for bound in self.bounds]

    def counts(self, batch: int) -> npt.NDArray[np.int64]:
        """int64 (K,): rows of each part in an epoch of global batches of ``batch`` rows; whole batches where batches
        are of one part.

        Raises:
            ConfigError: an epoch has fewer batches than parts.
        """
        rows = int(self.bounds[-1])
        if self.batches == "mixed":
            if self.weights is None and self.temperature is None:
                return np.diff(self.bounds)
            return _apportioned(self.shares, rows)
        whole = rows // batch
        if whole < len(self.names):
            raise ConfigError(
                f"dataset.batches=part: an epoch of {rows:,} rows has {whole} batches of {batch} for "
                f"{len(self.names)} parts. Use a train.global_batch of at most {rows // len(self.names)}, or "
                "dataset.batches=mixed."
            )
        return _apportioned(self.shares, whole) * batch

    def order(
        self, seed: int, epoch: int, batch: int, arrange: Arrange
    ) -> tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.int32] | None]:
        """The rows of an epoch.

        Args:
            seed, epoch: what it depends on.
            batch: rows of a global batch.
            arrange: gives an order of the rows of a part.

        Returns:
            int (N,), rows of the joined table, and int32 (N,), of each which time it is that the part is gone through;
            None where that is ``epoch`` for all. A row that comes again is to be cropped and cut anew.
        """
        if len(self.names) == 1:
            return arrange(0, keyed_generator(seed, "order", epoch)), None
        counts = self.counts(batch)
        unit = batch if self.batches == "part" else 1
        labels = np.repeat(np.arange(len(counts), dtype=np.min_scalar_type(len(counts))), counts // unit)
        if not self.turns:
            keyed_generator(seed, "mix", epoch).shuffle(labels)
        labels = np.repeat(labels, unit)
        rows: npt.NDArray[np.integer[Any]]
        rows = np.empty(len(labels), np.int32 if self.bounds[-1] < 2**31 else np.int64)
        passes = np.empty(len(labels), np.int32)
        for part, count in enumerate(counts.tolist()):
            here = labels == part
            taken = self._stretch(part, epoch * count, count, seed, arrange)
            rows[here] = self.bounds[part] + np.concatenate([rows_of for _, rows_of in taken])
            passes[here] = np.concatenate([np.full(len(rows_of), number) for number, rows_of in taken])
        return rows, None if (passes == epoch).all() else passes

    def _stretch(
        self, part: int, first: int, count: int, seed: int, arrange: Arrange
    ) -> list[tuple[int, npt.NDArray[np.integer[Any]]]]:
        """Places [first, first + count) of the endless row of a part's own epochs: (its epoch, rows of the part)."""
        size = int(self.bounds[part + 1] - self.bounds[part])
        found = []
        while count:
            number, inside = divmod(first, size)
            order = arrange(part, keyed_generator(seed, "order", self.names[part], number))[inside : inside + count]
            found.append((number, order))
            first, count = first + len(order), count - len(order)
        return found

    def record(self) -> dict[str, Any]:
        """What a checkpoint and report.json keep: rows and share of every part."""
        sizes = np.diff(self.bounds).tolist()
        return {
            name: {"samples": size, "share": round(share, 6)}
            for name, size, share in zip(self.names, sizes, self.shares.tolist(), strict=True)
        }

    def lines(self) -> list[str]:
        """A line per part, for people."""
        return [
            f"{name}: {facts['samples']:,} samples, {100 * facts['share']:.1f} % of the rows of an epoch"
            for name, facts in self.record().items()
        ]


def _apportioned(shares: npt.NDArray[np.float64], total: int) -> npt.NDArray[np.int64]:
    """``total`` cut by shares into whole numbers of at least 1, by the largest remainders."""
    exact = shares * total
    counts = np.maximum(1, exact.astype(np.int64))
    while (short := total - int(counts.sum())) != 0:
        # what lacks most gets one more; what has most above its share gives one, as long as it keeps one
        lacking = exact - counts
        counts[int(np.argmax(lacking if short > 0 else np.where(counts > 1, -lacking, -np.inf)))] += np.sign(short)
    return counts
