"""What is expected of a target: the tables of a data set, the files that they name, duplicates, overlaps of splits and
protocols; or the files of a folder without annotations."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtp.contracts import Dataset, member
from vtp.data.table import media_id
from vtp.errors import DataError, PluginError
from vtp.eval.protocol import Match, Protocol, readable_protocols
from vtp.faults import title
from vtp.media.extensions import MEDIA
from vtp.prepare.target import tables_of
from vtp.types import MediaRef, Sample

__all__ = ["NamedFile", "Overlap", "Survey", "TableFacts", "survey_dataset", "survey_folder"]


@dataclass(slots=True)
class NamedFile:
    """A file that samples name.

    Attributes:
        tables: numbers of the tables with such samples.
        samples: how many samples.
        clip: id of the first of its clips.
        video, audio: what samples want of it.
        last_start: the latest second at which a span begins; None without spans.
    """

    clip: str
    tables: set[int] = field(default_factory=set)
    samples: int = 0
    video: bool = False
    audio: bool = False
    last_start: float | None = None


@dataclass(slots=True)
class TableFacts:
    """One table of a data set.

    Attributes:
        kind, split: which one.
        samples: rows.
        clips: distinct clips.
        duplicates: ids that occur more than once.
        protocols: what it was compared with, as :meth:`vtp.eval.protocol.Match.record`, with the line for people.
        error: why it could not be read; None if it could.
    """

    kind: str
    split: str
    samples: int = 0
    clips: int = 0
    duplicates: list[str] = field(default_factory=list)
    protocols: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.split}"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Clips that two splits share; ``within`` the same kind of table is a fault, else a thing to know."""

    one: str
    other: str
    clips: int
    first: str
    within: bool


@dataclass(slots=True)
class Survey:
    """What is expected: tables, the files that they name, and what the annotations are like."""

    name: str
    tables: list[TableFacts] = field(default_factory=list)
    files: dict[str, NamedFile] = field(default_factory=dict)
    overlaps: list[Overlap] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)  # in a folder: files that are no media, by extension
    in_memory: int = 0  # media that are no files
    empty: list[str] = field(default_factory=list)  # tables that should have samples, in words

    def gaps(self) -> list[str]:
        """What a protocol needs and the annotations do not give, in words."""
        errors: dict[str, list[str]] = {}
        for table in self.tables:
            if table.error:
                errors.setdefault(table.error, []).append(table.name)
        found = [f"{', '.join(names)}: {error}" for error, names in errors.items()] + self.empty
        for table in self.tables:
            if table.protocols and not any(record["official"] for record in table.protocols):
                found += [f"{table.name}: {record['line']}" for record in table.protocols]
        return found

    def left_out(self) -> list[str]:
        """Rows of annotation files that no table has, in words. A benchmark that was recognised lacks nothing, whatever
        else stands in its files."""
        if any(record["official"] for table in self.tables for record in table.protocols):
            return []
        return [
            f"{record['path']}: {record['malformed']:,} rows are left out (first: {record['malformed_first'][0]})"
            for record in self.annotations
            if record.get("malformed")
        ]


def survey_dataset(
    dataset: Any,
    *,
    kinds: Sequence[str] = (),
    splits: Sequence[str] = (),
    progress: Callable[[str], None] = lambda text: None,
) -> Survey:
    """Read the tables of a data set.

    Args:
        dataset: with ``samples(kind, split)``.
        kinds, splits: which ones, as for :func:`vtp.prepare.target.tables_of`, and what it raises.
        progress: is told what is read.
    """
    name = member(dataset, Dataset, "name")
    protocols = list(readable_protocols()[0].values())
    survey = Survey(name)
    clips: list[set[str]] = []
    for kind, split in tables_of(dataset, kinds, splits):
        facts = TableFacts(kind, split)
        progress(facts.name)
        try:
            table = dataset.samples(kind, split)
        except DataError as error:
            facts.error = str(error)
            table = ()
        if not len(table) and facts.error is None:  # there is no such split
            if split in splits:
                survey.empty.append(f"{facts.name} has no samples")
            continue
        clips.append(_read(survey, facts, table))
        facts.protocols = _compare(protocols, name, kind, split, table)
        survey.tables.append(facts)
    if not survey.tables and not survey.empty:
        survey.empty.append(f"{name} has no samples in any table")
    survey.overlaps = list(_overlaps(survey.tables, clips))
    survey.annotations = _annotations(name, member(dataset, Dataset, "origin")().get("files", ()))
    return survey


def _annotations(name: str, files: Any) -> list[Any]:
    """The records of annotation files of a data set.

    Raises:
        PluginError: they are none.
    """
    if not isinstance(files, (list, tuple)) or not all(isinstance(one, Mapping) and "path" in one for one in files):
        raise PluginError(
            f'{title("dataset", name)} gave {str(files)[:80]} as origin()["files"], expected a list of {{"path": ...}}.'
        )
    return list(files)


def survey_folder(folder: Path) -> Survey:
    """All media below a folder, found by their extensions; links to folders are not followed."""
    survey = Survey(str(folder))
    others: Counter[str] = Counter()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            extension = os.path.splitext(name)[1].lower()
            if extension in MEDIA:
                path = os.path.join(parent, name)
                survey.files[path] = NamedFile(os.path.relpath(path, folder), samples=1)
            else:
                others[extension or "without extension"] += 1
    survey.others = dict(others.most_common())
    return survey


def _read(survey: Survey, facts: TableFacts, table: Sequence[Sample]) -> set[str]:
    """Take the rows of one table into the survey; returns its clips."""
    ids: set[str] = set()
    twice: dict[str, None] = {}
    clips: set[str] = set()
    number = len(survey.tables)
    for row in range(len(table)):
        sample = table[row]
        if sample.id in ids:
            twice[sample.id] = None
        ids.add(sample.id)
        clip = media_id(sample)
        clips.add(clip)
        for modality, ref in (("video", sample.video), ("audio", sample.audio)):
            if ref is not None:
                _want(survey, ref, clip, number, modality, once=modality == "audio" and ref == sample.video)
    facts.samples, facts.clips, facts.duplicates = len(table), len(clips), list(twice)
    return clips


def _want(survey: Survey, ref: MediaRef, clip: str, table: int, modality: str, *, once: bool) -> None:
    if isinstance(ref.path, bytes):
        survey.in_memory += not once
        return
    wanted = survey.files.setdefault(ref.path, NamedFile(clip))
    wanted.tables.add(table)
    wanted.samples += not once
    wanted.video |= modality == "video"
    wanted.audio |= modality == "audio"
    if ref.start is not None:
        wanted.last_start = max(ref.start, wanted.last_start or 0.0)


def _compare(
    protocols: Iterable[Protocol], dataset: str, kind: str, split: str, table: Sequence[Sample]
) -> list[dict[str, Any]]:
    """The official protocol that the table is; else all those that it could be, with what differs."""
    places = [p for p in protocols if (p.dataset, p.kind, p.split) == (dataset, kind, split)]
    if not places or not len(table):
        return []
    samples = list(table)
    matches: list[Match] = [protocol.match(samples, dataset, split) for protocol in places]
    official = [match for match in matches if match.official]
    return [match.record() | {"line": match.line()} for match in official or matches]


def _overlaps(tables: Sequence[TableFacts], clips: Sequence[set[str]]) -> Iterator[Overlap]:
    for i, one in enumerate(tables):
        for j in range(i + 1, len(tables)):
            other = tables[j]
            shared = clips[i] & clips[j] if one.split != other.split else set()
            if shared:
                yield Overlap(one.name, other.name, len(shared), min(shared), one.kind == other.kind)
