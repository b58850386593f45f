"""Where the media of a data set lie. What annotations name is found by stem, because extensions differ from one copy to
the next, or in one of the layouts that downloaders make; what is not there is named at the place where it should be, so
that reading it says what is missing."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Protocol

from vtp.errors import DataError
from vtp.media.extensions import IMAGES, MEDIA, SOUNDS, VIDEOS
from vtp.types import MediaRef

_ODD_PATH = re.compile(r"(?<!:)//|(?:^|/)\.{1,2}(?:/|$)")  # ways of spelling a path that normpath undoes

__all__ = [
    "IMAGES",
    "SOUNDS",
    "VIDEOS",
    "Aliases",
    "ClipFolders",
    "Layouts",
    "Media",
    "Paths",
    "stem_of",
    "without_extension",
]


class Media(Protocol):
    """Finds the file of what annotations name. Picklable."""

    def ref(self, name: str, start: float | None = None, end: float | None = None) -> MediaRef:
        """The file, and the span of it."""
        ...

    def __contains__(self, name: str) -> bool:
        """Whether it is on the disk."""
        ...


def stem_of(name: str) -> str:
    """``folder/clip.mp4`` -> ``clip``; also where a bare dot is all that is left of the extension. What follows another
    dot stays, because names such as ``NUsG9BgSes0_210.0_360.0`` have no extension."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, extension = base.rpartition(".")
    known = not extension or f".{extension.lower()}" in MEDIA
    return stem if dot and stem and known else base


def without_extension(path: str) -> str:
    """``folder/clip.mp4`` -> ``folder/clip``, see :func:`stem_of`."""
    folder, slash, base = path.rpartition("/")
    return folder + slash + stem_of(base)


def _on_disk(path: str) -> str | None:
    """The path if it is there, or its spelling with composed or decomposed accents: macOS writes file names in the
    latter, and archives carry them to systems where these are other names."""
    if os.path.exists(path):
        return path
    if path.isascii():
        return None
    spellings = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return next((other for other in spellings if other != path and os.path.exists(other)), None)


class ClipFolders:
    """An index over the media files of some folders.

    Args:
        root: of the data set.
        given: the folder that the user named, absolute or relative to ``root``; None = look in ``usual``.
        usual: folders relative to ``root``, most specific first; of two files with one stem the first folder's counts.
        extensions: what counts as a media file.
        option: the key that ``given`` came from.
    """

    def __init__(
        self,
        root: Path,
        given: str | Path | None,
        usual: tuple[str, ...],
        extensions: Iterable[str] = VIDEOS,
        option: str = "videos",
    ) -> None:
        self.looked_in = [root / given] if given is not None else [root / name for name in usual]
        self.folders = [folder for folder in self.looked_in if folder.is_dir()]
        if given is not None and not self.folders:
            raise DataError(
                f"dataset.{option}={given}: there is no folder {self.looked_in[0].absolute()}. Name the folder that "
                f"holds the files, absolute or relative to dataset.root={root}."
            )
        self._first = str((self.folders or self.looked_in)[0] / "_")[:-1]  # with its slash; for millions of clips
        wanted = frozenset(extensions)
        self.usual_extension = next((e for e in (".wav", ".mp4", ".jpg") if e in wanted), ".mp4")
        self._files: dict[str, str] = {}
        self._composed: dict[str, str] = {}  # the same for names with accents, in one spelling
        for folder in self.folders:
            with os.scandir(folder) as entries:
                for entry in entries:
                    extension = os.path.splitext(entry.name)[1].lower()
                    if extension in wanted or extension == ".":
                        self._files.setdefault(stem := stem_of(entry.name), entry.path)
                        if not stem.isascii():
                            self._composed.setdefault(unicodedata.normalize("NFC", stem), entry.path)

    def __len__(self) -> int:
        return len(self._files)

    def path(self, stem: str) -> str:
        """The file of a clip; where it should be if it is missing."""
        return self._find(stem) or f"{self._first}{stem}{self.usual_extension}"

    def _find(self, stem: str) -> str | None:
        found = self._files.get(stem)
        if found is None and self._composed and not stem.isascii():
            return self._composed.get(unicodedata.normalize("NFC", stem))
        return found

    def ref(self, name: str, start: float | None = None, end: float | None = None) -> MediaRef:
        return MediaRef(self.path(name), start, end)

    def __contains__(self, stem: str) -> bool:
        return self._find(stem) is not None


class Aliases:
    """Files that go by one of several names.

    Args:
        files: the files.
        names: patterns in order of preference; ``{name}`` is the clip, further fields come from ``parts``.
        parts: further fields of a clip; picklable. A pattern with a field that a clip lacks is passed over.
        whole: patterns under which lie whole videos, of which the clip is the span; under the others the file is the
            clip, and the span is that of the video it was cut from.
    """

    def __init__(
        self,
        files: ClipFolders,
        names: tuple[str, ...],
        parts: Callable[[str], Mapping[str, str]] | None = None,
        whole: tuple[str, ...] = (),
    ) -> None:
        self.files = files
        self.names = names
        self.parts = parts
        self.whole = whole

    def _candidates(self, name: str) -> Iterator[tuple[str, str]]:
        """(pattern, name of the file) for every pattern that can be filled in."""
        fields = {"name": name, **(self.parts(name) if self.parts is not None else {})}
        for pattern in self.names:
            with suppress(KeyError):
                yield pattern, pattern.format(**fields)

    def ref(self, name: str, start: float | None = None, end: float | None = None) -> MediaRef:
        candidates = list(self._candidates(name))
        pattern, stem = next((c for c in candidates if c[1] in self.files), candidates[0])
        return MediaRef(self.files.path(stem), *((start, end) if pattern in self.whole else ()))

    def __contains__(self, name: str) -> bool:
        return any(stem in self.files for _, stem in self._candidates(name))


