"""Clotho: sounds of 15 to 30 seconds from Freesound, with five captions each.

Captions   ``clotho_captions_development.csv`` (validation, evaluation): file_name,caption_1,...,caption_5. Version 2.1
           has 3,839, 1,045 and 1,045 sounds; version 1 has no validation split, fewer sounds in development, and the
           same evaluation split
Sounds     ``<file_name>`` in ``development/`` (validation, evaluation), as the archives unpack

A clip is called ``development/<file name without extension>``: names are those that people gave to their uploads, and
only within a folder does a file system keep them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from vtp.catalogue import (
    NONE,
    ROW_ERRORS,
    SOUNDS,
    AnnotationFile,
    Catalogue,
    ClipFolders,
    Plan,
    Row,
    Seen,
    check_choice,
    reason,
    stem_of,
    text_of,
)
from vtp.types import MediaRef

__all__ = ["Clotho"]

PARTS = {"train": "development", "val": "validation", "test": "evaluation"}
FOLDERS = ("{part}", "clotho_audio_files/{part}", "clotho_audio_{part}/{part}", "clotho_audio_{part}", "audio/{part}",
           "audio")  # fmt: skip
CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))
ABOUT = """Where Clotho comes from:
  captions and sounds: clotho_captions_*.csv and clotho_audio_*.7z of version 2.1, record 4783391 of Zenodo (Drossos, \
Lipping and Virtanen, ICASSP 2020)"""


class Clotho(Catalogue):
    """Clotho: one sound each with all its captions. Training is ``development``, val ``validation``, test
    ``evaluation``.

    Args:
        root: folder with captions and sounds; None = ``$VTP_DATA/clotho``, or ``data/clotho`` without that variable.
        audio: folder of the sounds, or of the folders ``development`` and so on, absolute or relative to ``root``; None
            = the usual ones.
        version: ``v2`` (2.1), or ``v1``, which has no validation split.
    """

    name = "clotho"
    kinds = ("caption", "retrieval")
    folders = ("", "clotho_csv_files", "annotations", "captions")
    about = ABOUT
    clips = "the .wav files, in development/, validation/ and evaluation/"

    def __init__(
        self, *, root: str | Path | None = None, audio: str | Path | None = None, version: Literal["v1", "v2"] = "v2"
    ) -> None:
        check_choice("version", version, ("v1", "v2"))
        super().__init__(root, version=version)
        self.version = version
        self._audio = audio

    def plan(self, kind: str, split: str) -> Plan | None:
        if split == "val" and self.version == "v1":
            return None
        part = PARTS[split]
        return Plan(
            ((f"clotho_captions_{part}.csv", f"{part}_captions.csv", f"{part}.csv"),),
            partial(_rows, part=part),
            lambda: _Sounds(self.root, self._audio, part),
            options={"part": part},
        )


class _Sounds:
    """The files of one part."""

    def __init__(self, root: Path, given: str | Path | None, part: str) -> None:
        inner = None if given is None else Path(given) / part
        given = inner if inner is not None and (root / inner).is_dir() else given
        self._files = ClipFolders(root, given, tuple(f.format(part=part) for f in FOLDERS), SOUNDS, option="audio")

    def ref(self, name: str, start: float | None = None, end: float | None = None) -> MediaRef:
        return self._files.ref(name.partition("/")[2], start, end)

    def __contains__(self, name: str) -> bool:
        return name.partition("/")[2] in self._files


def _rows(file: AnnotationFile, *, part: str) -> Iterator[Row]:
    seen = Seen()
    for line, row in file.csv(lambda cells: "file_name" in cells):
        try:
            sound = stem_of(text_of(row, "file_name"))
            texts = file.texts([row[caption] for caption in CAPTIONS], "caption")
            if not seen.add(sound):
                raise ValueError(f"{sound} is there already")
        except ROW_ERRORS as error:
            file.reject(f"line {line}", reason(error))
            continue
        file.rows += 1
        name = f"{part}/{sound}"
        yield Row(name, texts, video=NONE, audio=name, place=line)
