"""How processes that handle frames keep their memory."""

from __future__ import annotations

import contextlib
import ctypes

__all__ = ["keep_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_memory() -> None:
    """Let glibc keep what this process frees, up to 256 MiB: it needs the same megabytes for every clip, and getting
    them from the kernel again, page by page, takes longer than filling them. Does nothing with another C library."""
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 64 << 20)
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)
