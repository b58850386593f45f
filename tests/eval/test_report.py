from __future__ import annotations

import hashlib
import json
import subprocess
from types import SimpleNamespace
from unittest.mock import ANY

import numpy as np
import pytest
from rich.console import Console

from vtp.eval.leaks import check_leaks, train_record
from vtp.eval.ledger import Ledger
from vtp.eval.report import checkpoint_hash, environment, git_state, print_result, write_report
from vtp.eval.task import ReportTable, TaskResult
from vtp.storage import DirectoryTransaction
from vtp.types import Sample

TOY = SimpleNamespace(name="toy")


@pytest.fixture
def result() -> TaskResult:
    ledger = Ledger(("q0", "q1"), {"q1": "no video stream"}, "questions", {"video": 1, "audio": 0})
    return TaskResult(
        "msrvtt_qa",
        "test",
        {"accuracy": 50.0, "top10": float("nan")},
        ledger,
        predictions=[
            {"id": "q0", "prediction": "grün", "credit": np.float64(1.0)},
            {"id": "q1", "missing": "no video stream"},
        ],
        protocol={"name": "msrvtt_qa@toy", "official": False},
        tables=[
            ReportTable(
                "title", ("type", "questions", "model"), (("what", 1234, 50.0), ("all", 2, None)), (ledger.line(),)
            )
        ],
        intervals={"accuracy": (0.0, 100.0)},
        rows={"question-only prior": {"accuracy": 10.0}},
        facts={"limited": True, "limit": 2, "tie_rule": "expected"},
        warnings=["protocol msrvtt_qa@toy: NOT the official msrvtt_qa"],
    )


def test_the_report_holds_what_a_number_needs_to_be_believed(tmp_path, result):
    sample = Sample("a", texts=("x",), extra={"video_id": "video1"})
    stages = [train_record("train", [sample], TOY, "train.7k")]
    with DirectoryTransaction(tmp_path / "checkpoint") as folder:
        (folder / "model.safetensors").write_bytes(b"weights")
    record = write_report(
        tmp_path, result, selection="val", seed=7, train=stages, leaks=check_leaks(stages, ["toy:video2"]),
        checkpoint=tmp_path / "checkpoint", config={"task": {"name": "qa"}, "path": tmp_path},
        plugins=[{"name": "tasks", "version": "1"}], extra={"dataset": {"root": "x"}},
    )  # fmt: skip
    written = json.loads((tmp_path / "report.json").read_text())
    assert written == record
    assert written["metrics"] == {"accuracy": 50.0, "top10": None}  # JSON has no NaN
    assert written["ledger"]["expected"] == 2 and written["ledger"]["missing_items"] == {"q1": "no video stream"}
    assert written["modality_coverage"] == {"video": 1.0, "audio": 0.0}
    assert written["train"][0]["list"] == "train.7k" and written["train"][0]["clips"] == 1
    assert "media" not in written["train"][0]  # a million names belong into the checkpoint
    assert written["selection"] == "val" and written["seed"] == 7 and written["leaks"]["leak"] is False
    assert written["checkpoint"]["sha256"] == checkpoint_hash(tmp_path / "checkpoint")
    assert written["config"]["path"] == str(tmp_path) and written["dataset"] == {"root": "x"}
    assert written["environment"]["libraries"]["torch"] and written["environment"]["plugins"][0]["name"] == "tasks"
    lines = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": "q0", "prediction": "grün", "credit": 1.0, "check": ANY},
        {"id": "q1", "missing": "no video stream", "check": ANY},
    ]
    for place, line in enumerate(lines):  # PLACE:HASH, the hash of the line without it
        text, mark = line.removesuffix('"}').split(', "check": "')
        assert mark == f"{place}:{hashlib.sha256((text + '}').encode()).hexdigest()[:8]}"


def test_what_a_reader_must_know_first_is_a_warning(tmp_path, result):
    sample = Sample("a", texts=("x",), extra={"video_id": "video1"})
    stages = [train_record("train", [sample], TOY), {"stage": "downloaded", "media": None}]
    leaks = check_leaks(stages, ["toy:video1"], on_leak="stamp")
    warnings = write_report(tmp_path, result, selection="test(!)", seed=0, train=stages, leaks=leaks)["warnings"]
    text = "\n".join(warnings)
    for part in (
        "NOT the official",
        "LEAK: 1 of 1",
        "training clips of: downloaded",
        "selected on the test set",
        "1 of 2 questions",
        "data.limit_eval=2",
    ):
        assert part in text


def test_tables_show_coverage_and_warnings_as_plain_text(result):
    console = Console(width=100, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    print_result(result, {"warnings": ["LEAK: [bold]x[/bold]"]}, console)
    console.file.close()
    text = console.export_text()
    assert "1 of 2 questions evaluated (50.00 %), 1 missing counted as miss" in text
    assert "1,234" in text and "50.00" in text and "-" in text and "[bold]x[/bold]" in text


def test_a_failed_write_keeps_the_old_report(tmp_path, result, monkeypatch):
    write_report(tmp_path, result, selection="last", seed=0)
    before = (tmp_path / "report.json").read_text()
    result.predictions.append({"id": object()})
    monkeypatch.setattr("vtp.eval.report.write_text_atomic", _fail)
    with pytest.raises(OSError, match="disk"):
        write_report(tmp_path, result, selection="last", seed=1)
    assert (tmp_path / "report.json").read_text() == before


def _fail(path, text):
    raise OSError("disk")


def test_the_checkpoint_hash_is_that_of_its_weights(tmp_path):
    import hashlib

    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert checkpoint_hash(tmp_path) == hashlib.sha256(b"weights").hexdigest()
    assert checkpoint_hash(tmp_path / "absent") is None


def test_the_source_state_names_commit_and_changes(tmp_path):
    assert git_state(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    (tmp_path / "file").write_text("1")
    for arguments in (["init", "-q"], ["add", "file"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *arguments], check=True)
    clean = git_state(tmp_path)
    assert clean is not None and len(clean["commit"]) == 40 and not clean["dirty"]
    (tmp_path / "file").write_text("2")
    dirty = git_state(tmp_path)
    assert dirty["dirty"] and dirty["changed"] == ["file"] and dirty["commit"] == clean["commit"]
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "module.py").write_text("")
    assert git_state(installed) is None  # below somebody's repository, but not part of it


def test_the_environment_is_json():
    assert json.loads(json.dumps(environment([{"name": "x"}])))["vtp"]
