"""Several tasks on one checkpoint: a folder for each, a table of all, and one that fails costs the others nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vtp.cli.main import main
from vtp.errors import RunError
from vtp.run import tasks
from vtp.run.tasks import measure


def report(metrics: dict[str, float]) -> str:
    return json.dumps({"task": "x", "split": "test", "metrics": metrics, "ledger": {"coverage": 1.0}})


def run(config: dict[str, Any], folder: Path) -> None:
    if "error" in config:
        raise config["error"]
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(report(config["metrics"]))


def configs(**outcomes: Any) -> dict[str, dict[str, Any]]:
    return {
        task: {"checkpoint": "RUN", **({"error": value} if isinstance(value, Exception) else {"metrics": value})}
        for task, value in outcomes.items()
    }


def test_all_that_can_be_measured_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = configs(a={"r1": 1.0}, b=RunError("no disk"), c=ValueError("a bug"), d={"accuracy": 2.0})
    assert measure(wrong, tmp_path, run) == RunError.exit_code
    found = json.loads((tmp_path / "tasks.json").read_text())
    assert list(found["tasks"]) == ["a", "b", "c", "d"] and found["checkpoint"] == "RUN"
    assert found["tasks"]["a"]["metrics"] == {"r1": 1.0} and found["tasks"]["a"]["report"] == "a/report.json"
    assert found["tasks"]["b"] == {"error": "no disk"} and found["tasks"]["c"] == {"error": "ValueError: a bug"}
    assert "a bug" in (tmp_path / "c" / "run.log").read_text()
    printed = capsys.readouterr()
    assert "vtp run: b: no disk" in printed.err and "accuracy" in printed.out and "failed" in printed.out
    assert measure(configs(a={"r1": 1.0}), tmp_path / "fine", run) == 0


def test_on_several_processes_a_bug_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other processes may be in the middle of something."""
    monkeypatch.setattr(tasks.distributed, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="a bug"):
        measure(configs(a=ValueError("a bug"), b={"r1": 1.0}), tmp_path, run)
    assert measure(configs(a=RunError("told by all"), b={"r1": 1.0}), tmp_path, run) == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["task=[msvd_qa,msvd_qa]", "mode=eval"], "msvd_qa is named twice"),
        (["task=[]", "mode=eval"], "expected different tasks"),
        (["task=[msvd_qa,msvd_retrieval]", "-m"], "cannot be swept"),
        (["task=[msvd_qa,nothing]", "mode=eval"], "nothing: no 'nothing' in 'task'"),
        (["task=[msvd_qa,msvd_retrieval]"], "add mode=eval (or predict) and checkpoint=RUN"),
        (
            ["task=[msvd_qa,msvd_retrieval]", "mode=eval", "checkpoint=gone"],
            "msvd_retrieval: checkpoint=gone: no such checkpoint",
        ),
    ],
)
def test_mistakes(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", *arguments]) == 2
    assert words in capsys.readouterr().err
