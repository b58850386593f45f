"""WebDataset tar shards: ``dataset=shards dataset.urls=DIR``, written by ``vtp data pack``, video2dataset or anything
that puts ``KEY.mp4`` (or decoded frames as ``KEY.npy``), ``KEY.txt`` and ``KEY.json`` into one tar file.

Shards of ``vtp data pack`` keep everything that the data set knew: its kinds and splits, all captions, questions with
their answers and options, spans and ids. Of other shards every key is a clip with one caption: its ``txt``, else
``caption`` of its ``json``.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.catalogue import SPLITS, ArrowTable, Samples, check_table, read_rows
from vtp.data.shards import find_shards, shard_order
from vtp.errors import ConfigError, DataError
from vtp.ranges import Count
from vtp.types import MediaRef, Sample
from vtp_datasets.shard_rows import CAPTIONS, LABELS, Part, ShardRows, short_names

__all__ = ["ShardTable", "Shards"]

log = logging.getLogger("vtp")

Urls = str | Path | Sequence[str | Path]
MOST_SHARDS = 32_767  # a row holds the number of its shard in 16 bits
MANIFEST = "manifest.json"  # of ``vtp data pack``; its ``namespace`` says which clips these are


class Shards:
    """Tar shards as a data set.

    Args:
        urls: shards of the training split: a folder, a file, a pattern such as ``DIR/{00000..00099}.tar``, or a list.
            Given alone, shards of ``vtp data pack`` give every split that they keep.
        val_urls, test_urls: those of the other splits; None = there is no such split. With one of them every row of
            ``urls`` is training data, and so on; of shards that keep several splits, the rows of that split.
        buffer: rows of the shuffle buffer: an epoch visits shards in random order, and a row at most so many places
            away from its place in them. 0 visits them as they are written.
        namespace: clips of data sets with one namespace are the same clips when their names are the same, which is how
            a test clip is found to be a training clip; None = that of the data set that was packed, else ``shards:``
            and the name of the folder. With a namespace of yours, keys are names of clips; else a clip of shards that
            ``vtp data pack`` did not write is ``SHARD/KEY``, because keys begin anew in every shard.

    Kinds: those that were packed; of other shards ``caption`` and ``retrieval``.
    """

    name = "shards"

    def __init__(
        self,
        *,
        urls: Urls | None = None,
        val_urls: Urls | None = None,
        test_urls: Urls | None = None,
        buffer: Count = 10_000,
        namespace: str | None = None,
    ) -> None:
        self.urls = dict(zip(SPLITS, (urls, val_urls, test_urls), strict=True))
        if all(value is None for value in self.urls.values()):
            raise ConfigError(
                "dataset=shards needs dataset.urls=FOLDER, the folder with the tar files. `vtp data pack SRC FOLDER` "
                "makes them. To try vtp without data: dataset=shapes."
            )
        for option, value in zip(("urls", "val_urls", "test_urls"), self.urls.values(), strict=True):
            several = [] if value is None else [value] if isinstance(value, str | Path) else value
            if not isinstance(several, Sequence) or not all(
                isinstance(url, str | Path) and str(url) for url in several
            ):
                raise ConfigError(f"dataset.{option}={value!r} must be a folder, a tar file, or a list of them.")
            if value is not None and not several:
                raise ConfigError(f"dataset.{option}=[] names no shards; null means that there is no such split.")
        if not isinstance(buffer, int) or isinstance(buffer, bool) or buffer < 0:
            raise ConfigError(f"dataset.buffer={buffer} must be a whole number of at least 0, for example 10000.")
        if namespace is not None and not isinstance(namespace, str):
            raise ConfigError(f"dataset.namespace={namespace!r} must be a name, for example msrvtt.")
        self.buffer = buffer
        self._namespace = namespace
        self._tables: dict[str, _Rows] = {}

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """What the samples allow."""
        found = dict.fromkeys(
            kind for split in self._given for part in self._rows(split).parts.values() for kind in part[0]
        )
        return tuple(sorted(found, key=lambda kind: [*CAPTIONS, "qa", "mc", kind].index(kind)))

    def splits(self, kind: str) -> tuple[str, ...]:
        """Those with shards, or those that the shards keep."""
        check_table(self.name, self.kinds, kind)
        return tuple(split for split in SPLITS if self._chosen(kind, split)[1])

    def samples(self, kind: str, split: str) -> Sequence[Sample]:
        """The table of a kind and split; empty without shards.

        Raises:
            ConfigError: no such kind or split.
            DataError: there are no shards, or one is damaged.
        """
        check_table(self.name, self.kinds, kind, split)
        rows, chosen = self._chosen(kind, split)
        if rows is None or not chosen:
            return ()
        if len(chosen) == len(rows.parts):
            return rows.table
        return rows.table.select(np.flatnonzero(np.isin(rows.table.table.splits(), chosen)))

    def origin(self) -> dict[str, Any]:
        """The shards with their sizes, rows and what is left out, and the rows of each split that was read."""
        tables: Counter[str] = Counter()
        for split, rows in self._tables.items():
            for number, (kinds, kept, held_out) in rows.parts.items():
                for kind in kinds:
                    tables[f"{kind}/{(kept or held_out or split) if self._alone else split}"] += rows.counts[number]
        return {
            "urls": {split: _text(urls) for split, urls in self.urls.items() if urls is not None},
            "files": [record for rows in self._tables.values() for record in rows.table.table.records()],
            "tables": {name: {"samples": count} for name, count in tables.items()},
            "buffer": self.buffer,
        }

    @cached_property
    def media_namespace(self) -> str:
        """Empty where shards come from several data sets: the names of their clips then begin with their namespace."""
        if self._namespace is not None:
            return self._namespace
        try:
            namespaces = set(self._namespaces.values())
        except DataError:  # whoever reads the table is told
            return self.name
        return namespaces.pop() if len(namespaces) == 1 else ""

    @property
    def _given(self) -> list[str]:
        return [split for split in SPLITS if self.urls[split] is not None]

    @property
    def _alone(self) -> bool:
        """Whether the shards themselves say what is in which split."""
        return self._given == ["train"]

    def _chosen(self, kind: str, split: str) -> tuple[_Rows | None, list[int]]:
        """The rows of which a table consists, and the numbers of their parts."""
        if not self._alone and self.urls[split] is None:
            return None, []
        rows = self._rows("train" if self._alone else split)
        of_kind = {number: part for number, part in rows.parts.items() if kind in part[0]}
        if self._alone:
            return rows, [n for n, (_, kept, held_out) in of_kind.items() if (kept or held_out or "train") == split]
        several = len({kept for _, kept, _ in of_kind.values()}) > 1
        return rows, [n for n, (_, kept, _) in of_kind.items() if not several or kept in (None, split)]

    @cached_property
    def _shards(self) -> dict[str, list[Path]]:
        """Split -> its shards."""
        return {split: [shard.absolute() for shard in find_shards(self.urls[split] or ())] for split in self._given}

    @cached_property
    def _namespaces(self) -> dict[Path, str]:
        """Folder of shards -> namespace of the clips in them."""
        folders = list(dict.fromkeys(shard.parent for shards in self._shards.values() for shard in shards))
        real = [Path(os.path.realpath(folder)) for folder in folders]
        names = short_names(list(dict.fromkeys(real)))
        packed = map(_packed_namespace, folders)
        return {
            folder: f"shards:{names[r]}" if namespace is None else namespace
            for folder, r, namespace in zip(folders, real, packed, strict=True)
        }

    def _rows(self, split: str) -> _Rows:
        if split not in self._tables:
            shards = self._shards[split]
            urls = _text(self.urls[split] or ())
            if len(shards) > MOST_SHARDS:
                raise DataError(f"{len(shards):,} shards are more than {MOST_SHARDS:,}: pack more clips into each.")
            several = self.media_namespace == ""
            namespaces = [self._namespaces[shard.parent] if several else "" for shard in shards]
            prefixes = [f"{namespace}:" if namespace else "" for namespace in namespaces]
            reading = ShardRows(shards, prefixes, keys_are_names=self._namespace is not None)
            source, info = read_rows(
                self.name,
                sorted({shard.parent for shard in shards}),
                {
                    "layout": 2,
                    "shards": list(map(str, shards)),
                    "prefixes": prefixes,
                    "keys": self._namespace is not None,
                },
                reading.rows,
                reading.records,
            )
            table = ArrowTable(source, info, _Members(shards))
            _warn(info["records"])
            if not len(table):
                raise DataError(f"there are no samples with media in the shards {urls}{_why(info['records'])}.")
            numbers = np.fromiter(table.column("file"), np.int16, count=len(table))
            self._tables[split] = _Rows(ShardTable(table, numbers, self.buffer), info["records"])
        return self._tables[split]


class _Rows:
    """The rows of some shards, and their parts: ``parts[n]`` is what the column ``split`` calls n."""

    def __init__(self, table: ShardTable, records: Sequence[Mapping[str, Any]]) -> None:
        self.table = table
        found: dict[int, Part] = {}
        counts: Counter[int] = Counter()
        for record in records:
            for number, kinds, kept, held_out, count in record["parts"]:
                found[number] = (tuple(kinds), kept, held_out)
                counts[number] += count
        self.parts = found
        self.counts = counts


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
        sample = self.table[position]
        if LABELS not in sample.extra:
            return sample
        extra = dict(sample.extra)
        labels = {**sample.labels, **extra.pop(LABELS)}
        return Sample(sample.id, sample.video, sample.audio, sample.texts, labels, extra)

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
    """Rows name members by the number of their shard and the place in it."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = [str(shard) for shard in shards]

    def ref(self, name: str, start: float | None = None, end: float | None = None) -> MediaRef:
        number, _, place = name.partition("!")
        return MediaRef(f"{self.shards[int(number)]}!{place}", start, end)

    def __contains__(self, name: str) -> bool:
        return os.path.exists(self.shards[int(name.partition("!")[0])])


def _packed_namespace(folder: Path) -> str | None:
    try:
        namespace = json.loads((folder / MANIFEST).read_bytes()).get("namespace")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return namespace if isinstance(namespace, str) else None


def _warn(records: Sequence[Mapping[str, Any]]) -> None:
    """Say on the log what is left out, in a few lines however many shards there are."""
    if count := sum(record["malformed"] for record in records):
        shards = sum(record["malformed"] > 0 for record in records)
        log.warning("%d samples of %d shards are left out%s", count, shards, _why(records))
    for what in ("damaged", "members_of_no_sample"):
        told = [(Path(record["path"]).name, record[what]) for record in records if what in record]
        if told:
            more = f"; {len(told) - 1} more shards" if len(told) > 1 else ""
            log.warning("%s: %s: %s%s", told[0][0], what.replace("_", " "), told[0][1], more)


def _why(records: Sequence[Mapping[str, Any]]) -> str:
    first = [f"{Path(r['path']).name}: {why}" for r in records for why in r["malformed_first"]][:3]
    return f" ({'; '.join(first)})" if first else ""


def _text(urls: Urls) -> str:
    return str(urls) if isinstance(urls, str | Path) else ", ".join(map(str, urls))
