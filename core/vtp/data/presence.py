"""Which media of a table are on the disk, found out before training starts.

Public copies of data sets are rarely complete. A file that is not there is no damaged file: it is known beforehand,
nothing has to be tried, and its share says nothing about the disk. So absent files are taken out of the training table
with one line that says how many, and the accounting of bad files is left to those that exist and do not decode.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vtp.contracts import Table, member, offers
from vtp.data.keys import keyed_generator
from vtp.data.table import evenly, select
from vtp.errors import DataError
from vtp.media.member import split_member
from vtp.types import MediaRef, Sample

if TYPE_CHECKING:
    from vtp.data.pipeline import Pipeline
    from vtp.media.cache import ClipCache

__all__ = ["Presence", "cache_line", "look", "on_disk"]

_LARGE = 200_000  # rows from which a table is only looked at in part, unless that part has gaps
_PART = 2_000

MediaOf = Callable[[Sample], MediaRef | None]


@dataclass(frozen=True, slots=True)
class Presence:
    """What of a table is there.

    Attributes:
        samples: rows of the table.
        usable: rows whose file is there.
        files: distinct files that the rows name.
        absent: how many of them are not there.
        first: one of those, for messages.
        rows: int64 (usable,), the usable rows; None = all of them.
        parts: the same of each part of a table that joins several.
    """

    samples: int
    usable: int
    files: int
    absent: int
    first: str = ""
    rows: npt.NDArray[np.int64] | None = None
    parts: Mapping[str, Presence] = field(default_factory=dict)

    def line(self) -> str:
        """One line for people; empty when nothing is absent."""
        if not self.absent:
            return ""
        if self.parts:
            return "; ".join(f"{name}: {part.line()}" for name, part in self.parts.items() if part.absent)
        return (
            f"{self.absent:,} of {self.files:,} training clips are not on the disk (first: {self.first}); training on "
            f"the {self.files - self.absent:,} that are, {self.usable:,} of {self.samples:,} samples"
        )

    def record(self) -> dict[str, Any]:
        """What report.json keeps."""
        return {
            "samples": self.samples,
            "usable_samples": self.usable,
            "clips": self.files,
            "absent_clips": self.absent,
            "first_absent": self.first or None,
            **({"parts": {name: part.record() for name, part in self.parts.items()}} if self.parts else {}),
        }

    def take(self, table: Sequence[Sample]) -> Sequence[Sample]:
        """The usable part of the table.

        Raises:
            DataError: there is none, or none of a part.
        """
        parts = {f"dataset.parts.{name}": part for name, part in self.parts.items()}
        for where, found in {"dataset": self, **parts}.items():
            if found.samples and not found.usable:
                of = "" if found is self else f"of {where} "
                raise DataError(
                    f"none of the {found.files:,} training clips {of}is on the disk (first: {found.first}). Set "
                    f"{where}.root or {where}.videos to the folder that holds them; `vtp data check` lists what is "
                    "there. dataset=shapes needs no files."
                )
        if self.rows is None:
            return table
        return select(table, self.rows)


def on_disk(path: str) -> bool:
    """Whether something is at ``path``, whatever it is: a pipe or a folder is a bad file, not an absent one. Of what is
    in a tar file, the tar file."""
    member = split_member(path)
    try:
        os.stat(path if member is None else member.tar)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True  # no permission, a link to itself: what reading it says is better than "absent"
    return True


def look(table: Sequence[Sample], media: MediaOf, exists: Callable[[str], bool] = on_disk) -> Presence:
    """Look for the media of every row.

    Args:
        table: samples. One that says which rows are about the same media (``media_numbers``) is asked once for each.
        media: the file without which a row cannot be used; None = it needs none.
        exists: whether a path is there.

    Tables of more than 200,000 rows that can be cut (``select``) are looked at in 2,000 places first, and in full only
    if something is absent there. A table that joins several is looked at part by part.
    """
    mixture = member(table, Table, "mixture")
    if mixture is not None:
        return _together({name: look(part, media, exists) for name, part in mixture.tables.items()})
    if len(table) > _LARGE and offers(table, "select"):
        places = np.sort(keyed_generator("presence", len(table)).choice(len(table), _PART, replace=False))
        if _look_at(table, places, media, exists)[0].all():
            return Presence(len(table), len(table), 0, 0)
    numbers = member(table, Table, "media_numbers")
    rows = np.arange(len(table)) if numbers is None else numbers()
    firsts, inverse = np.unique(rows, return_inverse=True)
    there, files, first = _look_at(table, firsts, media, exists)
    usable = np.flatnonzero(there[inverse])
    count, absent = len(np.unique(files[files != 0])), len(np.unique(files[~there]))
    if not absent:
        return Presence(len(table), len(table), count, 0)
    return Presence(len(table), len(usable), count, absent, first, usable)


def _together(parts: Mapping[str, Presence]) -> Presence:
    """Of a table that joins others, whose rows lie one part after another."""
    found = list(parts.values())
    first = next((part.first for part in found if part.absent), "")
    rows, start = [], 0
    for part in found:
        rows.append(start + (np.arange(part.samples) if part.rows is None else part.rows))
        start += part.samples
    absent = sum(part.absent for part in found)
    usable, files = sum(part.usable for part in found), sum(part.files for part in found)
    return Presence(start, usable, files, absent, first, np.concatenate(rows) if absent else None, dict(parts))


def _look_at(
    table: Sequence[Sample], rows: npt.NDArray[np.int64], media: MediaOf, exists: Callable[[str], bool]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint64], str]:
    """Whether each of ``rows`` can be used, a hash of its file (0 = it needs none), and the first file that is absent.
    Hashes, because the paths of millions of files would take a gigabyte."""
    known = lru_cache(maxsize=10_000)(exists)  # rows about one file are often near each other
    there = np.ones(len(rows), dtype=bool)
    files = np.zeros(len(rows), dtype=np.uint64)
    first = ""
    for i, row in enumerate(rows):
        ref = media(table[int(row)])
        if ref is None or isinstance(ref.path, bytes):
            continue
        files[i] = int.from_bytes(blake2b(ref.path.encode(errors="surrogateescape"), digest_size=8).digest(), "big") | 1
        there[i] = known(ref.path)
        if not first and not there[i]:
            first = ref.path
    return there, files, first


def cache_line(cache: ClipCache, samples: Sequence[Sample], pipeline: Pipeline, what: str, rows: int = 20_000) -> str:
    """How many of the files that ``pipeline`` will open for ``samples`` are in the cache, in one line.

    Of tables longer than ``rows`` so many evenly spaced rows are looked at. Files are looked for by name; whether one
    changed since is found out when it is read.
    """
    looked_at = evenly(samples, rows)
    refs = (ref for sample in looked_at for ref in pipeline.media(sample) if ref is not None)
    paths = {ref.path for ref in refs if isinstance(ref.path, str)}
    absent = sum(not cache.path(path).exists() for path in paths)
    part = "" if len(looked_at) == len(samples) else f" (of {len(looked_at):,} rows looked at)"
    text = f"data.cache={cache.folder} ({cache.settings.text}): {len(paths) - absent:,} of {len(paths):,} files "
    text += f"for {what} are in it{part}" + (f"; the other {absent:,} are decoded" if absent else "")
    wanted = None if pipeline.transform is None else pipeline.transform.decode_size
    wanted = max(wanted) if isinstance(wanted, tuple) else wanted
    if pipeline.video_spec is not None and (wanted is None or wanted > cache.settings.size):
        text += (
            f". But {what} asks for {'the stored size' if wanted is None else f'{wanted} pixels'}: larger files are "
            f"decoded from the originals. " + ("" if wanted is None else f"Make the cache with --size {wanted}.")
        )
    return text
