"""One process at a time writes into a run folder, whatever it does there."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vtp import storage
from vtp.run.folder import find_unfinished, fingerprint
from vtp.storage import alone, is_locked

HOLDER = """
import sys, time
from pathlib import Path
from vtp.storage import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    process = holder(tmp_path)
    assert is_locked(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not is_locked(tmp_path) and not is_locked(tmp_path / "nothing")
    with alone(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_a_forked_process_does_not_hold_it(tmp_path: Path) -> None:
    """Workers of loaders live some seconds longer than a main process that was killed."""
    with alone(tmp_path):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
        child.start()
        time.sleep(0.2)
    assert not is_locked(tmp_path)
    child.kill()
    child.join()


def test_a_forked_process_does_not_give_it_back(tmp_path: Path) -> None:
    with alone(tmp_path):
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        assert is_locked(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_works_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def no_locks(descriptor: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with alone(tmp_path):
        assert not is_locked(tmp_path)
    assert "has no locks" in caplog.text
    monkeypatch.setattr(storage, "_NO_LOCKS", ())
    with pytest.raises(OSError), alone(tmp_path):
        pass


def test_a_run_in_a_folder_that_is_written_into_is_refused(
    tmp_path: Path, vtp: Callable[..., int], table: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"dataset.file={table('a.csv', train=range(12), test=range(12, 16))}"
    process = holder(tmp_path / "x")
    (tmp_path / "x" / "run.json").write_text("{}")
    (tmp_path / "x" / "run.log").write_text("")
    before = sorted(os.listdir(tmp_path / "x"))
    for options in (["mode=train"], ["resume=auto"], ["mode=eval", "checkpoint=x"], ["mode=predict", "checkpoint=x"]):
        assert vtp(data, *options, "run_dir=x") == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and "another process is writing into" in told and "/x." in told
    # a folder of somebody else is left as it was, but for what hydra writes about the command
    assert sorted(set(os.listdir(tmp_path / "x")) - {".hydra"}) == before
    assert (tmp_path / "x" / "run.json").read_text() == "{}" and (tmp_path / "x" / "run.log").read_text() == ""
    process.kill()
    process.communicate()


def test_resume_auto_passes_over_a_run_that_is_at_work(tmp_path: Path) -> None:
    wanted = fingerprint({"seed": 1})
    for name in ("a", "b"):
        folder = tmp_path / "day" / name
        folder.mkdir(parents=True)
        facts = {"status": "running", "fingerprint": wanted, "started": f"2026-01-0{1 + (name == 'b')}T00:00:01+0000"}
        (folder / "run.json").write_text(json.dumps(facts))
    assert find_unfinished(wanted, tmp_path) == tmp_path / "day" / "b"
    with alone(tmp_path / "day" / "b"):
        assert find_unfinished(wanted, tmp_path) == tmp_path / "day" / "a"
        with alone(tmp_path / "day" / "a"):
            assert find_unfinished(wanted, tmp_path) is None
