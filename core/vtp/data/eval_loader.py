"""Evaluation batches: every item once, in order, nothing padded, nothing swapped, and a reason for each item that is
missing."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import closing

from vtp.data.bad import BadFiles
from vtp.data.batching import Example, collate
from vtp.data.pipeline import Pipeline
from vtp.data.workers import Delivery, deliver, named
from vtp.errors import VtpError
from vtp.faults import while_loading
from vtp.media.info import MediaError
from vtp.types import Batch, Sample

__all__ = ["EvalLoader"]


class EvalLoader:
    """Iterating yields the batches of this rank's shard: rows [rank * N / world_size, (rank + 1) * N / world_size) of
    the table, in order.

    Shards may differ by one row and the last batch may be short; a batch shrinks by the items that cannot be decoded,
    and is left out when none is left. After an iteration ``misses`` holds the rest: ids yielded + misses = ids of the
    shard.

    Args:
        table: samples; anything with a length and integer indices.
        pipeline: built with ``train=False``.
        batch_size: rows per batch on this rank.
        rank, world_size: which shard is ours.
        workers: processes that decode; 0 decodes in this one.
        bad: where unusable files are listed; None keeps the list in memory.
        whole_batches: shards begin where a batch does, so that a batch holds the same rows for any ``world_size``.
        skip: ids to leave out; the others stay in the batches where they were.
    """

    def __init__(
        self,
        table: Sequence[Sample],
        pipeline: Pipeline,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        bad: BadFiles | None = None,
        whole_batches: bool = False,
        skip: Collection[str] = (),
    ) -> None:
        if pipeline.train:
            raise ValueError("EvalLoader needs a Pipeline(train=False): evaluation must not augment")
        self.table = table
        self.pipeline = pipeline.with_bad(BadFiles() if bad is None else bad)
        self.batch_size = batch_size
        self.workers = workers
        unit = batch_size if whole_batches else 1
        parts = -(-len(table) // unit)
        first, end = (min(share * parts // world_size * unit, len(table)) for share in (rank, rank + 1))
        self.rows = range(first, end)
        self.skip = frozenset(skip)
        self.misses: dict[str, str] = {}

    def __len__(self) -> int:
        """Batches at most; fewer when all items of one are missing."""
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Generator[Batch]:
        self.misses = {}
        batches = (self.rows[i : i + self.batch_size] for i in range(0, len(self.rows), self.batch_size))
        places: list[Sequence[int]] = [*batches]
        if self.skip:
            left = ([row for row in batch if self.table[row].id not in self.skip] for batch in places)
            places = [batch for batch in left if batch]
        with closing(deliver(places, self._load, workers=min(self.workers, len(places)))) as deliveries:
            for delivery in deliveries:
                self.misses.update(delivery.misses)
                if delivery.batch is not None:
                    yield delivery.batch

    def _load(self, rows: Sequence[int]) -> Delivery:
        examples: list[Example] = []
        misses: dict[str, str] = {}
        for row in rows:
            try:
                sample = self.table[row]
                examples.append(self.pipeline(sample, 0, row))
            except MediaError as error:
                misses[sample.id] = error.reason
            except VtpError:
                raise
            except Exception as error:
                raise while_loading(error, named(self.table, row)) from None
        batch = collate(examples, self.pipeline.specs, self.pipeline.views, self.pipeline.fields) if examples else None
        return Delivery(batch, misses=misses)
