"""Options of earlier versions answer with what to write now: one line, exit code 2."""

from __future__ import annotations

import pytest

from vtp.cli.main import main


@pytest.mark.parametrize(
    "objective, argument, answer",
    [
        ("vtm", "objectives.vtm.negatives=hard", "objectives.vtm.negatives is now objectives.vtm.negatives_draw"),
        ("vtm", "+objectives.vtm.negatives=random", "negatives_draw (derange is what random was, random is new)"),
        ("mlm", "objectives.mlm.probability=0.3", "objectives.mlm.probability is now masks.text.probability."),
        ("mlm", "objectives.mlm.replace=mask", "objectives.mlm.replace is now masks.text.replace."),
        ("mlm", "masks.video.kind=random", "masks.video.kind=random is now masks.video.kind=token"),
    ],
)
def test_old_options_answer_with_the_new_ones(objective, argument, answer, tmp_path, capsys):
    common = ["task=msrvtt_retrieval", "dataset=shapes", "encoder/fusion=concat", f"run_dir={tmp_path / 'run'}"]
    assert main(["run", *common, f"objective=[vtc,{objective}]", argument]) == 2
    told = capsys.readouterr().err.strip()
    assert answer in told and "\n" not in told
