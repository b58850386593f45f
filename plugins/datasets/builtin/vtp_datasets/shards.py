"""WebDataset tar shards: ``dataset=shards dataset.urls=DIR``, written by ``vtp data pack``, video2dataset or anything
that puts ``KEY.mp4`` (or decoded frames as ``KEY.npy``), ``KEY.txt`` and ``KEY.json`` next to each other.

Shards of ``vtp data pack`` keep everything that the data set knew: all captions, or questions with their answers,
spans and ids. Of other shards every key is a clip with one caption: its ``txt``, else ``caption`` of its ``json``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.catalogue import (
    IMAGES,
    NONE,
    SOUNDS,
    SPLITS,
    VIDEOS,
    ArrowTable,
    Row,
    Samples,
    check_table,
    read_rows,
)
from vtp.data.shards import Group, find_shards, shard_indices, shard_order
from vtp.errors import ConfigError, DataError
from vtp.media.member import member_path, split_member
from vtp.types import MediaRef, Sample

__all__ = ["ShardTable", "Shards"]

Urls = str | Path | Sequence[str | Path]
MOST_SHARDS = 32_767  # a row holds the number of its shard in 16 bits


class Shards:
    """Tar shards as a data set.

    Args:
        urls: shards of the training split: a folder, a file, a pattern such as ``DIR/{00000..00099}.tar``, or a list.
        val_urls, test_urls: those of the other splits; None = there is no such split.
        buffer: rows of the shuffle buffer: an epoch visits shards in random order, and a row at most so many places
            away from its place in them. 0 visits them as they are written.
        namespace: clips of data sets with one namespace are the same clips when their names are the same, which is how
            a test clip is found to be a training clip; None = ``shards:`` and the name of the training folder.

    Kinds: ``qa`` or ``mc`` where the packed samples have answers, else ``caption`` and ``retrieval``.
    """

    name = "shards"

    def __init__(
        self,
        *,
        urls: Urls | None = None,
        val_urls: Urls | None = None,
        test_urls: Urls | None = None,
        buffer: int = 10_000,
        namespace: str | None = None,
    ) -> None:
        if urls is None and val_urls is None and test_urls is None:
            raise ConfigError(
                "dataset=shards needs dataset.urls=FOLDER, the folder with the tar files. `vtp data pack SRC FOLDER` "
                "makes them. To try vtp without data: dataset=shapes."
            )
        if buffer < 0:
            raise ConfigError(f"dataset.buffer={buffer} must be at least 0, for example 10000.")
        self.urls = dict(zip(SPLITS, (urls, val_urls, test_urls), strict=True))
        self.buffer = buffer
        first = next(value for value in self.urls.values() if value is not None)
        folder = Path(first if isinstance(first, str | Path) else first[0])
        self.media_namespace = f"shards:{folder.name}" if namespace is None else namespace
        self._tables: dict[str, ShardTable] = {}

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """What the samples allow."""
        table = self._table(next(split for split in SPLITS if self.urls[split] is not None))
        labels = table[0].labels if len(table) else {}
        if "answer_index" in labels:
            return ("mc",)
        return ("qa",) if "answer" in labels else ("caption", "retrieval")

    def splits(self, kind: str) -> tuple[str, ...]:
        """Those with shards."""
        check_table(self.name, self.kinds, kind)
        return tuple(split for split in SPLITS if self.urls[split] is not None)

    def samples(self, kind: str, split: str) -> Sequence[Sample]:
        """The table of a split; empty without shards.

        Raises:
            ConfigError: no such kind or split.
            DataError: there are no shards, or one is damaged.
        """
        check_table(self.name, self.kinds, kind, split)
        return self._table(split) if self.urls[split] is not None else ()

    def origin(self) -> dict[str, Any]:
        """The shards with their sizes, and the rows of each split that was read."""
        return {
            "urls": {split: _text(urls) for split, urls in self.urls.items() if urls is not None},
            "files": [record for table in self._tables.values() for record in table.table.records()],
            "tables": {split: {"samples": len(table)} for split, table in self._tables.items()},
            "buffer": self.buffer,
        }

    def _table(self, split: str) -> ShardTable:
        if split not in self._tables:
            urls = self.urls[split]
            assert urls is not None
            shards = [shard.absolute() for shard in find_shards(urls)]
            if len(shards) > MOST_SHARDS:
                raise DataError(f"{len(shards):,} shards are more than {MOST_SHARDS:,}: pack more clips into each.")
            records = [{"path": str(shard), "bytes": shard.stat().st_size} for shard in shards]
            source, info = read_rows(
                self.name,
                sorted({shard.parent for shard in shards}),
                {"shards": [str(shard) for shard in shards]},
                lambda: _rows(shards),
                lambda: records,
            )
            table = ArrowTable(source, info, _Members())
            if not len(table):
                raise DataError(f"there are no samples with media in the shards {_text(urls)}.")
            numbers = np.fromiter(table.column("file"), np.int16, count=len(table))
            self._tables[split] = ShardTable(table, numbers, self.buffer)
        return self._tables[split]


class ShardTable(Samples):
    """The rows of shards, with the order in which an epoch should visit them.

    Args:
        table: the rows.
        shards: int16 (N,), the shard of every row.
        buffer: of :func:`vtp.data.shards.shard_order`.
    """

    def __init__(self, table: ArrowTable, shards: npt.NDArray[np.int16], buffer: int) -> None:
        self.table = table
        self.shards = shards
        self.buffer = buffer

    def __len__(self) -> int:
        return len(self.table)

    def sample_at(self, position: int) -> Sample:
        return self.table[position]

    def epoch_order(self, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """int64 (N,): shards in random order, rows within reach of the shuffle buffer."""
        return shard_order(self.shards, self.buffer, generator)

    def select(self, rows: npt.NDArray[Any]) -> ShardTable:
        """A view of some rows."""
        return ShardTable(self.table.select(rows), self.shards[rows], self.buffer)

    def video_ids(self) -> Iterator[str]:
        """The clip of every row, without making samples."""
        return self.table.video_ids()

    def all_texts(self) -> Iterator[str]:
        """Every text of every row, without making samples."""
        return self.table.all_texts()

    def media_numbers(self) -> npt.NDArray[np.int64]:
        """int64 (N,): for every row the first row about the same media and span."""
        return self.table.media_numbers()


class _Members:
    """Rows name members by their whole path already."""

    def ref(self, name: str, start: float | None = None, end: float | None = None) -> MediaRef:
        return MediaRef(name, start, end)

    def __contains__(self, name: str) -> bool:
        member = split_member(name)
        return member is not None and os.path.exists(member.tar)


def _rows(shards: Sequence[Path]) -> Iterator[Row]:
    for number, (shard, groups) in enumerate(zip(shards, shard_indices(shards), strict=True)):
        for group in groups:
            video, audio = _media(shard, group)
            if video == audio == NONE:
                continue
            for name, record in _samples(shard, group):
                yield _row(number, group, name, record, video, audio)


def _media(shard: Path, group: Group) -> tuple[str, str | None]:
    """``Row.video`` and ``Row.audio`` of a key."""
    if "npy" in group.members:  # the sound, and the times of frames and sound, are in members beside it
        video = member_path(str(shard), group.begin, group.end - group.begin, f"{group.key}.npy")
        return video, NONE if group.record.get("silent") else None
    sounds = [e for e in group.members if e.startswith("audio.") or f".{e}" in SOUNDS]
    pictures = [e for e in group.members if e not in sounds and f".{e}" in VIDEOS | IMAGES]
    video, audio = (
        member_path(str(shard), *group.members[found[0]], f"{group.key}.{found[0]}") if found else NONE
        for found in (pictures, sounds)
    )
    if pictures and not sounds and not group.record.get("silent"):
        return video, None
    return video, audio


def _samples(shard: Path, group: Group) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, record) of every sample of a key."""
    samples = group.record.get("samples")
    if isinstance(samples, list) and all(isinstance(sample, dict) and "id" in sample for sample in samples):
        for sample in samples:
            yield str(sample["id"]), sample
        return
    caption = group.text if group.text is not None else group.record.get("caption")
    texts = caption if isinstance(caption, list) else [] if caption is None else [caption]
    yield f"{shard.stem}/{group.key}", {"texts": [str(text) for text in texts]}


def _row(number: int, group: Group, name: str, record: dict[str, Any], video: str, audio: str | None) -> Row:
    labels, extra = dict(record.get("labels") or {}), dict(record.get("extra") or {})
    extra.pop("source", None)
    answer, answer_index = labels.get("answer"), labels.get("answer_index")
    return Row(
        id=name,
        texts=record.get("texts") or (),
        video_id=str(extra.pop("video_id", group.key)),
        video=video,
        audio=audio,
        start=record.get("start"),
        end=record.get("end"),
        answer=None if answer is None else str(answer),
        answer_index=None if answer_index is None else int(answer_index),
        question_type=extra.pop("question_type", None),
        file=number,
        place=group.key,
        extra=extra or None,
    )


def _text(urls: Urls) -> str:
    return str(urls) if isinstance(urls, str | Path) else ", ".join(map(str, urls))
