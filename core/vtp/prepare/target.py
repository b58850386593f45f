"""What a command of ``vtp data`` works on: a folder of media, or tables of a data set. A table of one's own is the data
set ``csv``, so that every command and ``vtp run`` read it alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtp.contracts import Dataset, member
from vtp.errors import ConfigError, DataError
from vtp.media.extensions import MEDIA, SOUNDS
from vtp.types import MediaRef, Sample

__all__ = ["Kept", "Target", "readable", "tables_of"]

CAPTIONS = ("caption", "retrieval")  # kinds of which one table serves both


@dataclass(frozen=True, slots=True)
class Kept:
    """A sample with what is to be remembered of its table.

    Attributes:
        kinds: of table; empty = nothing is said.
        split: that the data set has it in.
        held_out: the split that ``vtp run`` puts it into where the data set has no splits.
    """

    sample: Sample
    kinds: tuple[str, ...] = ()
    split: str | None = None
    held_out: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One target.

    Attributes:
        source: the folder, or the data set.
        kinds, splits: which tables of the data set; empty = all.
        own: whether it is a table of one's own, whose kinds and splits belong together.
    """

    source: Path | Any
    kinds: Sequence[str] = ()
    splits: Sequence[str] = ()
    own: bool = False

    @property
    def namespace(self) -> str:
        """Which clips these are, see :class:`vtp.contracts.Dataset`; of a folder as of a table that lies in it."""
        if isinstance(self.source, Path):
            return f"csv:{self.source.absolute().name}"
        return str(member(self.source, Dataset, "media_namespace"))

    def samples(self, prefer: Sequence[str] = ()) -> Iterator[Sample]:
        """All samples, see :meth:`kept`."""
        return (kept.sample for kept in self.kept(prefer))

    def kept(self, prefer: Sequence[str] = ()) -> Iterator[Kept]:
        """All samples, with their tables.

        Args:
            prefer: where no kinds are chosen, the first of these that the data set has is, else its first one; not of a
                table of one's own.

        Raises:
            ConfigError: the data set has no such table.
            DataError: there are no media in the folder, or the data set has none of the annotation files.
        """
        if isinstance(self.source, Path):
            yield from map(Kept, _of_folder(self.source))
            return
        kinds = self.kinds
        if prefer and not kinds and not self.own:
            offered = member(self.source, Dataset, "kinds")
            kinds = [next((kind for kind in prefer if kind in offered), offered[0])]
        # A table of one's own says by which rule its splits are made where none are in it.
        ruled = self.own and isinstance(member(self.source, Dataset, "origin")().get("splits"), dict)
        reasons = []
        tables = tables_of(self.source, kinds, self.splits)
        for kind, split in tables:
            try:
                table = self.source.samples(kind, split)
            except DataError as error:  # one of its annotation files is not here: the others may be
                reasons.append(error)
                continue
            same = CAPTIONS if kind in CAPTIONS else () if kind == "media" else (kind,)
            where = (None, split) if ruled else (split, None)
            yield from (Kept(table[row], same, *where) for row in range(len(table)))
        if reasons and len(reasons) == len(tables):
            raise reasons[0]

    def malformed(self) -> int:
        """Rows of a table of one's own that are left out; known when it has been read."""
        if not self.own:
            return 0
        return sum(int(record.get("malformed", 0)) for record in member(self.source, Dataset, "origin")()["files"])

    def media_paths(self) -> list[str]:
        """The distinct files behind the samples, in their order; raises what :meth:`kept` does."""
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
    """Every video, sound and image below a folder. A caption may stand beside it, in NAME.txt."""
    files = [f for f in sorted(folder.rglob("*")) if f.suffix.lower() in MEDIA and not f.name.startswith(".")]
    stems = Counter(file.with_suffix("") for file in files)
    for file in files:
        text = file.with_suffix(".txt")
        texts: tuple[str, ...] = ()
        if text.is_file():
            try:
                texts = tuple(filter(None, [text.read_text(encoding="utf-8-sig").strip()]))
            except UnicodeDecodeError:
                raise DataError(f"{text} is not UTF-8. Convert it (for example with iconv -t UTF-8).") from None
        media = MediaRef(str(file))
        video = None if file.suffix.lower() in SOUNDS else media
        name = file.relative_to(folder)
        stem = name if stems[file.with_suffix("")] > 1 else name.with_suffix("")  # dog.mp4 beside dog.wav
        yield Sample(readable(stem.as_posix()), video, media, texts, {}, {"video_id": readable(name.as_posix())})
    if not files:
        raise DataError(f"there are no media files in {folder}. Known endings: {', '.join(sorted(MEDIA))}.")


def readable(name: str) -> str:
    """A name that can be written as UTF-8: names of files may hold any bytes."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()
