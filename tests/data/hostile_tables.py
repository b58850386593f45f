"""A seeded fuzzer of annotation files: real captions and questions in every form that the readers know, with what
people and programs do to such files. How many rows a file has is known from how it was made."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtp_datasets.activitynet import ActivityNet
from vtp_datasets.antmmf import AntMMF
from vtp_datasets.audiocaps import AudioCaps
from vtp_datasets.caption_json import CaptionJson
from vtp_datasets.cc3m import CC3M
from vtp_datasets.karpathy import COCO
from vtp_datasets.msrvtt import MSRVTT
from vtp_datasets.music_avqa import MusicAVQA
from vtp_datasets.own import OwnData
from vtp_datasets.timed_text import HowTo100M
from vtp_datasets.visual_genome import VisualGenome
from vtp_datasets.webvid import WebVid

__all__ = ["Hostile", "hostile_table", "real_rows"]

ROWS = 24
WHOLE = 1_000_000  # rows are named by what they are, not by how many
LONG = "x" * 140_000  # longer than a csv cell may be
ODD_CELLS = ["", " ", '"', '""', 'a "word"', "nan", "None", "12", "-1", "1e999", "[1, 2]", "['a', 'b']", "['a' 'b']",
             "[" * 3000, "\0", "\x1b[2J", "=1+1", "a\u2028b", "a\x85b\x0bc", "\ufeff", "true", "a|b", LONG]  # fmt: skip
ODD_VALUES = [None, math.nan, math.inf, True, False, 0, 12, -1.5, 10**30, 10**400, "", " ", [], ["a"], [None, "a"],
              ["a", 2], [["a"]], {}, {"a": {"b": []}}, "\ud83d", "a\udc00b", "x\0y", "['a', 'b']", "['a' 'b']", "[",
              "a|b", "nan", "../../etc/passwd", [[[[[[[[]]]]]]]]]  # fmt: skip


@dataclass(frozen=True)
class Form:
    """A reader with one file of its own.

    Attributes:
        make: folder -> data set.
        name, kind, split: of the file, and the table that is read from it.
        record: a row as an object of the file.
        delimiter: of text tables; "" = JSON.
        key: of a JSON object with a key per row, what gives the key; None = a list, or lines.
        counted: whether the rows that were read and those that were named are the rows of the file.
        header: whether the first line holds the names of columns.
    """

    make: Callable[[Path], Any]
    name: str
    kind: str
    split: str
    record: Callable[[Mapping[str, Any]], dict[str, Any]]
    delimiter: str = ""
    key: str | None = None
    counted: bool = True
    header: bool = True


@dataclass(frozen=True)
class Hostile:
    """One file.

    Attributes:
        form: what it is.
        rows: in it; None where the damage leaves no rows to be counted, and reading must end in an error or in fewer.
        what: was done to it.
    """

    form: Form
    rows: int | None
    what: tuple[str, ...]


def _own(ending: str, kind: str) -> Form:
    columns = {
        "caption": ("video", "id", "caption", "start", "end"),
        "qa": ("video", "id", "question", "answer", "category"),
        "mc": ("video", "question", "options", "answer", "id"),
    }[kind]

    def record(row: Mapping[str, Any]) -> dict[str, Any]:
        options = "|".join([row["answer"], "none", "all"]) if ending in ("csv", "tsv") else [row["answer"], "no", 7]
        return {name: options if name == "options" else row[name] for name in columns}

    def make(folder: Path) -> OwnData:
        return OwnData(file=folder / f"my.{ending}", val_share=0, test_share=0)

    return Form(make, f"my.{ending}", kind, "train", record, {"csv": ",", "tsv": "\t"}.get(ending, ""))


def _renamed(**names: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda row: {theirs: row[ours] for theirs, ours in names.items()}


FORMS = [
    *(_own(ending, kind) for kind in ("caption", "qa", "mc") for ending in ("csv", "tsv", "jsonl", "json")),
    Form(lambda root: AudioCaps(root=root), "val.csv", "retrieval", "val",
         _renamed(audiocap_id="place", youtube_id="video", start_time="second", caption="caption"), ","),
    Form(lambda root: MSRVTT(root=root), "test_qa.json", "qa", "test",
         _renamed(answer="answer", category_id="second", id="id", question="question", video_id="number")),
    Form(lambda root: MSRVTT(root=root), "val.csv", "qa", "val",
         _renamed(video="number", question="question", answer="answer", qid="id", type="second"), ","),
    Form(lambda root: MSRVTT(root=root), "mc_test.jsonl", "mc", "test",
         lambda row: {"qid": row["id"], "clip_name": f"video{row['number']}", "answer": "1",
                      "options": [row["answer"], row["caption"], "x"]}),
    Form(lambda root: MusicAVQA(root=root), "avqa-test.json", "qa", "test",
         lambda row: {"question_id": row["place"], "video_id": row["video"], "type": '["Audio", "Counting"]',
                      "templ_values": "[]", "question_content": row["question"], "anser": row["answer"]}),
    Form(lambda root: AntMMF(root=root), "train.jsonl", "retrieval", "train",
         _renamed(caption="caption", clip_name="video", sen_id="second", start="start", end="end")),
    Form(lambda root: CaptionJson(root=root), "train.json", "caption", "train", _renamed(caption="caption"),
         key="video"),
    Form(lambda root: COCO(root=root), "coco_karpathy_test.jsonl", "retrieval", "test",
         lambda row: {"image": row["video"], "caption": [row["caption"], row["question"]]}),
    Form(lambda root: WebVid(root=root), "results_2M_val.csv", "caption", "val",
         _renamed(videoid="place", name="caption", page_dir="video", duration="answer"), ","),
    Form(lambda root: HowTo100M(root=root), "validation_youcook.csv", "retrieval", "test",
         _renamed(end="end", start="start", task="second", text="caption", video_id="video"), ","),
    Form(lambda root: CC3M(root=root), "val.tsv", "caption", "val", _renamed(caption="caption", url="video"), "\t",
         header=False),
    Form(lambda root: ActivityNet(root=root), "val_1.json", "retrieval", "test",
         lambda row: {"duration": 9.5, "timestamps": [[0, 2.5], [row["start"], row["end"]]],
                      "sentences": [row["caption"], row["question"]]}, key="video", counted=False),
    Form(lambda root: VisualGenome(root=root), "region_descriptions.json", "caption", "train",
         lambda row: {"id": row["place"], "regions": [{"phrase": row["caption"], "region_id": 1}]}, counted=False),
    Form(lambda root: HowTo100M(root=root), "caption.json", "caption", "train",
         lambda row: {"start": [0, row["start"]], "end": [2, row["end"]], "text": [row["caption"], row["answer"]]},
         key="video", counted=False),
]  # fmt: skip


def real_rows(shared: Path | None) -> list[dict[str, Any]]:
    """Rows with everything that a form may ask for, from the real annotations, or from a few lines of their kind."""
    captions = ['A man is speaking, and a "dog" barks', "一个男人在做饭", "It's 12\" wide; really", "a cat"]
    questions = [("what is a man doing?", "cook"), ("who is singing?", "woman"), ("他在做什么？", "跑步")]
    if shared is not None:
        notes = shared / "annotations"
        with open(notes / "audiocaps" / "val.csv", encoding="utf-8", newline="") as file:
            captions = [row["caption"] for row in csv.DictReader(file)][:400]
        with open(notes / "msvd_cn" / "msvd_cn_captions_release_utf8.csv", encoding="utf-8", newline="") as file:
            captions[::3] = [row["sentence"] for row in csv.DictReader(file)][: len(captions[::3])]
        asked = json.loads((notes / "msvd_qa" / "val_qa.json").read_text(encoding="utf-8"))
        questions = [(row["question"], row["answer"]) for row in asked[:997]]
    return [
        {
            "video": f"clips/c{n // 3}.mp4",
            "number": n // 3,
            "id": n % 5,  # of each clip, so that ids repeat
            "place": WHOLE + n,
            "caption": captions[n % len(captions)].replace("\n", " "),
            "question": questions[n % len(questions)][0],
            "answer": questions[n % len(questions)][1],
            "category": ("animals", "people")[n % 2],
            "start": n % 4,
            "end": n % 4 + 2.5,
            "second": n % 20,
        }
        for n in range(400)
    ]


def hostile_table(folder: Path, rows: Sequence[Mapping[str, Any]], number: int) -> Hostile:
    """Write the file with this number into an empty folder."""
    random_ = random.Random(number)
    form = FORMS[number % len(FORMS)]
    first = random_.randrange(len(rows) - ROWS)
    records = [form.record(row) for row in rows[first : first + ROWS]]
    keys = [str(row[form.key]) + f"#{n}" for n, row in enumerate(rows[first : first + ROWS])] if form.key else []
    made = _Text(form, records, keys, random_)
    what = []
    for damage in random_.sample(made.damages(), random_.choice((1, 1, 2, 3))):
        damage()
        what.append(damage.__name__)
    data, count = made.written()
    (folder / form.name).write_bytes(data)
    return Hostile(form, count, tuple(what))


class _Text:
    """The file while it is being spoiled."""

    def __init__(self, form: Form, records: list[dict[str, Any]], keys: list[str], generator: random.Random) -> None:
        self.form, self.records, self.keys, self.random = form, records, keys, generator
        self.columns = list(records[0])
        self.ends = ["\n"]
        self.encoding = "utf-8"
        self.cut: float | None = None
        self.last = True
        self.blank = 0
        self.spoil: list[tuple[int, Callable[[str], str]]] = []  # what is done to the text of a row
        self.errors = False  # whether the whole may be refused or read as fewer rows

    def damages(self) -> list[Callable[[], None]]:
        shared = [self.line_ends, self.no_last_end, self.encodings, self.truncation, self.rows_twice, self.order,
                  self.values, self.values]  # fmt: skip
        if self.form.delimiter:
            own = [self.columns_spoilt] if self.form.name.startswith("my.") else []
            return [
                *shared,
                *own,
                self.marks,
                self.marks,
                self.delimiters,
                *([self.blanks] if self.form.header else []),
            ]
        lines = [self.letters, self.blanks] if self.form.name.endswith("l") else []
        return [*shared, *lines, self.keys_twice, self.no_objects, self.lost_keys, self.nesting]

    # -- what is done ------------------------------------------------------------------------------------------------

    def line_ends(self) -> None:
        self.ends = self.random.choice([["\r\n"], ["\r"], ["\n", "\r\n"], ["\r\n", "\r", "\n"]])

    def no_last_end(self) -> None:
        self.last = False

    def encodings(self) -> None:
        self.encoding = self.random.choice(
            ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "gb18030", "broken"]
        )

    def truncation(self) -> None:
        self.cut = self.random.random()

    def rows_twice(self) -> None:
        if not self.form.key:
            self.records += [dict(one) for one in self.random.sample(self.records, 3)]

    def order(self) -> None:
        self.random.shuffle(self.records)

    def values(self) -> None:
        odd = ODD_CELLS if self.form.delimiter else ODD_VALUES
        for record in self.random.sample(self.records, self.random.choice((1, 2, 5))):
            record[self.random.choice(self.columns)] = self.random.choice(odd)

    def columns_spoilt(self) -> None:
        place = self.random.randrange(len(self.columns))
        old = self.columns[place]
        self.columns[place] = self.random.choice(
            [f" {old.upper()} ", "", self.columns[0], "x", old, f'"{old}', "\ufeffx"]
        )
        for record in self.records:  # in their places, whatever they are called now
            record.update({f"_{n}": value for n, value in enumerate(list(record.values()))})
        self.errors = True

    def marks(self) -> None:
        for row in self.random.sample(range(len(self.records)), self.random.choice((1, 1, 2, 4))):
            self.spoil.append((row, lambda text: self._put(text, '"')))

    def delimiters(self) -> None:
        for row in self.random.sample(range(len(self.records)), 2):
            self.spoil.append((row, lambda text: self._put(text, self.form.delimiter)))
            self.spoil.append((row - 1, lambda text: text.replace(self.form.delimiter, " ", 1)))

    def blanks(self) -> None:
        self.blank = self.random.choice((1, 3))

    def letters(self) -> None:
        for row in self.random.sample(range(len(self.records)), 3):
            self.spoil.append((row, self._without_one))
            self.spoil.append((row - 1, lambda text: self._put(text, self.random.choice('{}[]",:\\ x'))))

    def keys_twice(self) -> None:
        key = self.columns[0]
        self.spoil.append((3, lambda text: text.replace("{", f'{{"{key}": "x", ', 1) if text.startswith("{") else text))

    def no_objects(self) -> None:
        for row in self.random.sample(range(len(self.records)), 2):
            text = self.random.choice(["5", "null", '"x"', "[1]", "true", "[]", "{}", "[" * 400 + "]" * 400])
            self.spoil.append((row, lambda _, text=text: text))

    def lost_keys(self) -> None:
        for record in self.random.sample(self.records, 4):
            record.pop(self.random.choice(self.columns), None)

    def nesting(self) -> None:
        self.spoil.append((5, lambda text: '{"a":' * 30_000 + "1" + "}" * 30_000))
        self.errors = not self.form.name.endswith("l")

    def _put(self, text: str, mark: str) -> str:
        place = self.random.randrange(len(text) + 1)
        return text[:place] + mark + text[place:]

    def _without_one(self, text: str) -> str:
        place = self.random.randrange(len(text))
        return text[:place] + text[place + 1 :]

    # -- the file ----------------------------------------------------------------------------------------------------

    def written(self) -> tuple[bytes, int | None]:
        """Its bytes, and how many rows it has."""
        lines = [self._delimited(record) if self.form.delimiter else self._json(record) for record in self.records]
        for row, change in self.spoil:
            lines[row] = change(lines[row])
        count: int | None = len(lines)
        if self.form.delimiter or self.form.name.endswith("l"):
            if self.form.delimiter and self.form.header:
                lines.insert(0, self._delimited(None))
            for _ in range(self.blank):
                lines.insert(self.random.randrange(1, len(lines) + 1), "")
            text = "".join(line + self.ends[n % len(self.ends)] for n, line in enumerate(lines))
            text = text if self.last else text.rstrip("\r\n")
        else:
            lines = [f"{json.dumps(key)}: {line}" for key, line in zip(self.keys, lines, strict=True)] or lines \
                if self.keys else lines  # fmt: skip
            end = self.ends[0]
            text = "[{"[bool(self.keys)] + f",{end}".join(lines) + "]}"[bool(self.keys)] + end * self.last
        data = self._encoded(text)
        if self.cut is not None:
            data = data[: int(len(data) * self.cut)]
            count = self._left(data)
        return data, None if self.errors else count

    def _left(self, data: bytes) -> int | None:
        """Rows of what is left of the file."""
        if self.encoding not in ("utf-8", "utf-8-sig"):
            return None
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return None
        if not self.form.delimiter and not self.form.name.endswith("l"):
            return None
        lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
        heads = int(bool(self.form.delimiter) and self.form.header)
        return len(lines) - heads if len(lines) > heads else None

    def _delimited(self, record: Mapping[str, Any] | None) -> str:
        cells = self.columns if record is None else list(record.values())[: len(self.columns)]
        if not self.form.header:
            return self.form.delimiter.join(str(cell).replace("\t", " ") for cell in cells)
        text = io.StringIO()
        csv.writer(text, delimiter=self.form.delimiter, lineterminator="").writerow(cells)
        return text.getvalue()

    def _json(self, record: Mapping[str, Any]) -> str:
        if self.form.key and set(record) <= {"caption"}:
            return json.dumps(record.get("caption"), ensure_ascii=self.random.random() < 0.5 or not _encodable(record))
        return json.dumps(record, ensure_ascii=self.random.random() < 0.5 or not _encodable(record))

    def _encoded(self, text: str) -> bytes:
        if self.encoding == "broken":
            data = bytearray(text.encode())
            data[self.random.randrange(len(data))] = 0xFF
            self.errors = True
            return bytes(data)
        try:
            data = text.encode(self.encoding)
        except UnicodeEncodeError:
            self.encoding = "utf-8"
            return text.encode()
        try:
            self.errors |= data.decode("utf-8-sig") != text
        except UnicodeDecodeError:
            self.errors = True
        return data


def _encodable(record: Mapping[str, Any]) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
