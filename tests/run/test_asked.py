"""What is written down of a command: values of the environment are not, and what a resumed run changes is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vtp.cli.main import main
from vtp.run.asked import Environment, changes

SECRET = "glpat-abcdef123456"


def test_values_of_the_environment_stand_as_they_were_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.setenv("SEED", "3")
    config = OmegaConf.create(
        {
            "dataset": {"root": "/data/${oc.env:TOKEN}", "copy": "${dataset.root}"},
            "seed": "${oc.decode:${oc.env:SEED}}",
            "list": ["${oc.env:TOKEN}"],
            "node": "${dataset}",
            "other": "${oc.env:NOT_THERE,fallback}",
            "plain": "${seed}",
        }
    )
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict) and resolved["seed"] == 3 and resolved["other"] == "fallback"
    environment = Environment.of(config)
    asked = environment.asked(resolved)
    assert SECRET not in json.dumps(asked)
    assert asked["dataset"]["root"] == "/data/${oc.env:TOKEN}" and asked["list"] == ["${oc.env:TOKEN}"]
    assert (asked["seed"], asked["other"]) == ("${oc.decode:${oc.env:SEED}}", "${oc.env:NOT_THERE,fallback}")
    assert resolved["dataset"]["root"] == f"/data/{SECRET}"  # the run itself keeps the value
    assert environment.hide({"files": [f"/data/{SECRET}/a", 3]}) == {"files": ["/data/${oc.env:TOKEN}/a", 3]}
    again = OmegaConf.create({"a": "${oc.env:TOKEN}"})
    assert OmegaConf.to_container(again, resolve=True) == {"a": SECRET}  # omegaconf is as it was


def test_a_configuration_without_them_is_left_alone() -> None:
    config = OmegaConf.create({"a": 1, "b": "${a}"})
    assert Environment.of(config).asked({"a": 1, "b": 1}) == {"a": 1, "b": 1}


def test_no_file_of_a_run_holds_them(
    vtp: Callable[..., int], table: Callable[..., str], clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table("a.csv", train=range(12), test=range(12, 16))
    (tmp_path / SECRET).mkdir()
    (tmp_path / SECRET / "clips").symlink_to(clips)
    monkeypatch.setenv("TOKEN", SECRET)
    folder = f"{tmp_path}/${{oc.env:TOKEN}}/clips"
    root = [f"dataset.file={folder}/a.csv", f"dataset.root={folder}"]
    assert vtp(*root, "run_dir=a") == 0
    assert vtp(*root, "mode=train", "resume=auto", "run_dir=a", "train.steps=5") == 0
    written = [file for file in Path("a").rglob("*") if file.is_file()]
    assert {"config.yaml", "run.log", "report.json", "provenance.json"} <= {file.name for file in written}
    assert [file for file in written if SECRET.encode() in file.read_bytes()] == []
    assert vtp("dataset.file=${oc.env:TOKEN}/gone.csv", "run_dir=a", "resume=auto") == 2
    assert SECRET not in Path("a/run.log").read_text()
    assert "${oc.env:TOKEN}" in Path("a/config.yaml").read_text()


BEFORE = {"objectives": {"qa": {"weight": 1.0}}, "data": {"drop": [], "workers": 2}, "run_dir": "a", "seed": 0}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({}, []),
        ({"objectives": {"qa": {"weight": 0.25}}}, ["objectives.qa.weight was 1.0 and is 0.25 now"]),
        ({"data": {"drop": ["video"], "workers": 2}}, ["data.drop was [] and is ['video'] now"]),
        ({"data": {"drop": [], "workers": 0}, "run_dir": "b"}, []),
        (
            {"objectives": {}},
            ["objectives.qa.weight was 1.0 and is not given now", "objectives was not given and is {} now"],
        ),
        ({"seed": None}, ["seed was 0 and is null now"]),
        ({"new": {"key": 3}}, ["new.key was not given and is 3 now"]),
    ],
)
def test_changes_are_named(now: dict[str, object], said: list[str]) -> None:
    assert list(changes(BEFORE, BEFORE | now)) == said


def test_a_resumed_run_says_what_changed(
    vtp: Callable[..., int],
    table: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = f"dataset.file={table('a.csv', train=range(12), test=range(12, 16))}"
    assert vtp(data, "mode=train", "run_dir=a") == 0

    def told(*options: str) -> list[str]:
        capsys.readouterr()
        assert vtp(data, "mode=train", "resume=a", *options) == 0
        return sorted(line for line in capsys.readouterr().err.splitlines() if line.startswith("resume: "))

    assert told("run_dir=b") == []
    options = ["objectives.vtc.weight=0.25", "data.augment=false", "data.drop=[audio]", "train.steps=5"]
    assert told(*options, "run_dir=c") == [
        "resume: data.augment was True and is False now; the run goes on with the new value.",
        "resume: data.drop was [] and is ['audio'] now; the run goes on with the new value.",
        "resume: objectives.vtc.weight was 1.0 and is 0.25 now; the run goes on with the new value.",
        "resume: train.steps was 4 and is 5 now; the run goes on with the new value.",
    ]
    file = Path("a/checkpoints/last/provenance.json").resolve()
    known = json.loads(file.read_text())
    known["config"]["dataset"]["name"] = "jsonl"  # as if it had been trained with another reader
    folder = file.parent
    file.write_text(json.dumps(known))
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["provenance.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    assert vtp(data, "mode=train", "resume=a", "run_dir=d") == 2
    words = "resume: the checkpoint was trained with dataset=jsonl, now it is dataset=csv."
    assert words in capsys.readouterr().err and not Path("d").exists()
    assert vtp(data, "mode=train", "resume=a", "run_dir=d", "resume_other=true") == 0


@pytest.mark.slow
def test_resume_auto_finds_a_run_whose_length_was_given_on_the_command_line(
    tiny: list[str],
    table: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    data = f"dataset.file={table('a.csv', train=range(12), test=range(12, 16))}"
    command = ["run", *(option for option in tiny if option != "train.epochs=null"), data, "mode=train"]
    assert main(command) == 0
    (run,) = Path("outputs").glob("*/*")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"status": "running"}))
    assert main([*command, "resume=auto"]) == 0
    assert f"going on in {run}" in capsys.readouterr().err
