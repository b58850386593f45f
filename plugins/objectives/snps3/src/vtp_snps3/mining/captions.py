"""Captions to mine, one after another: of the training split of a data set, or of a file. What is no caption is left
out, counted and named, as everywhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vtp.catalogue import ROW_ERRORS, AnnotationFile, reason
from vtp.cli.data import point_at
from vtp.contracts import Dataset, Table, member
from vtp.errors import ConfigError, DataError
from vtp.prepare.target import Target, tables_of
from vtp_datasets.own import ALIASES

__all__ = ["CaptionFile", "Captions", "DatasetCaptions", "captions_of"]

log = logging.getLogger("vtp")

_KINDS = ("caption", "retrieval")  # tables with captions, in the order in which they are looked for
_TRAINING = ("train", "training", "")
_BLOCK = 1 << 20


class Captions(Protocol):
    """Where captions come from."""

    name: str
    """For people and for the header of a table."""

    def __iter__(self) -> Iterator[str]:
        """All of them, again and again in the same order. DataError if they cannot be read."""
        ...

    def total(self) -> int:
        """About how many there are."""
        ...

    def left_out(self) -> dict[str, Any]:
        """What was no caption when they were last read: ``{"rows": how many, "first": [why, ...]}``."""
        ...


def captions_of(name: str, options: Mapping[str, Any], column: str | None = None) -> Captions:
    """The captions that the command names.

    Args:
        name: of a data set, or a file or a folder.
        options: of the data set.
        column: of a file, in which captions stand.

    Raises:
        ConfigError: there is no such data set, or it has no such option, or no captions.
        DataError: there is no such file.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return CaptionFile(path, column)
    if column is not None:
        raise ConfigError(f"column={column} is for files, and {name} is none.")
    if options.get("split", "train") != "train":
        raise ConfigError(f"split={options['split']}: words are mined from training captions alone; leave it out.")
    return DatasetCaptions(name, point_at(name, options, default_split="train"))


class CaptionFile:
    """A file of captions: csv, tsv, jsonl, or json as a list of rows or an object from names to captions. A caption is
    a text, or a list of them.

    Args:
        path: the file.
        column: where captions stand; None is the first of the usual names that is there. Rows that another column says
            to be of another split than the training split are not read.
    """

    def __init__(self, path: Path, column: str | None = None) -> None:
        self.path = path
        self.name = path.name
        self._columns = (column,) if column is not None else ALIASES["caption"]
        self._file = AnnotationFile(path)
        self._other_splits = 0

    def __iter__(self) -> Iterator[str]:
        self._file = file = AnnotationFile(self.path)
        self._other_splits = 0
        for where, value in self._values(file):
            try:
                texts = self._texts(file, value)
            except ROW_ERRORS as error:
                file.reject(where, reason(error))
                continue
            file.rows += bool(texts)
            yield from texts
        if not file.rows:
            first = f" (first: {file.malformed[0]})" if file.malformed else ""
            raise DataError(
                f"{self.path} has no captions{first}. Expected a column {' or '.join(self._columns[:4])}, or name it: "
                "column=NAME."
            )

    def total(self) -> int:
        if self._is_lines():
            with open(self.path, "rb") as file:
                return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))
        return sum(1 for _ in self)

    def left_out(self) -> dict[str, Any]:
        other = {"rows_of_other_splits": self._other_splits} if self._other_splits else {}
        return {
            "rows": self._file.malformed_count,
            "first": list(self._file.malformed[:5]),
            **self._file.notes,
            **other,
        }

    def _is_lines(self) -> bool:
        """Whether every row is a line: a .json file may be a .jsonl by content."""
        if self.path.suffix.lower() != ".json":
            return True
        with open(self.path, encoding="utf-8-sig", errors="replace") as file:
            first, second = file.readline(_BLOCK), file.readline(_BLOCK)
        try:
            return isinstance(json.loads(first), dict) and bool(second.strip())
        except ValueError:
            return False

    def _values(self, file: AnnotationFile) -> Iterator[tuple[str, Any]]:
        """Rows, or what stands in their place, with where they stand."""
        if self.path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
            if self._is_lines():
                yield from ((f"line {line}", row) for line, row in file.jsonl())
                return
            for position, _, value in file.items():
                if isinstance(value, list) and any(isinstance(item, dict) for item in value):  # {"sentences": [...]}
                    yield from ((f"item {position}, row {row}", item) for row, item in enumerate(value))
                else:
                    yield f"item {position}", value
            return
        known: set[str] = set()

        def header(cells: Sequence[str]) -> bool:
            known.update(cells)
            return self._column(cells) is not None

        for line, row in file.csv(header):
            if self._column(row) is None:
                raise DataError(
                    f"{self.path}: there is no column {' or '.join(self._columns[:4])}; its first row is "
                    f"{', '.join(sorted(known)) or 'empty'}. Name the column of the captions: column=NAME."
                )
            yield f"line {line}", row

    def _column(self, names: Any) -> str | None:
        lower = {str(name).strip().lower().replace(" ", "_"): name for name in names}
        return next((lower[name.lower()] for name in self._columns if name.lower() in lower), None)

    def _texts(self, file: AnnotationFile, value: Any) -> tuple[str, ...]:
        """The captions of a row; none of one that is of another split.

        Raises:
            KeyError, ValueError: it has none.
        """
        if not isinstance(value, dict):
            return file.texts(value, self._columns[0])
        column = self._column(value)
        if column is None:
            raise KeyError(self._columns[0])
        if str(value.get("split") or "").strip().lower() not in _TRAINING:
            self._other_splits += 1
            return ()
        return file.texts(value[column], self._columns[0])


class DatasetCaptions:
    """The captions of the training split of a data set, or those that stand beside the files of a folder."""

    def __init__(self, name: str, target: Target) -> None:
        self.name = name
        self._target = target
        self._tables: list[Any] | None = None
        if not isinstance(target.source, Path):
            kinds: Sequence[str] = member(target.source, Dataset, "kinds")
            self._kind = next(iter(target.kinds), None) or next((kind for kind in _KINDS if kind in kinds), None)
            if self._kind is None:
                raise ConfigError(
                    f"{name} has no captions; it has {', '.join(kinds)}. The texts of one of these are counted with "
                    f"kind={kinds[0]}."
                )

    def __iter__(self) -> Iterator[str]:
        texts = self._texts()
        if (first := next(texts, None)) is None:
            raise DataError(f"{self.name} has no training captions.")
        yield first
        yield from texts

    def _texts(self) -> Iterator[str]:
        if isinstance(self._target.source, Path):
            for sample in self._target.samples():
                yield from sample.texts
            return
        for table in self._read():
            yield from member(table, Table, "all_texts")()

    def _read(self) -> list[Any]:
        if self._tables is None:
            found = tables_of(self._target.source, [str(self._kind)], ["train"])
            without = _WithoutMedia()
            log.addFilter(without)
            try:
                source: Any = self._target.source
                self._tables = [source.samples(kind, split) for kind, split in found]
            finally:
                log.removeFilter(without)
        return self._tables

    def total(self) -> int:
        return sum(1 for _ in self)

    def left_out(self) -> dict[str, Any]:
        if isinstance(self._target.source, Path):
            return {"rows": 0, "first": []}
        files = member(self._target.source, Dataset, "origin")().get("files", ())
        rows = sum(int(record.get("malformed", 0)) for record in files)
        return {"rows": rows, "first": [why for record in files for why in record.get("malformed_first", ())][:5]}


class _WithoutMedia(logging.Filter):
    """Whether media are there does not matter to captions."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "none has its media" not in str(record.msg)
