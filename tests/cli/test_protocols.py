from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vtp.cli.main import main
from vtp.cli.run import compose
from vtp.errors import PluginError
from vtp.eval import protocol


def test_every_protocol_is_listed_with_its_counts(capsys):
    assert main(["protocols"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("msvd ")]
    assert "670 videos, 27,763 queries" in line and line.endswith("[tasks]")


def test_one_protocol_is_shown_with_hashes_and_what_has_none(capsys):
    assert main(["protocols", "show", "vatex"]) == 0
    out = capsys.readouterr().out
    assert "videos     1,500       sha256 efc26b559080d66f" in out
    assert "queries    15,000      no hash: reported as unverified" in out
    assert "trained on train: 25,991 videos" in out
    cuts = [line.split()[1] for line in out.splitlines() if line.startswith("  cut")]
    assert cuts == ["left_on_youtube:", "a_thousand:", "first_caption:"]
    (line,) = [
        line for line in out.splitlines() if "1,335" in line
    ]  # what circulates is a cut, and no count of the set
    assert "rule readable; seen with 1,335 clips" in line and "no rule: told, not scored; seen with 1,000" in out


def test_programs_get_json(capsys):
    assert main(["protocols", "show", "msvd_qa", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["counts"] == {"videos": 504, "questions": 13157} and record["kind"] == "qa"
    assert main(["protocols", "--json"]) == 0
    assert "msvd_qa" in [one["name"] for one in json.loads(capsys.readouterr().out)]


def test_a_file_of_ones_own_can_be_shown(tmp_path, capsys):
    own = tmp_path / "mine.yaml"
    own.write_text("{name: mine, title: t, dataset: d, kind: qa, split: test, counts: {questions: 1}}")
    assert main(["protocols", "show", str(own)]) == 0
    out = capsys.readouterr().out
    assert "questions  1" in out and "videos     number not known" in out


def test_show_says_what_binds(tmp_path, capsys):
    own = tmp_path / "mine.yaml"
    stated = "metrics: [t2v/r1, v2t/r1], ties: average, options: {v2t: set}, frames: 12, frames_note: as published"
    own.write_text(f"{{name: mine, title: t, dataset: d, kind: retrieval, split: val, counts: {{}}, {stated}}}")
    assert main(["protocols", "show", str(own)]) == 0
    binding, rest = capsys.readouterr().out.split("to know:")
    for line in ("d, table retrieval, split val, all of it", "metrics    t2v/r1 (the headline), v2t/r1",
                 "ties       average", "task.v2t=set", "frames     12 of a clip: as published"):  # fmt: skip
        assert line in binding
    assert "frames" not in rest
    assert main(["protocols", "show", "msvd"]) == 0
    assert "frames     left to the method" in capsys.readouterr().out.split("to know:")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "msvdqa"], "no protocol 'msvdqa'. Did you mean 'msvd_qa'"),
        (["show"], "`vtp protocols show NAME` shows one"),
        (["list", "msvd"], "`vtp protocols` lists them"),
        (["show", "nowhere.yaml"], "protocol nowhere.yaml: cannot be read"),
    ],
)
def test_mistakes_are_explained(arguments, message, capsys):
    assert main(["protocols", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_two_plugins_with_one_protocol_are_refused(tmp_path, monkeypatch):
    from types import SimpleNamespace

    for name in ("one", "two"):
        (tmp_path / name / "conf").mkdir(parents=True)
        (tmp_path / name / "protocols").mkdir()
        (tmp_path / name / "protocols" / "same.yaml").write_text("")
    points = [SimpleNamespace(name=name, builtin=False) for name in ("one", "two")]
    monkeypatch.setattr("vtp.plugins.Host.active_points", lambda self: points)
    monkeypatch.setattr("vtp.plugins.config_dir", lambda point: tmp_path / point.name / "conf")
    with pytest.raises(PluginError, match="the protocol same is offered by one and two"):
        protocol.Protocol.find("same")


def test_a_benchmark_of_ones_own_is_one_task_file_and_one_protocol_file(install, capsys):
    """The task file of docs/evaluation.md, as it stands there, in a package that has nothing else."""
    text = (Path(__file__).parents[2] / "docs/evaluation.md").read_text(encoding="utf-8")
    (task,) = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "my_clips" in block]
    stated = "{name: my_clips, title: my clips, dataset: csv, kind: retrieval, split: test, counts: {queries: 3}}"
    files = {"conf/task/my_clips_retrieval.yaml": task, "protocols/my_clips.yaml": stated}
    install("mine", files=files)
    node = compose(["task=my_clips_retrieval"])["task"]
    assert node == compose(["task=retrieval"])["task"] | {"protocol": "my_clips"}
    assert protocol.Protocol.find("my_clips").counts == {"queries": 3}
    assert main(["protocols"]) == 0
    assert re.search(r"^my_clips +my clips  \(3 queries\)  \[mine\]$", capsys.readouterr().out, re.M)
    assert main(["list", "task"]) == 0
    assert "my_clips_retrieval" in capsys.readouterr().out
