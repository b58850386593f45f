"""Whose fault it is: components by the names that one chooses them with, and exceptions out of plugins' code.

title("encoder.video", "swin3d")   -> encoder.video=swin3d (vtp-plugin-swin3d)
fault_of(error)                    -> ComponentError that says so in one line, or None: then it is a bug of vtp
while_loading(error, "sample 'a'") -> that, or a LoadingError; both name the sample
"""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from types import FrameType

from vtp.errors import ComponentError, DataError, LoadingError, PluginError, RunError, VtpError
from vtp.registry import Entry

__all__ = ["fault_of", "system_fault", "title", "while_loading"]

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
_REFUSED |= {errno.ELOOP}


def title(node: str, name: str) -> str:
    """A component as it is chosen on the command line, and the distribution that it comes with.

    Args:
        node: ``encoder.video``, ``objective``, ``task``, ``dataset``, ``importer``, ...
        name: as registered, or whatever it is called where no plugin offers it.
    """
    from vtp.plugins import host

    try:
        found = host().registry.get(node.replace(".", "/"), name).distribution
    except PluginError:
        return f"{node}={name}"
    return f"{node}={name} ({found})"


def fault_of(error: BaseException) -> ComponentError | None:
    """What to tell about an exception out of a plugin's code; one that has been through here comes back as it is.

    The innermost frame that lies in vtp or in a plugin decides; a ValueError of vtp is about what it was given, so it
    is the fault of a plugin that called it.

    Args:
        error: as it was caught, with its traceback.

    Returns:
        None for what vtp raises on purpose, and unless it came out of the code of a plugin that is not built in. The
        traceback is a note of the result, so that it survives the way from a loader worker.
    """
    if isinstance(error, ComponentError) or not isinstance(error, Exception):
        return error if isinstance(error, ComponentError) else None
    if isinstance(error, VtpError):
        return None
    from vtp.plugins import host

    plugins = {i.point.package: i.point for i in host().infos if i.status == "loaded"}
    strangers = {package: point for package, point in plugins.items() if not point.builtin}
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    inner = None
    for frame in reversed(frames):
        package = _module(frame).partition(".")[0]
        if package in strangers:
            inner = frame
            break
        if (package == "vtp" or package in plugins) and not isinstance(error, ValueError):
            return None
    if inner is None:
        return None
    point = strangers[_module(inner).partition(".")[0]]
    entries = [entry for entry in host().registry.entries() if entry.plugin == point.name]
    entry = next((e for frame in reversed(frames) if (e := _entry(frame, entries))), None)
    who = f"plugin {point.name!r} ({point.distribution})"
    if entry is not None:
        who = title(entry.kind.replace("/", "."), entry.name)
    found = ComponentError(f"{who}: {_in_short(error, inner)}.")
    found.add_note("".join(traceback.format_exception(error)))
    return found


def while_loading(error: BaseException, what: str) -> VtpError:
    """What to raise for an exception that came while ``what`` was loaded; one that vtp raises on purpose comes back as
    it is.

    Args:
        error: as it was caught, with its traceback, which becomes a note: it survives the way from a loader worker.
        what: the sample or the rows, for people.
    """
    if isinstance(error, VtpError):
        return error
    found: VtpError | None = fault_of(error)
    if found is not None:
        told: VtpError = ComponentError(f"{found} It was about {what}.")
    else:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        told = LoadingError(f"{what} cannot be loaded: {_in_short(error, frames[-1] if frames else None)}.")
    told.add_note("".join(traceback.format_exception(error)))
    return told


def _in_short(error: BaseException, frame: FrameType | None) -> str:
    """``KeyError: 'a' (task.py, line 12)``, with the line that ``frame`` was in."""
    last = " ".join(traceback.format_exception_only(error)[-1].split())
    lines = [line for one, line in traceback.walk_tb(error.__traceback__) if one is frame]
    return f"{last} ({Path(frame.f_code.co_filename).name}, line {lines[0]})" if frame is not None and lines else last


def system_fault(error: BaseException) -> VtpError | None:
    """What to tell where the system refuses a place, which is the user's mistake (DataError), or the disk is full
    (RunError); None for every other exception.

    Args:
        error: as it was caught; the one that it was raised from may be the system's.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = None if isinstance(cause, VtpError) else cause.__cause__
    if cause is None or not (cause.errno in _FULL | _REFUSED or _makes_a_folder(cause)):
        return None
    names = [str(name) for name in (cause.filename, cause.filename2) if name is not None]
    where, why = (f"{' or '.join(names)}: " if names else ""), str(cause.strerror)
    if cause.errno in _FULL:
        return RunError(f"{where}{why}. Free some space, or name another folder, and give the same command again.")
    return DataError(f"{where}{why}. Name a place that can be read and written, or change its permissions.")


def _makes_a_folder(error: BaseException) -> bool:
    """Whether it came while a folder was made: in /proc and the like there can be none, and none is found."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_code.co_name in ("mkdir", "makedirs")


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _entry(frame: FrameType, entries: list[Entry]) -> Entry | None:
    """The component whose method or function a frame runs."""
    owner = frame.f_locals.get("self")
    targets = [f"{cls.__module__}:{cls.__qualname__}" for cls in type(owner).__mro__] if owner is not None else []
    targets.append(f"{_module(frame)}:{frame.f_code.co_qualname}")
    return next((entry for entry in entries if entry.target in targets), None)
