"""VATEX: Kinetics clips of ten seconds with ten English and ten Chinese captions each.

Captions   JSON lists [{"videoID": "Ptf_2VRj-V0_000122_000132", "enCap": [...], "chCap": [...]}] under the names of the
           releases; all that are there are read
Lists      none for the splits of the release (``test: public``): its training, validation and public test file, with
           25,991, 3,000 and 6,000 clips; the splits of captioning
           ``train_list.txt``, ``val_list.txt``, ``test_list.txt`` (25,991, 1,500, 1,500 clips of the public training
           and validation captions), and a second test list, ``test1k5_sec_list.txt``, which shares 776 clips with the
           validation list and 724 with the test list: with it there is no validation split
Clips      ``Ptf_2VRj-V0_000122_000132.mp4``, the ten seconds; or ``Ptf_2VRj-V0.mp4``, the whole video, from which they
           are cut
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from vtp.catalogue import (
    ROW_ERRORS,
    Aliases,
    AnnotationFile,
    Catalogue,
    ClipFolders,
    Plan,
    Row,
    Seen,
    check_choice,
    clip_list,
    reason,
    text_of,
)

__all__ = ["VATEX"]

VIDEOS = ("videos", "videos/all", "clips", "vatex", "")
CAPTIONS = (
    "vatex_data.json", "vatex_captions.json", "vatex_training_v1.0.json", "vatex_validation_v1.0.json",
    "vatex_training_v1.1.json", "vatex_validation_v1.1.json", "vatex_public_test_english_v1.1.json",
)  # fmt: skip
RELEASE = {
    "train": ("vatex_training_v1.1.json", "vatex_training_v1.0.json"),
    "val": ("vatex_validation_v1.1.json", "vatex_validation_v1.0.json"),
    "test": ("vatex_public_test_english_v1.1.json",),
}
ABOUT = """Where VATEX comes from:
  captions: vatex_training_v1.0.json and vatex_validation_v1.0.json of the release (Wang et al., ICCV 2019)
  lists: the split of HGR (Chen et al., CVPR 2020), as later retrieval code shares it
  clips: Kinetics-600 videos; many are gone from their site, and what is missing counts as a miss"""
_CLIP = re.compile(r"(.{11})_(\d{6})_(\d{6})")


class VATEX(Catalogue):
    """VATEX in one language: one clip each with its ten captions.

    Args:
        root: folder with annotations and clips; None = ``$VTP_DATA/vatex``, or ``data/vatex`` without that variable.
        videos: folder of the clips, absolute or relative to ``root``; None = the usual ones.
        language: ``en`` or ``zh``.
        test: ``hgr`` (``test_list.txt``), ``second`` (``test1k5_sec_list.txt``, without a validation split), or
            ``public``: the splits of the release with its public test, of which there are English captions alone.
    """

    name = "vatex"
    kinds = ("caption", "retrieval")
    folders = ("", "annotations", "vatex", "annotations/vatex")
    about = ABOUT
    clips = "Ptf_2VRj-V0_000122_000132.mp4 ..."

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        videos: str | Path | None = None,
        language: Literal["en", "zh"] = "en",
        test: Literal["hgr", "second", "public"] = "hgr",
    ) -> None:
        check_choice("language", language, ("en", "zh"))
        check_choice("test", test, ("hgr", "second", "public"))
        super().__init__(root, language=language, test=test)
        self.language = language
        self.test = test
        self._videos = videos

    def plan(self, kind: str, split: str) -> Plan | None:
        if split == "val" and self.test == "second":
            return None
        if self.test == "public":
            rows = partial(_released, language=self.language)
            return Plan((RELEASE[split],), rows, self._media, options={"language": self.language})
        names = {"train": "train_list.txt", "val": "val_list.txt", "test": "test_list.txt"}
        listed = "test1k5_sec_list.txt" if split == "test" and self.test == "second" else names[split]
        found = [path for name in CAPTIONS if (path := self.find(name)) is not None]
        return Plan(
            ((listed,),) if found else ((listed,), CAPTIONS),
            partial(_rows, language=self.language),
            self._media,
            options={"language": self.language},
            sources=tuple(found),
        )

    def _media(self) -> Aliases:
        return Aliases(
            ClipFolders(self.root, self._videos, VIDEOS), ("{name}", "{youtube}"), _parts, whole=("{youtube}",)
        )


def _parts(clip: str) -> dict[str, str]:
    match = _CLIP.fullmatch(clip)
    return {} if match is None else {"youtube": match[1]}


def _released(file: AnnotationFile, *, language: str) -> Iterator[Row]:
    """All clips of a caption file."""
    key = "enCap" if language == "en" else "chCap"
    seen = Seen()
    for position, _, row in file.items():
        try:
            clip = text_of(row, "videoID")
            match = _CLIP.fullmatch(clip)
            if match is None:
                raise ValueError(f"{clip!r} is no id_start_end with six digits each")
            if not seen.add(clip):
                raise ValueError(f"{clip} is there already")
            texts = file.texts(row[key] or [], key)
        except ROW_ERRORS as error:
            file.reject(f"item {position}", reason(error))
            continue
        file.rows += 1
        yield Row(clip, texts, start=float(match[2]), end=float(match[3]), place=position)


def _rows(listed: AnnotationFile, *captions: AnnotationFile, language: str) -> Iterator[Row]:
    key = "enCap" if language == "en" else "chCap"
    texts: dict[str, Sequence[str]] = {}
    for file in captions:
        for position, _, row in file.items():
            try:
                texts.setdefault(text_of(row, "videoID"), file.texts(row[key] or [], key))
                file.rows += 1
            except ROW_ERRORS as error:
                file.reject(f"item {position}", reason(error))
    for line, clip in clip_list(listed):
        match = _CLIP.fullmatch(clip)
        if match is None:
            listed.reject(f"line {line}", f"{clip!r} is no id_start_end with six digits each")
        elif clip not in texts:
            listed.reject(f"line {line}", f"{clip} has no caption")
        else:
            listed.rows += 1
            yield Row(clip, texts[clip], start=float(match[2]), end=float(match[3]), place=line)
