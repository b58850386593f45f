"""Tables in Arrow: what comes back, what is kept for the next time, and what makes it stale."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import stat
from pathlib import Path

import numpy as np
import pytest

from vtp.catalogue import arrow, arrow_file
from vtp.catalogue.arrow import NONE, ArrowTable, Row, grouped, read_rows
from vtp.catalogue.arrow_file import cache_folder
from vtp.catalogue.media_files import Paths
from vtp.errors import DataError
from vtp.types import MediaRef

SIZE = 64  # rows of a batch in these tests


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(arrow, "BATCH_ROWS", SIZE)
    monkeypatch.setattr(arrow, "PASS_ROWS", 3 * SIZE // 4)


def rows_of(count):
    return [Row(f"r{n}", [f"text {n}", "zwei 二"], video_id=f"c{n % 50}", place=n) for n in range(count)]


def source_file(folder, size=8 * SIZE):
    path = folder / "source.csv"
    path.write_bytes(b"x" * size)
    return path


def read(source, rows, calls=None, **options):
    def make():
        if calls is not None:
            calls.append(1)
        return iter(rows)

    table, info = read_rows("set", [source], options, make, lambda: [{"path": str(source), "rows": len(rows)}])
    return table, ArrowTable(table, info, Paths([Path("/clips")]))


@pytest.mark.parametrize("count", [0, 1, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE, 3 * SIZE + 5])
def test_every_row_comes_back_from_memory_or_file(tmp_path, count):
    kept, table = read(source_file(tmp_path), rows_of(count))
    assert isinstance(kept, Path) == (count > SIZE)
    assert [s.id for s in table] == [f"r{n}" for n in range(count)] and len(table) == count
    assert [s.texts for s in table] == [(f"text {n}", "zwei 二") for n in range(count)]
    assert list(table.video_ids()) == [f"c{n % 50}" for n in range(count)]
    assert list(table.all_texts()) == [text for n in range(count) for text in (f"text {n}", "zwei 二")]
    assert [s.extra["source"] for s in table] == [f"source.csv:{n}" for n in range(count)]


def test_a_pass_gives_what_each_row_gives(tmp_path):
    table = read(source_file(tmp_path), rows_of(3 * SIZE + 5))[1]
    for rows in (
        np.arange(len(table)),
        np.random.default_rng(0).permutation(len(table))[: 2 * SIZE + 1],
        np.array([7]),
    ):
        part = table.select(rows)
        assert list(part) == [part[i] for i in range(len(part))] == [table[int(row)] for row in rows]


def test_every_field(tmp_path):
    rows = [
        Row("a", ["q"], answer="man", question_type="who", category="7", start=1.5, end=3.0, extra={"label": 3}),
        Row("b", ["x", "y"], video_id="clip", video="d/clip.mp4", audio="e.wav", answer_index=1),
        Row("c", [], video=NONE, audio="c.wav"),
        Row("d", ["t"], audio=NONE),
    ]
    _, table = read(source_file(tmp_path), rows)
    a, b, c, d = table
    assert a.video == a.audio == MediaRef("/clips/a", 1.5, 3.0) and a.labels == {"answer": "man"}
    assert a.extra == {
        "video_id": "a", "source": "source.csv:0", "question_type": "who", "category": "7", "label": 3,
    }  # fmt: skip
    assert (b.video.path, b.audio.path, b.labels) == ("/clips/d/clip.mp4", "/clips/e.wav", {"answer_index": 1})
    assert (c.video, c.audio.path, c.texts) == (None, "/clips/c.wav", ())
    assert (d.video.path, d.audio) == ("/clips/d", None)


def test_indices_slices_and_views(tmp_path):
    _, table = read(source_file(tmp_path), rows_of(200))
    assert table[-1] == table[199] and table[130:4:-60] == [table[130], table[70], table[10]]
    for index in (200, -201):
        with pytest.raises(IndexError, match="200 rows"):
            table[index]
    view = table.select(np.array([199, 3, 3, 64]))
    assert [s.id for s in view] == ["r199", "r3", "r3", "r64"] and list(view.video_ids()) == ["c49", "c3", "c3", "c14"]
    again = view.select(np.array([3, 0]))
    assert [s.id for s in again] == ["r64", "r199"] and list(again.all_texts())[::2] == ["text 64", "text 199"]


@pytest.mark.parametrize("count", [10, 200])
def test_a_table_travels_to_workers(tmp_path, count):
    _, table = read(source_file(tmp_path), rows_of(count))
    table[0]
    data = pickle.dumps(table)
    assert list(pickle.loads(data)) == list(table)
    if count > SIZE:
        assert len(data) < 2000  # the path, not the rows


def test_rows_about_one_clip(tmp_path):
    _, table = read(source_file(tmp_path), rows_of(200))
    numbers = table.media_numbers()
    assert numbers.tolist() == [n % 50 for n in range(200)]
    clips = grouped(table)
    assert len(clips) == 50 and [s.id for s in clips] == [f"r{n}" for n in range(50)]
    assert clips[3].texts == tuple(t for n in (3, 53, 103, 153) for t in (f"text {n}", "zwei 二"))
    assert list(clips.video_ids()) == [f"c{n}" for n in range(50)]
    part = clips.select(np.array([7, 49, 0]))
    assert list(part) == [clips[7], clips[49], clips[0]] and list(part.video_ids()) == ["c7", "c49", "c0"]
    assert list(part.all_texts()) == [t for s in part for t in s.texts]
    assert list(pickle.loads(pickle.dumps(part))) == list(part)
    single = table.select(np.arange(50))
    assert grouped(single) is single
    spans = [Row(str(n), ["x"], video_id="c", start=float(n % 2), end=3.0) for n in range(4)]
    assert [s.texts for s in grouped(read(source_file(tmp_path), spans, kind="spans")[1])] == [("x", "x")] * 2


def test_what_was_kept_is_used_until_the_source_or_the_options_change(tmp_path):
    source, calls = source_file(tmp_path), []
    first, _ = read(source, rows_of(200), calls)
    second, table = read(source, rows_of(200), calls)
    assert first == second and len(calls) == 1 and len(table) == 200
    assert table.records() == [{"path": str(source), "rows": 200}]
    other, _ = read(source, rows_of(200), calls, language="zh")
    assert len(calls) == 2 and other != first and first.exists()
    source.write_bytes(b"y" * 8 * SIZE)  # the same size, and perhaps the same time
    third, table = read(source, rows_of(100), calls)
    assert len(calls) == 3 and len(table) == 100 and not first.exists() and other.exists()
    assert not list(third.parent.glob("*.unfinished"))


def test_big_sources_are_known_by_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow_file, "HASH_WHOLE", 10)
    source, calls = source_file(tmp_path), []
    read(source, rows_of(100), calls)
    read(source, rows_of(100), calls)
    os.utime(source, ns=(1, 1))
    read(source, rows_of(100), calls)
    assert len(calls) == 2


def test_a_damaged_file_is_written_again(tmp_path, caplog):
    source, calls = source_file(tmp_path), []
    kept, _ = read(source, rows_of(200), calls)
    kept.write_bytes(kept.read_bytes()[:-500])
    with caplog.at_level(logging.WARNING, logger="vtp"):
        _, table = read(source, rows_of(200), calls)
    assert len(calls) == 2 and len(list(table)) == 200 and "is damaged" in caplog.text


def test_rows_that_fail_half_way_leave_nothing(tmp_path):
    def broken():
        yield from rows_of(150)
        raise DataError("cut off")

    source = source_file(tmp_path)
    with pytest.raises(DataError, match="cut off"):
        read_rows("set", [source], {}, broken, list)
    assert [p.suffix for p in cache_folder().iterdir()] == [".lock"]


@pytest.mark.skipif(os.getuid() == 0, reason="root can write everywhere")
def test_a_folder_without_permission(tmp_path, monkeypatch):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    monkeypatch.setenv("VTP_CACHE", str(locked))
    assert locked not in cache_folder().parents


@pytest.mark.parametrize("taken", ["nobody", "writable by all", "a link", "a file"])
def test_a_temporary_folder_is_nobody_elses(taken, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VTP_CACHE", str(tmp_path / "file"))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    usual = temporary / f"vtp-{os.getuid()}"
    if taken == "writable by all":
        usual.mkdir()
        usual.chmod(0o777)
    elif taken == "a link":
        (tmp_path / "elsewhere").mkdir()
        usual.symlink_to(tmp_path / "elsewhere")
    elif taken == "a file":
        usual.touch()
    folder = cache_folder()
    assert (folder.parent == usual) == (taken == "nobody") and temporary in folder.parents
    assert folder.parent.stat().st_mode & 0o077 == 0


def test_where_the_cache_cannot_be_written_a_temporary_folder_is_used(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VTP_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with caplog.at_level(logging.WARNING, logger="vtp"):
        kept, table = read(source_file(tmp_path), rows_of(200))
    assert tmp_path / "tmp" in kept.parents and len(table) == 200 and "cannot be written" in caplog.text


def _read_in_a_process(source, folder):
    arrow.BATCH_ROWS = SIZE

    def rows():
        (folder / f"parsed-{os.getpid()}").touch()
        yield from rows_of(300)

    _, info = read_rows("set", [source], {}, rows, lambda: [{"path": str(source)}])
    table = ArrowTable(_, info, Paths([Path("/clips")]))
    (folder / f"read-{len(list(table))}-{os.getpid()}").touch()


def test_of_several_processes_one_writes(tmp_path):
    source = source_file(tmp_path)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_read_in_a_process, args=(source, tmp_path)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [p.exitcode for p in processes] == [0] * 4
    assert len(list(tmp_path.glob("parsed-*"))) == 1 and len(list(tmp_path.glob("read-300-*"))) == 4


def test_columns_that_hold_nothing_are_not_written(tmp_path):
    import pyarrow as pa

    rows = [Row(f"r{n}", ["x"], video=f"a/b/r{n}" if n % 2 else f"r{n}/", place=n, duration=2.5) for n in range(200)]
    kept, table = read(source_file(tmp_path), rows)
    assert pa.ipc.open_file(str(kept)).schema.names == ["id", "video", "texts", "duration", "file", "place"]
    assert table[7].video.path == "/clips/a/b/r7" and table[7].extra["duration"] == 2.5
    assert table.clips_on_disk() == {f"r{n}": False for n in range(200)}
    assert [p.suffix for p in sorted(kept.parent.iterdir())] == [".arrow", ".lock"]


def test_which_clips_are_on_the_disk(tmp_path):
    for name in ("d/r1.mp4", "s.wav", "r3.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rows = [
        Row("r0", ["x"], video="d/r0.mp4"),
        Row("r1", ["x"], video_id="r1.mp4", video="d/r1.mp4"),
        Row("r2", ["x"], video=NONE, audio="s.wav"),
        Row("r3", ["x"], video_id="r3.mp4"),
        Row("r4", ["y"], video_id="r3.mp4"),
    ]
    table, info = read_rows("set", [source_file(tmp_path)], {}, lambda: rows, lambda: [{"path": "source.csv"}])
    found = ArrowTable(table, info, Paths([tmp_path])).clips_on_disk()
    assert found == {"r0": False, "r1.mp4": True, "r2": True, "r3.mp4": True}
