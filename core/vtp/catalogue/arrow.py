"""Tables of samples in Arrow columns: what readers write row by row, and loaders read row by row.

A small table stays in memory. One of more than 65,536 rows is written to a file once and mapped into memory by every
process that reads it, so that millions of captions cost each of them next to nothing: pages are shared, and are given
back when memory gets tight. The file lies in ``$VTP_CACHE/annotations`` (``~/.cache/vtp/annotations``), or in a folder
for temporary files where that cannot be written. Its name holds a hash of the sources, so changed annotations are read
again; it appears under its name only when it is complete, and of several processes one writes it while the others wait.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vtp.catalogue.arrow_file import ArrowFile, cache_folder, description, fingerprint, locked
from vtp.catalogue.media_files import Media
from vtp.data.keys import hash64
from vtp.types import Sample

__all__ = [
    "BATCH_ROWS",
    "NONE",
    "ArrowTable",
    "GroupedTable",
    "Row",
    "Samples",
    "grouped",
    "read_rows",
]

log = logging.getLogger("vtp")

VERSION = 2  # of the columns below; a table of another version is written again
_BLOCK_ROWS = 1024  # that become columns at once, which is faster than cell by cell
BATCH_ROWS = 65_536  # rows of every record batch but the last, and of the biggest table that stays in memory
PASS_ROWS = 1024  # rows that a pass over all samples reads at once
NONE = ""  # ``Row.audio`` of an item that has no sound

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("video_id", pa.string()),
        ("video", pa.string()),
        ("audio", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("texts", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("answer_index", pa.int32()),
        ("question_type", pa.string()),
        ("category", pa.string()),
        ("duration", pa.float32()),
        ("split", pa.int8()),
        ("file", pa.int16()),
        ("place", pa.string()),
        ("extra", pa.string()),
    ]
)


@dataclass(slots=True)
class Row:
    """One item as a reader finds it.

    Attributes:
        id: unique in the table.
        texts: captions, or the question, or the candidates of a multiple choice.
        video_id: name of the clip; None = ``id``.
        video: what :class:`~vtp.catalogue.media_files.Media` finds the file by; None = ``video_id``, :data:`NONE` = the
            item has no picture.
        audio: the same for the sound; None = that of the video file, :data:`NONE` = no sound.
        start, end: span in seconds.
        answer, answer_index, question_type, category: as in :class:`vtp.types.Sample`.
        duration: of the whole clip in seconds, where annotations tell it.
        split: number of the split, in files that hold several.
        file: which of the sources it is from.
        place: line or position in that file.
        extra: anything else for ``Sample.extra``; JSON-able.
    """

    id: str
    texts: Sequence[str]
    video_id: str | None = None
    video: str | None = None
    audio: str | None = None
    start: float | None = None
    end: float | None = None
    answer: str | None = None
    answer_index: int | None = None
    question_type: str | None = None
    category: str | None = None
    duration: float | None = None
    split: int | None = None
    file: int = 0
    place: int | str = 0
    extra: Mapping[str, Any] | None = None


def read_rows(
    name: str,
    sources: Sequence[Path],
    options: Mapping[str, Any],
    rows: Callable[[], Iterable[Row]],
    records: Callable[[], list[dict[str, Any]]],
    *,
    keep: bool = True,
) -> tuple[pa.Table | Path, dict[str, Any]]:
    """The columns of ``rows``: in memory, or the file that they were written to, now or before.

    Args:
        name: first part of the file's name.
        sources: the annotation files (or folders of them); what is in them decides whether a written file is right.
        options: everything else that decides which rows come out; JSON-able.
        rows: reads the sources; called only when nothing was kept.
        records: what is to be remembered of the sources, asked for after ``rows``.
        keep: False never writes a file: for rows that hold more than what is in ``sources``.

    Returns:
        the table or its path, and ``{"records": ..., "used": names of the columns that hold anything}``.
    """
    few = 8 * BATCH_ROWS  # bytes: too few for a table that is written
    if not keep or sum(path.stat().st_size if path.is_file() else few for path in sources) < few:
        return _gather(iter(rows()), records)
    same = json.dumps([VERSION, name, [str(path.absolute()) for path in sources], options], sort_keys=True, default=str)
    series = f"{name}-{hashlib.sha256(same.encode()).hexdigest()[:16]}"
    folder = cache_folder()
    target = folder / f"{series}-{fingerprint(sources)}.arrow"
    with locked(folder / f"{series}.lock"):
        if target.exists():
            try:
                return target, description(target)
            except (OSError, ValueError, pa.ArrowException) as error:
                log.warning("%s is damaged (%s) and is written again", target, error)
        table, info = _gather(iter(rows()), records, target)
        if isinstance(table, Path):
            for old in folder.glob(f"{series}-*.arrow"):
                if old != target:
                    old.unlink(missing_ok=True)
        return table, info


def _gather(
    rows: Iterator[Row], records: Callable[[], list[dict[str, Any]]], target: Path | None = None
) -> tuple[pa.Table | Path, dict[str, Any]]:
    """Write rows to ``target`` if there are more than one batch of them, else (and without ``target``) keep them."""
    used: set[str] = set()
    kept: list[pa.RecordBatch] = []
    writer: ArrowFile | None = None
    try:
        for batch in _batches(rows, used):
            if kept and target is not None and writer is None:
                writer = ArrowFile(target, _SCHEMA)
                writer.add(kept.pop())
            if writer is None:
                kept.append(batch)
            else:
                writer.add(batch)
        info = {"records": records(), "used": sorted(used)}
        if writer is None or target is None:
            return pa.Table.from_batches(kept, _SCHEMA), info
        writer.finish(info)
        return target, info
    finally:
        if writer is not None:
            writer.unfinished.unlink(missing_ok=True)


def _batches(rows: Iterator[Row], used: set[str]) -> Iterator[pa.RecordBatch]:
    names = _SCHEMA.names
    while True:
        columns: list[list[Any]] = [[] for _ in names]
        while (room := BATCH_ROWS - len(columns[0])) > 0:
            block = [_cells(row) for row in itertools.islice(rows, min(room, _BLOCK_ROWS))]
            if not block:
                break
            for values, more in zip(columns, zip(*block, strict=True), strict=True):
                values += more
        if not columns[0]:
            return
        used.update(name for name, values in zip(names, columns, strict=True) if values.count(None) < len(values))
        arrays = [pa.array(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA)
        if len(columns[0]) < BATCH_ROWS:
            return


def _cells(row: Row) -> tuple[Any, ...]:
    clip = row.video_id or row.id
    video = None if row.video == clip else row.video
    if video is not None and video.endswith(f"/{clip}"):
        video = video[: -len(clip)]  # a folder: the name follows from the clip
    return (
        row.id,
        None if clip == row.id else clip,
        video,
        row.audio,
        row.start,
        row.end,
        row.texts,
        row.answer,
        row.answer_index,
        row.question_type,
        row.category,
        row.duration,
        row.split,
        row.file,
        str(row.place),
        json.dumps(row.extra, ensure_ascii=False) if row.extra else None,
    )


class Samples(Sequence[Sample]):
    """Samples by position, also from the end, and slices of them as lists, in terms of ``sample_at``."""

    @abstractmethod
    def sample_at(self, position: int) -> Sample:
        """The sample of a row in [0, N)."""

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self.sample_at(i) for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"row {index} of a table with {len(self):,} rows")
        return self.sample_at(position)


class ArrowTable(Samples):
    """Rows of :func:`read_rows` as samples, which are made when they are asked for.

    Args:
        source: the columns, or the file that holds them; a file is opened by each process when it first reads.
        info: as :func:`read_rows` gives it.
        media: finds the file of the picture, and of the sound where it is the same file.
        sound: finds the file of the sound where a row names one; None = ``media``.
        rows: int array (N,), which rows in which order; None = all.
    """

    def __init__(
        self,
        source: pa.Table | Path,
        info: Mapping[str, Any],
        media: Media,
        sound: Media | None = None,
        rows: npt.NDArray[np.integer[Any]] | None = None,
    ) -> None:
        self._source = source
        self._info = info
        self._used = frozenset(info["used"])
        self._files = tuple(Path(record["path"]).name for record in info["records"])
        self.media = media
        self.sound = media if sound is None else sound
        self._rows = rows
        self._opened: dict[str, list[Any] | None] | None = None
        self._length = len(rows) if rows is not None else self._count()

    def __len__(self) -> int:
        return self._length

    def select(self, rows: npt.NDArray[Any]) -> ArrowTable:
        """A view of the rows ``rows`` (integers (N,)) in that order; columns are shared."""
        chosen = np.asarray(rows) if self._rows is None else self._rows[rows]
        narrow = chosen.astype(np.int32) if self._count() < 2**31 else chosen.astype(np.int64)
        return ArrowTable(self._source, self._info, self.media, self.sound, narrow)

    def video_ids(self) -> Iterator[str]:
        """The clip of every row, in order, without making samples."""
        for name, clip in zip(self.column("id"), self.column("video_id"), strict=True):
            yield clip or name

    def all_texts(self) -> Iterator[str]:
        """Every text of every row, in order, without making samples."""
        for texts in self.column("texts"):
            yield from texts

    def clips_on_disk(self) -> dict[str, bool]:
        """Clip -> whether its file is there (of the picture, or of the sound of what has no picture)."""
        found: dict[str, bool] = {}
        for name, clip, video, audio in zip(*map(self.column, ("id", "video_id", "video", "audio")), strict=True):
            clip = clip or name
            if clip not in found:
                found[clip] = (audio or clip) in self.sound if video == NONE else _name(video, clip) in self.media
        return found

    def media_numbers(self) -> npt.NDArray[np.int64]:
        """int64 (N,): for every row the first row about the same media and span."""
        fields = zip(*map(self.column, ("id", "video_id", "video", "audio", "start", "end")), strict=True)
        hashes = np.fromiter(
            (
                hash64(f"{clip or name}\0{video}\0{audio}\0{start}\0{end}")
                for name, clip, video, audio, start, end in fields
            ),
            np.uint64,
            count=self._length,
        )
        _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        return first[inverse]

    def texts(self, index: int) -> tuple[str, ...]:
        """The texts of one row, without its sample."""
        return tuple(self._cell("texts", self._row(index)))

    def column(self, name: str) -> Iterator[Any]:
        """The cells of one column of :class:`Row` in the order of the table. One batch at a time is mapped into memory,
        and let go of again."""
        for start in range(0, self._length, BATCH_ROWS):
            stop = min(start + BATCH_ROWS, self._length)
            if name not in self._used:
                yield from itertools.repeat(None, stop - start)
            elif self._rows is None:
                yield from self._batch(name, start // BATCH_ROWS).to_pylist()
            else:
                yield from self._cells(name, self._rows[start:stop])

    def splits(self) -> npt.NDArray[np.int8]:
        """int8 (N,): ``Row.split`` of every row, -1 = none."""
        return np.fromiter((-1 if s is None else s for s in self.column("split")), np.int8, count=self._length)

    def records(self) -> list[dict[str, Any]]:
        """What is remembered of the sources, see :meth:`vtp.catalogue.annotations.AnnotationFile.record`."""
        return list(self._info["records"])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    # -- columns -----------------------------------------------------------------------------------------------------

    @property
    def _columns(self) -> dict[str, list[Any] | None]:
        """The batches of every column, None of one without a value, in the order of the schema."""
        if self._opened is None:
            table = self._source
            if isinstance(table, Path):
                table = pa.ipc.open_file(pa.memory_map(str(table))).read_all()
            self._opened = {name: table.column(name).chunks if name in self._used else None for name in _SCHEMA.names}
        return self._opened

    def _batch(self, name: str, number: int) -> Any:
        """One column of one batch; of a file by a map of its own, which goes with the last reference to the result."""
        if isinstance(self._source, Path):
            return pa.ipc.open_file(pa.memory_map(str(self._source))).get_batch(number).column(name)
        return (self._columns[name] or ())[number]

    def _cells(self, name: str, rows: npt.NDArray[Any]) -> list[Any]:
        """The cells of some rows, in their order."""
        numbers, inside = np.divmod(rows, BATCH_ROWS)
        by_batch = np.argsort(numbers, kind="stable")
        values: list[Any] = []
        for number in np.unique(numbers).tolist():
            wanted = inside[by_batch][numbers[by_batch] == number]
            values += self._batch(name, number).take(pa.array(wanted)).to_pylist()
        if len(values) < 2 or (by_batch[1:] > by_batch[:-1]).all():
            return values
        found: list[Any] = [None] * len(rows)
        for place, value in zip(by_batch.tolist(), values, strict=True):
            found[place] = value
        return found

    def _count(self) -> int:
        return sum(map(len, self._columns["id"] or ()))

    def _row(self, position: int) -> int:
        return int(position if self._rows is None else self._rows[position])

    def _cell(self, name: str, row: int) -> Any:
        batches = self._columns[name]
        return None if batches is None else batches[row // BATCH_ROWS][row % BATCH_ROWS].as_py()

    def sample_at(self, position: int) -> Sample:
        number, inside = divmod(self._row(position), BATCH_ROWS)
        columns = self._columns.values()
        return self._sample([None if batches is None else batches[number][inside].as_py() for batches in columns])

    def __iter__(self) -> Iterator[Sample]:
        nothing = itertools.repeat(None)
        for start in range(0, self._length, PASS_ROWS):
            stop = min(start + PASS_ROWS, self._length)
            rows = np.arange(start, stop) if self._rows is None else self._rows[start:stop]
            columns = (self._cells(name, rows) if name in self._used else nothing for name in _SCHEMA.names)
            yield from map(self._sample, zip(*columns, strict=False))

    def _sample(self, cells: Sequence[Any]) -> Sample:
        """A sample from one cell of every column."""
        name, clip, picture, sound, start, end, texts, answer, answer_index, kind, category, duration = cells[:12]
        _, file, place, more = cells[12:]
        clip = clip or name
        video = None if picture == NONE else self.media.ref(_name(picture, clip), start, end)
        audio = video if sound is None else None if sound == NONE else self.sound.ref(sound, start, end)
        labels = {"answer": answer, "answer_index": answer_index}
        labels = {key: value for key, value in labels.items() if value is not None}
        facts = {"question_type": kind, "category": category, "duration": duration}
        extra: dict[str, Any] = {"video_id": clip, "source": f"{self._files[file]}:{place}"}
        extra |= {key: value for key, value in facts.items() if value is not None}
        if more is not None:
            extra |= json.loads(more)
        return Sample(name, video, audio, tuple(texts), labels, extra)


class GroupedTable(Samples):
    """Another table with the rows about one clip as one sample that has all their texts; the rest is that of its first
    row.

    Args:
        table: the rows.
        order: int (rows,), rows of one clip next to each other.
        starts: int (N,), where in ``order`` each sample begins.
    """

    def __init__(self, table: ArrowTable, order: npt.NDArray[Any], starts: npt.NDArray[Any]) -> None:
        self.table = table
        self._order = order
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts)

    def sample_at(self, position: int) -> Sample:
        end = self._starts[position + 1] if position + 1 < len(self) else len(self._order)
        rows = self._order[self._starts[position] : end]
        first = self.table[int(rows[0])]
        parts = (first.texts, *(self.table.texts(int(row)) for row in rows[1:]))
        texts = tuple(text for part in parts for text in part)
        return Sample(first.id, first.video, first.audio, texts, first.labels, first.extra)

    def select(self, rows: npt.NDArray[Any]) -> GroupedTable:
        """A view of some samples."""
        lengths = np.diff(np.r_[self._starts, len(self._order)])[rows]
        starts = np.cumsum(lengths) - lengths
        places = np.repeat(self._starts[rows] - starts, lengths) + np.arange(lengths.sum())
        return GroupedTable(self.table, self._order[places], starts)

    def video_ids(self) -> Iterator[str]:
        """As :meth:`ArrowTable.video_ids`."""
        return self.table.select(self._order[self._starts]).video_ids()

    def clips_on_disk(self) -> dict[str, bool]:
        """As :meth:`ArrowTable.clips_on_disk`."""
        return self.table.select(self._order[self._starts]).clips_on_disk()

    def all_texts(self) -> Iterator[str]:
        """As :meth:`ArrowTable.all_texts`."""
        return self.table.select(self._order).all_texts()

    def media_numbers(self) -> npt.NDArray[np.int64]:
        """As :meth:`ArrowTable.media_numbers`: every sample has its own."""
        return np.arange(len(self))

    def records(self) -> list[dict[str, Any]]:
        """As :meth:`ArrowTable.records`."""
        return self.table.records()

    @property
    def media(self) -> Media:
        """As of the rows."""
        return self.table.media


def grouped(table: ArrowTable) -> ArrowTable | GroupedTable:
    """One sample per clip (and span), in order of first appearance; ``table`` itself where no clip comes twice."""
    numbers = table.media_numbers()
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(numbers[order]) != 0]) if len(order) else order
    if len(starts) == len(table):
        return table
    narrow = np.int32 if len(order) < 2**31 else np.int64
    return GroupedTable(table, order.astype(narrow), starts.astype(narrow))


def _name(video: str | None, clip: str) -> str:
    """What the media file of a clip is found by."""
    return clip if video is None else video + clip if video.endswith("/") else video
