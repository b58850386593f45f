"""What a process takes of the machine (cores, memory that it has freed), and what its children do with signals."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Generator

__all__ = ["cores", "deaf_child", "ignore_stopping", "keep_memory"]

_STOPPING = (signal.SIGTERM, signal.SIGINT)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_MOST = 2**31 - 1  # what its int arguments hold


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_memory(piece: int = 64 << 20, total: int = 256 << 20) -> None:
    """Let glibc keep what this process frees: it needs the same megabytes for every clip or every training step, and
    getting them from the kernel again, page by page, takes longer than filling them. Does nothing with another C
    library.

    Args:
        piece: largest block, in bytes, that is kept; larger ones come from the kernel and go back to it.
        total: how much may lie free at the end of the heap before it is given back. 2 GiB - 1 is the most that glibc
            takes for either.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, min(piece, _MOST))
        mallopt(_M_TRIM_THRESHOLD, min(total, _MOST))


@contextlib.contextmanager
def deaf_child() -> Generator[None]:
    """Start a child process in here that calls :func:`ignore_stopping` itself.

    torchrun and Ctrl-C signal the whole process group, and what to do about that is ours to decide. A child is deaf
    from its first instruction on, not only from where its own code gets to run: it inherits that the signals wait. To
    this process they come late by the duration of the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_stopping() -> None:
    """In a child that :func:`deaf_child` started: SIGTERM and SIGINT, waiting or to come, do nothing."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
