"""Data of one's own from one table: csv, tsv or jsonl with a column ``video`` (or ``audio``) and a column ``caption``,
or ``question`` and ``answer``, or ``question``, ``options`` and ``answer``, or ``label``, or ``labels``.

    video,caption,split                         video,question,options,answer
    clips/a.mp4,a dog runs,train                clips/a.mp4,what runs?,a dog|a cat,a dog
    video,label                                 video,labels
    clips/a.mp4,archery                         clips/a.mp4,indoor|two people

Further columns: ``audio`` (a file of its own), ``id``, ``start`` and ``end`` in seconds, ``split``, ``category``,
``question_type``. Usual other names of columns are understood, see :data:`ALIASES`. Options stand in one cell, as JSON
list or parted by ``|``, or in columns ``option0`` ... (also ``a0``, ``option_a``); the answer is an option or its
number, from 0. ``labels`` are a cell of that kind; an empty one says that they are not known, ``[]`` that none applies.
A jsonl row may hold lists in ``caption``, ``options`` and ``labels``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vtp.catalogue import (
    NONE,
    ROW_ERRORS,
    SPLITS,
    VIDEOS,
    AnnotationFile,
    Catalogue,
    Ids,
    Paths,
    Plan,
    Row,
    Table,
    answer_text,
    is_empty,
    list_in,
    plain_text,
    reason,
    text_of,
    without_extension,
)
from vtp.data.keys import hash64
from vtp.data.table import first_word
from vtp.errors import ConfigError, DataError
from vtp.ranges import Seed, Share
from vtp.spans import span_name, whole_clip
from vtp.types import Sample

__all__ = ["ALIASES", "OwnData"]

# column -> names that it goes by, in lower case, the first that is there counts
ALIASES: dict[str, tuple[str, ...]] = {
    "video": ("video", "video_path", "videopath", "path", "file", "filename", "file_name", "filepath", "video_file",
              "clip", "clip_name", "video_name", "video_id", "videoid", "image", "image_path", "gif_name"),
    "audio": ("audio", "audio_path", "audio_file", "sound", "wav"),
    "caption": ("caption", "captions", "text", "sentence", "description", "title", "name", "label_text"),
    "question": ("question", "question_content", "query"),
    "answer": ("answer", "anser", "label", "target", "gt"),
    "labels": ("labels", "classes", "tags"),
    "options": ("options", "choices", "candidates", "answers"),
    "id": ("id", "question_id", "qid", "key", "sample_id", "sen_id"),
    "start": ("start", "start_time", "start_s", "begin", "start_sec"),
    "end": ("end", "end_time", "end_s", "stop", "end_sec"),
    "split": ("split", "subset", "partition", "fold", "set"),
    "category": ("category", "class"),
    "question_type": ("question_type", "type"),
}  # fmt: skip
_ALL_ALIASES = frozenset(alias for aliases in ALIASES.values() for alias in aliases)
_OPTION = re.compile(r"(?:option|choice|candidate|answer)_?(?:[0-9]+|[a-h])$|a_?[0-9]+$")
_SPLITS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2}
_SPLITS |= {"eval": 2, "evaluation": 2}
_LOOKED_AT = 10_000  # rows of a JSON file that say which columns there are
ABOUT = """Own data are one csv, tsv or jsonl file: dataset.file=FILE, with columns video (or audio) and caption, or
question and answer, or label. Paths of media are relative to dataset.root, or to the folder of the file."""


class OwnData(Catalogue):
    """Own data, without code.

    Args:
        file: the table: csv, tsv or jsonl, absolute or relative to the working directory.
        val_file, test_file: tables of the other splits; with one of them, ``file`` is training data alone.
        root: folder that paths of media are relative to; None = the folder of the file.
        val_share, test_share: without a column ``split`` and without those files, the share of the clips that are held
            out for validation and for testing; at least one each where there are three clips.
        seed: of that choice. It depends on the names of the clips and on nothing else.
        namespace: clips of data sets with one namespace are the same clips when their names are the same, which is how
            a test clip is found to be a training clip of an earlier stage; None = ``csv:`` and the name of ``root``.

    Kinds are those that the columns allow: ``caption`` and ``retrieval`` with captions, ``qa`` with questions, ``mc``
    with options, ``classification`` with labels, or with a label (or class) and no question; with none of them
    ``media``, for the tools that only look at files.
    """

    name = "csv"
    by_file = True
    folders = ("",)
    about = ABOUT

    def __init__(
        self,
        *,
        file: str | Path | None = None,
        val_file: str | Path | None = None,
        test_file: str | Path | None = None,
        root: str | Path | None = None,
        val_share: Share = 0.1,
        test_share: Share = 0.1,
        seed: Seed = 0,
        namespace: str | None = None,
    ) -> None:
        if min(val_share, test_share) < 0 or val_share + test_share >= 1:
            raise ConfigError(
                f"dataset.val_share={val_share} and dataset.test_share={test_share} must not be negative, and must "
                "leave something to train on: together less than 1."
            )
        if file is None and (val_file is not None or test_file is not None):
            file = test_file if test_file is not None else val_file  # evaluating a checkpoint needs no training data
            self._files = {1: val_file, 2: test_file}
        elif val_file is not None or test_file is not None:
            self._files = {0: file, 1: val_file, 2: test_file}
        else:
            self._files = {}
        self.file = None if file is None else Path(file).expanduser()
        folder = Path(".") if self.file is None else self.file.parent
        super().__init__(folder if root is None else root)
        self._media_folders = [self.root] if root is None else [self.root, folder]
        self.media_namespace = namespace or f"csv:{self.root.absolute().name}"
        self._shares = {1: val_share, 2: test_share}
        self._seed = seed

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """What the columns allow; without a file, everything."""
        if self.file is None:
            return ("caption", "retrieval", "qa", "mc", "classification")
        columns = _columns(AnnotationFile(self._existing()))
        kinds = ["caption", "retrieval"] if "caption" in columns else []
        kinds += ["qa"] if "question" in columns else []
        kinds += ["mc"] if columns["options"] else []
        kinds += ["classification"] if _label_columns(columns) else []
        if not {"video", "audio"} & columns.keys():
            raise self._lacking(columns)
        return tuple(kinds or ["media"])

    def _lacking(self, columns: Mapping[str, Any]) -> DataError:
        return DataError(
            f"{self.file}: the columns say neither what is shown nor what is said about it. Needed are video (or "
            f"audio) and caption, or question and answer, or label; found: {', '.join(columns['all']) or 'nothing'}. "
            f"Understood names: {', '.join(sorted({n for names in ALIASES.values() for n in names}))}."
        )

    def samples(self, kind: str, split: str) -> Sequence[Sample]:
        """As every data set of this package; ``caption`` and ``retrieval`` have one sample per clip with all its
        captions, ``qa`` and ``mc`` one per question."""
        if self.file is None:
            raise ConfigError("dataset=csv needs dataset.file=FILE: a csv, tsv or jsonl file. " + ABOUT)
        if self.kinds == ("media",) and kind != "media":
            raise self._lacking(_columns(AnnotationFile(self._existing())))
        return super().samples(kind, split)

    def origin(self) -> dict[str, Any]:
        """As every data set; with the rule by which splits were made."""
        carved = {"val_share": self._shares[1], "test_share": self._shares[2], "seed": self._seed}
        splits = "by file" if self._files else "by column" if self._has_splits else carved
        record = super().origin()
        tables = {name: facts for name, facts in record["tables"].items() if facts["samples"]}
        return {**record, "tables": tables, "splits": splits}

    def _existing(self) -> Path:
        assert self.file is not None
        if not self.file.is_file():
            raise DataError(f"dataset.file={self.file}: there is no such file (in {Path.cwd()}).\n{ABOUT}")
        return self.file

    def plan(self, kind: str, split: str) -> Plan | None:
        number = SPLITS.index(split)
        file = self._files.get(number) if self._files else self.file
        if file is None:
            return None
        what = "caption" if kind in ("caption", "retrieval") else kind
        path = Path(file).expanduser().absolute()
        return Plan(
            ((str(path),),),
            partial(_rows, what=what, media=self._media()),
            self._media,
            options={"what": what},
            group=what == "caption",
            split=None if self._files or not self._has_splits else number,
        )

    def _media(self) -> Paths:
        return Paths(self._media_folders, VIDEOS)

    @cached_property
    def _has_splits(self) -> bool:
        return "split" in _columns(AnnotationFile(self._existing()))

    def part(self, table: Table, split: str) -> Table:
        """The part of ``table`` that is this split, whole clips only, where neither files nor a column say it."""
        if self._files or self._has_splits:
            return table
        names = map(whole_clip, table.video_ids())
        if _first_is_bare(AnnotationFile(self._existing())):  # whether a file was found must not change the splits
            names = map(without_extension, names)
        keys = np.fromiter((hash64(f"{self._seed}\0{clip}") for clip in names), np.uint64, count=len(table))
        clips = np.unique(keys)  # in the order of their hashes, which is random and the same everywhere
        counts = {part: _count(share, len(clips)) for part, share in self._shares.items()}
        ends = {1: counts[1], 2: counts[1] + counts[2]}
        place = np.searchsorted(clips, keys)
        bounds = {"val": (0, ends[1]), "test": (ends[1], ends[2]), "train": (ends[2], len(clips))}
        first, last = bounds[split]
        return table.select(np.flatnonzero((place >= first) & (place < last)))


def _count(share: float, clips: int) -> int:
    return 0 if share == 0 or clips < 3 else max(1, round(share * clips))


def _label_columns(columns: Mapping[str, Any]) -> list[str]:
    """Which of our columns says the class of a clip, the list of them before the one."""
    if "labels" in columns:
        return ["labels"]
    if "question" in columns or columns["options"]:
        return []
    if "answer" in columns:
        return ["answer"]
    return ["category"] if "category" in columns and "caption" not in columns else []


def _columns(file: AnnotationFile) -> dict[str, Any]:
    """Column of ours -> its name in the file; ``options`` -> a list of them; ``all`` -> every name in the file."""
    if _is_csv(file):
        try:
            return _match(file.header())
        except ValueError as error:
            raise DataError(f"{file.path}: {error}") from None
    names: dict[str, None] = {}
    for _, row in islice(_items(file), _LOOKED_AT):  # rows of JSON need not have the same ones
        names |= dict.fromkeys(row)
    return _match(list(names), strict=False)


def _match(names: Sequence[str], strict: bool = True) -> dict[str, Any]:
    """As :func:`_columns`, of the names in one row.

    Raises:
        ValueError: with ``strict``, two names are one column in two spellings, and the content of one would be lost.
    """
    lower: dict[str, str] = {}
    for name in names:
        key = name.strip().lower().replace(" ", "_")
        if strict and key in lower and key in _ALL_ALIASES:
            raise ValueError(f"{lower[key]!r} and {name!r} are one column in two spellings. Rename or remove one.")
        lower.setdefault(key, name)
    found: dict[str, Any] = {"all": list(names)}
    for column, aliases in ALIASES.items():
        if (alias := next((a for a in aliases if a in lower), None)) is not None:
            found[column] = lower.pop(alias)
    one_each = [name for key, name in lower.items() if _OPTION.match(key)]
    found["cells"] = [(column, name) for column, name in found.items() if column not in ("all", "options")]
    found["options"] = [found["options"]] if "options" in found else one_each if len(one_each) > 1 else []
    return found


def _is_csv(file: AnnotationFile) -> bool:
    return file.path.suffix.lower() not in (".jsonl", ".json", ".ndjson")


def _items(file: AnnotationFile) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line, row): the line of a csv or jsonl file, the position in a JSON list."""
    if _is_csv(file):
        yield from file.csv(lambda cells: bool({"video", "audio"} & _match(cells).keys()))
    elif not file.begins_with("["):
        yield from file.jsonl()
    else:
        for position, _, row in file.items():
            if isinstance(row, dict):
                yield position, row
            else:
                file.reject(f"item {position}", "not an object")


