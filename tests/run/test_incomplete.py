"""A test item that cannot be read is told in the headline, and the exit code says it too unless it may be missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vtp.cli.main import main


@pytest.fixture
def broken(clips: Path, tmp_path: Path) -> str:
    """A table whose third test clip is no video."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = ["video,caption,split"]
    for number in range(10):
        shutil.copy(clips / f"c{number}.mp4", folder)
        lines.append(f"c{number}.mp4,clip {number},{'test' if number > 5 else 'train'}")
    (folder / "c8.mp4").write_bytes(b"no video")
    (folder / "a.csv").write_text("\n".join(lines) + "\n")
    return f"dataset.file={folder / 'a.csv'}"


def test_an_incomplete_evaluation_says_so_everywhere(vtp, broken, tmp_path, capsys):
    assert vtp(broken, "run_dir=a", "train.steps=1") == 1
    told = capsys.readouterr()
    assert "INCOMPLETE retrieval: text-video retrieval (test)" in told.out
    assert "INCOMPLETE: what the missing 1 videos and 1 queries can have changed" in told.out
    assert "vtp run: INCOMPLETE: 1 of 4 videos could not be evaluated (first: c8.mp4: " in told.err
    assert "data.allow_incomplete=true accepts it" in told.err and "Traceback" not in told.err
    assert main(["verify", "a"]) == 0
    assert "a: verified, " in capsys.readouterr().out
    report = json.loads((tmp_path / "a/report.json").read_text())
    assert report["incomplete"] and report["bounds"]["t2v/r1"][0] <= report["metrics"]["t2v/r1"]
    low, high = report["bounds"]["t2v/mdr"]
    assert low <= report["metrics"]["t2v/mdr"] <= high and low < high
    assert json.loads((tmp_path / "a/run.json").read_text())["status"] == "finished"
    assert vtp(broken, "mode=eval", "checkpoint=a", "run_dir=b", "data.allow_incomplete=true") == 0
    told = capsys.readouterr()
    assert "INCOMPLETE retrieval" in told.out and told.err.count("INCOMPLETE") == 0
    assert vtp(broken, "task=[retrieval]", "mode=eval", "checkpoint=a", "run_dir=c", "data.max_missing=1") == 0
    assert "INCOMPLETE retrieval" in capsys.readouterr().out
    assert main(["verify", "c"]) == 0 and "c/retrieval: verified" in capsys.readouterr().out
    assert json.loads((tmp_path / "c/tasks.json").read_text())["tasks"]["retrieval"]["incomplete"]


@pytest.mark.slow
def test_a_complete_one_does_not(vtp, table, tmp_path, capsys):
    file = table("whole.csv", train=[0, 1, 2, 3], test=[4, 5])
    assert vtp(f"dataset.file={file}", "run_dir=a", "train.steps=1") == 0
    report = json.loads((tmp_path / "a/report.json").read_text())
    assert "INCOMPLETE" not in capsys.readouterr().out and not report["incomplete"] and report["bounds"] == {}
