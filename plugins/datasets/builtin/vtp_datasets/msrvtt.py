"""MSR-VTT in the layouts that its releases have: retrieval (and captions), and MSRVTT-QA.

Clips         10,000 files ``video0.mp4`` .. ``video9999.mp4``
Captions      ``MSRVTT_data.json``, or ``train_val_videodatainfo.json`` and ``test_videodatainfo.json``:
              {"videos": [{"video_id": "video7010", "category": 9, "start time": ...}], "sentences": [{"video_id",
              "caption", "sen_id"}]}
Lists         ``MSRVTT_train.9k.csv`` (7k, full), ``MSRVTT_val.full.csv``, ``MSRVTT_test.full.csv``: one column
              ``video_id``
1k-A test     ``MSRVTT_JSFUSION_test.csv``: key,vid_key,video_id,sentence
Questions     ``train_qa.json`` (val, test): [{"answer", "id", "question", "video_id", "category_id"}], or
              ``train.csv``: video,question,answer,qid,type, where ``type`` is the category
Choices       ``msrvtt_multi_choice_qa.jsonl`` (MSRVTT-MC, 2,990 test items): {"qid": "mc0", "clip_name": "video9770",
              "answer": "0", "options": [...]}, where ``answer`` is the position of the right option

Times in the caption file are those of the YouTube video that a clip was cut from, so they are no spans of the clip.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from vtp.catalogue import (
    ROW_ERRORS,
    AnnotationFile,
    Catalogue,
    ClipFolders,
    Plan,
    Row,
    Seen,
    check_choice,
    reason,
    text_of,
)
from vtp.errors import DataError
from vtp_datasets.questions import choice_rows, question_rows

__all__ = ["MSRVTT", "clip_name"]

TrainList = Literal["9k", "7k", "full"]
TestList = Literal["1ka", "full"]

VIDEOS = ("videos", "videos/all", "TrainValVideo", "TestVideo", "videos/TrainValVideo", "videos/TestVideo", "")
CAPTIONS = ("MSRVTT_data.json", "train_val_videodatainfo.json", "test_videodatainfo.json")
PAIRS = ("MSRVTT_JSFUSION_test.csv",)
CHOICES = ("msrvtt_multi_choice_qa.jsonl", "msrvtt_mc_test.jsonl", "MSRVTT_MC_test.jsonl", "mc_test.jsonl")
ABOUT = """Where MSR-VTT comes from:
  clips and captions: the MSR-VTT release of Microsoft Research (Xu, Mei, Yao and Rui, "MSR-VTT: A Large Video \
Description Dataset for Bridging Video and Language", CVPR 2016)
  lists and the 1k-A test: the files that the retrieval code of Collaborative Experts, CLIP4Clip and CLIP2Video \
