"""What a process takes of the machine: cores, and memory that it has freed."""

from __future__ import annotations

import contextlib
import ctypes
import os

__all__ = ["cores", "keep_memory"]

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
