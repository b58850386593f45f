"""MSVD (1,970 clips, 80,827 captions), MSVD-QA (50,505 questions) and MSVD-CN (11,758 Chinese captions): one set of
clips under two names, ``-4wsuPCjDBc_5_15`` and ``vid1``.

Clips         files under either name; ``youtube_mapping.txt`` has a line ``-4wsuPCjDBc_5_15 vid1`` for each
Captions      ``captions_msvd.json``: {"-4wsuPCjDBc_5_15": ["a squirrel is eating ...", ...]}
Lists         ``train_list.txt`` (val, test): one clip per line; 1,200, 100 and 670 clips
Questions     ``train_qa.json`` (val, test): [{"answer", "id", "question", "video_id": 1}], or ``train.csv``:
              video,width,height,question,answer,qid
Chinese       ``msvd_cn_captions_release_utf8.csv``: id,video_id,sentence with ``vid239.mp4``

The splits of the questions are not those of retrieval: clips 1201 to 1450 are the validation clips of the questions,
1201 to 1300 those of retrieval. Clips have one name in all tables, so a test clip in training is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from vtp.catalogue import (
    ROW_ERRORS,
    SPLITS,
    Aliases,
    AnnotationFile,
    Catalogue,
    ClipFolders,
    Ids,
    Plan,
    Row,
    clip_list,
    reason,
    text_of,
)
from vtp.errors import DataError
from vtp_datasets.questions import question_rows

__all__ = ["MSVD", "MSVDCN"]

FOLDERS = ("", "annotations", "msvd", "msvd_qa", "msvd_cn", "MSVD", "MSVD-QA", "MSVD-CN", "qa", "txt_labels",
           "annotations/msvd", "annotations/msvd_qa", "annotations/msvd_cn")  # fmt: skip
VIDEOS = ("videos", "YouTubeClips", "MSVD_Videos", "videos/msvd", "msvd", "video", "")
MAPPING = ("youtube_mapping.txt",)
CHINESE = ("msvd_cn_captions_release_utf8.csv", "msvd_cn.csv")
RANGES = {"train": range(1, 1201), "val": range(1201, 1301), "test": range(1301, 1971)}  # of retrieval and captions
ABOUT = """Where MSVD comes from:
  clips: the Microsoft Research Video Description Corpus (Chen and Dolan, ACL 2011), YouTubeClips.tar
  captions and lists: captions_msvd.json and the lists train, val, test as the retrieval code X-Pool shares them
  questions: MSVD-QA (Xu et al., "Video Question Answering via Gradually Refined Attention over Appearance and \
Motion", ACM Multimedia 2017), with youtube_mapping.txt
  Chinese captions: MSVD-CN (Chen et al., 2018), msvd_cn_captions_release_utf8.csv"""


class MSVD(Catalogue):
    """MSVD and MSVD-QA from a folder: one clip each with all its captions; ``qa``: one question each.

    Args:
        root: folder with annotations and clips; None = ``$VTP_DATA/msvd``, or ``data/msvd`` without that variable.
        videos: folder of the clips, absolute or relative to ``root``; None = the usual ones.
    """

    name = "msvd"
    kinds: tuple[str, ...] = ("caption", "retrieval", "qa")
    folders = FOLDERS
    about = ABOUT
    clips = "-4wsuPCjDBc_5_15.avi ... or vid1.mp4 ... vid1970.mp4"

    def __init__(self, *, root: str | Path | None = None, videos: str | Path | None = None) -> None:
        super().__init__(root)
        self._videos = videos

    def plan(self, kind: str, split: str) -> Plan:
        if kind == "qa":
            files: tuple[tuple[str, ...], ...] = ((f"{split}_qa.json", f"{split}.csv"), MAPPING)
            return Plan(files, partial(_questions, split=split), lambda: self._media, options={"qa": split})
        files = ((f"{split}_list.txt",), ("captions_msvd.json",))
        return Plan(files, _captions, lambda: self._media, options={"captions": split})

    @cached_property
    def _media(self) -> Aliases:
        """Clips by their YouTube name, or as vidN where the mapping is there to say which that is."""
        path = self.find(*MAPPING)
        numbers = {} if path is None else {clip: number for number, clip in _mapping(AnnotationFile(path)).items()}
        return Aliases(ClipFolders(self.root, self._videos, VIDEOS), ("{name}", "{vid}"), partial(_vid, numbers))


class MSVDCN(MSVD):
    """The Chinese captions of MSVD, with its clips, its options and the splits of its retrieval."""

    name = "msvd_cn"
    media_namespace = "msvd"
    kinds = ("caption", "retrieval")

    def plan(self, kind: str, split: str) -> Plan:
        return Plan((CHINESE, MAPPING), _chinese, lambda: self._media, group=True, split=SPLITS.index(split))


def _vid(numbers: Mapping[str, int], clip: str) -> dict[str, str]:
    return {"vid": f"vid{numbers[clip]}"} if clip in numbers else {}


def _mapping(file: AnnotationFile) -> dict[int, str]:
    """N -> YouTube name, of lines ``name vidN``."""
    found: dict[int, str] = {}
    for line, text in file.lines():
        match = re.fullmatch(r"(\S+)\s+vid(\d+)", text)
        if match is None:
            file.reject(f"line {line}", "not a clip and vidN")
        else:
            found[int(match[2])] = match[1]
            file.rows += 1
    return found


def _captions(listed: AnnotationFile, captions: AnnotationFile) -> Iterator[Row]:
    if captions.begins_with("["):
        raise DataError(f"{captions.path}: expected an object from clips to captions, found a list.")
    good: dict[str, list[str]] = {}
    for _, clip, texts in captions.items():
        for position, text in enumerate(texts if isinstance(texts, list) else [None]):
            try:
                good.setdefault(clip, []).append(text_of({"caption": text}, "caption"))
                captions.rows += 1
            except ValueError as error:
                captions.reject(f"{clip}, caption {position}", reason(error))
    for line, clip in clip_list(listed):
        if clip in good:
            listed.rows += 1
            yield Row(clip, good[clip], place=line)
        else:
            listed.reject(f"line {line}", f"{clip} has no caption")


def _questions(file: AnnotationFile, mapping: AnnotationFile, *, split: str) -> Iterator[Row]:
    names = _mapping(mapping)
    return question_rows(file, split=split, clip_of=lambda value: names[_number(value)])


def _chinese(file: AnnotationFile, mapping: AnnotationFile) -> Iterator[Row]:
    names = _mapping(mapping)
    ids = Ids()
    for line, row in file.csv(lambda cells: "sentence" in cells):
        try:
            number = _number(row["video_id"])
            made = Row("", [text_of(row, "sentence")], video_id=names[number], place=line)
            made.id = ids.unique(text_of(row, "id"), names[number], line, made.texts[0])
        except ROW_ERRORS as error:
            file.reject(f"line {line}", reason(error))
            continue
        made.split = next((SPLITS.index(split) for split, clips in RANGES.items() if number in clips), None)
        file.rows += 1
        yield made
    file.note_repeated(ids)


def _number(value: Any) -> int:
    """``1``, ``"1"``, ``"vid1"`` and ``"vid1.mp4"`` are 1."""
    match = re.fullmatch(r"(?:vid)?0*(\d+)(?:\.\w+)?", str(value).strip())
    if match is None:
        raise ValueError(f"{value!r} is no MSVD clip")
    return int(match[1])
