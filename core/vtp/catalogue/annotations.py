"""Annotation files as people have them: found by name under a root, read as UTF-8, with every row that makes no sense
counted and named.

Real files have CRLF or LF, comma or TAB whatever the extension, columns in any order, no final newline, or a Git LFS
pointer instead of the content. Rows are read one at a time, so that a file of millions of rows costs no more memory
than one of them.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import itertools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtp.catalogue.delimited import end_mark, line_of_open_quote, lines_apart, swallows
from vtp.catalogue.json_items import json_items, json_value
from vtp.catalogue.texts import Ids, Seen, is_empty, list_in, plain_text
from vtp.errors import DataError

__all__ = ["AnnotationFile", "clip_list", "find_file", "warn_of_malformed"]

log = logging.getLogger("vtp")

NAMED = 20  # malformed rows that are named in the run record; the rest are counted
LONG_CELLS = "cells_with_line_ends_and_delimiters"  # notes of a file, see AnnotationFile.csv and .texts
EMPTY_TEXTS = "empty_texts_in_lists"
_BLOCK = 1 << 20  # bytes read at once


def find_file(folders: Sequence[Path], names: Iterable[str]) -> Path | None:
    """The first of ``names`` that exists in the first of ``folders`` that has one, or None."""
    names = tuple(names)
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def clip_list(file: AnnotationFile) -> Iterator[tuple[int, str]]:
    """(line, clip) of a list of clips; a clip that comes twice is malformed."""
    seen = Seen()
    for line, clip in file.lines():
        if seen.add(clip):
            yield line, clip
        else:
            file.reject(f"line {line}", f"{clip} is there already")


def warn_of_malformed(record: Mapping[str, Any]) -> None:
    """Say on the log how many rows of a file are left out, if any, by its :meth:`AnnotationFile.record`."""
    if record["malformed"]:
        first = "; ".join(record["malformed_first"][:3])
        log.warning("%s: %d malformed rows are left out (%s)", record["path"], record["malformed"], first)
    for note, what in ((LONG_CELLS, "have line ends and delimiters in a cell"), (EMPTY_TEXTS, "have empty texts")):
        if note in record:
            log.warning("%s: rows that %s: %s", record["path"], what, record[note])


@dataclass
class AnnotationFile:
    """One file that was read, for the run record.

    Attributes:
        path: where it lies.
        sha256: of its bytes.
        rows: rows that were understood.
        malformed: the others, as ``line 7: why``; the first ones only.
        malformed_count: all of them.
        notes: anything else worth telling, such as rows about clips that are in no list.
    """

    path: Path
    sha256: str = ""
    rows: int = 0
    malformed: list[str] = field(default_factory=list)
    malformed_count: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The whole content.

        Raises:
            DataError: it is a Git LFS pointer, or not UTF-8.
        """
        with self._open() as stream:
            return stream.read()

    def json(self) -> Any:
        """The whole content as JSON.

        Raises:
            DataError: as :meth:`text`, or it is no JSON.
        """
        text = self.text()
        try:
            return json_value(text)
        except ValueError as error:
            raise self._no_json(error) from error

    def items(self) -> Iterator[tuple[int, Any, Any]]:
        """The items of one big JSON list or object, one after another, as (position, key, value); the key of a list's
        item is its position. An item in which a key stands twice is malformed.

        Raises:
            DataError: as :meth:`json`, or the content is neither a list nor an object.
        """
        with self._open() as stream:
            try:
                for position, (key, value) in enumerate(json_items(stream, _BLOCK)):
                    if isinstance(value, ValueError):
                        self.reject(f"item {position}", str(value))
                        continue
                    yield position, position if key is None else key, value
            except ValueError as error:  # UnicodeDecodeError, which _open explains, is one too
                if isinstance(error, UnicodeDecodeError):
                    raise
                raise self._no_json(error) from error

    def jsonl(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """One JSON object per line as (line number, object); other lines are malformed, blank ones are skipped."""
        with self._open() as stream:
            for line, text in enumerate(stream, start=1):
                if not text.strip():
                    continue
                try:
                    row = json_value(text)
                except ValueError as error:
                    self.reject(f"line {line}", f"not JSON: {error}")
                    continue
                if isinstance(row, dict):
                    yield line, row
                else:
                    self.reject(f"line {line}", "not an object")

    def lines(self) -> Iterator[tuple[int, str]]:
        """Lines that are not blank, without the white space around them, as (line number, text)."""
        with self._open() as stream:
            for line, text in enumerate(stream, start=1):
                if text := text.strip():
                    yield line, text

    def numbered_lines(self) -> Iterator[tuple[int, str]]:
        """Every line with its white space but without its end, also blank ones, as (line number, text)."""
        with self._open() as stream:
            for line, text in enumerate(stream, start=1):
                yield line, text.rstrip("\r\n")

    def csv(self, header: Callable[[list[str]], bool]) -> Iterator[tuple[int, dict[str, str]]]:
        """Rows of a delimited file as (line number, column -> value); the line is where the row ends.

        Args:
            header: whether a first row is a header. Without one the columns are called ``0``, ``1``, ...

        Rows with too few or too many cells are malformed and left out, and so is a line with a quotation mark that is
        not closed at the end of its cell, see :mod:`vtp.catalogue.delimited`. Cells with line ends and delimiters in
        them are kept and noted.

        Raises:
            DataError: as :meth:`text`, a quotation mark is open at the end of the file, or two columns have one name.
        """
        delimiter = self._delimiter()
        columns: list[str] = []
        count = -1  # of them; no row has so many before they are known
        before = 0  # lines of the records so far
        odd = _OddRecords(self, delimiter)
        with self._open() as stream:
            reader = csv.reader(itertools.chain(stream, odd.end()), delimiter=delimiter)
            try:
                for cells in reader:
                    line = reader.line_num
                    if line - before == 1 and len(cells) == count:
                        before = line
                        yield line, dict(zip(columns, cells, strict=True))
                        continue
                    found = odd.rows(cells, before + 1, line)
                    before = line
                    for place, row in found:
                        if count < 0:
                            named = header([cell.strip() for cell in row])
                            columns = self._columns(row, named)
                            odd.columns = count = len(columns)
                            if named:
                                continue
                        if len(row) == count:
                            yield place, dict(zip(columns, row, strict=True))
                        elif row:
                            self.reject(f"line {place}", f"{len(row)} cells instead of {count}")
            except csv.Error as error:
                raise DataError(
                    f"{self.path}: line {before + 1}: {error}. A quotation mark that is never closed swallows the "
                    "rows after it; repair that line."
                ) from error

    def note_repeated(self, ids: Ids) -> None:
        """Note how many rows had an id that was there already."""
        if ids.repeated:
            self.notes["ids_that_repeat"] = ids.repeated

    def begins_with(self, mark: str) -> bool:
        """Whether ``mark`` is the first thing that is no white space."""
        return self._first_line().lstrip().startswith(mark)

    def header(self) -> list[str]:
        """The cells of the first row of a delimited file, without what follows."""
        with self._open(whole=False) as stream:
            for cells in csv.reader(stream, delimiter=self._delimiter()):
                return self._columns(cells, True)
        return []

    def texts(self, value: Any, key: str) -> tuple[str, ...]:
        """The texts of a cell: one, or those of a list, which a text may spell (:func:`vtp.catalogue.texts.list_in`).
        Empty ones in a list are left out, and noted.

        Raises:
            ValueError: there is none, or an item is no text.
        """
        value = list_in(value, key) if isinstance(value, str) else value
        if not isinstance(value, list):
            return (plain_text(value, key),)
        texts = tuple(plain_text(item, key) for item in value if not _is_blank(item))
        if not texts:
            raise ValueError(f"no {key}")
        if len(texts) < len(value):
            self.note(EMPTY_TEXTS)
        return texts

    def note(self, what: str, first: str = "") -> None:
        """Count something worth telling in :attr:`notes`, with the place of the first."""
        number, _, kept = str(self.notes.get(what, "0")).partition(", ")
        self.notes[what] = f"{int(number) + 1}, {kept or first}" if kept or first else int(number) + 1

    def reject(self, where: str, why: str) -> None:
        """Note a row that is left out."""
        self.malformed_count += 1
        if len(self.malformed) < NAMED:
            self.malformed.append(f"{where}: {why}")

    def record(self) -> dict[str, Any]:
        """What the run record keeps."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "rows": self.rows,
            "malformed": self.malformed_count,
            "malformed_first": list(self.malformed),
            **self.notes,
        }

    @contextmanager
    def _open(self, whole: bool = True) -> Iterator[io.TextIOWrapper]:
        """The content as text; its hash is known when it has been read to the end (``whole``)."""
        with open(self.path, "rb") as file:
            begin = file.read(23)
            if begin == b"version https://git-lfs":
                raise DataError(
                    f"{self.path}: this is a Git LFS pointer ({os.path.getsize(self.path)} bytes), not the file itself."
                    " Get the content with `git lfs pull` in the repository it came from, or download the file from "
                    "another copy."
                )
            if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in begin:
                raise DataError(
                    f"{self.path}: this looks like UTF-16 or UTF-32 and no UTF-8. Convert it, for example with "
                    "iconv -f UTF-16 -t UTF-8, or save it as UTF-8."
                )
            file.seek(0)
            hashing = _Hashing(file)
            try:
                yield io.TextIOWrapper(io.BufferedReader(hashing, _BLOCK), encoding="utf-8-sig", newline="")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{self.path}: not UTF-8 at byte {_first_bad_byte(self.path):,}. Annotation files are read as "
                    "UTF-8; convert it (for example with iconv -t UTF-8)."
                ) from error
            if whole:
                self.sha256 = hashing.digest.hexdigest()

    def lines_again(self) -> Iterator[str]:
        """The lines with their ends, without looking at what was read before."""
        with open(self.path, encoding="utf-8-sig", newline="") as stream:
            yield from stream

    def _first_line(self) -> str:
        with open(self.path, encoding="utf-8-sig", errors="replace", newline="") as stream:
            return stream.readline(_BLOCK)

    def _delimiter(self) -> str:
        first = self._first_line()
        return "\t" if first.count("\t") > first.count(",") else ","

    def _columns(self, cells: list[str], named: bool) -> list[str]:
        """Names of the columns from the first row.

        Raises:
            DataError: two have one name; of their cells one would be lost.
        """
        columns = [cell.strip() if named else str(i) for i, cell in enumerate(cells)]
        if twice := [name for name, count in Counter(columns).items() if name and count > 1]:
            raise DataError(f"{self.path}: the column {twice[0]!r} stands twice. Rename or remove one of the two.")
        return columns

    def _no_json(self, error: ValueError) -> DataError:
        return DataError(f"{self.path}: not JSON: {error}. The file may be cut off; compare its size.")


class _OddRecords:
    """Records of a delimited file that are no single line with as many cells as there are columns.

    Attributes:
        columns: how many; 0 until they are known.
    """

    def __init__(self, file: AnnotationFile, delimiter: str) -> None:
        self.columns = 0
        self._file = file
        self._delimiter = delimiter
        self._lines: Iterator[str] | None = None
        self._taken = 0  # of the lines

    def end(self) -> Iterator[str]:
        """What is put behind the last line of the file."""
        yield end_mark(self.columns, self._delimiter)

    def rows(self, cells: list[str], first: int, last: int) -> Iterable[tuple[int, list[str]]]:
        """(line, cells) of the rows in the lines ``first`` to ``last``, which were read as the record ``cells``.

        Raises:
            DataError: a quotation mark is open at the end of the file.
        """
        mark = end_mark(self.columns, self._delimiter)
        if cells == mark.split(self._delimiter):
            return ()
        if last == first:
            return ((last, cells),)
        if cells[-1].endswith(mark):
            line = line_of_open_quote(first, cells)
            raise DataError(
                f"{self._file.path}: the quotation mark that opens a cell in line {line} is never closed, so that it "
                f"swallows the rest of the file. Close it, or double it if it is part of the text; if line {line} is "
                "the last one, the file may be cut off."
            )
        if self._lines is None:
            self._lines = self._file.lines_again()
        lines = list(itertools.islice(self._lines, first - 1 - self._taken, last - self._taken))
        self._taken = last
        if self.columns and swallows(lines, cells, self.columns, self._delimiter):
            return lines_apart(lines, first, self.columns, self._delimiter, self._file.reject)
        if any(self._delimiter in line for line in lines[1:]):
            self._file.note(LONG_CELLS, f"first in line {first}")
        return ((last, cells),)


class _Hashing(io.RawIOBase):
    """Hashes what is read through it."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self.digest.update(memoryview(buffer)[:count])
        return count


def _is_blank(value: Any) -> bool:
    return is_empty(value) or (isinstance(value, str) and not value.strip())


def _first_bad_byte(path: Path) -> int:
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            kept = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                return done - kept + error.start
            done += len(block)
    return done
