"""What a run was trained on is never forgotten: not by resume, not by a second resume, not by a stamp."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vtp.run.stages import continued, recorded

A, B = {"stage": "a", "sha256": "1", "clips": 3}, {"stage": "b", "sha256": "2", "clips": 3}
C = {"stage": "c", "sha256": "1", "clips": 3}


def checkpoint(folder: Path, stages: object) -> Path:
    (folder / "provenance.json").write_text(json.dumps({"stages": stages}))
    return folder


def test_the_last_stage_goes_on_unless_its_clips_are_others(tmp_path: Path) -> None:
    assert continued(checkpoint(tmp_path, [B, A]), C) == [B, C]
    assert continued(checkpoint(tmp_path, [A, B]), C) == [A, B, C]


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "{}", '{"stages": []}', '{"stages": [3]}', "[" * 100_000])
def test_of_a_checkpoint_that_does_not_say_nothing_is_known(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "provenance.json").write_text(text)
    assert recorded(tmp_path) == [{"stage": tmp_path.name, "media": None}]
    assert continued(tmp_path, A) == [{"stage": tmp_path.name, "media": None}, A]


@pytest.fixture
def trained(vtp: Callable[..., int], table: Callable[..., str]) -> tuple[str, str]:
    """A run ``a`` on clips 0 to 11, and a table that tests on four of them."""
    first = table("a.csv", train=range(12), test=range(12, 16))
    assert vtp(f"dataset.file={first}", "mode=train", "run_dir=a") == 0
    return first, table("b.csv", train=range(8, 16), test=range(4))


def stages(run: str) -> list[str]:
    return [stage["stage"] for stage in json.loads(Path(run, "checkpoints/last/provenance.json").read_text())["stages"]]


def test_a_resumed_run_remembers_its_first_clips(
    vtp: Callable[..., int], trained: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = trained
    capsys.readouterr()
    assert vtp(f"dataset.file={second}", "train.steps=8", "resume=a", "run_dir=b") == 2
    told = capsys.readouterr().err
    assert "LEAK: 4 of 4 test clips were in training (stage a: 4" in told
    assert not Path("b/metrics.jsonl").exists()  # said before the first step
    stamped = ["data.on_leak=stamp", "train.steps=8"]
    assert vtp(f"dataset.file={second}", *stamped, "resume=a", "run_dir=b") == 0
    assert stages("b") == ["a", "b"]
    assert json.loads(Path("b/report.json").read_text())["leaks"]["leaked_clips"] == 4
    # the same clips again, in another folder: a and b stay, and c is b going on
    assert vtp(f"dataset.file={second}", "train.steps=12", "mode=train", "resume=b", "run_dir=c") == 0
    assert stages("c") == ["a", "c"]
    assert vtp(f"dataset.file={second}", "mode=eval", "checkpoint=c", "run_dir=d") == 2
    assert "LEAK: 4 of 4" in capsys.readouterr().err


@pytest.mark.slow
def test_neither_does_a_stamped_one_forget_what_it_started_from(
    vtp: Callable[..., int], trained: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    second = f"dataset.file={trained[1]}"
    assert vtp(second, "init_from=a", "data.on_leak=stamp", "run_dir=b") == 0
    assert vtp(second, "train.steps=8", "resume=b", "run_dir=c") == 2
    assert vtp(second, "train.steps=8", "resume=auto", "run_dir=b") == 2
    assert "LEAK" in capsys.readouterr().err
    assert vtp(second, "train.steps=8", "resume=auto", "run_dir=b", "data.on_leak=stamp") == 0
    assert stages("b") == ["a", "b"]


@pytest.mark.slow
def test_a_run_on_the_same_clips_is_one_stage(vtp: Callable[..., int], trained: tuple[str, str]) -> None:
    first = f"dataset.file={trained[0]}"
    assert vtp(first, "train.steps=8", "resume=a", "run_dir=b") == 0
    assert stages("b") == ["b"]
    assert vtp(first, "train.steps=8", "data.limit_train=8", "mode=train", "resume=a", "run_dir=c") == 0
    assert stages("c") == ["a", "c"]  # of fewer clips: those of a are not forgotten


def test_a_training_clip_is_found_in_the_test_split_however_it_is_spelled(
    vtp: Callable[..., int], clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("./c0.mp4", "c0", f"{clips}/c0.mp4", "x/../c0.mp4")):
        file = clips / f"leak{number}.csv"
        file.write_text(f"video,caption,split\nc0.mp4,a,train\nc1.mp4,b,train\n{name},c,test\nc2.mp4,d,test\n")
        assert vtp(f"dataset.file={file}", f"run_dir=leak{number}") == 2
        assert "LEAK: 1 of 2 test clips were in training" in capsys.readouterr().err
