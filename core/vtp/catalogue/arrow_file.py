"""The files that keep the columns of big annotation tables between runs: where they lie, how they are written and what
tells whether they are still right. A file gets its name when it is complete."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from vtp.errors import DataError
from vtp.storage import cache_root

__all__ = ["ArrowFile", "cache_folder", "description", "fingerprint", "locked"]

log = logging.getLogger("vtp")

HASH_WHOLE = 64 << 20  # sources up to so many bytes are recognised by their content, bigger ones by size and time


def cache_folder() -> Path:
    """Where annotations of millions of rows are kept: ``$VTP_CACHE/annotations``, or a folder for temporary files where
    that cannot be written."""
    wanted = cache_root() / "annotations"
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError as error:
        folder = _private_folder() / "annotations"
        folder.mkdir(mode=0o700, exist_ok=True)
        log.warning("%s cannot be written (%s); annotations are kept in %s", wanted, error.strerror or error, folder)
        return folder


def _private_folder() -> Path:
    """A folder for temporary files that nobody else can write into: the same one in every run, or a new one where
    somebody else has taken its name."""
    usual = Path(tempfile.gettempdir()) / f"vtp-{os.getuid()}"
    with suppress(OSError):
        usual.mkdir(mode=0o700, exist_ok=True)
        found = usual.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            return usual
    return Path(tempfile.mkdtemp(prefix="vtp-"))


class ArrowFile:
    """Writes batches with the columns ``schema`` to the file ``target``, which appears when it is complete."""

    def __init__(self, target: Path, schema: pa.Schema) -> None:
        self.target = target
        self.unfinished = target.with_suffix(f".{os.getpid()}.unfinished")
        self.schema = schema
        self._open(schema)

    def add(self, batch: pa.RecordBatch, metadata: Mapping[str, str] | None = None) -> None:
        try:
            self._writer.write_batch(batch, custom_metadata=metadata)
        except OSError as error:
            raise DataError(
                f"the annotations cannot be kept in {self.target.parent}: {error}. They need about as much space as "
                "the annotation files; name a folder on another disk with the variable VTP_CACHE."
            ) from error

    def finish(self, info: Mapping[str, Any]) -> None:
        """Write it again with what is only known at the end, and without columns that hold nothing: they take 40 bytes
        per row. Then give the file its name."""
        self._close()
        whole = self.unfinished.with_suffix(".whole")
        self.unfinished.rename(whole)
        try:
            schema = pa.schema([field for field in self.schema if field.name in info["used"]])
            self._open(schema)
            reader = pa.ipc.open_file(pa.memory_map(str(whole)))
            for number in range(reader.num_record_batches):
                self.add(reader.get_batch(number).select(schema.names))
            self.add(pa.RecordBatch.from_pylist([], schema), {"vtp": json.dumps(info)})
            self._close()
        finally:
            whole.unlink()
        os.replace(self.unfinished, self.target)

    def _open(self, schema: pa.Schema) -> None:
        self._file = pa.OSFile(str(self.unfinished), "wb")
        self._writer = pa.ipc.new_file(self._file, schema)

    def _close(self) -> None:
        self._writer.close()
        self._file.close()


def description(path: Path) -> dict[str, Any]:
    """What :meth:`ArrowFile.finish` was given.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: the file is damaged.
    """
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        _, metadata = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
    if metadata is None or b"vtp" not in metadata:
        raise ValueError("no description at the end")
    info: dict[str, Any] = json.loads(metadata[b"vtp"])
    return info


def fingerprint(sources: Sequence[Path]) -> str:
    """16 hex digits that change with the content of files, and with names, sizes and times of what is in folders."""
    digest = hashlib.sha256()
    for path in sources:
        status = path.stat()
        if path.is_dir():
            for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
                facts = entry.stat()
                digest.update(f"{entry.name}\0{facts.st_size} {facts.st_mtime_ns}\n".encode())
        elif status.st_size <= HASH_WHOLE:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        else:
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for other processes that hold ``path``, then hold it."""
    with open(path, "a") as file:
        with suppress(OSError):  # a file system without locks: two processes may do the same work, neither harms it
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
