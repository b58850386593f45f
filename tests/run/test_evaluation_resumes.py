"""`kill -9` in the middle of an evaluation, then resume=auto: the files are those of a run that nobody stopped. And the
same for several processes and any number of workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SHAPES = ["dataset=shapes", "dataset.size=tiny", "threads=1"]
QA = ["task=msrvtt_qa"]
TASKS = {
    "qa": QA,
    "captioning": ["task=msrvtt_captioning", "task.beams=2"],
    "retrieval": ["task=msrvtt_retrieval", "model=base", "objective=[vtc,vtm]", "task.rerank=2", "task.dsl=true"],
}
TRAIN = ["train.steps=5", "train.epochs=null", "train.global_batch=8", "train.tensorboard=false", "mode=train"]
HERE = ("environment", "seal")  # of the machine and of the configuration


def command(folder: Path, *options: str, processes: int = 1) -> list[str]:
    if processes == 1:
        start = [sys.executable, "-m", "vtp"]
    else:
        start = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "-m", "vtp"]
    return [*start, "run", *SHAPES, f"run_dir={folder}", *options]


def run(folder: Path, *options: str, processes: int = 1) -> None:
    done = subprocess.run(command(folder, *options, processes=processes), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def left(folder: Path) -> tuple[bytes, dict]:
    """predictions.jsonl, and report.json without what tells one start from another."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    report = {key: value for key, value in report.items() if key not in HERE}
    for key in ("run_dir", "resume"):
        del report["config"][key]
    for key in ("workers", "eval_batch"):
        del report["config"]["data"][key]
    return (folder / "predictions.jsonl").read_bytes(), report


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    run(folder, *QA, *TRAIN, "data.workers=0")
    return folder


def kept(folder: Path) -> int:
    return sum(file.stat().st_size for file in (folder / ".evaluation").glob("*/*.0"))


def test_killed_and_resumed_it_leaves_the_files_of_an_unbroken_run(trained, tmp_path):
    asked = [*QA, "mode=eval", f"checkpoint={trained}", "data.eval_block=2", "data.workers=0"]
    run(tmp_path / "unbroken", *asked)
    started = subprocess.Popen(
        command(tmp_path / "killed", *asked), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 300
    while started.poll() is None and time.monotonic() < until and kept(tmp_path / "killed") < 4000:
        time.sleep(0.002)
    os.kill(started.pid, signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL and not (tmp_path / "killed" / "report.json").exists()
    before = kept(tmp_path / "killed")
    assert before >= 4000
    run(tmp_path / "killed", *asked, "resume=auto")
    assert left(tmp_path / "killed") == left(tmp_path / "unbroken")
    assert not (tmp_path / "killed" / ".evaluation").exists()


@pytest.mark.parametrize("task", TASKS)
def test_processes_workers_and_batches_change_nothing(task, tmp_path):
    world = f"dataset.root={tmp_path / 'shapes'}"
    run(tmp_path / "trained", *TASKS[task], *TRAIN, world, "data.workers=0")
    asked = [*TASKS[task], world, "mode=eval", f"checkpoint={tmp_path / 'trained'}", "data.eval_block=2"]
    want = None
    for name, processes, workers, batch in (("a", 1, 0, 8), ("b", 1, 2, 1), ("c", 2, 0, 3), ("d", 2, 2, 8)):
        run(tmp_path / name, *asked, f"data.workers={workers}", f"data.eval_batch={batch}", processes=processes)
        got = left(tmp_path / name)
        want = got if want is None else want
        assert got[0] == want[0], name
        assert got[1] == want[1], name