def _first_is_bare(file: AnnotationFile) -> bool:
    """Whether the table names its clips without extensions, by its first row."""
    columns = _columns(file)
    _, row = next(_items(file), (0, {}))
    names = (str(row.get(columns.get(column, "")) or "") for column in ("video", "audio"))
    name = next(filter(None, names), "")
    return bool(name) and without_extension(name) == name


def _rows(file: AnnotationFile, what: str, media: Paths) -> Iterator[Row]:
    table = _columns(AnnotationFile(file.path))  # its malformed rows are counted once, below
    of_row: dict[tuple[str, ...], dict[str, Any]] = {}
    ids = Ids()
    for line, theirs in _items(file):
        try:
            names = tuple(theirs)
            columns = of_row.get(names)
            if columns is None:
                columns = of_row[names] = _match(names)
            row = {
                ours: value  # as is_empty, which is too slow to be called for every cell
                for ours, name in columns["cells"]
                if (value := theirs[name]) is not None and value != "" and (type(value) is not float or value == value)
            }
            if "split" in table and "split" not in row:
                raise ValueError("no split")
            if "split" in row and "split" not in table:
                raise ValueError(f"a split, which none of the first {_LOOKED_AT:,} rows has")
            options = [theirs[name] for name in columns["options"]]
            while options and is_empty(options[-1]):  # an empty one between others would move the numbers of answers
                options.pop()
            made = _row(file, row, options, what, line, media)
            if "id" in table or "id" in columns:
                made.id = ids.unique(made.id, made.video_id or "", line, *_content(made))
        except ROW_ERRORS as error:
            file.reject(f"line {line}", reason(error))
            continue
        file.rows += 1
        yield made
    file.note_repeated(ids)


