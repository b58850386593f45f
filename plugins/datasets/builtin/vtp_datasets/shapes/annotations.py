"""The annotation files of a generated world, in the layouts of MSR-VTT and MSRVTT-QA, and the scenes behind them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

from vtp.data.keys import keyed_generator
from vtp_datasets.shapes.world import CATEGORIES, Scene, captions, questions, scenes

__all__ = ["SIZES", "VERSION", "Blueprint", "annotation_files"]

VERSION = 1  # raised whenever the same size and seed give other clips or other annotations
SIZES = {  # clips for training, validation and test
    "tiny": {"train": 16, "val": 4, "test": 4},
    "small": {"train": 2000, "val": 100, "test": 200},
    "medium": {"train": 10_000, "val": 500, "test": 1000},
}
_SPLIT_NAMES = {"train": "train", "val": "validate", "test": "test"}  # as MSRVTT_data.json spells them


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What is to be generated; equal plans give equal data sets."""

    size: str
    seed: int

    def record(self) -> dict[str, object]:
        """As the manifest stores it."""
        return {"generator": "shapes", "version": VERSION, "size": self.size, "seed": self.seed}

    @property
    def clips(self) -> int:
        """Number of clips over all splits."""
        return sum(SIZES[self.size].values())

    def scenes(self, split: str) -> list[Scene]:
        """The scenes of a split, in the order of its clips."""
        return scenes(SIZES[self.size][split], keyed_generator("shapes", VERSION, self.seed, split, "scenes"))

    def all_scenes(self) -> Iterator[tuple[str, str, int, Scene]]:
        """(clip name, split, index in the split, scene) of every clip; clips are numbered through, training first."""
        number = 0
        for split in SIZES[self.size]:
            for index, scene in enumerate(self.scenes(split)):
                yield f"video{number}", split, index, scene
                number += 1


def annotation_files(plan: Blueprint) -> dict[str, str]:
    """File name -> content, of everything but the clips."""
    videos: list[dict[str, object]] = []
    sentences: list[dict[str, object]] = []
    asked: dict[str, list[dict[str, object]]] = {split: [] for split in SIZES[plan.size]}
    lists: dict[str, list[str]] = {split: [] for split in SIZES[plan.size]}
    pairs: list[tuple[str, ...]] = []
    question_id = 0
    for number, (name, split, index, scene) in enumerate(plan.all_scenes()):
        lists[split].append(name)
        videos.append(
            {"category": 0, "url": "", "video_id": name, "start time": 0.0, "end time": 2.0}
            | {"split": _SPLIT_NAMES[split], "id": number}
        )
        texts = captions(scene)
        for text in texts:
            sentences.append({"caption": text, "video_id": name, "sen_id": len(sentences)})
        if split == "test":
            pairs.append((f"ret{len(pairs)}", f"msr{number}", name, texts[0]))
        for question in questions(scene, keyed_generator("shapes", VERSION, plan.seed, split, "questions", index)):
            asked[split].append(
                {"answer": question.answer, "category_id": question.category, "id": question_id}
                | {"question": question.text, "video_id": number}
            )
            question_id += 1
    categories = {"categories": list(CATEGORIES)}
    files = {f"{split}_qa.json": json.dumps(items) for split, items in asked.items()}
    files |= {
        f"MSRVTT_{split}.full.csv": _csv([("video_id",), *((c,) for c in names)]) for split, names in lists.items()
    }
    files["MSRVTT_JSFUSION_test.csv"] = _csv([("key", "vid_key", "video_id", "sentence"), *pairs])
    files["MSRVTT_data.json"] = json.dumps({"info": categories, "videos": videos, "sentences": sentences})
    return files


def _csv(rows: list[tuple[str, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