class Layouts:
    """Files in one of several known layouts, tried one after another; the one that fitted last is tried first. Nothing
    is listed beforehand, so that ten million files cost no memory.

    Args:
        folders: where the layouts begin, most specific first.
        patterns: paths under them, with ``{name}`` (what the annotation gives), ``{stem}`` (its last part),
            ``{short}`` (that without its last four characters), ``{first}`` and ``{two}`` (its first ones) or, for
            numbers, ``{shard}`` and ``{key}`` as img2dataset names them.
    """

    def __init__(self, folders: Iterable[Path], patterns: tuple[str, ...]) -> None:
        self.folders = [str(folder) for folder in folders]
        self.patterns = patterns
        self._last: tuple[str, str] | None = None

    def _paths(self, name: str) -> Iterable[tuple[tuple[str, str], str]]:
        stem = name.rsplit("/", 1)[-1]
        parts = {"name": name, "stem": stem, "short": stem[:-4] or "0", "first": stem[:1], "two": stem[:2]}
        if stem.isdecimal():
            parts |= {"shard": f"{int(stem) // 10_000:05d}", "key": f"{int(stem):09d}"}
        places = [(folder, pattern) for folder in self.folders for pattern in self.patterns]
        if self._last is not None:
            places.insert(0, self._last)
        for place in places:
            yield place, os.path.join(place[0], place[1].format(**parts))

    def ref(self, name: str, start: float | None = None, end: float | None = None) -> MediaRef:
        first = ""
        for place, path in self._paths(name):
            first = first or path
            if found := _on_disk(path):
                self._last = place
                return MediaRef(found, start, end)
        return MediaRef(first, start, end)

    def __contains__(self, name: str) -> bool:
        return any(_on_disk(path) for _, path in self._paths(name))


class Paths:
    """Files that annotations name by their path, absolute or relative to one of some folders.

    Args:
        folders: what relative paths are relative to, most specific first.
        extensions: those that are tried for a path without one, in small and in large letters.
        flatter: also look for ``c.jpg`` and ``b/c.jpg`` where ``a/b/c.jpg`` is not there: for annotations whose paths
            begin with folders of the machine that they were made on. File names must be unique.
    """

    def __init__(self, folders: Iterable[Path], extensions: Iterable[str] = (), *, flatter: bool = False) -> None:
        self.folders = [str(folder) for folder in folders]
        # Cameras write MOV; lower case first, so that a file is found by what it was always found by.
        plain = tuple(sorted(extensions))
        self.extensions = (*plain, *(e.upper() for e in plain), *(e[:2].upper() + e[2:] for e in plain))
        self.flatter = flatter

    def clip(self, name: str) -> str:
        """What the clip is called that ``name`` leads to, the same for every way to spell it: the path of its file from
        the folder where it lies, with its extension. ``./clips/a.mp4``, ``clips/a`` and ``/data/clips/a.mp4`` are
        ``clips/a.mp4``. Only a name without an extension is looked for on the disk."""
        path = _one_spelling(name)
        bare = bool(self.extensions) and not path.endswith(self.extensions)  # the usual ones, at once
        bare = bare and stem_of(path) == path.rsplit("/", 1)[-1]
        if bare and (found := self._find(path)) is not None:
            path = os.path.abspath(found)
        elif path.startswith(("/", "../")):
            path = os.path.abspath(os.path.join(self.folders[0], path))
        if not path.isascii():
            path = unicodedata.normalize("NFC", path)
        if path.startswith("/"):
            for number, folder in self._whole_folders:
                if path.startswith(folder):
                    rest = path[len(folder) :]
                    if number == 0 or not os.path.exists(os.path.join(self.folders[0], rest)):
                        return rest  # else a file in the first folder has that name
        return path

    @cached_property
    def _whole_folders(self) -> list[tuple[int, str]]:
        """Number and absolute path of the folders, with a slash at their end; also without links."""
        places = [
            (number, unicodedata.normalize("NFC", one(folder)).rstrip("/") + "/")
            for number, folder in enumerate(self.folders)
            for one in (os.path.abspath, os.path.realpath)
        ]
        return list(dict.fromkeys(places))

    def _find(self, name: str) -> str | None:
        name = _one_spelling(name)
        if os.path.isabs(name):
            return self._with_extension(name)
        parts = name.split("/")
        for skip in range(len(parts) if self.flatter else 1):
            for folder in self.folders:
                if found := self._with_extension(os.path.join(folder, *parts[skip:])):
                    return found
        return None

    def _with_extension(self, path: str) -> str | None:
        if found := _on_disk(path):
            return found
        if self.extensions and stem_of(path) == os.path.basename(path):
            return next((found for e in self.extensions if (found := _on_disk(path + e))), None)
        return None

    def ref(self, name: str, start: float | None = None, end: float | None = None) -> MediaRef:
        return MediaRef(self._find(name) or os.path.join(self.folders[0], _one_spelling(name)), start, end)

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None


def _one_spelling(path: str) -> str:
    """A path with slashes, without the parts of it that lead nowhere: one file is one path in caches and reports."""
    path = path.replace("\\", "/")
    return os.path.normpath(path) if _ODD_PATH.search(path) else path
