"""What data sets that are read from files share: files are found under a root, what is missing is told at once, every
table is made once, and the run record says what was read. A reader brings a plan per table: which files, and how they
become rows.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from vtp.catalogue.annotations import AnnotationFile, find_file, warn_of_malformed
from vtp.catalogue.arrow import ArrowTable, GroupedTable, Row, grouped, read_rows
from vtp.catalogue.media_files import Media
from vtp.errors import ConfigError, DataError
from vtp.types import Sample

__all__ = [
    "SPLITS",
    "Catalogue",
    "Plan",
    "Table",
    "check_choice",
    "check_table",
    "given_or",
]

log = logging.getLogger("vtp")

SPLITS = ("train", "val", "test")
COUNT_ON_DISK = 100_000  # rows up to which the run record says how many clips have a file

Table = ArrowTable | GroupedTable


@dataclass(frozen=True)
class Plan:
    """How one table is made.

    Attributes:
        files: the annotation files; of each the names it goes by, the first that exists counts.
        rows: from these files, in that order, to rows. It counts what it understands in :attr:`AnnotationFile.rows` and
            notes the rest with :meth:`AnnotationFile.reject`.
        media, sound: find the files of pictures and, where rows name them separately, of sound.
        options: everything but the files that decides which rows come out.
        group: rows about one clip become one sample with all their texts.
        split: of rows with ``Row.split`` the number that belongs to this table; None = all rows.
        sources: further files or folders that are known to be there, after ``files``.
        keep: whether the rows may be kept in a file for the next time.
    """

    files: tuple[tuple[str, ...], ...]
    rows: Callable[..., Iterable[Row]]
    media: Callable[[], Media]
    sound: Callable[[], Media] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    group: bool = False
    split: int | None = None
    sources: tuple[Path, ...] = ()
    keep: bool = True


class Catalogue(ABC):
    """A data set that is read from annotation files under one root. A subclass says what it is called, where its files
    lie, and brings :meth:`plan`.

    Args:
        root: its folder; None = ``$VTP_DATA/<namespace>``, or ``data/<namespace>`` without that variable.
        recorded: options that decide which samples come out, for the run record.

    Attributes:
        name: of the data set, as registered.
        media_namespace: of its clips, see :class:`vtp.contracts.Dataset`; by default its name.
        folders: where under ``root`` annotation files are looked for.
        about: where the data come from, for the message that tells what is missing.
        clips: what the media are called in that message, and in which folders under ``root`` they are looked for.
    """

    name: str
    media_namespace: str = ""
    folders: Sequence[str] = ("", "annotations")
    about: str = ""
    clips: str = ""

    def __init__(self, root: str | Path | None = None, **recorded: Any) -> None:
        self.media_namespace = self.media_namespace or self.name
        usual = Path(os.environ.get("VTP_DATA", "data")) / self.media_namespace
        self.root = (usual if root is None else Path(root)).expanduser()
        self._recorded = recorded
        self._read: dict[Any, ArrowTable] = {}
        self._tables: dict[tuple[str, str], Table] = {}

    @property
    @abstractmethod
    def kinds(self) -> Sequence[str]:
        """Which tables it has."""

    @abstractmethod
    def plan(self, kind: str, split: str) -> Plan | None:
        """How the table of a kind (one of ``kinds``) and split is made; None = there is no such split by definition."""

    def part(self, table: Table, split: str) -> Table:
        """What belongs to the split of the table that :meth:`plan` makes, by default all of it."""
        return table

    def splits(self, kind: str) -> tuple[str, ...]:
        """Splits of a kind that exist by definition."""
        check_table(self.name, self.kinds, kind)
        return tuple(split for split in SPLITS if self.plan(kind, split) is not None)

    def samples(self, kind: str, split: str) -> Sequence[Sample]:
        """The table of one kind and split; empty where there is no such split by definition.

        Raises:
            ConfigError: the data set has no such kind, or there is no such split at all.
            DataError: files are missing; the message lists every one that this kind needs.
        """
        check_table(self.name, self.kinds, kind, split)
        if (kind, split) not in self._tables:
            plan = self.plan(kind, split)
            if plan is None:
                return ()
            rows = self._rows(plan, kind)
            if plan.split is not None:
                rows = rows.select((rows.splits() == plan.split).nonzero()[0])
            table = self.part(grouped(rows) if plan.group else rows, split)
            self._tables[kind, split] = table
            self._say_if_all_media_are_missing(table, split)
        return self._tables[kind, split]

    def origin(self) -> dict[str, Any]:
        """What the run record keeps: the root, every annotation file that was read with its sha256, rows and malformed
        rows, for each table how many samples it has and (of small ones) how many have their file, and options."""
        files = {record["path"]: record for table in self._read.values() for record in table.records()}
        return {
            "root": str(self.root.absolute()),
            "files": list(files.values()),
            "tables": {f"{kind}/{split}": _facts(table) for (kind, split), table in self._tables.items()},
            **self._recorded,
        }

    def find(self, *names: str) -> Path | None:
        """The annotation file that goes by one of ``names``, or None."""
        return find_file([self.root / folder for folder in self.folders], names)

    def _rows(self, plan: Plan, kind: str) -> ArrowTable:
        paths = [*(self.find(*names) for names in plan.files), *plan.sources]
        if not paths or any(path is None for path in paths):
            raise DataError(self._what_is_missing(kind))
        found = [path for path in paths if path is not None]
        key = (tuple(found), repr(sorted(plan.options.items())))
        if key not in self._read:
            files = [AnnotationFile(path) for path in found]
            source, info = read_rows(
                self.name,
                found,
                plan.options,
                lambda: plan.rows(*files),
                lambda: [file.record() for file in files],
                keep=plan.keep,
            )
            for record in info["records"]:
                warn_of_malformed(record)
            sound = None if plan.sound is None else plan.sound()
            self._read[key] = ArrowTable(source, info, plan.media(), sound)
        return self._read[key]

    def _say_if_all_media_are_missing(self, table: Table, split: str) -> None:
        some = [table[row] for row in range(0, len(table), max(1, len(table) // 100))]
        media = [ref.path for sample in some for ref in (sample.video, sample.audio) if ref is not None]
        if media and not any(os.path.exists(path) for path in media):
            log.warning(
                "%s: of %d samples of the %s split that were looked at, none has its media; the first should be %s",
                self.name, len(some), split, media[0],
            )  # fmt: skip

    def _what_is_missing(self, kind: str) -> str:
        plans = [plan for split in SPLITS if (plan := self.plan(kind, split)) is not None]
        wanted = dict.fromkeys(names for plan in plans for names in plan.files)
        lines = [f"  file    {' or '.join(names)}" for names in wanted if self.find(*names) is None]
        if not self.root.is_dir():
            lines.insert(0, f"  folder  {self.root.absolute()}")
            lines += [f"  media   {self.clips}"] if self.clips else []
        looked = ", ".join(f"{name}/" if name else "./" for name in self.folders)
        return "\n".join(
            [
                f"{self.name} is not complete under {self.root.absolute()}. Missing:",
                *lines,
                f"Looked for files in {looked} of that folder. dataset.root=FOLDER names another folder.",
                *filter(None, [self.about]),
                "docs/datasets.md shows every layout. To try vtp without it, on generated data: dataset=shapes",
            ]
        )


def _facts(table: Table) -> dict[str, Any]:
    """What the run record keeps of a table."""
    facts: dict[str, Any] = {"samples": len(table)}
    if len(table) <= COUNT_ON_DISK:
        clips = table.clips_on_disk()
        facts |= {"clips": len(clips), "clips_on_disk": sum(clips.values())}
    return facts


def given_or(given: str | Path | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    """Names of an annotation file: the one that the user gave, relative to the root or to the working directory, or the
    usual ones."""
    return usual if given is None else (str(Path(given).expanduser()), str(Path(given).expanduser().absolute()))


def check_choice(key: str, value: Any, known: Any) -> None:
    """Refuse a value of ``dataset.<key>`` that is not in ``known`` (a Literal or a sequence).

    Raises:
        ConfigError: names what can be chosen.
    """
    choices = get_args(known) or tuple(known)
    if value not in choices:
        raise ConfigError(f"dataset.{key}={value!r} must be one of {', '.join(map(str, choices))}.")


def check_table(name: str, kinds: Sequence[str], kind: str, split: str = "test") -> None:
    """Refuse a kind that a data set does not have, or a split that no data set has.

    Raises:
        ConfigError: names what there is.
    """
    if kind not in kinds:
        raise ConfigError(
            f"data set {name} has no table of the kind {kind!r}; it has: {', '.join(kinds)}. Choose another task, or a "
            f"data set that has {kind!r}."
        )
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} must be one of {', '.join(SPLITS)}.")
