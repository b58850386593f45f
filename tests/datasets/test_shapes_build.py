"""A generated folder is there as a whole or not at all, whoever is killed, and is never mistaken for another one."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import pytest

from vtp.errors import ConfigError, DataError, RunError
from vtp_datasets.shapes import Shapes, build, worker
from vtp_datasets.shapes.annotations import Blueprint


def hashes(root):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def copy(tiny, tmp_path):
    """A folder that a test may damage."""
    return shutil.copytree(tiny.root, tmp_path / "copy")


def test_nothing_is_written_before_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("VTP_CACHE", str(tmp_path))
    assert Shapes(size="tiny", seed=3).root == tmp_path / "shapes" / "tiny-3-v1"
    assert not list(tmp_path.iterdir())


def test_without_a_variable_the_cache_is_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("VTP_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Shapes().root == tmp_path / ".cache" / "vtp" / "shapes" / "small-0-v1"


def test_one_process_gives_the_same_files_as_two(tiny, tmp_path):
    alone = Shapes(size="tiny", root=tmp_path / "alone", workers=1)
    alone.samples("qa", "test")
    assert hashes(alone.root) == hashes(tiny.root)


def test_what_a_killed_run_has_rendered_is_kept(tiny, tmp_path):
    root = tmp_path / "world"
    videos = tmp_path / ".world.partial" / "videos"
    videos.mkdir(parents=True)
    (videos.parent / "plan.json").write_text(json.dumps(Blueprint("tiny", 0).record()))
    assert worker.main([str(videos), "tiny", "0", "0", "3"]) == 0  # every third clip
    (videos / ".video1.mp4.4711").write_bytes(b"half a clip")
    before = {p.name: p.stat().st_ino for p in videos.glob("*.mp4")}
    assert len(before) == 8
    Shapes(size="tiny", root=root, workers=1).samples("qa", "test")
    assert not videos.exists()
    assert {name: (root / "videos" / name).stat().st_ino for name in before} == before
    assert {k: v for k, v in hashes(root).items() if k.endswith(".mp4") or k.endswith(".json")} == {
        k: v for k, v in hashes(tiny.root).items() if k.endswith(".mp4") or k.endswith(".json")
    }
    assert not list((root / "videos").glob(".*"))


def test_the_rest_of_another_plan_is_thrown_away(tiny, tmp_path):
    videos = tmp_path / ".world.partial" / "videos"
    videos.mkdir(parents=True)
    (videos.parent / "plan.json").write_text(json.dumps(Blueprint("tiny", 7).record()))
    worker.main([str(videos), "tiny", "7", "0", "12"])
    Shapes(size="tiny", root=tmp_path / "world", workers=1).samples("qa", "test")
    assert hashes(tmp_path / "world") == hashes(tiny.root)


def test_kill_9_leaves_no_folder_and_no_process(tmp_path):
    root = tmp_path / "world"
    program = f"from vtp_datasets.shapes import Shapes; Shapes(size='medium', root={str(root)!r}, workers=2).manifest"
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    videos = tmp_path / ".world.partial" / "videos"
    try:
        _wait(lambda: videos.is_dir() and len(list(videos.glob("*.mp4"))) >= 4)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def workers():
        return [pid for pid in os.listdir("/proc") if pid.isdigit() and str(videos) in _command(pid)]

    _wait(lambda: not workers())
    assert not root.exists() and len(list(videos.glob("*.mp4"))) >= 4


def _command(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _wait(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.05)


def test_processes_that_want_the_same_folder_make_it_once(tiny, tmp_path):
    root = tmp_path / "world"
    program = f"from vtp_datasets.shapes import Shapes; Shapes(size='tiny', root={str(root)!r}, workers=1).manifest"
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert hashes(root) == hashes(tiny.root)


def test_an_existing_folder_is_used_as_it_is(tiny):
    before = {p: p.stat().st_mtime_ns for p in tiny.root.rglob("*")}
    again = Shapes(size="tiny", root=tiny.root, workers=1)
    assert again.manifest == tiny.manifest and len(again.samples("qa", "train")) == len(tiny.samples("qa", "train"))
    assert {p: p.stat().st_mtime_ns for p in tiny.root.rglob("*")} == before


@pytest.mark.parametrize(
    "options, words", [({"seed": 5}, ["seed=0", "seed=5"]), ({"size": "small"}, ["size=tiny", "size=small"])]
)
def test_another_data_set_in_the_folder_is_refused(copy, options, words):
    with pytest.raises(DataError) as error:
        Shapes(**{"size": "tiny"} | options, root=copy).samples("qa", "test")
    assert all(word in str(error.value) for word in [*words, str(copy), "dataset.root"])


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(DataError, match="not empty, and not made by shapes"):
        Shapes(size="tiny", root=tmp_path).samples("qa", "test")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_taken(tmp_path):
    root = tmp_path / "empty"
    root.mkdir()
    assert Shapes(size="tiny", root=root, workers=1).manifest["clips"] == 24


@pytest.mark.parametrize("damage", ["test_qa.json", "videos/video3.mp4", "clip cut off", "manifest.json"])
def test_a_damaged_folder_is_noticed(copy, damage):
    if damage == "clip cut off":
        os.truncate(copy / "videos" / "video3.mp4", 100)
    elif damage == "manifest.json":
        os.truncate(copy / damage, 20)
    elif damage == "test_qa.json":
        text = (copy / damage).read_text()
        (copy / damage).write_text(text.replace("red", "tan"))
    else:
        (copy / damage).unlink()
    with pytest.raises(DataError, match="Delete"):
        Shapes(size="tiny", root=copy).samples("qa", "test")


def test_a_rendering_process_that_dies_is_told_and_the_rest_is_kept(tmp_path, monkeypatch):
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho 'no such codec' >&2\nexit 3\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    with pytest.raises(RunError, match=r"2 of 2 .* ended with code 3: no such codec.*run the same command again"):
        build.ensure(tmp_path / "world", Blueprint("tiny", 0), workers=2)
    assert (tmp_path / ".world.partial").is_dir() and not (tmp_path / "world").exists()


def test_clips_that_no_process_made_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("true"))
    with pytest.raises(RunError, match="0 clips instead of 24"):
        build.ensure(tmp_path / "world", Blueprint("tiny", 0), workers=2)
    assert not (tmp_path / "world").exists()


def test_a_full_disk_is_told_before_it_is_filled(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(RunError, match="no space left on the disk.*1 MB.*dataset.root=FOLDER.*VTP_CACHE"):
        build.ensure(tmp_path / "world", Blueprint("tiny", 0))


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        build.ensure(tmp_path / "file" / "world", Blueprint("tiny", 0))


@pytest.mark.parametrize(
    "options, words",
    [({"size": "huge"}, "tiny, small, medium"), ({"seed": -1}, "seed=-1"), ({"workers": 0}, "workers=0")],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        Shapes(**options)


# -- the tables ------------------------------------------------------------------------------------------------------


def test_tables_are_read_back_by_the_msrvtt_reader(tiny):
    for split, clips in (("train", 16), ("val", 4), ("test", 4)):
        written = json.loads((tiny.root / f"{split}_qa.json").read_text())
        table = tiny.samples("qa", split)
        assert [(s.id, s.texts[0], s.labels["answer"]) for s in table] == [
            (str(x["id"]), x["question"], x["answer"]) for x in written
        ]
        assert [s.extra["question_type"] for s in table] == [
            tiny.manifest["categories"][x["category_id"]] for x in written
        ]
        assert all(os.path.isfile(s.video.path) and s.audio == s.video for s in table)
        for kind in ("caption", "retrieval"):
            assert len(tiny.samples(kind, split)) == clips
    assert {len(s.texts) for s in tiny.samples("retrieval", "train")} == {5}
    assert {len(s.texts) for s in tiny.samples("retrieval", "test")} == {1}
    assert {len(s.texts) for s in tiny.samples("caption", "test")} == {5}


def test_splits_share_no_clip_and_other_worlds_are_other_clips(tiny):
    seen = [{s.extra["video_id"] for s in tiny.samples("qa", split)} for split in ("train", "val", "test")]
    assert len(set.union(*seen)) == sum(map(len, seen)) == 24
    assert Shapes(size="tiny", seed=1).media_namespace != tiny.media_namespace


def test_origin_is_a_record_of_parameters_files_and_counts(tiny):
    tiny.samples("qa", "test")
    origin = json.loads(json.dumps(tiny.origin()))
    assert origin["root"] == str(tiny.root)
    assert origin["manifest"]["seed"] == 0 and origin["manifest"]["version"] == 1
    assert origin["tables"]["qa/test"] == {
        "samples": len(tiny.samples("qa", "test")),
        "clips": 4,
        "clips_on_disk": 4,
    }
    file = next(f for f in origin["files"] if f["path"].endswith("/test_qa.json"))
    assert file["sha256"] == hashlib.sha256((tiny.root / "test_qa.json").read_bytes()).hexdigest()
    assert file["malformed"] == 0


def test_waiting_is_said(tmp_path, caplog):
    """The second process of a torchrun must not look as if it hung."""
    lock = tmp_path / ".world.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, time; f = open({str(lock)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
         "print('held', flush=True); time.sleep(1)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout.readline() == b"held\n"
    with caplog.at_level(logging.INFO, logger="vtp"):
        build.ensure(tmp_path / "world", Blueprint("tiny", 0), workers=1)
    holder.stdout.close()
    holder.wait()
    assert "waiting for another process" in caplog.text


def test_the_class_of_a_clip_is_its_shape(tiny):
    for split in ("train", "val", "test"):
        scenes = Blueprint("tiny", 0).scenes(split)
        found = tiny.samples("classification", split)
        assert [s.labels["answer"] for s in found] == [scene.shape for scene in scenes]
        assert {s.texts for s in found} == {("",)} and len({s.extra["video_id"] for s in found}) == len(scenes)
