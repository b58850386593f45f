"""Files that are either there and whole, or not there: atomic text and JSON files, and folders that are written as
one transaction.

A folder is written beside its final place, every file is flushed to the disk, ``manifest.json`` with the size and
sha256 of each file is added, and only then the folder gets its name. A reader therefore never sees a half-written
folder, and :func:`verify_directory` finds what a disk lost later.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from vtp.errors import ConfigError, DataError, RunError

__all__ = [
    "ELSEWHERE",
    "LOCK",
    "MANIFEST",
    "DirectoryTransaction",
    "alone",
    "append_line",
    "cache_root",
    "clean_leftovers",
    "is_locked",
    "replacing",
    "sha256_of",
    "take_lock",
    "verify_directory",
    "write_json_atomic",
    "write_text_atomic",
]

log = logging.getLogger("vtp")

MANIFEST = "manifest.json"
LOCK = ".lock"
ELSEWHERE = "Free some space, or name another place."  # where no run is to go on
_TEMPORARY = re.compile(r"^\..+\.[0-9a-f]{12}\.tmp$")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def cache_root() -> Path:
    """Where vtp keeps what it can make again: ``$VTP_CACHE``, by default ``~/.cache/vtp``."""
    return Path(os.environ.get("VTP_CACHE") or "~/.cache/vtp").expanduser()


@contextmanager
def replacing(path: Path | str, expected_bytes: int = 0, then: str = "") -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of ``path`` when the block ends: a reader sees the old file or the new
    one, never a part. After an error the old one stays. The folder must exist.

    Args:
        expected_bytes: size of what will be written, if known, for the error.
        then: what to do when the disk is full; by default, to go on with the run.

    Raises:
        RunError: the disk is full.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except Exception as error:
        if _means_full(error):
            written = temporary.stat().st_size if temporary.exists() else 0
            raise RunError(_disk_full(path, max(expected_bytes, written), then)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8 so that a reader sees the old file or the new one, never a part. The folder must exist.

    Raises:
        RunError: the disk is full; the old file is untouched.
    """
    data = text.encode()
    with replacing(path, len(data)) as file:
        file.write(data)


def append_line(path: Path | str, text: str) -> None:
    """Append ``text`` as a line of UTF-8. A killed writer may leave a part of its line at the end: it does not swallow
    this one, and readers of such files skip it.

    Raises:
        RunError: the disk is full.
    """
    data = text.encode() + b"\n"
    try:
        with open(path, "a+b") as file:
            if file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                data = b"\n" + data
            file.write(data)
    except OSError as error:
        if error.errno in _FULL:
            raise RunError(_disk_full(Path(path), len(data))) from error
        raise


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Only one process writes into ``folder`` at a time. The lock is the system's: it ends with this process, however
    that ends, and processes that are forked from it do not hold it.

    Raises:
        ConfigError: another one is at work there.
    """
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    owner = os.getpid()
    _held.add(file)
    try:
        if not take_lock(file, wait=False):
            raise ConfigError(
                f"another process is writing into {folder}. Wait for it to end, or end it; or choose another folder."
            )
        yield
    finally:
        if os.getpid() == owner:
            _held.discard(file)
            os.close(file)


def is_locked(folder: Path) -> bool:
    """Whether another process (or this one) is in :func:`alone` with ``folder``."""
    try:
        file = os.open(folder / LOCK, os.O_RDWR)
    except OSError:  # never locked, or not ours to write
        return False
    try:
        return not take_lock(file, wait=False)
    finally:
        os.close(file)


def take_lock(descriptor: int, wait: bool = True) -> bool:
    """Lock an open file for this process alone; False if another one holds it. Where the file system has no locks (some
    network disks), everybody gets one, with a warning.

    Args:
        descriptor: closing it gives the lock back.
        wait: for the process that holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.warning("this file system has no locks (%s): nothing keeps two processes apart here", error.strerror)
    return True


def _let_go() -> None:
    """In a forked process: its copies would keep the locks of a parent that was killed."""
    for file in _held:
        with suppress(OSError):
            os.close(file)
    _held.clear()


_held: set[int] = set()  # descriptors of locks of this process
os.register_at_fork(after_in_child=_let_go)


