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
import json
import logging
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtp.data.keys import hash64
from vtp.errors import DataError

__all__ = ["AnnotationFile", "Seen", "clip_list", "find_file", "reason", "text_of", "warn_of_malformed"]

log = logging.getLogger("vtp")

NAMED = 20  # malformed rows that are named in the run record; the rest are counted
_BLOCK = 1 << 20  # bytes read at once
_SPACE = " \t\r\n"
_AFTER = frozenset(_SPACE + ",:]}")  # what may follow a JSON value


def find_file(folders: Sequence[Path], names: Iterable[str]) -> Path | None:
    """The first of ``names`` that exists in the first of ``folders`` that has one, or None."""
    names = tuple(names)
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def text_of(row: Mapping[str, Any], key: str) -> str:
    """A text of a row without the white space around it.

    Raises:
        KeyError, ValueError: there is none.
    """
    text = row[key]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"no {key}")
    return text.strip()


def clip_list(file: AnnotationFile) -> Iterator[tuple[int, str]]:
    """(line, clip) of a list of clips; a clip that comes twice is malformed."""
    seen = Seen()
    for line, clip in file.lines():
        if seen.add(clip):
            yield line, clip
        else:
            file.reject(f"line {line}", f"{clip} is there already")


def reason(error: Exception) -> str:
    """Why a row was refused, in words: a KeyError is a column that is not there."""
    return f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)


def warn_of_malformed(record: Mapping[str, Any]) -> None:
    """Say on the log how many rows of a file are left out, if any, by its :meth:`AnnotationFile.record`."""
    if record["malformed"]:
        first = "; ".join(record["malformed_first"][:3])
        log.warning("%s: %d malformed rows are left out (%s)", record["path"], record["malformed"], first)


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
            return json.loads(text)
        except ValueError as error:
            raise self._no_json(error) from error

    def items(self) -> Iterator[tuple[int, Any, Any]]:
        """The items of one big JSON list or object, one after another, as (position, key, value); the key of a list's
        item is its position.

        Raises:
            DataError: as :meth:`json`, or the content is neither a list nor an object.
        """
        with self._open() as stream:
            try:
                for position, (key, value) in enumerate(_json_items(stream)):
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
                    row = json.loads(text)
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

        Rows with too few or too many cells are malformed and left out.
        """
        columns: list[str] | None = None
        with self._open() as stream:
            reader = csv.reader(stream, delimiter=self._delimiter())
            try:
                for cells in reader:
                    if columns is None:
                        named = header([cell.strip() for cell in cells])
                        columns = [cell.strip() if named else str(i) for i, cell in enumerate(cells)]
                        if named:
                            continue
                    if not cells:
                        continue
                    if len(cells) != len(columns):
                        self.reject(f"line {reader.line_num}", f"{len(cells)} cells instead of {len(columns)}")
                        continue
                    yield reader.line_num, dict(zip(columns, cells, strict=True))
            except csv.Error as error:
                raise DataError(
                    f"{self.path}: line {reader.line_num}: {error}. A quotation mark that is never closed swallows the "
                    "rows after it; repair that line."
                ) from error

    def begins_with(self, mark: str) -> bool:
        """Whether ``mark`` is the first thing that is no white space."""
        return self._first_line().lstrip().startswith(mark)

    def header(self) -> list[str]:
        """The cells of the first row of a delimited file, without what follows."""
        for cells in csv.reader(io.StringIO(self._first_line()), delimiter=self._delimiter()):
            return [cell.strip() for cell in cells]
        return []

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
    def _open(self) -> Iterator[io.TextIOWrapper]:
        """The content as text; its hash is known when it has been read to the end."""
        with open(self.path, "rb") as file:
            if file.read(23) == b"version https://git-lfs":
                raise DataError(
                    f"{self.path}: this is a Git LFS pointer ({os.path.getsize(self.path)} bytes), not the file itself."
                    " Get the content with `git lfs pull` in the repository it came from, or download the file from "
                    "another copy."
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
            self.sha256 = hashing.digest.hexdigest()

    def _first_line(self) -> str:
        with open(self.path, "rb") as file:
            return file.readline(_BLOCK).decode("utf-8-sig", errors="replace")

    def _delimiter(self) -> str:
        first = self._first_line()
        return "\t" if first.count("\t") > first.count(",") else ","

    def _no_json(self, error: ValueError) -> DataError:
        return DataError(f"{self.path}: not JSON: {error}. The file may be cut off; compare its size.")


class Seen:
    """A set of texts that takes 16 to 32 bytes for each, to tell repeated ids of millions of rows."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 << 10))
        self._filled = 0

    def add(self, text: str) -> bool:
        """Take in ``text``; False if it is there already."""
        if 2 * self._filled >= len(self._slots):
            old, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
            for value in old:
                if value:
                    self._slots[self._slot(value)] = value
        value = hash64(text) or 1
        slot = self._slot(value)
        if self._slots[slot]:
            return False
        self._slots[slot] = value
        self._filled += 1
        return True

    def _slot(self, value: int) -> int:
        """Where ``value`` is, or the free place where it belongs."""
        slots, last = self._slots, len(self._slots) - 1
        slot = value & last
        while slots[slot] and slots[slot] != value:
            slot = (slot + 1) & last
        return slot


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


def _json_items(stream: io.TextIOBase) -> Iterator[tuple[str | None, Any]]:
    """(key, value) of the items of the JSON list or object that ``stream`` holds, with one item in memory at a time."""
    source = _Window(stream)
    opening = source.peek()
    if opening not in ("[", "{"):
        raise ValueError(f"expected a list or an object, found {opening!r}")
    source.skip()
    closing = "]" if opening == "[" else "}"
    if source.peek() == closing:
        source.skip()
    else:
        while True:
            key: Any = None
            if opening == "{":
                key = source.value()
                if not isinstance(key, str) or source.peek() != ":":
                    raise ValueError(f"expected a key and a colon at character {source.place():,}")
                source.skip()
            yield key, source.value()
            mark = source.peek()
            source.skip()
            if mark == closing:
                break
            if mark != ",":
                raise ValueError(f"expected a comma or {closing} at character {source.place():,}")
    if source.peek():
        raise ValueError(f"extra text after the end at character {source.place():,}")


class _Window:
    """The part of a stream that is being parsed."""

    def __init__(self, stream: io.TextIOBase) -> None:
        self._stream = stream
        self._text = ""
        self._at = 0  # in the text
        self._before = 0  # characters that have left the window
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more(_BLOCK):
                return ""

    def skip(self) -> None:
        """Go past the character that :meth:`peek` gave."""
        self._at += 1

    def place(self) -> int:
        """Characters from the beginning of the stream."""
        return self._before + self._at

    def value(self) -> Any:
        """The next JSON value."""
        self.peek()
        size = _BLOCK
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                ended = self._text[end : end + 1] in _AFTER  # of 2.5, the window may end with 2 or with 2.
            except ValueError:
                ended = False
            if ended or not self._more(size):
                break
            size *= 2  # so that a value of many blocks is not parsed once per block
        value, self._at = self._decode(self._text, self._at)
        return value

    def _more(self, size: int) -> bool:
        block = self._stream.read(size)
        self._before += self._at
        self._text, self._at = self._text[self._at :] + block, 0
        return bool(block)