def _content(row: Row) -> tuple[Any, ...]:
    extra = row.extra and repr(row.extra)
    return row.texts, row.audio, row.answer, row.answer_index, row.split, row.category, row.question_type, extra


def _row(file: AnnotationFile, row: Mapping[str, Any], options: list[Any], what: str, line: int, media: Paths) -> Row:
    """One item.

    Raises:
        KeyError, ValueError: what it lacks.
    """
    video = text_of(row, "video") if "video" in row else NONE
    audio = text_of(row, "audio") if "audio" in row else None if video else NONE
    if not video and not audio:
        raise ValueError("neither video nor audio")
    clip = media.clip(video or audio or "")
    if clip.isascii():  # rows that spell it in another way are about the same file, and become one sample
        video, audio = (clip, audio) if video else (video, clip)
    start, end = _seconds(row, "start"), _seconds(row, "end")
    if start is not None and end is not None and end <= start:
        raise ValueError(f"the end {end:g} s is not after the start {start:g} s")
    split = None
    if "split" in row:
        name = str(row["split"]).strip().lower()
        if name not in _SPLITS:
            raise ValueError(f"split {row['split']!r} is none of {', '.join(_SPLITS)}")
        split = _SPLITS[name]
    made = Row(
        text_of(row, "id") if "id" in row else str(line),
        (),
        video_id=span_name(clip, start, end),
        video=video,
        audio=audio,
        start=start,
        end=end,
        split=split,
        category=text_of(row, "category") if "category" in row else None,
        place=line,
    )
    if what == "media":
        return made
    if what == "caption":
        made.texts = file.texts(row["caption"], "caption")
        return made
    if what == "classification":
        return classified(made, file, row)
    question = text_of(row, "question") if "question" in row or what == "qa" else None
    made.question_type = text_of(row, "question_type") if "question_type" in row else first_word(question or "")
    answer = row.get("answer", "")
    if isinstance(answer, str) and not answer.strip():
        answer = None  # to be predicted
    if what == "mc":
        made.texts = _options(options)
        made.extra = None if question is None else {"question": question}
        if answer is not None:
            made.answer_index = answer_index(answer, made.texts)
    else:
        made.texts = (question or "",)
        if answer is not None:
            made.answer = answer_text(answer)
        if made.answer is not None and options:
            texts = _options(options)
            made.answer = texts[answer_index(made.answer, texts)]
    return made


