"""Which files are behind the clips of a table: a clip that goes by two names, in two tables or as a copy, is one file.

A file is known by its real path, and by what is in it: a hash of its size, its first and its last 64 KiB. That is not
read of more than 20,000 files, nor the files of tables with more than 200,000 rows: names alone must do there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from vtp.contracts import Dataset, member
from vtp.data.keys import hash64
from vtp.data.table import media_id
from vtp.types import Sample

__all__ = ["ClipFiles", "clip_files", "content_key"]

ROWS = 200_000  # of a table whose files are looked at
FILES = 20_000  # whose content is looked at
_EDGE = 1 << 16
_READERS = 8  # threads: on network disks, opening a file is waiting


@dataclass(slots=True)
class ClipFiles:
    """What is known of the files of one clip; both sets hold numbers of 64 bits.

    Attributes:
        paths: of their real paths.
        contents: of what is in them; empty where they are not there or were not looked at.
    """

    paths: set[int] = field(default_factory=set)
    contents: set[int] = field(default_factory=set)


def clip_files(tables: Iterable[tuple[Sequence[Sample], Any]]) -> dict[str, ClipFiles]:
    """``namespace:clip`` -> its files, of all clips of tables with their data sets."""
    names: dict[str, set[str]] = {}  # path -> clips
    for samples, dataset in tables:
        if len(samples) > ROWS:
            continue
        namespace = member(dataset, Dataset, "media_namespace")
        prefix = f"{namespace}:" if namespace else ""
        for sample in samples:
            for path in _paths(sample):
                names.setdefault(path, set()).add(prefix + media_id(sample))
    found: dict[str, ClipFiles] = {}
    contents: Iterable[int | None] = (None for _ in names)
    if len(names) <= FILES:
        with ThreadPoolExecutor(_READERS) as pool:
            contents = list(pool.map(content_key, names))
    for (path, clips), content in zip(names.items(), contents, strict=True):
        for clip in clips:
            known = found.setdefault(clip, ClipFiles())
            known.paths.add(hash64(path))
            known.contents |= set() if content is None else {content}
    return found


def _paths(sample: Sample) -> Iterator[str]:
    for media in (sample.video, sample.audio):
        if media is not None and isinstance(media.path, str) and "://" not in media.path:
            folder, name = os.path.split(media.path)
            path = os.path.join(_real(folder), name)
            yield os.path.realpath(path) if os.path.islink(path) else path


@lru_cache(maxsize=65_536)
def _real(folder: str) -> str:
    return os.path.realpath(folder or ".")


def content_key(path: str) -> int | None:
    """Hash of size, beginning and end of a file; None of one that cannot be read or is empty."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            hashed = blake2b(size.to_bytes(8, "big"), digest_size=8)
            hashed.update(file.read(_EDGE))
            file.seek(max(0, size - _EDGE))
            hashed.update(file.read(_EDGE))
    except OSError:
        return None
    return int.from_bytes(hashed.digest(), "big") if size else None
