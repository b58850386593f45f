"""Makes ``toy_training`` importable, here and in the processes that the tests start."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``toy_training.launch(**options)`` as a process of its own; all that still run are killed at the end."""
    running: list[subprocess.Popen[str]] = []

    def run(**options: Any) -> subprocess.Popen[str]:
        running.append(_spawn([str(HERE / "toy_training.py")], options, {}))
        return running[-1]

    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def two_ranks() -> Callable[..., None]:
    """Run two ranks of a script to the end, with ``TOY`` set to ``options``; fails when one of them does."""

    def run(arguments: list[str], options: Any) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCH_CPP_LOG_LEVEL": "ERROR"}
        ranks = [_spawn(arguments, options, {**group, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(2)]
        try:
            output = [rank.communicate(timeout=400)[0] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(output)

    return run


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 2 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no permission to mount a small file system")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def _spawn(arguments: list[str], options: Any, extra: dict[str, str]) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "TOY": json.dumps(options)}
    return subprocess.Popen(
        [sys.executable, *arguments], env={**env, **extra}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
