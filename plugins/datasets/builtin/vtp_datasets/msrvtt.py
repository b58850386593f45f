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

import logging
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

from vtp.catalogue.annotations import AnnotationFile, find_file
from vtp.catalogue.catalogue import Catalogue, Plan, check_table
from vtp.catalogue.media_files import ClipFolders
from vtp.errors import ConfigError, DataError
from vtp.types import Sample
from vtp_datasets.antmmf import choice_rows
from vtp_datasets.tables import CaptionTable, Clips, QATable

__all__ = ["MSRVTT", "clip_name"]

log = logging.getLogger("vtp")

Kind = Literal["caption", "retrieval", "qa", "mc"]
Split = Literal["train", "val", "test"]
TrainList = Literal["9k", "7k", "full"]
TestList = Literal["1ka", "full"]

ANNOTATIONS = ("", "annotations", "annotation", "msrvtt", "msrvtt_data", "msrvtt_qa", "MSRVTT-QA", "qa")
VIDEOS = ("videos", "videos/all", "TrainValVideo", "TestVideo", "videos/TrainValVideo", "videos/TestVideo", "")
CAPTIONS = ("MSRVTT_data.json", "train_val_videodatainfo.json", "test_videodatainfo.json")
PAIRS = ("MSRVTT_JSFUSION_test.csv",)
CHOICES = ("msrvtt_multi_choice_qa.jsonl", "msrvtt_mc_test.jsonl", "MSRVTT_MC_test.jsonl", "mc_test.jsonl")
SOURCES = """Where MSR-VTT comes from:
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


class MSRVTT:
    """MSR-VTT and MSRVTT-QA from a folder.

    Args:
        root: folder with annotations and clips; None = ``$VTP_DATA/msrvtt``, or ``data/msrvtt`` without that variable.
        train_list: clips of the retrieval and caption training split: 9k (9,000), 7k (7,010) or full (6,513).
        test: clips of the retrieval and caption test split: 1ka (1,000 pairs) or full (2,990).
        videos: folder of the clips, absolute or relative to ``root``; None = the usual ones.

    A clip without a file is kept: its sample names the place where the file should be, and the ledger counts it.
    """

    name = "msrvtt"
    media_namespace = "msrvtt"
    kinds: tuple[str, ...] = get_args(Kind)

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        train_list: TrainList = "9k",
        test: TestList = "1ka",
        videos: str | Path | None = None,
    ) -> None:
        for key, value, known in (("train_list", train_list, TrainList), ("test", test, TestList)):
            if str(value) not in get_args(known):
                raise ConfigError(f"dataset.{key}={value!r} must be one of {', '.join(get_args(known))}.")
        self.root = (Path(os.environ.get("VTP_DATA", "data")) / "msrvtt" if root is None else Path(root)).expanduser()
        self.train_list = train_list
        self.test = test
        self._videos = videos
        self._files: dict[Path, AnnotationFile] = {}
        self._tables: dict[tuple[str, str], QATable | CaptionTable] = {}
        self._choices = Catalogue("msrvtt", self.root, ANNOTATIONS, self._choice_plan, kinds=("mc",), about=SOURCES)

    def splits(self, kind: str) -> tuple[str, ...]:
        """Splits that exist by definition: choices are for testing, and retrieval with the 9k or 7k list leaves no clip
        for validation."""
        check_table(self.name, self.kinds, kind)
        if kind == "mc":
            return ("test",)
        return ("train", "val", "test") if kind == "qa" or self.train_list == "full" else ("train", "test")

    def samples(self, kind: str, split: str) -> Sequence[Sample]:
        """The table of one kind and split.

        ``qa``: one question each, ``labels["answer"]``. ``caption``: one clip each with all its captions.
        ``retrieval``: the same for training; for testing the (clip, caption) pairs of 1k-A, or all captions of the full
        test set. Retrieval with the 9k or 7k list has no validation split, because those lists contain it. ``mc``: one
        item each, its texts are the options, ``labels["answer_index"]`` is the right one.

        Raises:
            ConfigError: there is no such kind or split.
            DataError: files are missing; the message lists every one that this kind needs.
        """
        check_table(self.name, self.kinds, kind, split)
        if kind == "mc":
            return self._choices.table(kind, split)
        if (kind, split) not in self._tables:
            if any(find is None for find in self._needed(kind, split).values()):
                raise DataError(self._what_is_missing(kind))
            table = self._questions(split) if kind == "qa" else self._captions(kind, split)
            self._tables[kind, split] = table
            if len(table.clips) and not any(name in self._clips for name in table.clips.names):
                log.warning(
                    "%s: none of the %s clips of the %s split is in %s",
                    self.name, f"{len(table.clips):,}", split, ", ".join(map(str, self._clips.looked_in)),
                )  # fmt: skip
        return self._tables[kind, split]

    def origin(self) -> dict[str, Any]:
        """What the run record keeps: the root, every annotation file that was read with its sha256, rows and malformed
        rows, and how many clips of each table are on the disk."""
        choices = self._choices.origin()
        return {
            "root": str(self.root.absolute()),
            "train_list": self.train_list,
            "test": self.test,
            "files": [file.record() for file in self._files.values()] + choices["files"],
            "tables": choices["tables"]
            | {
                f"{kind}/{split}": {
                    "samples": len(table),
                    "clips": len(table.clips),
                    "clips_on_disk": sum(name in self._clips for name in table.clips.names),
                }
                for (kind, split), table in self._tables.items()
            },
        }

    # -- files -------------------------------------------------------------------------------------------------------

    @cached_property
    def _clips(self) -> ClipFolders:
        return ClipFolders(self.root, self._videos, VIDEOS)

    @cached_property
    def _folders(self) -> list[Path]:
        return [self.root / name for name in ANNOTATIONS]

    def _choice_plan(self, kind: str, split: str) -> Plan | None:
        rows = partial(choice_rows, clip_of=clip_name)
        return Plan((CHOICES,), rows, lambda: self._clips) if split == "test" else None

    def _needed(self, kind: str, split: str) -> dict[tuple[str, ...], Path | None]:
        """Names of each file that a table is made of -> where it is."""
        if kind == "qa":
            wanted = [(f"{split}_qa.json", f"{split}.csv")]
        elif split == "train":
            wanted = [CAPTIONS, (f"MSRVTT_train.{self.train_list}.csv",)]
        elif split == "val":
            wanted = [CAPTIONS, ("MSRVTT_val.full.csv",)] if self.train_list == "full" else []
        elif self.test == "full":
            wanted = [CAPTIONS, ("MSRVTT_test.full.csv",)]
        else:
            wanted = [PAIRS] if kind == "retrieval" else [CAPTIONS, PAIRS]
        return {names: find_file(self._folders, names) for names in wanted}

    def _what_is_missing(self, kind: str) -> str:
        found: dict[tuple[str, ...], Path | None] = {}
        for split in get_args(Split):
            found |= self._needed(kind, split)
        lines = [f"  file    {' or '.join(names)}" for names, path in found.items() if path is None]
        if self._videos is None and not len(ClipFolders(self.root, None, VIDEOS)):
            lines.append("  clips   video0.mp4 ... video9999.mp4")
        root = self.root.absolute()
        if not self.root.is_dir():
            lines.insert(0, f"  folder  {root}")
        task = "msrvtt_qa" if kind == "qa" else "msrvtt_retrieval"
        return "\n".join(
            [
                f"MSR-VTT is not complete under {root}. Missing:",
                *lines,
                f"Looked for files in {_list(ANNOTATIONS)}, and for clips in {_list(VIDEOS)} of that folder.",
                "dataset.root=FOLDER names another folder, dataset.videos=FOLDER one for the clips alone.",
                SOURCES,
                f"To try vtp without it, on a small generated world: vtp run task={task} dataset=shapes",
            ]
        )

    def _file(self, names: tuple[str, ...]) -> AnnotationFile:
        path = find_file(self._folders, names)
        assert path is not None  # samples() has looked
        self._files[path] = AnnotationFile(path)
        return self._files[path]

    # -- questions ---------------------------------------------------------------------------------------------------

    def _questions(self, split: str) -> QATable:
        file = self._file((f"{split}_qa.json", f"{split}.csv"))
        table = QATable(Clips(self._clips.path), file.path.name)
        seen: set[str] = set()
        is_json = file.path.suffix == ".json"
        for line, row in enumerate(_list_of(file)) if is_json else file.csv(lambda cells: "question" in cells):
            where = f"item {line}" if is_json else f"line {line}"
            try:
                name, clip, question, answer, category = _question(row)
            except (KeyError, ValueError, TypeError) as error:
                file.reject(where, _reason(error))
                continue
            name = name or f"{split}{line}"
            if name in seen:
                file.reject(where, f"id {name} is there already")
                continue
            seen.add(name)
            table.add(name, clip, question, answer, category, line)
        file.close(len(table))
        return table

    # -- captions ----------------------------------------------------------------------------------------------------

    def _captions(self, kind: str, split: str) -> CaptionTable:
        clips = Clips(self._clips.path)
        if split == "val" and self.train_list != "full":
            return CaptionTable(clips, "")
        if split == "test" and self.test == "1ka":
            file = self._file(PAIRS)
            table = CaptionTable(clips, file.path.name)
            for line, clip, row in _clip_rows(file, lambda row: row["video_id"]):
                caption = str(row.get("sentence") or "").strip()
                if not caption:
                    file.reject(f"line {line}", "no sentence")
                elif kind == "retrieval":
                    table.add(row.get("key") or f"ret{line}", clip, [caption])
                else:
                    self._add_all_captions(table, clip, file, line)
        else:
            names = {"train": f"MSRVTT_train.{self.train_list}.csv", "val": "MSRVTT_val.full.csv"}
            file = self._file((names.get(split, "MSRVTT_test.full.csv"),))
            table = CaptionTable(clips, file.path.name)
            for line, clip, _ in _clip_rows(file, lambda row: row.get("video_id") or row["0"]):
                self._add_all_captions(table, clip, file, line)
        file.close(len(table))
        return table

    def _add_all_captions(self, table: CaptionTable, clip: str, file: AnnotationFile, line: int) -> None:
        texts, categories = self._sentences
        if clip in texts:
            table.add(clip, clip, texts[clip], categories.get(clip))
        else:
            file.reject(f"line {line}", f"{clip} has no caption")

    @cached_property
    def _sentences(self) -> tuple[dict[str, list[str]], dict[str, int]]:
        """Clip -> captions in file order, clip -> category; from one file, or from the two of the first release."""
        texts: dict[str, list[str]] = {}
        categories: dict[str, int] = {}
        names = CAPTIONS[:1] if find_file(self._folders, CAPTIONS[:1]) else CAPTIONS[1:]
        for name in names:
            if find_file(self._folders, (name,)) is None:
                continue
            file = self._file((name,))
            content = file.json()
            if not isinstance(content, dict) or not {"videos", "sentences"} <= content.keys():
                raise DataError(f"{file.path}: expected an object with the lists videos and sentences.")
            good = 0
            for position, row in enumerate(content["sentences"]):
                try:
                    clip, caption = clip_name(row["video_id"]), _text(row, "caption")
                except (KeyError, ValueError, TypeError) as error:
                    file.reject(f"sentence {position}", _reason(error))
                    continue
                texts.setdefault(clip, []).append(caption)
                good += 1
            for position, row in enumerate(content["videos"]):
                try:
                    categories[clip_name(row["video_id"])] = int(row["category"])
                except (KeyError, ValueError, TypeError) as error:
                    file.reject(f"video {position}", _reason(error))
            file.close(good)
        return texts, categories


def _question(row: dict[str, Any]) -> tuple[str, str, str, str, int | None]:
    """id, clip, question, answer and category of one item in either spelling."""
    if not isinstance(row, dict):
        raise TypeError("not an object")
    name = row.get("id", row.get("qid"))
    category = row.get("category_id", row.get("type"))
    clip = clip_name(row["video_id"] if "video_id" in row else row["video"])
    number = None if category in (None, "") else int(category)
    return "" if name is None else str(name).strip(), clip, _text(row, "question"), _text(row, "answer"), number


def _text(row: dict[str, Any], key: str) -> str:
    text = row[key]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"no {key}")
    return text.strip()


def _reason(error: Exception) -> str:
    return f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)


def _list_of(file: AnnotationFile) -> list[Any]:
    content = file.json()
    if not isinstance(content, list):
        raise DataError(f"{file.path}: expected a list of questions, found {type(content).__name__}.")
    return content


def _clip_rows(file: AnnotationFile, clip_of: Callable[[dict[str, str]], str]) -> list[tuple[int, str, dict[str, str]]]:
    """(line, clip, row) of a list of clips; rows that name none are malformed, as are clips that come twice."""
    rows = []
    seen: set[str] = set()
    for line, row in file.csv(lambda cells: "video_id" in cells):
        try:
            clip = clip_name(clip_of(row))
        except (KeyError, ValueError) as error:
            file.reject(f"line {line}", _reason(error))
            continue
        if clip in seen:
            file.reject(f"line {line}", f"{clip} is there already")
            continue
        seen.add(clip)
        rows.append((line, clip, row))
    return rows


def _list(folders: tuple[str, ...]) -> str:
    return ", ".join(f"{name}/" if name else "./" for name in folders)
