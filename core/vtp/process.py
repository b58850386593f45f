"""What of the process belongs to vtp and its user: where it writes, where it stands, how it prints numbers."""

from __future__ import annotations

import locale
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["put_back"]


@contextmanager
def put_back() -> Iterator[list[str]]:
    """Put back what code of others changes of it; what that code prints goes to stderr.

    Yields:
        what was changed, in words, once the block has ended.
    """
    changed: list[str] = []
    out, err, path, hook, depth = sys.stdout, sys.stderr, list(sys.path), sys.excepthook, sys.getrecursionlimit()
    spoken, folder = locale.setlocale(locale.LC_ALL), _folder()
    sys.stdout = err  # it must not end up in the JSON of a command
    try:
        yield changed
    finally:
        if sys.stdout is not err or sys.stderr is not err:
            changed.append("sys.stdout or sys.stderr")
        sys.stdout, sys.stderr = out, err
        if lost := [place for place in path if place not in sys.path]:
            changed.append("sys.path")
            sys.path += lost
        if sys.excepthook is not hook:
            changed.append("sys.excepthook")
            sys.excepthook = hook
        if sys.getrecursionlimit() < depth:
            changed.append("the recursion limit")
            sys.setrecursionlimit(depth)
        if locale.setlocale(locale.LC_ALL) != spoken:
            changed.append("the locale")
            locale.setlocale(locale.LC_ALL, spoken)
        if folder and _folder() != folder:
            changed.append("the working folder")
            os.chdir(folder)


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # somebody removed it
        return ""