def write_json_atomic(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON with :func:`write_text_atomic`. NaN and infinity are refused: other readers
    cannot parse them.
    """
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


class DirectoryTransaction:
    """Write a folder completely or not at all::

        with DirectoryTransaction(run_dir / "checkpoints" / "step_00000120") as folder:
            save_file(tensors, folder / "model.safetensors")

    On success the folder stands under its final name, flushed to the disk, with a manifest. When the body raises, the
    temporary folder is removed and what was there before is untouched. A killed process leaves a hidden ``.NAME.<12
    hex digits>.tmp`` that no reader looks at, and that the next transaction of this folder removes.

    Args:
        final: the folder to make. If it exists it is replaced at the very end.
        expected_bytes: size of what will be written, if known: refused at once when the disk has less, and named in
            the error when it runs full.
        then: what to do when the disk is full; by default, to go on with the run.

    Raises:
        RunError: the disk is full; says how much was needed and how much there was.
        DataError: there can be no such folder.
    """

    def __init__(self, final: Path | str, expected_bytes: int | None = None, then: str = "") -> None:
        self.final = Path(final)
        self.expected_bytes = expected_bytes
        self.then = then
        self.path = _temporary(self.final)
        self._lock: int | None = None

    def __enter__(self) -> Path:
        try:
            self.final.parent.mkdir(parents=True, exist_ok=True)
            _clean_after_killed(self.final)
            self.path.mkdir()
        except OSError as error:
            if _means_full(error):
                raise RunError(_disk_full(self.final, self.expected_bytes or 0, self.then)) from error
            why = f"{error.filename} is a file" if isinstance(error, FileExistsError) else error.strerror
            raise DataError(
                f"{self.final}: no folder can be made there ({why}). Name a place that can be written."
            ) from error
        self._lock = _lock_of(self.path)
        if self.expected_bytes is not None and shutil.disk_usage(self.path).free < self.expected_bytes:
            self._end()
            raise RunError(_disk_full(self.final, self.expected_bytes, self.then))
        return self.path

    def _end(self) -> None:
        """Without a trace."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None and self._lock in _held:  # else a fork has let go of it
            _held.discard(self._lock)
            os.close(self._lock)
        self._lock = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._commit()
        except BaseException as failure:
            error = failure
            raise
        finally:
            if error is not None:
                needed = max(self.expected_bytes or 0, _size(self.path))
                self._end()
                if _means_full(error):
                    raise RunError(_disk_full(self.final, needed, self.then)) from error
            self._unlock()

    def _commit(self) -> None:
        _write_manifest(self.path)
        _sync_directory(self.path)
        replaced = None
        if self.final.exists():  # os.rename cannot replace a folder that is not empty
            replaced = _temporary(self.final)
            os.rename(self.final, replaced)
        try:
            os.rename(self.path, self.final)
        except OSError:
            if replaced is not None:
                os.rename(replaced, self.final)
            raise
        _sync_directory(self.final.parent)
        if replaced is not None:
            shutil.rmtree(replaced, ignore_errors=True)


def verify_directory(path: Path | str) -> str | None:
    """Compare a folder with its manifest: None if every file is there with its size and sha256, else the reason in
    one line.

    Files that the manifest does not name are ignored.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        if not manifest["files"]:
            return f"{MANIFEST} lists no files"
        for name, facts in manifest["files"].items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            size = file.stat().st_size
            if size != facts["bytes"]:
                return f"{name} has {size} bytes instead of {facts['bytes']}"
            if sha256_of(file) != facts["sha256"]:
                return f"{name} has changed (sha256 differs from {MANIFEST})"
    except FileNotFoundError:
        return f"{MANIFEST} is missing" if path.is_dir() else "there is no such folder"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} cannot be read"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def clean_leftovers(folder: Path | str) -> None:
    """Remove the temporary files and folders that killed writers left in ``folder``. Only its one writer may call
    this.
    """
    folder = Path(folder)
    if folder.is_dir():
        for entry in folder.iterdir():
            if _TEMPORARY.match(entry.name):
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def _clean_after_killed(final: Path) -> None:
    """Remove what killed transactions of ``final`` left beside it. One that is at work holds the lock of its folder;
    where the file system has no locks, all stays."""
    for entry in final.parent.glob(f".{glob.escape(final.name)}.*.tmp"):
        if _TEMPORARY.match(entry.name) and entry.is_dir() and (lock := _lock_of(entry)) is not None:
            shutil.rmtree(entry, ignore_errors=True)
            _held.discard(lock)
            os.close(lock)


def _lock_of(folder: Path) -> int | None:
    """The descriptor of a folder that is locked for this process; None where another one has it, or nobody can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    _held.add(descriptor)
    return descriptor


def _write_manifest(folder: Path) -> None:
    """Flush every file below ``folder`` and write the manifest, itself flushed."""
    manifest = folder / MANIFEST
    manifest.touch()
    mode = manifest.stat().st_mode & 0o666  # what the umask allows; safetensors gives its files to their owner alone
    files: dict[str, dict[str, Any]] = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p != manifest):
        file.chmod(mode)
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
        files[file.relative_to(folder).as_posix()] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    for directory in folder.rglob("*"):
        if directory.is_dir():
            _sync_directory(directory)
    with open(manifest, "w", encoding="utf-8") as handle:
        json.dump({"files": files}, handle, indent=2)
        handle.flush()
        os.fsync(handle.fileno())


def sha256_of(path: Path) -> str:
    """Of the content of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_directory(path: Path) -> None:
    """Make a rename in ``path`` survive a power cut, on systems where a folder can be opened."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot flush a folder
            raise
    finally:
        os.close(handle)


def _temporary(path: Path) -> Path:
    return path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}.tmp"


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _means_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    # safetensors' own exception carries the system's error number only in its text
    return type(error).__name__ == "SafetensorError" and any(f"(os error {code})" in str(error) for code in _FULL)


def _disk_full(path: Path, needed: int, then: str = "") -> str:
    free = shutil.disk_usage(path.parent).free
    return (
        f"{path}: the disk is full: {_readable(needed)} needed, {_readable(free)} free. "
        "Nothing that was there before was lost. "
        + (then or "Free some space or move the run folder, then start again with resume=auto.")
    )


def _readable(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"
