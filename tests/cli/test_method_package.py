"""A method is one package: encoders, objective, importer, frame sampler, form of task, model and experiment come from a
folder outside the tree, and nothing of the core or of the root is touched. Through the public commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = """
from vtp import hookimpl

@hookimpl
def vtp_register_encoders(register):
    register("acme", "acme.encoders:Words", slot="text")
    register("acme", "acme.encoders:Frames", slot="video")

@hookimpl
def vtp_register_objectives(register):
    register("acme", "acme.objective:Length")

@hookimpl
def vtp_register_samplers(register):
    register("acme_ends", "acme.sampling:ends")

@hookimpl
def vtp_register_transforms(register):
    register("acme_fade", "acme.sampling:Fade", modality="video")

@hookimpl
def vtp_register_importers(register):
    register("acme", "acme.importer:read")

@hookimpl
def vtp_register_forms(register):
    register("acme_length", "acme.task:lines", counted="captions")

@hookimpl
def vtp_register_tasks(register):
    register("acme_length", "acme.task:CaptionLength")
"""

FILES = {
    "encoders.py": """
import torch
from torch import nn
from vtp.types import TextSpec, Tokens, VideoSpec

def letters(texts):
    return [[1, *(3 + ord(c) % 29 for c in text[:14]), 2] for text in texts]

class Words(nn.Module):
    def __init__(self, *, width: int = 16):
        super().__init__()
        self.width, self.table = width, nn.Embedding(32, width)
        self.spec = TextSpec(letters, pad_id=0, mask_id=-1, cls_id=1, sep_id=2, special_ids=(0, 1, 2), vocab_size=32,
                             max_length=16)

    def forward(self, token_ids, attention_mask):
        return Tokens(self.table(token_ids), attention_mask)

class Frames(nn.Module):
    def __init__(self, *, width: int = 16):
        super().__init__()
        self.width, self.spec, self.head = width, VideoSpec(frames=2, size=32), nn.Linear(3, width)

    def forward(self, video):
        x = self.head(video.mean(dim=(3, 4)))
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))
""",
    "objective.py": """
from torch import nn
from vtp.model.objective import Objective, masked_mean
from vtp.types import LossOutput

class Length(Objective):
    needs = frozenset({"video", "text"})

    def __init__(self, *, context):
        super().__init__()
        self.head = nn.Linear(sum(context.pooled_width(m) for m in ("video", "text")), 1)

    def length(self, ctx):
        import torch
        return self.head(torch.cat([ctx.pooled("video"), ctx.pooled("text")], dim=1))[:, 0]

    def forward(self, ctx):
        rows, wanted = self.rows(ctx), ctx.batch.labels["length"].float()
        return LossOutput(masked_mean((self.length(ctx) - wanted).square(), rows), rows.sum())
""",
    "sampling.py": """
import numpy as np

def ends(info, *, frames, stride, generator):
    return np.linspace(0, info.count - 1, frames).round().astype(int)

class Fade:
    def __init__(self, *, most: float = 0.2):
        self.most = most

    def __call__(self, frames, *, generator):
        return (frames * (1 - generator.uniform(0, self.most))).astype(np.uint8)
""",
    "importer.py": """
from safetensors.torch import load_file

def read(path, *, width: int = 16):
    theirs = load_file(path)
    spec = {"encoders": {"video": {"name": "acme", "width": width}}, "objectives": {}}
    used = {"w": "encoders.video.head.weight", "b": "encoders.video.head.bias"}
    return spec, {ours: theirs[name] for name, ours in used.items()}, {"kind": "acme", "used": used}
""",
    "task.py": """
from vtp.data.table import media_id
from vtp.eval.protocol import Protocol
from vtp.eval.task import ReportTable, TaskResult

def lines(sample):
    return [f"{media_id(sample)}\\t{len(sample.texts[0])}"]

