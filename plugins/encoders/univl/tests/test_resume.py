"""A run with queues that is killed and continued is the unbroken one, step by step."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vtp.model.weights import WEIGHTS
from vtp_datasets.shapes import Shapes

STEPS = 6
RUN = ["run", "task=msrvtt_retrieval", "dataset=shapes", "dataset.size=tiny", "model=univl", "mode=train"]
RUN += ["objective=[univl/moco,univl/hscl,univl/mlm]", "objectives.vtm.change_iter=2", "objectives.vtm.change_rate=0.5"]
RUN += ["objectives.vtc.queue_size=64", "objectives.vtc.momentum=0.9", f"train.steps={STEPS}", "train.epochs=null"]
RUN += ["train.global_batch=6", "train.log_every=1", "train.save_every=1", "train.keep=null", "train.tensorboard=false"]
RUN += ["train.eval_every=0", "data.workers=0", "threads=1"]
RUN += ["encoder.text.width=32", "encoder.text.depth=1", "encoder.text.heads=2"]
RUN += ["encoder.video.width=32", "encoder.video.frames=3"]


def start(world: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vtp", *RUN, f"dataset.root={world / 'shapes'}", f"run_dir={world / name}"]
    with (world / f"{name}.log").open("ab") as output:
        return subprocess.Popen([*command, *options], stdout=output, stderr=output)


def losses(folder: Path) -> dict[int, dict[str, float]]:
    """By step; of a step that was made twice the last one."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["losses"] for line in lines if "losses" in line}


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    Shapes(size="tiny", root=str(tmp_path / "shapes")).samples("retrieval", "train")
    assert start(tmp_path, "whole").wait() == 0, (tmp_path / "whole.log").read_text()[-2000:]
    killed = start(tmp_path, "killed")
    third = tmp_path / "killed" / "checkpoints" / "step_00000003"
    while not third.exists() and killed.poll() is None:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "it had ended before it could be killed"
    assert start(tmp_path, "killed", "resume=auto").wait() == 0, (tmp_path / "killed.log").read_text()[-2000:]
    want, found = losses(tmp_path / "whole"), losses(tmp_path / "killed")
    assert sorted(want) == sorted(found) == list(range(1, STEPS + 1))
    assert found == want
    final = f"checkpoints/step_{STEPS:08d}"
    states = [load_file(tmp_path / run / final / WEIGHTS) for run in ("whole", "killed")]
    names = [name for name in states[0] if "queue" in name or "key_encoders" in name]
    assert any(name.endswith("text_queue_ptr") for name in names) and len(names) > 20
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name]), name
