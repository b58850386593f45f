"""How often a training step calls the shared encoder: once per pass over a micro-batch, whatever the objectives ask."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from simvtp_models import build, random_batch, spec, take_step

JOINT = ["text", "video"]
FEATURES = [["video"], ["text"]]
ALL = [*FEATURES, JOINT, JOINT, JOINT]  # mvm and mlm share one; positives and negatives see the words clean


@pytest.fixture
def calls():
    """``calls(model)``: fills with the modalities of each pass, one list per call of the encoder."""

    def watch(model):
        seen = []
        hook = lambda module, given, out: seen.append([sorted(one) for one in many(given[0])])  # noqa: E731
        model.encoders["fusion"].register_forward_hook(hook)
        return seen

    return watch


def many(given):
    return given if isinstance(given, list) else [given]


@pytest.mark.parametrize("accumulation, want", [(1, [ALL]), (2, [FEATURES, FEATURES, ALL, ALL])])
def test_one_call_per_pass(accumulation, want, vocab, calls):
    """With a contrastive objective accumulation is GradCache: its first passes make features and nothing else."""
    model = build(spec(vocab))
    seen = calls(model)
    take_step(model, random_batch(4), accumulation)
    assert seen == want


@pytest.mark.parametrize("accumulation", [1, 2])
def test_one_call_per_micro_batch_without_a_contrastive_objective(accumulation, vocab, calls):
    model = build(spec(vocab, objectives={"mvm": {}, "vtm": {}}))
    seen = calls(model)
    take_step(model, random_batch(4), accumulation)
    assert seen == [[JOINT, JOINT, JOINT]] * accumulation


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_both_passes_of_gradcache_draw_the_same(drop_path, vocab, monkeypatch):
    """Dropout of the words always; rows that drop path leaves out would differ if more passes ran in the same call."""
    options = spec(vocab)
    options["encoders"]["fusion"]["drop_path"] = drop_path
    model = build(options)
    made = []
    objective = model.objectives["vtc"]
    features = objective.features
    monkeypatch.setattr(objective, "features", lambda ctx: made.append(features(ctx)) or made[-1])
    take_step(model, random_batch(4), accumulation=2)
    for name in ("video_embedding", "text_embedding"):
        first, second = ([one[name].detach() for one in half] for half in (made[:2], made[2:]))
        torch.testing.assert_close(first, second)
        assert not torch.allclose(first[0], first[1])


COUNTED = """
import json, sys
from pathlib import Path
from vtp.cli.main import main
from vtp_simvtp.fusion import SharedViT

calls, forward = [], SharedViT.forward

def counted(self, tokens):
    if self.training:
        calls.append([sorted(one) for one in (tokens if isinstance(tokens, list) else [tokens])])
    return forward(self, tokens)

SharedViT.forward = counted
code = main(["run", *sys.argv[1:]])
Path("calls.json").write_text(json.dumps(calls))
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("accumulation, want", [(1, [ALL]), (2, [FEATURES, FEATURES, ALL, ALL])])
def test_vtp_run_calls_it_once_per_pass(accumulation, want, tmp_path):
    options = [
        "experiment=simvtp/tiny_pretrain",
        "dataset.size=tiny",
        f"dataset.root={tmp_path / 'shapes'}",
        "threads=1",
    ]
    options += ["encoder.video.frames=4", "encoder.video.size=32", "data.workers=0", "run_dir=run"]
    options += ["train.steps=2", "train.global_batch=4", f"train.accumulation={accumulation}", "train.save_every=0"]
    command = [sys.executable, "-c", COUNTED, *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "calls.json").read_text()) == 2 * want
