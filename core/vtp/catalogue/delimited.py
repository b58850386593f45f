"""Records of a delimited file that stretch over several lines: cells with line ends in them, or lines that a quotation
mark swallowed because it is never closed, or closed by the one that opens a later cell.

csv has no rule that tells these apart, so three signs count. What the quotation marks leave open at the end of the file
is an error. What they close in the middle of a cell, or into another number of cells, is read again line by line. And
so is a cell whose lines look like rows themselves: as many cells, with the same kind of name in the same place.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence

__all__ = ["end_mark", "line_of_open_quote", "lines_apart", "swallows"]

_LINE_END = re.compile(r"\r\n|\r|\n")
_RUNS = re.compile(r"([^\W\d_]+)|(\d+)")


def end_mark(cells: int, delimiter: str) -> str:
    """A last line of a file that no row of ``cells`` cells looks like; it comes back inside a cell if a quotation mark
    is open at the end."""
    return delimiter.join(["\0"] * (cells + 1))


def line_of_open_quote(first: int, cells: Sequence[str]) -> int:
    """The line in which the last of ``cells`` begins, of a record that begins in line ``first``."""
    return first + sum(len(_LINE_END.findall(cell)) for cell in cells[:-1])


def swallows(lines: Sequence[str], cells: Sequence[str], columns: int, delimiter: str) -> bool:
    """Whether a record of several lines took in lines that are rows of their own.

    Args:
        lines: as they stand in the file.
        cells: what they were read as.
        columns: cells of a row.
    """
    if len(cells) != columns:
        return True
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error:
        return True
    first, *others = (_plain(line, delimiter) for line in lines)
    return any(len(other) == columns and _same_kind(first, other) for other in others)


def lines_apart(
    lines: Sequence[str], first: int, columns: int, delimiter: str, reject: Callable[[str, str], None]
) -> Iterator[tuple[int, list[str]]]:
    """Rows of the lines that a quotation mark swallowed, as (line number, cells), each line by itself where it does not
    hold such a mark of its own. The line of the mark goes to ``reject``.

    Args:
        lines: those of the record, the first of them with the mark.
        first: number of that line.
    """
    while lines:
        reject(f"line {first}", "a quotation mark opens a cell there and is not closed at its end")
        lines, first = lines[1:], first + 1
        at = 0
        reader = csv.reader(lines, delimiter=delimiter)
        for cells in reader:
            if reader.line_num - at > 1:
                record = lines[at : reader.line_num]
                if swallows(record, cells, columns, delimiter) or _is_open(record, delimiter):
                    lines, first = lines[at:], first + at
                    break
            elif _is_open(lines[at : at + 1], delimiter):
                lines, first = lines[at:], first + at
                break
            at = reader.line_num
            yield first + at - 1, cells
        else:
            return


def _is_open(lines: Sequence[str], delimiter: str) -> bool:
    """Whether a quotation mark is open after these lines."""
    mark = end_mark(1, delimiter)
    *_, last = csv.reader([*lines, mark], delimiter=delimiter)
    return last != mark.split(delimiter)


def _plain(line: str, delimiter: str) -> list[str]:
    return [cell.strip(' "') for cell in line.rstrip("\r\n").split(delimiter)]


def _same_kind(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two rows have names of one kind in one place, such as ``clips/c0.mp4`` and ``clips/c1.mp4``."""
    return any(_is_name(a) and _shape(a) == _shape(b) for a, b in zip(one, other, strict=False))


def _is_name(cell: str) -> bool:
    """Whether this is no word and no sentence: without white space, with a digit, a slash or a dot inside."""
    return bool(re.search(r"[\d/]|\w\.\w", cell)) and not re.search(r"\s", cell)


def _shape(cell: str) -> str:
    return _RUNS.sub(lambda run: "a" if run[1] else "0", cell)