shares; the test pairs are those of JSFusion (Yu, Kim and Kim, ECCV 2018)
  questions: MSRVTT-QA (Xu et al., "Video Question Answering via Gradually Refined Attention over Appearance and \
Motion", ACM Multimedia 2017)
  choices: MSRVTT-MC (Yu, Kim and Kim, ECCV 2018), in the jsonl form of AntMMF"""

_CLIP = re.compile(r"(?:video|msr)?0*(\d+)(?:\.\w+)?$", re.IGNORECASE)


def clip_name(value: Any) -> str:
    """The name of a clip in whatever way a file spells it: ``7010``, ``"7010"``, ``"video7010"``, ``"msr7010"`` and
    ``"all/video7010.mp4"`` are ``video7010``.

    Raises:
        ValueError: it is none of these.
    """
    match = _CLIP.match(str(value).strip().replace("\\", "/").rsplit("/", 1)[-1])
    if match is None:
        raise ValueError(f"{value!r} is no MSR-VTT clip")
    return f"video{match[1]}"


class MSRVTT(Catalogue):
    """MSR-VTT and MSRVTT-QA from a folder.

    ``qa``: one question each, ``labels["answer"]``. ``caption``: one clip each with all its captions. ``retrieval``:
    the same for training; for testing the (clip, caption) pairs of 1k-A, or all captions of the full test set. The 9k
    and 7k lists contain the validation clips, so with them captions and retrieval have no validation split. ``mc``: one
    item each for testing; its texts are the options, ``labels["answer_index"]`` is the right one.

    Args:
        root: folder with annotations and clips; None = ``$VTP_DATA/msrvtt``, or ``data/msrvtt`` without that variable.
        train_list: clips of the retrieval and caption training split: 9k (9,000), 7k (7,010) or full (6,513).
        test: clips of the retrieval and caption test split: 1ka (1,000 pairs) or full (2,990).
        videos: folder of the clips, absolute or relative to ``root``; None = the usual ones.
    """

    name = "msrvtt"
    kinds: tuple[str, ...] = ("caption", "retrieval", "qa", "mc")
    folders = ("", "annotations", "annotation", "msrvtt", "msrvtt_data", "msrvtt_qa", "MSRVTT-QA", "qa")
    about = ABOUT
    clips = "video0.mp4 ... video9999.mp4, in videos/, TrainValVideo/, TestVideo/ (dataset.videos=FOLDER names another)"

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        train_list: TrainList = "9k",
        test: TestList = "1ka",
        videos: str | Path | None = None,
    ) -> None:
        check_choice("train_list", train_list, TrainList)
        check_choice("test", test, TestList)
        super().__init__(root, train_list=train_list, test=test)
        self.train_list = train_list
        self.test = test
        self._videos = videos

    def plan(self, kind: str, split: str) -> Plan | None:
        if kind == "qa":
            questions = partial(question_rows, split=split, clip_of=clip_name)
            return self._table(questions, (f"{split}_qa.json", f"{split}.csv"), options={"qa": split})
        if kind == "mc":
            return self._table(partial(choice_rows, clip_of=clip_name), CHOICES) if split == "test" else None
        if split == "val" and self.train_list != "full":
            return None
        pairs = split == "test" and self.test == "1ka"
        if pairs and kind == "retrieval":
            return self._table(_pairs, PAIRS)
        listed = (f"MSRVTT_{split}.{self.train_list if split == 'train' else 'full'}.csv",)
        names = (
            CAPTIONS[:1] if self.find(*CAPTIONS[:1]) else CAPTIONS[1:]
        )  # all in one file, or in those of the release
        found = tuple(path for name in names if (path := self.find(name)) is not None)
        return self._table(_captioned, PAIRS if pairs else listed, *(() if found else (CAPTIONS,)), sources=found)

    def _table(self, rows: Callable[..., Iterable[Row]], *files: tuple[str, ...], **more: Any) -> Plan:
        return Plan(files, rows, lambda: self._media, **more)

    @cached_property
    def _media(self) -> ClipFolders:
        return ClipFolders(self.root, self._videos, VIDEOS)


def _listed(file: AnnotationFile) -> Iterator[tuple[int, str, dict[str, str]]]:
    """(line, clip, row) of a list of clips; a clip that comes twice is malformed."""
    seen = Seen()
    for line, row in file.csv(lambda cells: "video_id" in cells):
        try:
            clip = clip_name(row.get("video_id") or row["0"])
            if not seen.add(clip):
                raise ValueError(f"{clip} is there already")
            if "sentence" in row:
                text_of(row, "sentence")
        except ROW_ERRORS as error:
            file.reject(f"line {line}", reason(error))
            continue
        yield line, clip, row


def _pairs(file: AnnotationFile) -> Iterator[Row]:
    for line, clip, row in _listed(file):
        file.rows += 1
        name = row.get("key") or f"ret{line}"
        yield Row(name, [text_of(row, "sentence")], video_id=clip, place=name)


def _captioned(listed: AnnotationFile, *captions: AnnotationFile) -> Iterator[Row]:
    texts: dict[str, list[str]] = {}
    categories: dict[str, int] = {}
    for file in captions:
        _sentences(file, texts, categories)
    for line, clip, _ in _listed(listed):
        if clip not in texts:
            listed.reject(f"line {line}", f"{clip} has no caption")
            continue
        listed.rows += 1
        yield Row(clip, texts[clip], place=clip, extra={"category": categories[clip]} if clip in categories else None)


def _sentences(file: AnnotationFile, texts: dict[str, list[str]], categories: dict[str, int]) -> None:
    """Add clip -> captions in the order of the file, and clip -> category. ``file.rows`` counts captions."""
    content = file.json()
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in ("videos", "sentences")):
        raise DataError(f"{file.path}: expected an object with the lists videos and sentences.")
    for position, row in enumerate(content["sentences"]):
        try:
            clip, caption = clip_name(row["video_id"]), text_of(row, "caption")
        except ROW_ERRORS as error:
            file.reject(f"sentence {position}", reason(error))
            continue
        texts.setdefault(clip, []).append(caption)
        file.rows += 1
    for position, row in enumerate(content["videos"]):
        try:
            categories[clip_name(row["video_id"])] = int(row["category"])
        except ROW_ERRORS as error:
            file.reject(f"video {position}", reason(error))
