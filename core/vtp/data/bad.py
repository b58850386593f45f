"""The list of media that could not be used in this run: written once per file, read by every worker and rank, never
tried again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vtp.media.info import MediaError
from vtp.storage import append_line, take_lock
from vtp.types import MediaRef, Sample

__all__ = ["BadFiles", "media_key"]


def media_key(ref: MediaRef) -> str:
    """What identifies the file of ``ref`` in the list: its path, or a hash of its bytes."""
    if isinstance(ref.path, bytes):
        return "bytes:" + hashlib.blake2b(ref.path, digest_size=16).hexdigest()
    return ref.path


def _entry_key(ref: MediaRef, kind: str) -> str:
    """A span outside the file spoils that span; everything else spoils the file."""
    return f"{media_key(ref)}#{ref.start}-{ref.end}" if kind == "span" else media_key(ref)


class BadFiles:
    """``bad_samples.jsonl`` of a run: one line ``{"id", "path", "reason", "kind", "backend"}`` per unusable file.

    The file itself is what the processes share: it is appended to under a lock, and re-read when it has grown. A run
    that is resumed reads the list of its first part, so that a file which hung once is not waited for again.

    Args:
        path: where to write; None keeps the list in the memory of each process, for tests and single reads.
        max_bad_fraction: a training run stops when a larger share of the samples it draws cannot be decoded. 1.0 never
            stops.
    """

    def __init__(self, path: str | Path | None = None, max_bad_fraction: float = 0.01) -> None:
        if not 0.0 <= max_bad_fraction <= 1.0:
            raise ValueError(f"max_bad_fraction={max_bad_fraction} must be a share in [0, 1], for example 0.01")
        self.path = None if path is None else Path(path)
        self.max_bad_fraction = max_bad_fraction
        self._entries: dict[str, dict[str, str]] = {}
        self._read_bytes = 0  # of the file, up to the end of its last whole line

    def find(self, ref: MediaRef) -> MediaError | None:
        """The error that this file (or this span of it) gave before, in whatever process; None when it is not known to
        be bad."""
        self._refresh()
        if not self._entries:
            return None  # before the bytes of a shard member are hashed
        key = media_key(ref)  # once: of bytes it is a hash
        entry = self._entries.get(key) or self._entries.get(f"{key}#{ref.start}-{ref.end}")
        if entry is None:
            return None
        error = MediaError(entry["reason"], entry["kind"], entry["backend"])
        error.known = True
        return error

    def add(self, sample: Sample, ref: MediaRef, error: MediaError) -> None:
        """Record that ``ref`` of ``sample`` failed; does nothing if it is in the list already."""
        key = _entry_key(ref, error.kind)
        entry = {
            "id": sample.id,
            "path": media_key(ref),
            "start": "" if ref.start is None else str(ref.start),
            "end": "" if ref.end is None else str(ref.end),
            "kind": error.kind,
            "reason": error.reason,
            "backend": error.backend,
        }
        if self.path is None:
            self._entries.setdefault(key, entry)
            return
        with self._locked(self.path):
            self._refresh()
            if key not in self._entries:
                append_line(self.path, json.dumps(entry, ensure_ascii=False))
        self._refresh()

    def entries(self) -> list[dict[str, str]]:
        """All entries so far, in the order in which they were written."""
        self._refresh()
        return list(self._entries.values())

    def table(self) -> str:
        """Reasons with their counts and one example each, most frequent first, as lines of text."""
        entries = self.entries()
        counts = Counter(entry["reason"] for entry in entries)
        first = {entry["reason"]: entry["path"] for entry in reversed(entries)}
        return "\n".join(f"{count:6d}  {reason}  (first: {first[reason]})" for reason, count in counts.most_common(20))

    @staticmethod
    @contextlib.contextmanager
    def _locked(path: Path) -> Iterator[None]:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            take_lock(file.fileno())
            yield  # closing the file gives the lock back

    def _refresh(self) -> None:
        """Take in the lines that any process has written since the last look; costs one ``stat`` when there are
        none."""
        if self.path is None:
            return
        try:
            size = os.stat(self.path).st_size
        except FileNotFoundError:
            return
        if size <= self._read_bytes:
            return
        with open(self.path, "rb") as file:
            file.seek(self._read_bytes)
            text = file.read()
        whole = text.rfind(b"\n") + 1
        self._read_bytes += whole
        for line in text[:whole].splitlines():
            try:
                entry = json.loads(line)
                ref = MediaRef(
                    entry["path"], *(float(entry[side]) if entry[side] else None for side in ("start", "end"))
                )
                self._entries.setdefault(_entry_key(ref, entry["kind"]), entry)
            except (ValueError, KeyError, TypeError):
                continue  # the torn line of a process that was killed while it wrote
