"""vtp mteb: tasks by name, results, mistakes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from seven_clips import CAPTIONS

from vtp.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.slow
def test_a_line_per_task_and_results_of_mteb(model: Path, clips: Path, tmp_path: Path, monkeypatch: Any, capsys: Any):
    mteb: Any = pytest.importorskip("mteb", reason="the bridge to mteb needs it")
    from local_tasks import retrieval

    videos = [clips / f"c{number}.mp4" for number in range(len(CAPTIONS))]
    made = {name: retrieval(name, "t2v", {"text": CAPTIONS}, {"video": videos}) for name in ("Seen", "Gone")}

    def gone(**how: Any) -> None:
        raise ConnectionError("the hub does not answer\nat all")

    made["Gone"].load_data = gone
    monkeypatch.setattr(mteb, "get_task", made.__getitem__)
    out = str(tmp_path / "results")
    assert main(["mteb", str(model), "Seen", "--out", out, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Seen") and "ndcg_at_10 0." in said
    results = [json.loads(file.read_text()) for file in (tmp_path / "results").rglob("Seen.json")]
    assert results and results[0]["task_name"] == "Seen"
    assert main(["mteb", str(model), "Seen", "Gone", "--out", out, "--device", "cpu"]) == 1
    seen, lost, _ = capsys.readouterr().out.splitlines()
    assert seen.startswith("Seen") and lost.startswith("Gone") and "failed: ConnectionError: the hub does not" in lost


@pytest.mark.slow
def test_mistakes_are_one_line(model: Path, tmp_path: Path, capsys: Any):
    pytest.importorskip("mteb", reason="the bridge to mteb needs it")
    assert main(["mteb", str(model), "MSRVTTT2X"]) == 2
    assert main(["mteb", str(tmp_path / "nowhere"), "MSRVTTT2V"]) == 2
    assert main(["mteb", str(model), "MSRVTTT2V", "--name", "mine"]) == 2
    task, place, name = capsys.readouterr().err.splitlines()
    assert "no task 'MSRVTTT2X'. Did you mean MSRVTTT2V" in task
    assert "nowhere" in place and "organisation/name" in name


def test_a_missing_library_is_one_line(model: Path, monkeypatch: Any, capsys: Any):
    monkeypatch.setitem(sys.modules, "mteb", None)
    assert main(["mteb", str(model), "MSRVTTT2V"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "pip install mteb" in said
