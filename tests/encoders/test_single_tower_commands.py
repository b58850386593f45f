"""Every command of the table of one tower and a text encoder in docs/encoders.md, at tiny size, and its evaluation."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from tower_models import SHORT

from vtp.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text()
ROWS = dict(re.findall(r"^\| ([\w -]+) \| `(vtp run .*)` \|$", PAGE, re.MULTILINE))


@pytest.fixture(scope="module")
def models(hub, ast, videomae, bert):
    """Of each row the options that make it tiny."""
    written = f"encoder.text.model={bert}"
    sound = {"Whisper": hub("whisper"), "AST": ast, "wav2vec2": hub("wav2vec2")}
    seen = {"VideoMAE": videomae, "VideoMAE v2": hub("videomae v2"), "V-JEPA 2": hub("vjepa2")}
    tiny = {name: [f"encoder.audio.model={folder}", written] for name, folder in sound.items()}
    tiny |= {name: [f"encoder.video.model={folder}", written] for name, folder in seen.items()}
    tiny["V-JEPA 2"].append("encoder.video.frames=4")
    tiny["wav2vec2"].append("encoder.audio.seconds=0.1")  # its tokens are 32 times shorter than those of a real one
    # the smallest Perception Encoder that timm has a name for; no weights of it are to be had here
    pe = "encoder.video.model=vit_pe_core_tiny_patch16_384"
    tiny["PE-Core"] = [pe, "encoder.video.pretrained=false", "encoder.video.frames=1", "encoder.video.size=32", written]
    tiny["ModernBERT"] = [f"encoder.text.model={hub('modernbert')}", "encoder.video.size=32"]
    return tiny


def test_every_row_stands_in_the_table():
    video = ["VideoMAE", "VideoMAE v2", "V-JEPA 2", "PE-Core", "ModernBERT"]
    assert list(ROWS) == [*video, "Whisper", "AST", "wav2vec2"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_the_command_runs_and_its_checkpoint_is_measured(name, models, table, tmp_path, capsys):
    command = [option.replace("my.csv", str(table)) for option in shlex.split(ROWS[name])[1:]]
    options = [*command, *models[name], *SHORT]
    assert main([*options, f"run_dir={tmp_path / 'run'}"]) == 0, capsys.readouterr().err
    evaluation = [*options, "mode=eval", f"checkpoint={tmp_path / 'run'}", f"run_dir={tmp_path / 'eval'}"]
    assert main(evaluation) == 0, capsys.readouterr().err
    trained, again = (json.loads((tmp_path / run / "report.json").read_text()) for run in ("run", "eval"))
    assert again["ledger"]["evaluated"] == 2 and again["metrics"] == trained["metrics"]


@pytest.mark.slow
def test_towers_without_a_common_space_are_not_measured_before_training(models, table, tmp_path, capsys):
    command = [option.replace("my.csv", str(table)) for option in shlex.split(ROWS["VideoMAE"])[1:]]
    assert main([*command, *models["VideoMAE"], *SHORT, "mode=eval", f"run_dir={tmp_path / 'run'}"]) == 2
    assert "the weights of objectives.vtc would be random" in capsys.readouterr().err
