from __future__ import annotations

import os

import numpy as np
import pytest

from vtp.data import Pipeline, presence
from vtp.data.presence import cache_line, look, on_disk
from vtp.errors import DataError
from vtp.media.cache import ClipCache, Settings
from vtp.types import MediaRef, Sample, VideoSpec


def table_of(*paths):
    return [Sample(f"q{i}", None if p is None else MediaRef(str(p))) for i, p in enumerate(paths)]


def video(sample):
    return sample.video


@pytest.fixture
def clips(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    return tmp_path


def test_rows_about_absent_files_are_left_out_and_counted_by_file(clips):
    table = table_of(clips / "a.mp4", clips / "b.mp4", clips / "b.mp4", None, clips / "c.mp4", clips / "a.mp4")
    found = look(table, video)
    assert (found.samples, found.usable, found.files, found.absent) == (6, 3, 3, 2)
    assert [sample.id for sample in found.take(table)] == ["q0", "q3", "q5"]
    assert found.first == str(clips / "b.mp4")
    assert found.line() == (
        f"2 of 3 training clips are not on the disk (first: {clips / 'b.mp4'}); training on the 1 that are, "
        "3 of 6 samples"
    )
    assert found.record()["absent_clips"] == 2


def test_a_complete_table_is_handed_on_as_it_is(clips):
    table = table_of(clips / "a.mp4", None)
    found = look(table, video)
    assert found.take(table) is table and found.line() == ""
    bytes_only = [Sample("b", MediaRef(b"in memory"))]
    assert look(bytes_only, video).take(bytes_only) is bytes_only


def test_nothing_there_is_an_error_that_says_where_it_was_looked_for(clips):
    found = look(table_of(clips / "x.mp4", clips / "y.mp4"), video)
    with pytest.raises(DataError, match=r"none of the 2 training clips is on the disk \(first: .*x\.mp4\).*dataset"):
        found.take(table_of(clips / "x.mp4", clips / "y.mp4"))


def test_what_exists_but_cannot_be_read_is_not_absent(clips):
    os.mkfifo(clips / "pipe.mp4")
    (clips / "loop.mp4").symlink_to(clips / "loop.mp4")
    (clips / "dangling.mp4").symlink_to(clips / "nowhere.mp4")
    assert on_disk(str(clips / "pipe.mp4")) and on_disk(str(clips)) and on_disk(str(clips / "loop.mp4"))
    assert not on_disk(str(clips / "dangling.mp4")) and not on_disk(str(clips / "a.mp4" / "b.mp4"))
    assert on_disk("a\0b")


class BigTable:
    """Made of numbers; can be cut."""

    def __init__(self, length, absent=()):
        self.length, self.absent, self.seen = length, set(absent), 0

    def __len__(self):
        return self.length

    def __getitem__(self, row):
        self.seen += 1
        return Sample(str(row), MediaRef(f"{'absent' if row in self.absent else 'there'}/{row}"))

    def select(self, rows):
        return [str(row) for row in rows]


def test_a_large_table_is_sampled_first(monkeypatch):
    monkeypatch.setattr(presence, "_LARGE", 1000)
    monkeypatch.setattr(presence, "_PART", 50)
    complete = BigTable(5000)
    assert look(complete, video, lambda path: path.startswith("there")).rows is None and complete.seen == 50
    holes = BigTable(5000, absent=range(0, 5000, 2))
    found = look(holes, video, lambda path: path.startswith("there"))
    assert holes.seen == 5050 and found.absent == 2500
    np.testing.assert_array_equal(found.rows, np.arange(1, 5000, 2))
    assert found.take(holes)[:2] == ["1", "3"]  # as a view, without touching rows


class QuestionsOf(list):
    """Many rows about few files, and it knows which."""

    def media_numbers(self):
        return np.array([0, 0, 2, 2, 0])


def test_rows_about_one_file_are_looked_at_once(clips):
    table = QuestionsOf(table_of(*[clips / "a.mp4"] * 2, *[clips / "b.mp4"] * 2, clips / "a.mp4"))
    asked = []
    found = look(table, lambda sample: asked.append(sample.id) or sample.video)
    assert asked == ["q0", "q2"]
    assert (found.usable, found.absent) == (3, 1) and [s.id for s in found.take(table)] == ["q0", "q1", "q4"]


def test_a_cache_says_how_many_files_it_holds_and_whether_its_pictures_are_large_enough(clips):
    cache = ClipCache.create(clips / "cache", Settings("raw", 48))
    for name in ("a.mp4", "b.mp4"):
        place = cache.path(str(clips / name))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    table = table_of(clips / "a.mp4", clips / "c.mp4", clips / "a.mp4", clips / "b.mp4", None)
    line = cache_line(cache, table, Pipeline({"video": VideoSpec(2, 42)}, train=True), "training")
    assert line.endswith("2 of 3 files for training are in it; the other 1 are decoded")  # 8/7 of 42 is 48
    line = cache_line(cache, table, Pipeline({"video": VideoSpec(2, 56)}, train=True), "training", rows=2)
    assert "1 of 1 files for training are in it (of 2 rows looked at). But training asks for 64 pixels" in line
    assert line.endswith("Make the cache with --size 64.")