class CaptionLength:
    name, kind, selection, monitor = "acme_length", "acme_length", "last", ("error", "min")

    def __init__(self, *, dataset, protocol: str = "acme_length"):
        self.dataset, self.protocol = dataset, Protocol.find(protocol)

    def samples(self, split):
        return self.dataset.samples("retrieval", split)

    def train_samples(self):
        return self.samples("train")

    def labels(self, sample):
        return {"length": len(sample.texts[0])}

    def evaluate(self, evaluator, split="test", *, detail=True):
        samples = evaluator.limited(self.samples(split))
        found = evaluator.run(samples, self.error, what="clips")
        error = found.full("error", fill=1e6)
        match = self.protocol.match(samples, self.dataset.name, split)
        table = ReportTable("lengths", ("error",), ((float(error.mean()),),), (match.line(),))
        return TaskResult(self.name, split, {"error": float(error.mean())}, found.ledger, protocol=match.record(),
                          tables=[table], predictions=[{"id": name} for name in found.ids])

    def predict(self, evaluator, split="test"):
        return self.evaluate(evaluator, split)

    def error(self, ctx):
        length = ctx.model.objectives["acme"].length(ctx)
        return {"error": (length - ctx.batch.labels["length"].float()).abs()}
""",
    "conf/encoder/text/acme.yaml": "# Letters.\nname: acme\nwidth: 16\n",
    "conf/encoder/video/acme.yaml": "# Mean colour of each frame.\nname: acme\nwidth: 16\n",
    "conf/objective/acme.yaml": "# @package objectives.acme\n# How long a caption is.\nname: acme\nweight: 1.0\n",
    "conf/model/acme.yaml": """# @package _global_
# Letters and mean colours.
defaults:
  - override /encoder/text@_global_.encoder.text: acme
  - override /encoder/video@_global_.encoder.video: acme
""",
    "conf/task/acme_length.yaml": """# @package _global_
# Guess how long a caption is.
defaults:
  - override /dataset: shapes
  - override /model: acme
  - override /objective: [acme]

task:
  name: acme_length
  protocol: acme_length
""",
    "conf/experiment/acme/tiny.yaml": """# @package _global_
# Everything of this package at once.
defaults:
  - override /task: acme_length

dataset: {size: tiny}
data: {sampler: acme_ends, transforms: {video: {acme_fade: {most: 0.5}}}, workers: 0}
train: {steps: 2, epochs: null, global_batch: 4}
""",
    "../acme/protocols/acme_length.yaml": """name: acme_length
title: lengths of captions
dataset: shapes
kind: acme_length
split: test
counts: {captions: 1}
""",
}


@pytest.fixture
def vtp(site, install, tmp_path):
    """Runs a vtp command with the package on the path; returns its output."""
    install("acme", PLUGIN, files=FILES)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "vtp", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_a_method_package_needs_nothing_from_the_tree(vtp, tmp_path):
    listed = vtp("plugins")
    assert "broken" not in listed and "acme" in listed
    assert "acme_length" in vtp("protocols", "show", "acme_length")

    printed = vtp("run", "experiment=acme/tiny", "run_dir=run", "threads=1")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "NOT the official acme_length" in printed  # one caption is expected, and shapes has more
    assert report["protocol"]["counts"]["captions"] == report["ledger"]["expected"] > 1
    assert 0 < report["metrics"]["error"] < 1e6

    vtp("run", "experiment=acme/tiny", "mode=predict", "checkpoint=run", "run_dir=again")
    assert len((tmp_path / "again" / "predictions.jsonl").read_text().splitlines()) == report["ledger"]["expected"]


@pytest.mark.slow
def test_its_importer_makes_a_checkpoint(vtp, tmp_path):
    import torch
    from safetensors.torch import save_file

    weight, bias = torch.randn(16, 3), torch.randn(16)
    save_file({"w": weight, "b": bias}, tmp_path / "theirs.safetensors")
    assert "2 tensors used" in vtp("import", "acme", "theirs.safetensors", "ours")
    assert Path(tmp_path, "ours", "model.safetensors").is_file()
    vtp("run", "experiment=acme/tiny", "init_from=ours", "init_allow_missing=[encoders.text.*,objectives.*]")