def classified(made: Row, file: AnnotationFile, row: Mapping[str, Any]) -> Row:
    """``made`` with its class (``answer``), or list of classes (``labels``), and its ``caption`` or an empty text.

    Raises:
        ValueError: a cell that is no class.
    """
    made.texts = file.texts(row["caption"], "caption")[:1] if "caption" in row else ("",)
    if "labels" in row:
        cell = row["labels"]
        found = list_in(cell, "labels") if isinstance(cell, str) else cell
        names = found.split("|") if isinstance(found, str) else found if isinstance(found, list) else [found]
        made.extra = {"labels": [plain_text(name, "label") for name in names if str(name).strip()]}
        return made
    label = row.get("answer", made.category)
    if label is not None and str(label).strip():
        made.answer = answer_text(label)
    return made


def _options(cells: list[Any]) -> tuple[str, ...]:
    if len(cells) == 1:
        cell = cells[0]
        if isinstance(cell, str):
            found = list_in(cell, "options")
            cell = cell.split("|") if isinstance(found, str) else found
        if not isinstance(cell, list):
            raise ValueError("options are no list")
        cells = cell
    if len(cells) < 2:
        raise ValueError(f"{len(cells)} options instead of two or more with a text each")
    return tuple(plain_text(text, f"option {number}") for number, text in enumerate(cells))


def answer_index(value: Any, options: Sequence[str]) -> int:
    """Which of ``options`` an answer names: the text of one, or its number from 0 (as number or as text).

    Raises:
        ValueError: none of them.
    """
    text = answer_text(value)
    if text in options:
        return list(options).index(text)
    number = text.removesuffix(".0")  # a column of numbers with gaps, as pandas writes it
    if number.isdecimal() and int(number) < len(options):
        return int(number)
    raise ValueError(f"the answer {value!r} is none of {len(options)} options and no number of one")


def _seconds(row: Mapping[str, Any], key: str) -> float | None:
    if key not in row:
        return None
    text = str(row[key]).strip()
    parts = text.split(":")  # 12.5, 01:12.5 or 00:01:12.5
    value = 0.0
    for part in parts:
        value = 60 * value + float(part)
    if len(parts) > 3 or not 0 <= value < float("inf"):
        raise ValueError(f"{key} {text!r} is no time in seconds")
    return value
