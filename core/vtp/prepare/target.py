"""What a command of ``vtp data`` works on: a folder of media, or tables of a data set. A table of one's own is the data
set ``csv``, so that every command and ``vtp run`` read it alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtp.contracts import Dataset, member
from vtp.errors import ConfigError, DataError
from vtp.media.extensions import SOUNDS, VIDEOS
from vtp.types import MediaRef, Sample

__all__ = ["Target", "tables_of"]


@dataclass(frozen=True, slots=True)
class Target:
    """One target.

    Attributes:
        source: the folder, or the data set.
        kinds, splits: which tables of the data set; empty = all.
    """

    source: Path | Any
    kinds: Sequence[str] = ()
    splits: Sequence[str] = ()

    def samples(self, prefer: Sequence[str] = ()) -> Iterator[Sample]:
        """All samples.

        Args:
            prefer: where no kinds are chosen, the first of these that the data set has is, else its first one.

        Raises:
            ConfigError: the data set has no such table.
            DataError: there are no media in the folder, or the data set has none of the annotation files.
        """
        if isinstance(self.source, Path):
            yield from _of_folder(self.source)
            return
        kinds = self.kinds
        if prefer and not kinds:
            offered = member(self.source, Dataset, "kinds")
            kinds = [next((kind for kind in prefer if kind in offered), offered[0])]
        reasons = []
        tables = tables_of(self.source, kinds, self.splits)
        for kind, split in tables:
            try:
                table = self.source.samples(kind, split)
            except DataError as error:  # one of its annotation files is not here: the others may be
                reasons.append(error)
                continue
            yield from (table[row] for row in range(len(table)))
        if reasons and len(reasons) == len(tables):
            raise reasons[0]

    def media_paths(self) -> list[str]:
        """The distinct files behind the samples, in their order; raises what :meth:`samples` does."""
        refs = (ref for sample in self.samples() for ref in (sample.video, sample.audio) if ref is not None)
        return list(dict.fromkeys(ref.path for ref in refs if isinstance(ref.path, str) and ".tar!" not in ref.path))


def tables_of(dataset: Any, kinds: Sequence[str] = (), splits: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Kind and split of the tables of a data set.

    Args:
        kinds: which ones; empty = all, less captions where the same clips come with retrieval.
        splits: which ones; empty = all.

    Raises:
        ConfigError: the data set has no such kind, or no such split of these kinds.
    """
    name, offered, splits_of = (member(dataset, Dataset, one) for one in ("name", "kinds", "splits"))
    chosen = kinds or [kind for kind in offered if not (kind == "caption" and "retrieval" in offered)]
    for kind in chosen:
        if kind not in offered:
            raise ConfigError(f"{name} has no {kind!r} tables; it has {', '.join(offered)}.")
    tables = [(kind, split) for kind in chosen for split in splits_of(kind)]
    known = dict.fromkeys(split for _, split in tables)
    if unknown := [split for split in splits if split not in known]:
        raise ConfigError(f"{name} has no split {unknown[0]!r}; {', '.join(chosen)} has {', '.join(known)}.")
    return [(kind, split) for kind, split in tables if not splits or split in splits]


def _of_folder(folder: Path) -> Iterator[Sample]:
    """Every video and sound below a folder. A caption may stand beside it, in NAME.txt."""
    found = False
    for file in sorted(folder.rglob("*")):
        ending = file.suffix.lower()
        if ending in VIDEOS | SOUNDS and not file.name.startswith("."):
            found = True
            text = file.with_suffix(".txt")
            texts = (text.read_text(encoding="utf-8").strip(),) if text.is_file() else ()
            media = MediaRef(str(file))
            video = None if ending in SOUNDS else media
            yield Sample(file.relative_to(folder).with_suffix("").as_posix(), video, media, texts)
    if not found:
        raise DataError(f"there are no media files in {folder}. Known endings: {', '.join(sorted(VIDEOS | SOUNDS))}.")
