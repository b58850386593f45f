"""Files of the AntMMF framework (SNP-S3, CNVid): one JSON object per line.

    {"caption": "...", "clip_name": "data/mp4/video9770", "sen_id": 0, "label": 1}               training
    {"caption": "...", "clip_name": "video9770", "retrieval_key": "ret0"}                        testing
    {"caption": "...", "clip_name": "video9770.mp4", "start": 0.0, "end": 3.7, "type": "video"}  a span
    {"caption": "...", "clip_name": "dog.jpg", "type": "image"}                                  an image
    {"caption": "", "clip_name": "v_Archery_g01_c01", "label": 2, "type": "video"}                classification
    {"qid": "mc0", "clip_name": "video9770", "answer": "0", "options": ["...", ...]}             multiple choice

A label is a number, a name or a list of them. ``clip_name`` stands with or without folder and extension: the file is
found by its path, or by its stem.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from vtp.catalogue import (
    IMAGES,
    NONE,
    ROW_ERRORS,
    VIDEOS,
    AnnotationFile,
    Catalogue,
    ClipFolders,
    Ids,
    Plan,
    Row,
    given_or,
    is_empty,
    plain_text,
    reason,
    stem_of,
    text_of,
)
from vtp.spans import span_name
from vtp_datasets.questions import choice_rows

__all__ = ["AntMMF"]

USUAL = {
    split: (f"{split}.jsonl", *(f"{name}_{split}.jsonl" for name in ("msrvtt", "msvd", "didemo", "webvid", "cnvid")))
    for split in ("train", "val", "test")
}
CHOICES = ("msrvtt_multi_choice_qa.jsonl", "multi_choice_qa.jsonl", "mc_test.jsonl", "test_mc.jsonl")
FOLDERS = ("videos", "images", "data/mp4", "mp4", "data/images", "data", "")
ABOUT = """AntMMF's files are named by dataset.train_file, dataset.val_file and dataset.test_file (or train.jsonl, ...);
multiple-choice questions by dataset.mc_file."""


class AntMMF(Catalogue):
    """Data in AntMMF's form: one clip, span of a clip or image each, in any mixture, with all its captions; ``mc``: one
    question each, its options as texts; ``classification``: one row each, its label and its caption or an empty text.

    Args:
        root: folder with files and clips; None = ``$VTP_DATA/antmmf``, or ``data/antmmf`` without that variable.
        train_file, val_file, test_file: captions, absolute or relative to ``root``; None = ``train.jsonl`` and the
            like, where they are there.
        mc_file: multiple-choice questions; None = the usual names.
        videos: folder of clips and images, absolute or relative to ``root``; None = the usual ones, all together.
        namespace: data sets with one namespace share their clips, for the leak check.
    """

    name = "antmmf"
    kinds = ("caption", "retrieval", "mc", "classification")
    folders = ("", "annotations", "jsonl")
    about = ABOUT
    clips = "the clips and images, in videos/ and images/"

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        train_file: str | Path | None = None,
        val_file: str | Path | None = None,
        test_file: str | Path | None = None,
        mc_file: str | Path | None = None,
        videos: str | Path | None = None,
        namespace: str = "antmmf",
    ) -> None:
        super().__init__(root)
        self.media_namespace = namespace
        self._files = {"train": train_file, "val": val_file, "test": test_file}
        self._mc_file = mc_file
        self._videos = videos

    def plan(self, kind: str, split: str) -> Plan | None:
        if kind == "mc":
            if split != "test":
                return None
            return Plan((given_or(self._mc_file, CHOICES),), choice_rows, self._media, options={"kind": "mc"})
        names = given_or(self._files[split], USUAL[split])
        if split != "train" and self._files[split] is None and self.find(*names) is None:
            return None  # nothing says that there should be one
        if kind == "classification":
            return Plan((names,), partial(_rows, labelled=True), self._media, options={"kind": kind})
        return Plan((names,), _rows, self._media, options={"kind": "caption"}, group=True)

    def _media(self) -> ClipFolders:
        return _ClipFolders(self.root, self._videos, FOLDERS, VIDEOS | IMAGES)


class _ClipFolders(ClipFolders):
    """Files, or in their place folders of key frames, for decoders that read those."""

    def _find(self, stem: str) -> str | None:
        folders = (os.path.join(folder, stem) for folder in self.folders)
        return super()._find(stem) or next(filter(os.path.isdir, folders), None)


def _rows(file: AnnotationFile, labelled: bool = False) -> Iterator[Row]:
    ids = Ids()
    for line, row in file.jsonl():
        try:
            path = text_of(row, "clip_name")
            clip = stem_of(path)
            start, end = (None if row.get(key) is None else float(row[key]) for key in ("start", "end"))
            if not 0 <= (start or 0.0) < (math.inf if end is None else end):
                span = f"{start or 0:g} to {'?' if end is None else format(end, 'g')} s"
                raise ValueError(f"{span} is no span with a start before its end")
            name = text_of(row, "retrieval_key") if "retrieval_key" in row else str(line)
            caption = text_of(row, "caption") if not labelled or row.get("caption") else ""
            answer, labels = _label(row.get("label")) if labelled else (None, None)
            made = Row(
                ids.unique(name, clip, line, start, end, caption, answer, repr(labels)), [caption], answer=answer
            )
        except ROW_ERRORS as error:
            file.reject(f"line {line}", reason(error))
            continue
        image = row.get("type") == "image" or f".{path.rpartition('.')[2].lower()}" in IMAGES
        made.video_id, made.video, made.place = span_name(clip, start, end), clip, line
        made.start, made.end, made.audio = start, end, NONE if image else None
        made.extra = {"label": row["label"]} if "label" in row and not labelled else None
        made.extra = made.extra if labels is None else {"labels": labels}
        file.rows += 1
        yield made
    file.note_repeated(ids)


def _label(value: Any) -> tuple[str | None, list[str] | None]:
    """The class of a clip, or all its classes; neither where they are not known."""
    if isinstance(value, list):
        return None, [plain_text(name, "label") for name in value]
    return (None if is_empty(value) else plain_text(value, "label")), None
