"""Every command of the table of two towers in docs/encoders.md, on tiny checkpoints and a table of six clips."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from tower_models import SHORT, options_of, save

from vtp.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text()
ROWS = dict(re.findall(r"^\| `(\w+)` \| (`vtp run .*`) \|$", PAGE, re.MULTILINE))


def commands(name):
    return [shlex.split(one)[2:] for one in re.findall("`([^`]+)`", ROWS[name])]


def test_every_model_is_in_the_table():
    assert set(ROWS) == {"clip", "siglip2", "xclip", "videoprism", "pe_av", "clap", "qwen3_vl_embedding"}
    assert all(len(commands(name)) == 2 and "mode=eval" in commands(name)[0] for name in ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_the_commands_run(name, table, tmp_path, capsys):
    if "train.lora" in ROWS[name]:
        pytest.importorskip("peft", reason="train.lora needs peft")
    save(tmp_path / "model", name)
    given = [option for option in options_of(name, tmp_path / "model") if not option.startswith("model=")]
    for number, command in enumerate(commands(name)):
        options = [option.replace("my.csv", str(table)) for option in command]
        run = tmp_path / str(number)
        assert main(["run", *options, *given, *SHORT, f"run_dir={run}"]) == 0, capsys.readouterr().err
        report = json.loads((run / "report.json").read_text())
        assert (report["checkpoint"] is None) == (number == 0)
        assert report["ledger"]["evaluated"] == 2


@pytest.mark.slow
def test_what_would_be_random_is_not_measured(table, tmp_path, capsys):
    save(tmp_path / "clip", "clip")
    save(tmp_path / "other", "xclip")
    clip = ["run", *commands("clip")[0][:2], f"dataset.file={table}", *commands("clip")[0][3:], *SHORT]
    clip += [f"encoder.video.model={tmp_path / 'clip'}", f"run_dir={tmp_path / 'run'}", "encoder.text.max_length=16"]
    for options, said in (
        ([f"encoder.text.model={tmp_path / 'other'}"], "the weights of objectives.vtc would be random"),
        (["objectives.vtc.width=8"], "the weights of objectives.vtc would be random"),
        (["encoder.video.pretrained=false"], "mode=eval needs checkpoint=: a run folder"),
    ):
        assert main([*clip, *options]) == 2
        assert said in capsys.readouterr().err
