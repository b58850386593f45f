"""Annotation files as people have them: found by name under a root, read as UTF-8, with every row that makes no sense
counted and named.

Rules and the real files behind them: data-formats, "General rules for readers". CRLF or LF, comma or TAB whatever the
extension, columns by header name and not by position, no final newline, Git LFS pointers instead of content.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtp.errors import DataError

__all__ = ["AnnotationFile", "find_file"]

log = logging.getLogger("vtp")

NAMED = 20  # malformed rows that are named in the run record; the rest are counted


def find_file(folders: list[Path], names: tuple[str, ...]) -> Path | None:
    """The first of ``names`` that exists in the first of ``folders`` that has one, or None."""
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


@dataclass
class AnnotationFile:
    """One file that was read, for the run record.

    Attributes:
        path: where it lies.
        sha256: of its bytes.
        rows: rows that were understood.
        malformed: the others, as ``line 7: why``; the first ones only.
        malformed_count: all of them.
    """

    path: Path
    sha256: str = ""
    rows: int = 0
    malformed: list[str] = field(default_factory=list)
    malformed_count: int = 0

    def text(self) -> str:
        """The content.

        Raises:
            DataError: it is a Git LFS pointer, or not UTF-8.
        """
        data = self.path.read_bytes()
        if data.startswith(b"version https://git-lfs"):
            raise DataError(
                f"{self.path}: this is a Git LFS pointer ({len(data)} bytes), not the file itself. Get the content "
                f"with `git lfs pull` in the repository it came from, or download the file from another copy."
            )
        self.sha256 = hashlib.sha256(data).hexdigest()
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}: not UTF-8 at byte {error.start:,}. Annotation files are read as UTF-8; convert it "
                f"(for example with iconv -t UTF-8)."
            ) from error

    def json(self) -> Any:
        """The content as JSON.

        Raises:
            DataError: as :meth:`text`, or it is no JSON.
        """
        text = self.text()
        try:
            return json.loads(text)
        except ValueError as error:
            raise DataError(f"{self.path}: not JSON: {error}. The file may be cut off; compare its size.") from error

    def csv(self, header: Callable[[list[str]], bool]) -> Iterator[tuple[int, dict[str, str]]]:
        """Rows of a delimited file as (line number, column -> value); the line is where the row ends.

        Args:
            header: whether a first row is a header. Without one the columns are called ``0``, ``1``, ...

        Rows with too few or too many cells are malformed and left out.
        """
        text = self.text()
        first = text.partition("\n")[0]
        tabs = first.count("\t") > first.count(",")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if tabs else ",")
        columns: list[str] | None = None
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

    def reject(self, where: str, why: str) -> None:
        """Note a row that is left out."""
        self.malformed_count += 1
        if len(self.malformed) < NAMED:
            self.malformed.append(f"{where}: {why}")

    def close(self, rows: int) -> None:
        """Note how many rows were understood; say so if some were not."""
        self.rows = rows
        if self.malformed_count:
            first = "; ".join(self.malformed[:3])
            log.warning("%s: %d malformed rows are left out (%s)", self.path, self.malformed_count, first)

    def record(self) -> Mapping[str, Any]:
        """What the run record keeps."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "rows": self.rows,
            "malformed": self.malformed_count,
            "malformed_first": list(self.malformed),
        }
