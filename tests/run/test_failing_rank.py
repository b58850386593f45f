"""Several processes of which one fails or stops: the first one says which and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vtp import distributed
from vtp.errors import ConfigError
from vtp.run.asked import Environment
from vtp.run.folder import RunFolder

RUN = """
import os, sys, time
from vtp.cli.main import main
from vtp.train import step
if os.environ["RANK"] == "1":
    def fail(*_):
        {what}
    step.Step.__call__ = fail
sys.exit(main(["run", "task=msrvtt_qa", "dataset=shapes", "dataset.size=tiny", "mode=train", "train.epochs=null",
    "train.steps=2", "train.global_batch=4", "data.workers=0", "media.isolate=false", "train.tensorboard=false",
    "run_dir=r", "device=cpu"]))
"""


def torchrun(folder: Path, what: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "start.py").write_text(RUN.format(what=what))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", "start.py"]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=500)


@pytest.mark.slow
def test_the_reason_of_a_failing_process_is_that_of_the_run(tmp_path):
    run = torchrun(tmp_path, 'raise KeyError("no such word")')
    assert run.returncode == 1
    said = "process 1 of 2 failed: KeyError: 'no such word'"
    assert said in json.loads((tmp_path / "r" / "run.json").read_text())["error"] and said in run.stderr
    assert "no such word" in (tmp_path / "r" / "run.log").read_text()


@pytest.mark.slow
def test_a_process_that_does_not_answer_ends_the_run_after_the_limit(tmp_path):
    run = torchrun(tmp_path, "time.sleep(400)", VTP_RANK_TIMEOUT_S="20")
    assert run.returncode == 1
    said = "another of the 2 processes has not answered for 20 seconds"
    assert said in json.loads((tmp_path / "r" / "run.json").read_text())["error"] and said in run.stderr


def test_failures_are_told_by_rank_and_forgotten_at_the_next_start(tmp_path):
    folder = RunFolder(tmp_path, Environment())
    assert folder.failures() == {}
    folder.tell_failure(3, KeyError("x"))
    folder.tell_failure(1, OSError("disk full"))
    assert folder.failures() == {1: "OSError: disk full", 3: "KeyError: 'x'"}
    folder.forget_failures()
    assert folder.failures() == {} and not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan", "inf"])
def test_a_limit_that_is_no_time(text, monkeypatch):
    monkeypatch.setenv("VTP_RANK_TIMEOUT_S", text)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="VTP_RANK_TIMEOUT_S"):
        distributed.setup("cpu")
