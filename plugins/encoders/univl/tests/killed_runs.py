"""A run of the command line that is killed after its third step and continued, and the same run unbroken."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from vtp.model.weights import WEIGHTS
from vtp_datasets.shapes import Shapes

STEPS = 6
RUN = ["run", "task=msrvtt_retrieval", "dataset=shapes", "dataset.size=tiny", "mode=train", f"train.steps={STEPS}"]
RUN += ["train.epochs=null", "train.global_batch=6", "train.log_every=1", "train.save_every=1", "train.keep=null"]
RUN += ["train.tensorboard=false", "train.eval_every=0", "data.workers=0", "threads=1"]
RUN += ["encoder.text.width=32", "encoder.text.depth=1", "encoder.text.heads=2"]
RUN += ["encoder.video.width=32", "encoder.video.frames=3"]


def is_the_unbroken_one(world: Path, options: Sequence[str]) -> dict[str, Tensor]:
    """Assert that losses and last weights of both runs are equal.

    Args:
        world: an empty folder.
        options: of the model; its text and video encoder have the options of those of UniVL.

    Returns:
        The last weights.
    """
    Shapes(size="tiny", root=str(world / "shapes")).samples("retrieval", "train")
    assert _start(world, "whole", options).wait() == 0, (world / "whole.log").read_text()[-2000:]
    killed = _start(world, "killed", options)
    third = world / "killed" / "checkpoints" / "step_00000003"
    while not third.exists() and killed.poll() is None:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "it had ended before it could be killed"
    assert _start(world, "killed", [*options, "resume=auto"]).wait() == 0, (world / "killed.log").read_text()[-2000:]
    want, found = _losses(world / "whole"), _losses(world / "killed")
    assert sorted(want) == sorted(found) == list(range(1, STEPS + 1))
    assert found == want
    final = f"checkpoints/step_{STEPS:08d}"
    whole, continued = (load_file(world / run / final / WEIGHTS) for run in ("whole", "killed"))
    for name in whole:
        assert torch.equal(whole[name], continued[name]), name
    return whole


def _start(world: Path, name: str, options: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vtp", *RUN, f"dataset.root={world / 'shapes'}", f"run_dir={world / name}"]
    with (world / f"{name}.log").open("ab") as output:
        return subprocess.Popen([*command, *options], stdout=output, stderr=output)


def _losses(folder: Path) -> dict[int, dict[str, float]]:
    """By step; of a step that was made twice the last one."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["losses"] for line in lines if "losses" in line}
