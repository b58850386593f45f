"""What an evaluation has scored so far, batch by batch, so that one that was killed goes on where it stopped.

    RUN/.evaluation/identity     configuration and weights that the results are of
    RUN/.evaluation/2/CALL.0     second start, one pass over a table, first process: a record per batch

A record is its length, its sha256, and arrays: ids, results, which modalities were there, and what could not be read.
The last one of a process that was killed may be cut short, and is scored again. The folder is gone once the report is
written.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from vtp import distributed
from vtp.eval.report import checkpoint_hash

__all__ = ["FOLDER", "Entry", "Journal", "Part"]

log = logging.getLogger("vtp")

Array = npt.NDArray[Any]
FOLDER = ".evaluation"
_HEAD = 8 + 32  # bytes before a record


@dataclass(frozen=True, slots=True)
class Part:
    """One batch.

    Attributes:
        ids: of the rows that were scored.
        results, present: arrays with a row each.
        misses: id -> reason, of rows that could not be read.
    """

    ids: list[str]
    results: dict[str, Array]
    present: dict[str, Array]
    misses: dict[str, str]


class Journal:
    """Of one run. All processes make it together.

    Args:
        run: folder of the run.
        identity: of what is computed; results of another one are thrown away.
        resume: whether earlier results count.
    """

    def __init__(self, run: Path, identity: str, *, resume: bool) -> None:
        self.folder = run / FOLDER
        self._calls = 0
        start = 0
        if distributed.is_main():
            file = self.folder / "identity"
            if not (resume and file.is_file() and file.read_text(encoding="utf-8") == identity):
                shutil.rmtree(self.folder, ignore_errors=True)
            start = 1 + max((int(one.name) for one in self._starts()), default=0)
            (self.folder / str(start)).mkdir(parents=True, exist_ok=True)
            file.write_text(identity, encoding="utf-8")
        self.start: int = distributed.gather_objects(start)[0]

    @classmethod
    def of(cls, run: Path, config: str, weights: Path | None, *, resume: bool) -> Journal | None:
        """The journal of the results of these weights with this configuration (its fingerprint); None where it cannot
        be told what the weights are."""
        digest = None if weights is None else checkpoint_hash(weights)
        return None if digest is None else cls(run, f"{config} {digest}", resume=resume)

    def entry(self, table: Sequence[str], *what: Any) -> Entry:
        """The next pass over a table; ``what`` tells it from others, such as modalities that are withheld."""
        self._calls += 1
        told = json.dumps([self._calls, *map(str, what)]) + "\0".join(table)
        name = hashlib.sha256(told.encode("utf-8", "backslashreplace")).hexdigest()[:16]
        earlier = [one for one in self._starts() if int(one.name) < self.start]
        files = [
            file for one in sorted(earlier, key=lambda one: int(one.name)) for file in sorted(one.glob(f"{name}.*"))
        ]
        parts = [part for file in files for part in _read(file)]
        return Entry(self.folder / str(self.start) / f"{name}.{distributed.rank()}", parts)

    def forget(self) -> None:
        """Remove it, once what it was kept for is written. For the first process."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _starts(self) -> list[Path]:
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return [one for one in found if one.name.isdigit()]


@dataclass(slots=True)
class Entry:
    """One pass over a table.

    Attributes:
        path: of the file of this process.
        parts: what earlier starts scored, on all processes.
    """

    path: Path
    parts: list[Part]
    _file: IO[bytes] | None = None
    _told: set[str] = field(default_factory=set)
    _broken: bool = False

    @property
    def done(self) -> frozenset[str]:
        """Ids that need not be looked at again."""
        return frozenset(name for part in self.parts for name in (*part.ids, *part.misses))

    def add(
        self, ids: Sequence[str], results: Mapping[str, Array], present: Mapping[str, Array], misses: Mapping[str, str]
    ) -> None:
        """Keep a batch; of ``misses``, all so far, those that are new. A full disk ends the journal, not the run."""
        new = {name: reason for name, reason in misses.items() if name not in self._told}
        if self._broken or not (ids or new):
            return
        self._told |= new.keys()
        content = io.BytesIO()
        told = np.frombuffer(json.dumps([list(ids), new, list(results), list(present)]).encode(), np.uint8)
        # by place: a name may hold what no member of a zip file can be called, and be cut short there
        np.savez(content, told, *results.values(), *present.values())
        blob = content.getvalue()
        try:
            if self._file is None:
                self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (kept open from batch to batch)
            self._file.write(len(blob).to_bytes(8, "little") + hashlib.sha256(blob).digest() + blob)
        except OSError as error:
            self._broken = True
            log.warning("the evaluation cannot be resumed if it is stopped: %s", error)

    def close(self) -> None:
        """Close the file; what is added later opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _read(file: Path) -> Iterator[Part]:
    """The records of a file up to the first that is not whole."""
    with open(file, "rb") as source:
        while len(head := source.read(_HEAD)) == _HEAD:
            blob = source.read(int.from_bytes(head[:8], "little"))
            if hashlib.sha256(blob).digest() != head[8:]:
                return
            with np.load(io.BytesIO(blob), allow_pickle=False) as arrays:
                told, *found = (arrays[name] for name in arrays.files)
                ids, misses, results, present = json.loads(told.tobytes())
            there = dict(zip(present, found[len(results) :], strict=True))
            yield Part(ids, dict(zip(results, found, strict=False)), there, misses)
