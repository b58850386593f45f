"""Freed memory stays with the process that will need it again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from vtp.run import launch
from vtp.run.folder import RunFolder

FAULTS = """
import ctypes, resource, sys
from vtp.machine import keep_memory
if sys.argv[1:]:
    keep_memory(*map(int, sys.argv[1:]))
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.memset.restype = ctypes.c_void_p
def use(size=40_000_000):  # more than glibc keeps by itself
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    libc.memset(block, 1, ctypes.c_size_t(size))
    libc.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_kept_memory_is_not_asked_for_again():
    pages = 5 * 40_000_000 // 4096

    def faults(*arguments: int) -> int:
        command = [sys.executable, "-c", FAULTS, *map(str, arguments)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)

    assert faults(1 << 30, 2 << 30) < pages / 10
    assert faults() > pages / 2
    assert faults(1 << 20, 2 << 30) > pages / 2  # larger than a piece that is kept


@pytest.mark.parametrize("device, keeps", [("cpu", True), ("cuda", False)])
def test_a_run_on_a_cpu_keeps_its_memory(device, keeps, monkeypatch, tmp_path):
    class Started(Exception):
        pass

    def start(*arguments):
        raise Started

    kept = []
    monkeypatch.setattr("vtp.distributed.setup", lambda name: torch.device(device))
    monkeypatch.setattr(launch, "check", lambda config, folder: None)
    monkeypatch.setattr(launch, "_set_threads", lambda config: None)
    monkeypatch.setattr(launch, "keep_memory", lambda *sizes: kept.append(sizes))
    monkeypatch.setattr("vtp.run.run.Run", start)
    with pytest.raises(Started):
        launch.execute({"": {"device": device}}, RunFolder(tmp_path))
    assert bool(kept) == keeps
