"""What quotation marks swallow is found: every line is a row that was read or one that was named."""

from __future__ import annotations

import csv
import io
import random

import pytest

from vtp.catalogue.annotations import LONG_CELLS, AnnotationFile
from vtp.errors import DataError


def read(tmp_path, content, name="x.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    file = AnnotationFile(path)
    return file, list(file.csv(lambda cells: "video" in cells))


def table(rows, end="\n", delimiter=","):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows([("video", "caption"), *rows])
    return text.getvalue()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False], ids=["end of line", "none at the end"])
@pytest.mark.parametrize("rows, line", [(1, 2), (3, 2), (3, 4), (1000, 5)])
def test_a_quotation_mark_that_is_never_closed_is_an_error_with_its_line(tmp_path, end, last, rows, line):
    lines = ["video,caption", *(f"clips/c{n}.mp4,a dog {n}" for n in range(rows))]
    lines[line - 1] = 'clips/x.mp4,"a dog runs'
    with pytest.raises(
        DataError, match=rf"x\.csv: the quotation mark that opens a cell in line {line} is never closed"
    ):
        read(tmp_path, end.join(lines) + end * last)


def test_the_line_is_that_of_the_mark_not_of_its_row(tmp_path):
    with pytest.raises(DataError, match="opens a cell in line 4 "):
        read(tmp_path, 'video,caption,more\na.mp4,"one\ntwo\nthree","four\nb.mp4,x,y\n')


def test_one_column_and_an_open_header(tmp_path):
    file, rows = read(tmp_path, "video\na\nb\n")
    assert rows == [(2, {"video": "a"}), (3, {"video": "b"})] and file.malformed_count == 0
    with pytest.raises(DataError, match="in line 1 is never closed"):
        read(tmp_path, '"video\na\nb\n')
    with pytest.raises(DataError, match="in line 3 is never closed"):
        read(tmp_path, 'video\na\n"b')
    assert read(tmp_path, "")[1] == []


def test_a_mark_that_a_later_cell_closes_costs_its_own_row_alone(tmp_path):
    rows = [(f"clips/c{n}.mp4", f"a cat, asleep {n}" if n == 7 else f"a dog {n}") for n in range(10)]
    lines = table(rows).splitlines()
    lines[4] = 'clips/c3.mp4,"a dog 3'  # closed by the mark that opens the cell of c7
    file, found = read(tmp_path, "\n".join(lines) + "\n")
    assert [(row["video"], row["caption"]) for _, row in found] == [row for row in rows if row[0] != "clips/c3.mp4"]
    assert [line for line, _ in found] == [2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert file.malformed == ["line 5: a quotation mark opens a cell there and is not closed at its end"]


def test_a_mark_that_happens_to_be_closed_at_the_end_of_a_later_cell(tmp_path):
    file, found = read(
        tmp_path, 'video,caption\nclips/c0.mp4,"a dog\nclips/c1.mp4,a screen of 12"\nclips/c2.mp4,a cat\n'
    )
    assert [row["caption"] for _, row in found] == ['a screen of 12"', "a cat"]
    assert file.malformed_count == 1 and file.malformed[0].startswith("line 2: ")


def test_texts_of_several_lines_stay_whole_and_are_noted(tmp_path):
    rows = [("clips/c0.mp4", "Well, hello\nthere, you"), ("clips/c1.mp4", "one\r\ntwo"), ("clips/c2.mp4", 'a "word"')]
    file, found = read(tmp_path, table(rows))
    assert [(row["video"], row["caption"]) for _, row in found] == rows and file.malformed_count == 0
    assert file.notes == {LONG_CELLS: "1, first in line 2"}
    file, found = read(tmp_path, table(rows[1:]))
    assert len(found) == 2 and file.notes == {}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_one_mark_too_many_anywhere_loses_no_row_in_silence(tmp_path, end, delimiter):
    generator = random.Random(0)
    words = ["a dog", "two, or three", 'the "best" one', '12" screen', "x", "what; now"]
    for _ in range(60):
        rows = [(f"clips/c{n:02d}.mp4", generator.choice(words)) for n in range(20)]
        lines = table(rows, "\n", delimiter).splitlines()
        line = generator.randrange(1, len(lines))
        place = generator.randrange(len(lines[line]) + 1)
        lines[line] = lines[line][:place] + '"' + lines[line][place:]
        try:
            file, found = read(tmp_path, end.join(lines) + end)
        except DataError as error:
            assert f"line {line + 1} " in str(error)
            continue
        assert len(found) + file.malformed_count == 20, (lines[line], file.malformed)
        kept = {row["video"]: row["caption"] for _, row in found}
        assert all(kept.get(video, caption) == caption for n, (video, caption) in enumerate(rows, 1) if n != line)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_end_of_line_and_an_open_header(tmp_path, end):
    file, found = read(tmp_path, end.join(["video,caption", "a.mp4,a dog", "", "b.mp4,a cat"]))
    assert [row for _, row in found] == [{"video": "a.mp4", "caption": "a dog"}, {"video": "b.mp4", "caption": "a cat"}]
    assert file.header() == ["video", "caption"]


def test_columns_that_stand_twice_are_refused_and_nameless_ones_are_not(tmp_path):
    with pytest.raises(DataError, match="the column 'caption' stands twice"):
        read(tmp_path, "video,caption,caption\na.mp4,x,y\n")
    assert len(read(tmp_path, "video,caption,,\na.mp4,x,,\n")[1]) == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_named(tmp_path, encoding):
    with pytest.raises(DataError, match="looks like UTF-16"):
        read(tmp_path, table([("a.mp4", "x")]).encode(encoding))


def test_a_cell_without_end_is_named_by_the_line_where_it_begins(tmp_path):
    with pytest.raises(DataError, match=r"x\.csv: line 3: field larger than field limit"):
        read(tmp_path, 'video,caption\na.mp4,x\nb.mp4,"' + "y\n" * 100_000)
