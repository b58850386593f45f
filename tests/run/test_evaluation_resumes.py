"""`kill -9` in the middle of an evaluation, then resume=auto: the files are those of a run that nobody stopped. And the
same for several processes and any number of workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
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


SLOWLY = """import json, os, sys, time
from vtp.cli.main import main
from vtp.eval.journal import Entry

add = Entry.add

def added(self, ids, *more):
    \"\"\"Keeps a batch, writes down which one it was, and takes its time.\"\"\"
    add(self, ids, *more)
    if ids:
        with open(os.environ["SCORED"], "a") as file:
            file.write(json.dumps([os.getpid(), self.path.name.partition(".")[0], ids]) + chr(10))
        time.sleep(float(os.environ["PAUSE"]))

Entry.add = added
sys.exit(main(sys.argv[1:]))
"""


def command(folder: Path, *options: str, processes: int = 1, vtp: Sequence[str] = ("-m", "vtp")) -> list[str]:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    return [*start, *vtp, "run", *SHAPES, f"run_dir={folder}", *options]


def run(folder: Path, *options: str, processes: int = 1) -> None:
    done = subprocess.run(command(folder, *options, processes=processes), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def left(folder: Path) -> tuple[bytes, dict]:
    """predictions.jsonl, and report.json without what tells one start from another."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    report = {key: value for key, value in report.items() if key not in HERE}
    report = json.loads(json.dumps(report).replace(str(folder), "RUN"))  # of a checkpoint in it
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


class Slow:
    """Runs whose batches are counted, in one folder; ``log(name)`` are the passes and ids that a run scored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "slow.py").write_text(SLOWLY)

    def start(self, name: str, *options: str, processes: int = 1, pause: float = 0.0) -> subprocess.Popen:
        surroundings = {**os.environ, "SCORED": str(self.folder / f"{name}.scored"), "PAUSE": str(pause)}
        line = command(self.folder / name / "run", *options, processes=processes, vtp=[str(self.folder / "slow.py")])
        with open(self.folder / f"{name}.out", "ab") as out:
            return subprocess.Popen(line, env=surroundings, stdout=out, stderr=out, start_new_session=True)

    def run(self, name: str, *options: str, processes: int = 1) -> None:
        code = self.start(name, *options, processes=processes).wait(timeout=600)
        assert code == 0, (self.folder / f"{name}.out").read_text()[-3000:]

    def lines(self, name: str) -> list[list]:
        file = self.folder / f"{name}.scored"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def log(self, name: str) -> list[tuple[str, str]]:
        return [(call, one) for _, call, ids in self.lines(name) for one in ids]

    def kill(self, name: str, *options: str, processes: int = 1, after: int = 4, whole: bool = True) -> None:
        """``kill -9`` of everything, or of one of the processes, once so many batches were scored."""
        started = self.start(name, *options, processes=processes, pause=0.3)
        until = time.monotonic() + 300
        while started.poll() is None and time.monotonic() < until and len(self.lines(name)) < after:
            time.sleep(0.01)
        assert started.poll() is None, (self.folder / f"{name}.out").read_text()[-3000:]
        for pid in self._processes(name) if whole else [self.lines(name)[-1][0]]:
            os.kill(pid, signal.SIGKILL)
        assert started.wait(timeout=120) != 0
        assert len(self.lines(name)) >= after

    def _processes(self, name: str) -> list[int]:
        """Of a run: torchrun starts sessions of their own, which outlive it."""
        mark = f"SCORED={self.folder / name}.scored".encode()
        found = []
        for one in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in one.read_bytes().split(b"\0"):
                    found.append(int(one.parent.name))
        return found

    def nothing_twice(self, name: str, unbroken: str, processes: int = 1) -> None:
        """A batch that was kept and not written down any more is all that may be lacking."""
        found, want = self.log(name), self.log(unbroken)
        assert len(found) == len(set(found)) and set(found) <= set(want)
        assert len(want) - len(found) <= 2 * processes


@pytest.fixture
def slow(tmp_path) -> Slow:
    return Slow(tmp_path)


@pytest.mark.parametrize("task", ["qa", "retrieval"])
@pytest.mark.parametrize("whole", [True, False], ids=["all of it", "one process"])
def test_two_processes_that_were_killed_score_nothing_twice(task, whole, slow, tmp_path):
    world = f"dataset.root={tmp_path / 'shapes'}"
    run(tmp_path / "trained", *TASKS[task], *TRAIN, world, "data.workers=0")
    asked = [*TASKS[task], world, "mode=eval", f"checkpoint={tmp_path / 'trained'}", "data.eval_block=2"]
    asked += ["data.workers=0", "data.eval_batch=2"]
    slow.run("unbroken", *asked, processes=2)
    slow.kill("killed", *asked, processes=2, whole=whole, after=3)
    assert not (tmp_path / "killed" / "run" / "report.json").exists()
    slow.run("killed", *asked, "resume=auto", processes=2)
    slow.nothing_twice("killed", "unbroken", processes=2)
    assert left(tmp_path / "killed" / "run") == left(tmp_path / "unbroken" / "run")
    assert not (tmp_path / "killed" / "run" / ".evaluation").exists()
    slow.kill("other", *asked, processes=2, whole=whole, after=3)
    slow.run("other", *asked, "resume=auto")  # and with another number of processes
    slow.nothing_twice("other", "unbroken", processes=2)
    assert left(tmp_path / "other" / "run") == left(tmp_path / "unbroken" / "run")


@pytest.mark.parametrize("task", TASKS)
def test_a_run_that_trains_and_evaluates_goes_on_where_it_was_killed(task, slow, tmp_path):
    asked = [*TASKS[task], f"dataset.root={tmp_path / 'shapes'}", "data.eval_block=2", "data.eval_batch=2"]
    asked += ["data.workers=0", *TRAIN[:-1], "train.eval_every=null"]
    slow.run("unbroken", *asked)
    slow.kill("killed", *asked, after=2)
    slow.run("killed", *asked, "resume=auto")
    slow.nothing_twice("killed", "unbroken")
    assert left(tmp_path / "killed" / "run") == left(tmp_path / "unbroken" / "run")


def test_predictions_go_on_where_they_were_killed(trained, slow, tmp_path):
    asked = [*QA, "mode=predict", f"checkpoint={trained}", "data.eval_block=2", "data.eval_batch=2", "data.workers=0"]
    slow.run("unbroken", *asked)
    slow.kill("killed", *asked)
    slow.run("killed", *asked, "resume=auto")
    slow.nothing_twice("killed", "unbroken")
    killed, unbroken = ((tmp_path / name / "run" / "predictions.jsonl").read_bytes() for name in ("killed", "unbroken"))
    assert killed == unbroken
    assert not (tmp_path / "killed" / "run" / ".evaluation").exists()
