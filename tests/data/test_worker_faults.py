"""An exception that nobody expects ends the run with one line, for any number of workers, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from number_files import SPECS, NumberReader, pipeline, table, take
from test_loaders import _children, loader

from vtp.data import EvalLoader, Pipeline, TrainLoader
from vtp.errors import LoadingError, RunError
from vtp.types import Sample

FAULTS: dict[str, Callable[[], Any]] = {
    "KeyError: 'no such answer'": lambda: {}["no such answer"],
    "MemoryError": lambda: (_ for _ in ()).throw(MemoryError()),
    "OSError: [Errno 28] No space left on device": lambda: (_ for _ in ()).throw(
        OSError(28, "No space left on device")
    ),
}


def broken(fault: Callable[[], Any]) -> Callable[[Sample], dict[str, int]]:
    def labels(sample: Sample) -> dict[str, int]:
        if sample.id == "s5":
            fault()
        return {"label": 1}

    return labels


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_exception_in_training_names_the_sample_and_ends_the_workers(workers: int, fault: str) -> None:
    before = set(_children())
    pipe = Pipeline(SPECS, train=True, labels=broken(FAULTS[fault]), reader=NumberReader())
    with pytest.raises(LoadingError) as error:
        take(TrainLoader(table(8), pipe, global_batch=4, workers=workers), 4)
    told = str(error.value)  # the traceback still holds the loader
    assert told.startswith("the sample 's5' (/v/5) cannot be loaded: " + fault) and "\n" not in told
    assert "test_worker_faults.py, line " in told
    assert "labels" in error.value.__notes__[0]  # for run.log
    assert set(_children()) <= before


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_in_evaluation_does_so_too(workers: int) -> None:
    before = set(_children())
    pipe = Pipeline(SPECS, train=False, labels=broken(FAULTS["MemoryError"]), reader=NumberReader())
    with pytest.raises(LoadingError, match=r"^the sample 's5' \(/v/5\) cannot be loaded: MemoryError"):
        list(EvalLoader(table(8), pipe, batch_size=2, workers=workers))
    assert set(_children()) <= before


def test_a_worker_that_is_made_to_leave_says_so() -> None:
    def leave() -> None:
        raise SystemExit(3)

    pipe = Pipeline(SPECS, train=True, labels=broken(leave), reader=NumberReader())
    with pytest.raises(LoadingError, match="SystemExit: 3"):
        take(TrainLoader(table(8), pipe, global_batch=4, workers=1), 4)


def test_the_table_itself_may_fail() -> None:
    class Table(list[Sample]):
        def __getitem__(self, row: Any) -> Any:
            raise IndexError("beyond the file")

    with pytest.raises(LoadingError, match=r"^row \d of the table cannot be loaded: IndexError: beyond the file"):
        take(TrainLoader(Table(table(4)), pipeline(), global_batch=2), 1)


def test_a_worker_that_is_killed_from_outside_ends_the_run_in_one_line() -> None:
    before = set(_children())
    iterator = iter(loader(count=4000, workers=2))
    next(iterator)
    victim = min(set(_children()) - before)
    os.kill(victim, signal.SIGKILL)
    time.sleep(0.2)
    assert sum(range(100_000)) > 0  # no exception comes out of the blue here, as torch would raise one
    started = time.monotonic()
    with pytest.raises(RunError, match=rf"^a loader worker \(process {victim}\) was killed by SIGKILL from outside"):
        take(iterator, 1000)
    assert time.monotonic() - started < 15
    assert set(_children()) <= before


SCRIPT = """
import os
import signal
import sys
sys.path.insert(0, {tests!r})
from number_files import SPECS, NumberReader, table, take
from vtp.data import Pipeline, TrainLoader, workers as loader_workers

loader_workers._SMALL = 0  # every tensor goes as a descriptor, through a socket in the folder

def labels(sample):
    raise KeyError(sample.id)

class Stays(NumberReader):
    def read(self, ref, wanted):
        print("reading", flush=True)
        return super().read(ref, wanted)

def main(workers, how):
    given = {{"labels": labels}} if how == "raises" else {{}}
    batches = iter(TrainLoader(table(400), Pipeline(SPECS, train=True, reader=Stays(), **given), global_batch=4,
                               workers=workers))
    for _ in range(3):
        next(batches)
    if how == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ZeroDivisionError("while the loader is at work")

main(int(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raises", "goes on"])
def test_a_program_with_workers_ends_and_leaves_no_folder(tmp_path: Path, how: str) -> None:
    script = SCRIPT.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", script, "2", how],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    last = done.stderr.strip().splitlines()
    assert done.returncode == 1
    assert any(("LoadingError" if how == "raises" else "ZeroDivisionError") in line for line in last)
    assert "DataLoader worker" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # a worker looks every five seconds whether it is an orphan
def test_workers_of_a_killed_program_clear_up_without_a_word(tmp_path: Path) -> None:
    script = SCRIPT.format(tests=str(Path(__file__).parent))
    with open(tmp_path / "stderr", "w+") as stderr:
        done = subprocess.run(
            [sys.executable, "-c", script, "3", "is killed"],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            timeout=90,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL
        end = time.monotonic() + 30
        while len(list(tmp_path.iterdir())) > 1 and time.monotonic() < end:
            time.sleep(0.1)
        assert [path.name for path in tmp_path.iterdir()] == ["stderr"]
        time.sleep(1)
        stderr.seek(0)
        assert stderr.read() == ""
