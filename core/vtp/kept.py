"""Answers about the installed packages that take longer to find than Python takes to start: kept in vtp's cache, with
the state of the files and folders that they depend on. Imports nothing that bare Python has not imported.

An answer counts until one of those files changes, or another version of vtp or of Python, or another search path asks.
"""

from __future__ import annotations

import os
import sys
import time

from vtp import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SWITCHES", "keep", "kept", "search_path", "vtp_modules", "watched_by"]

SWITCHES = ("VTP_BLOCK_PLUGINS", "VTP_LOAD_PLUGINS", "VTP_STRICT_PLUGINS")  # which plugins count

_TICK_NS = 2_000_000_000  # what changed less than this ago may change again without a new time in its inode


def kept(name: str, asked: str = "") -> list[str] | None:
    """The lines of that answer; None if there is none that still counts.

    Args:
        asked: what else the answer depends on, in one line.
    """
    found = _read(name)
    if found is None or found[0] != _environment(asked):
        return None
    _, watched, lines = found
    for line in watched:
        state, _, path = line.partition("\t")
        if state != _state(path):
            return None
    return lines


def watched_by(name: str, asked: str = "") -> list[str] | None:
    """The paths that a kept answer depends on; None if there is none that still counts."""
    found = None if kept(name, asked) is None else _read(name)
    return None if found is None else [line.partition("\t")[2] for line in found[1]]


def _read(name: str) -> tuple[str, list[str], list[str]] | None:
    """For what it was asked, the state of what it depends on, and the answer."""
    try:
        with open(_file(name), encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            first, count, *lines = file.read().split("\n")
        watched = int(count)
    except (OSError, ValueError):
        return None
    return (first, lines[:watched], lines[watched:-1]) if lines[-1:] == ["end"] else None


def keep(name: str, lines: Iterable[str], watched: Iterable[str], asked: str = "") -> None:
    """Keep an answer, if there is room and right to write and nothing that it depends on has just changed.

    Args:
        watched: the paths of what it depends on.
    """
    watched, newest = sorted(set(watched)), time.time_ns() - _TICK_NS
    states = [_state(path) for path in watched]
    if any(state and int(state.split()[0]) > newest for state in states):
        return
    looked = [f"{state}\t{path}" for state, path in zip(states, watched, strict=True)]
    parts = [_environment(asked), str(len(watched)), *looked, *lines, "end"]
    if any("\n" in part for part in parts):
        return
    file = _file(name)
    temporary = f"{file}.{os.getpid()}.tmp"
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as writing:
            writing.write("\n".join(parts))
        os.replace(temporary, file)
    except OSError:
        pass


def search_path() -> list[str]:
    """The folders that packages are found in: their times change when one is installed or removed."""
    return [path or os.getcwd() for path in sys.path]


def vtp_modules(packages: Iterable[str] = ()) -> set[str]:
    """The files of all modules of vtp, and of those packages, that are loaded."""
    wanted = {"vtp", *packages}
    return {
        path
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in wanted and (path := getattr(module, "__file__", None))
    }


def _file(name: str) -> str:
    """One for each Python environment."""
    root = os.environ.get("VTP_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "vtp")
    place = "".join(letter if letter.isalnum() else "-" for letter in sys.prefix)
    return os.path.join(root, "installed", f"{name}{place[-200:]}.txt")


def _environment(asked: str) -> str:
    return repr((__version__, sys.version, search_path(), asked))


def _state(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{found.st_mtime_ns} {found.st_size}"
