"""``vtp data cache`` and ``vtp data pack`` as a user gives them, killed and continued, and a training run that reads
from what they made."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vtp.cli import data_cache, data_pack
from vtp.cli.main import main
from vtp.media.cache import ClipCache
from vtp.media.cache_file import Entry
from vtp.prepare.pack import MANIFEST

VTP = [sys.executable, "-m", "vtp"]
HELPERS = Path(__file__).parents[1] / "media" / "test_cache.py"


def load_film():
    spec = importlib.util.spec_from_file_location("cache_films", HELPERS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.film


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    film = load_film()
    for number in range(6):
        film(folder / f"f{number}.mp4", frames=30, seed=number, sound=number % 2 == 0)
        (folder / f"f{number}.txt").write_text(f"caption {number}")
    return folder


@pytest.mark.slow
def test_a_cache_is_made_reported_and_completed(folder, tmp_path, capsys):
    out = tmp_path / "cache"
    (tmp_path / "list.csv").write_text(f"video\n{folder / 'f0.mp4'}\n{folder / 'f1.mp4'}\n{tmp_path / 'none.mp4'}\n")
    command = ["data", "cache", str(tmp_path / "list.csv"), str(out), "--kind", "raw", "--size", "48"]
    assert main(command) == 1  # a file is not in it
    assert "exit code 1, because 1 clips or rows are left out; --accept 1 accepts them" in capsys.readouterr().out
    (out / "clips").rename(tmp_path / "gone")
    assert main([*command, "--accept", "1"]) == 0
    said = capsys.readouterr().out
    assert "2 made, 0 were there, 1 failed" in said and "none.mp4: cannot be reached" in said
    assert f"data.cache={out}" in said and "times faster" in said
    report = json.loads((out / "report.json").read_text())
    assert (report["made"], report["files"]) == (2, 3)
    assert report["bytes"] == sum(path.stat().st_size for path in out.glob("clips/*/*"))
    assert report["bytes_of_originals"] == sum((folder / f"f{k}.mp4").stat().st_size for k in (0, 1))
    assert main(["data", "cache", str(folder), str(out), "--kind", "raw", "--size", "48"]) == 0
    assert "4 made, 2 were there, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cache", "nothing", "OUT"], "'nothing' is neither a data set nor a file or folder here"),
        (["cache", "no/such/folder", "OUT"], "there is no such file or folder"),
        (["cache", "FOLDER"], "OUT"),
        (["cache", "FOLDER", "OUT", "--kind", "png"], "transcode, jpeg, raw"),
        (["cache", "FOLDER", "OUT", "--audio", "loud"], "--audio: expected int (at least 1,000"),
        (["cache", "FOLDER", "OUT", "--size", "big"], "--size: expected int (at least 16"),
        (["cache", "FOLDER", "OUT", "size=4"], "is a folder, and size is for data sets"),
        (["pack", "FOLDER", "FOLDER"], "did not write"),
        (["pack", "FOLDER", "OUT", "--per-shard", "0"], "at least 1"),
    ],
)
def test_mistakes_are_told_in_one_line_with_exit_code_2(folder, tmp_path, capsys, arguments, said):
    names = {"FOLDER": str(folder), "OUT": str(tmp_path / "out")}
    assert main(["data", *(names.get(argument, argument) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_help_explains_both(capsys):
    for action in (data_cache.main, data_pack.main):
        with pytest.raises(SystemExit) as caught:
            action(["--help"])
        assert caught.value.code == 0
    assert "data.cache=OUT" in capsys.readouterr().out


@pytest.mark.parametrize("action", ["cache", "pack"])
def test_kill_9_leaves_only_whole_clips_and_the_next_call_goes_on(folder, tmp_path, action):
    out = tmp_path / "out"
    command = [*VTP, "data", action, str(folder), str(out), "--workers", "1"]
    command += ["--kind", "raw", "--size", "96"] if action == "cache" else ["--per-shard", "1", "--frames", "30"]
    pattern = "clips/*/*.clip" if action == "cache" else "0*_stats.json"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(out.glob(pattern))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in out.glob(pattern)}
    assert 2 <= len(done) <= 6
    if action == "cache":
        for path in done:
            Entry.open(path).check()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    if action == "cache":
        assert f"{6 - len(done)} made, {len(done)} were there, 0 failed" in again.stdout
        assert all(ClipCache(out).find(str(path))[0] is not None for path in folder.glob("*.mp4"))
    else:
        assert json.loads((out / MANIFEST).read_text())["keys"] == 6
    assert all(path.stat().st_mtime_ns == made for path, made in done.items())  # not written again
    assert not list(out.rglob(".*.tmp"))


@pytest.mark.slow
def test_training_reads_from_the_cache_and_from_shards_and_the_report_says_so(tmp_path):
    root = f"root={tmp_path / 'shapes'}"
    run = ["run", "task=msrvtt_qa", "train.steps=2", "train.global_batch=4", "data.workers=1", "threads=1"]
    run += ["data.limit_eval=8"]

    def vtp(*arguments: str) -> str:
        done = subprocess.run([*VTP, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    vtp("data", "cache", "shapes", "cache", "size=tiny", root, "--size", "48", "--kind", "raw")
    said = vtp(*run, "dataset=shapes", "dataset.size=tiny", f"dataset.{root}", "data.cache=cache", "run_dir=a")
    assert "files for training are in it" in said and "reads came from the cache" in said
    record = json.loads((tmp_path / "a" / "report.json").read_text())
    assert '"kind": "raw"' in json.dumps(record) and '"folder": "cache"' in json.dumps(record)
    for split in ("train", "test"):
        vtp("data", "pack", "shapes", split, "size=tiny", root, "kind=qa", f"split={split}", "--per-shard", "5")
    said = vtp(*run, "dataset=shards", "dataset.urls=train", "dataset.test_urls=test", "run_dir=b")
    assert json.loads((tmp_path / "b" / "report.json").read_text())
