"""Results that grow while an evaluation goes on, one batch after the other: in memory while they are few, in files when
they are many."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from vtp.errors import RunError

__all__ = ["Shelf"]

Array = npt.NDArray[Any]
MOST = 128 << 20  # bytes that are held in memory; 65,000 embeddings of 512 numbers


class Shelf:
    """Arrays by name, to which rows are added.

    Args:
        folder: where files go, which have no name and are gone with the process; None = the system's folder for them.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._parts: dict[str, list[Array]] = {}
        self._files: dict[str, IO[bytes]] = {}
        self._like: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}  # shape of a row, type
        self._bytes = 0

    def add(self, rows: Mapping[str, Array]) -> None:
        """Add as many rows to every array.

        Raises:
            RunError: the disk is full.
        """
        for name, part in rows.items():
            self._like.setdefault(name, (part.shape[1:], part.dtype))
            if self._files:
                self._write(name, part)
            else:
                self._parts.setdefault(name, []).append(part)
                self._bytes += part.nbytes
        if self._bytes > MOST and not self._files:
            for name, parts in self._parts.items():
                self._files[name] = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 - closed when it is mapped
                for part in parts:
                    self._write(name, part)
            self._parts = {}

    def arrays(self) -> dict[str, Array]:
        """What was added, by name: (N, ...); arrays in files are read when they are looked at. To be asked once."""
        if not self._files:
            return {name: np.concatenate(parts) for name, parts in self._parts.items()}
        found: dict[str, Array] = {}
        for name, file in self._files.items():
            shape, dtype = self._like[name]
            size = dtype.itemsize * int(np.prod(shape))
            with file:  # the mapping stays
                file.flush()
                found[name] = np.memmap(file, dtype, "r", shape=(file.tell() // size, *shape))
        return found

    def _write(self, name: str, part: Array) -> None:
        shape, dtype = self._like[name]
        if (part.shape[1:], part.dtype) != (shape, dtype):
            self._close()
            raise RunError(
                f"The evaluation function returned {name!r} with rows of shape {part.shape[1:]} ({part.dtype}) after "
                f"rows of shape {shape} ({dtype})."
            )
        try:
            self._files[name].write(part.tobytes())
        except OSError as error:
            self._close()
            place = self.folder or tempfile.gettempdir()
            raise RunError(
                f"Results of the evaluation do not fit into memory and could not be written to {place}: "
                f"{os.strerror(error.errno or 0)}. Make room there."
            ) from error

    def _close(self) -> None:
        for file in self._files.values():
            file.close()
