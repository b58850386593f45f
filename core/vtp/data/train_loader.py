"""Training batches for ever, the same ones for any number of workers and ranks, and after a resume."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp import distributed
from vtp.contracts import Table, member
from vtp.data.bad import BadFiles
from vtp.data.batching import Example, collate
from vtp.data.dropout import withhold
from vtp.data.keys import keyed_generator
from vtp.data.mixture import Mixture
from vtp.data.pipeline import Pipeline
from vtp.data.workers import Delivery, deliver, named
from vtp.errors import ConfigError, DataError, RunError, VtpError
from vtp.faults import while_loading
from vtp.media.info import MediaError
from vtp.types import Batch, Sample

__all__ = ["TrainLoader"]

_ATTEMPTS = 100  # draws for one row; with 20 % bad files, 100 failures in a row do not happen
_FRESH_FAILURES = 20  # files in a row that fail for the first time: a disk is away, and each may cost a timeout
_FIRST_LOOK = 1000  # draws before a share of bad samples means anything


class TrainLoader:
    """Iterating yields this rank's :class:`Batch` of every step, epoch after epoch, without end.

    Row ``s`` of the endless stream of rows belongs to epoch ``s // U`` with U the rows of an epoch: the table cut to
    whole global batches. A table smaller than one global batch is not cut: a batch then runs over from one epoch into
    the next, so all items are seen equally often. Each epoch has its own permutation, keyed by (seed, epoch); a table
    that has ``epoch_order(generator)`` makes it, as shards do to read nearly in sequence, and one that joins several
    (``mixture``) says how many rows of each come. Rank r gets rows [r * local, (r + 1) * local) of the global batch.

    A sample that cannot be decoded is replaced by another *whole* sample (its own media and its own text) of the same
    part of the table, drawn with the key (seed, epoch, index, attempt). The files that failed are in ``bad`` and are
    not tried again.

    Args:
        table: samples; anything with a length and integer indices.
        pipeline: from a sample to an example.
        global_batch: rows per optimiser step over all ranks and micro-batches; a multiple of ``world_size``.
        rank, world_size: which part of each global batch is ours.
        workers: processes that decode; 0 decodes in this one.
        seed: of the order and the replacements.
        bad: the list of unusable files; None keeps one in memory with its default limit.
        modality_dropout: modality -> probability that a row that has it does without, see
            :func:`vtp.data.dropout.withhold`.
        group: up to so many samples about one clip stand next to each other, with the same frames, so that the clip is
            decoded and encoded once for all of them. Questions about one video are a case; 1 shuffles all samples.

    Raises (while iterating): RunError with a table of reasons when a larger share than ``bad.max_bad_fraction`` of the
    samples, or of those of a part, cannot be decoded.
    """

    def __init__(
        self,
        table: Sequence[Sample],
        pipeline: Pipeline,
        *,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        seed: int = 0,
        bad: BadFiles | None = None,
        group: int = 1,
        modality_dropout: Mapping[str, float] | None = None,
    ) -> None:
        if len(table) == 0:
            raise DataError(
                "the training table is empty: no sample is left after the split and the limits. "
                "Check dataset.root and the split."
            )
        if global_batch <= 0 or global_batch % world_size:
            raise ConfigError(
                f"global_batch={global_batch} must be a positive multiple of the number of processes, {world_size}. "
                f"Nearest: {max(1, round(global_batch / world_size)) * world_size}."
            )
        self.bad = BadFiles() if bad is None else bad
        self.table = table
        self.pipeline = pipeline.with_bad(self.bad)
        self.global_batch = global_batch
        self.rank = rank
        self.world_size = world_size
        self.workers = workers
        self.seed = seed
        self.group = group
        self.modality_dropout = {m: share for m, share in (modality_dropout or {}).items() if share}
        self._clips = _clip_numbers(table, self.pipeline) if group > 1 else None
        self.local_batch = global_batch // world_size
        self.epoch_rows = max(len(table) // global_batch * global_batch, min(len(table), global_batch))
        self._samples = 0  # global rows handed out
        self._mixture: Mixture | None = member(table, Table, "mixture")
        if self._mixture is not None:
            self._mixture.counts(global_batch)  # a batch that the parts cannot fill is refused before the first one
        # samples that this process tried, and those that failed
        self._tried = np.zeros((len(self._parts), 2), np.int64)
        self._order = lru_cache(maxsize=2)(self._permutation)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps that show every sample once (a remainder smaller than a global batch is left out until the
        next shuffle)."""
        return math.ceil(self.epoch_rows / self.global_batch)

    @property
    def epoch(self) -> int:
        """Whole epochs handed out so far."""
        return self._samples // self.epoch_rows

    def tried(self) -> dict[str, tuple[int, int]]:
        """Of each part of the table (of all of it, ``""``, where it has none): samples that this process has tried,
        and how many of them could not be decoded. After a resume the first process has those of all before it, too."""
        counts = zip(self._parts, self._tried, strict=True)
        return {name: (int(draws), int(failed)) for name, (draws, failed) in counts}

    def state_dict(self) -> dict[str, Any]:
        """The position: global samples handed out, and what all processes tried for them. Counted in samples, so that
        the number of ranks may change on resume. Every process calls it."""
        tried = np.sum(distributed.gather_objects(self._tried), axis=0)
        return {"samples": self._samples, "tried": dict(zip(self._parts, tried.tolist(), strict=True))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after ``state["samples"]`` samples; takes effect at the next ``iter()``."""
        self._samples = int(state["samples"])
        before = state.get("tried", {}) if self.rank == 0 else {}
        self._tried = np.array([before.get(name, (0, 0)) for name in self._parts], np.int64)

    @property
    def _parts(self) -> tuple[str, ...]:
        return ("",) if self._mixture is None else tuple(self._mixture.names)

    def __iter__(self) -> Generator[Batch]:
        self._order(self.epoch)  # before the workers are forked: they share it
        with closing(deliver(self._steps(self._samples), self._load, workers=self.workers)) as deliveries:
            for delivery in deliveries:
                assert delivery.batch is not None
                self._judge(delivery)
                self._samples += self.global_batch
                yield delivery.batch

    def _steps(self, samples: int) -> Iterator[int]:
        """First global row of every step from here on."""
        while True:
            yield samples
            samples += self.global_batch

    def _permutation(self, epoch: int) -> tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.int32] | None]:
        """Rows of an epoch, and of each the epoch that keys its random choices, where that is another one. Every worker
        keeps two epochs: of 2.5 million rows, 10 MB each."""
        passes = None
        if self._mixture is None:
            order = _shuffled(self.table, keyed_generator(self.seed, "order", epoch))
        else:
            tables = list(self._mixture.tables.values())
            order, passes = self._mixture.order(
                self.seed, epoch, self.global_batch, lambda part, generator: _shuffled(tables[part], generator)
            )
        if self._clips is not None:
            places = _grouped(self._run_keys(order, passes), self.group)
            order, passes = order[places], None if passes is None else passes[places]
        return order.astype(_narrow(len(self.table)), copy=False), passes

    def _run_keys(
        self, order: npt.NDArray[np.integer[Any]], passes: npt.NDArray[np.int32] | None
    ) -> npt.NDArray[np.int64]:
        """int64 (N,): equal for places in an epoch that may share a decode, which are about one clip the same time, and
        within a batch where batches are of one part."""
        assert self._clips is not None
        keys = [self._clips[order]] if passes is None else [self._clips[order], passes]
        if self._mixture is not None and len(self._mixture.names) > 1 and self._mixture.batches == "part":
            keys.append(np.arange(len(order)) // self.global_batch)
        return keys[0] if len(keys) == 1 else np.unique(np.stack(keys), axis=1, return_inverse=True)[1].reshape(-1)

    def _load(self, first_row: int) -> Delivery:
        """This rank's rows of the global batch that starts at ``first_row`` of the stream. Runs in a worker."""
        examples: list[Example] = []
        tried = [[0, 0] for _ in self._tried]
        row_offset = self.rank * self.local_batch
        for row in range(first_row + row_offset, first_row + row_offset + self.local_batch):
            epoch, position = divmod(row, self.epoch_rows)
            order, passes = self._order(epoch)
            index = int(order[position])
            part = 0 if self._mixture is None else self._mixture.part_of(index)
            example, failures = self._draw(epoch if passes is None else int(passes[position]), index, part)
            examples.append(example)
            tried[part][0] += 1 + failures
            tried[part][1] += failures
        batch = collate(examples, self.pipeline.specs, self.pipeline.views, self.pipeline.fields)
        batch.row_offset, batch.global_rows, batch.step = row_offset, self.global_batch, first_row // self.global_batch
        if self.modality_dropout:
            withhold(batch, self.modality_dropout, self.seed, getattr(self.pipeline.text_spec, "pad_id", 0))
        return Delivery(batch, tried=np.array(tried))

    def _draw(self, epoch: int, index: int, part: int) -> tuple[Example, int]:
        """The example of one row, and how many samples had to be given up for it. Depends on keys and files, not on who
        failed first."""
        fresh = 0
        first, end = (0, len(self.table)) if self._mixture is None else self._mixture.bounds[part : part + 2]
        for attempt in range(_ATTEMPTS):
            place = index
            if attempt:
                generator = keyed_generator(self.seed, "replace", epoch, index, attempt)
                place = int(first + generator.integers(end - first))
            try:
                clip = None if self._clips is None else int(self._clips[place])
                return self.pipeline(self.table[place], epoch, place, clip), attempt
            except MediaError as error:
                fresh += not error.known
                if fresh == _FRESH_FAILURES:
                    break
            except VtpError:
                raise
            except Exception as error:  # of a task, a data set or vtp: no fault of the file
                raise while_loading(error, named(self.table, place)) from None
        raise RunError(
            f"no usable sample in {attempt + 1} draws in a row: the media seem to be away or damaged.\n"
            f"{self._reasons()}"
        )

    def _judge(self, delivery: Delivery) -> None:
        assert delivery.tried is not None
        self._tried += delivery.tried
        if not delivery.tried[:, 1].any():
            return
        limit = self.bad.max_bad_fraction
        draws, failed = self._tried.sum(0).tolist()
        found = [("", draws, failed, len(self.table))]
        if self._mixture is not None:  # a small part that is all damage would not show in the whole
            sizes = np.diff(self._mixture.bounds).tolist()
            found += [(name, *self._tried[i].tolist(), sizes[i]) for i, name in enumerate(self._mixture.names)]
        for name, draws, failed, size in found:
            if failed > limit * max(draws, min(size, _FIRST_LOOK)):
                raise RunError(
                    f"{failed} of {draws} samples {name and f'of {name} '}drawn so far could not be decoded, "
                    f"more than data.max_bad_fraction={limit:g} allows.\n"
                    f"{self._reasons()}\nRepair the files, or raise data.max_bad_fraction to accept the loss."
                )

    def _reasons(self) -> str:
        where = "" if self.bad.path is None else f" (all of them: {self.bad.path})"
        return f"Reasons{where}:\n{self.bad.table()}"


def _shuffled(table: Sequence[Sample], generator: np.random.Generator) -> npt.NDArray[np.integer[Any]]:
    """A random order of the rows of a table, by its own ``epoch_order`` where it has one."""
    if near := member(table, Table, "epoch_order"):
        return np.asarray(near(generator))
    return generator.permutation(np.arange(len(table), dtype=_narrow(len(table))))


def _narrow(rows: int) -> type[np.int32] | type[np.int64]:
    return np.int32 if rows < 2**31 else np.int64


def _clip_numbers(table: Sequence[Sample], pipeline: Pipeline) -> npt.NDArray[np.int64]:
    """int64 (N,): for each row the first row of the table that is about the same media."""
    bulk = member(table, Table, "media_numbers")
    if bulk is not None:
        return np.asarray(bulk(), np.int64)
    first: dict[tuple[object, ...], int] = {}
    return np.array([first.setdefault(tuple(pipeline.media(table[row])), row) for row in range(len(table))], np.int64)


def _grouped(clips: npt.NDArray[np.int64], group: int) -> npt.NDArray[np.int64]:
    """Places in another order, so that those of one clip form runs of at most ``group``; a run stands where its first
    place stood."""
    by_clip = np.argsort(clips, kind="stable")  # places, those of one clip together
    sorted_clips = clips[by_clip]
    starts = np.flatnonzero(np.r_[True, sorted_clips[1:] != sorted_clips[:-1]])
    place_in_clip = np.arange(len(clips)) - np.repeat(starts, np.diff(np.r_[starts, len(clips)]))
    leads = place_in_clip % group == 0  # first row of each run
    runs = np.cumsum(leads) - 1
    stands_at = by_clip[leads][runs]
    return by_clip[np.argsort(stands_at, kind="stable")]
