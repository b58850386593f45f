"""Whole runs that classify clips, with a built-in model and with UniVL: the form of UCF101, and several classes of own
clips. The figures of the report follow from the lines of predictions.jsonl."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vtp_datasets.shapes.render import write_clip

pytestmark = pytest.mark.slow

CLASSES = ("Archery", "Biking", "Diving", "Fencing", "GolfSwing", "Hammering", "Rafting")
COLOURS = dict(zip(CLASSES, np.random.default_rng(0).integers(0, 256, (7, 3), np.uint8), strict=True))
MODELS = {
    "base": ["model=base"],
    "univl": ["model=univl", "encoder.text.preset=tiny", "encoder.text.tokenizer=texts", "encoder.video.preset=tiny"],
}
SHORT = ["train.steps=3", "train.epochs=null", "train.global_batch=8", "train.tensorboard=false", "threads=1"]
SHORT += ["task.selection=last", "task.top=7"]


def clip(path: Path, *names: str) -> None:
    """Each class has a stripe of its colour; a corner is the clip's own, or two of one class would be one clip."""
    frames = np.zeros((12, 64, 70, 3), np.uint8)
    own = np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 256, (8, 10, 3), np.uint8)
    for name in names:
        place = CLASSES.index(name)
        frames[:, :, 10 * place : 10 * place + 10] = COLOURS[name]
    frames[:, :8, :10] = own
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, frames, None)


def run(folder: Path, *options: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    command = [sys.executable, "-m", "vtp", "run", *options, *SHORT, "run_dir=out"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = (folder / "out" / "predictions.jsonl").read_text().splitlines()
    return json.loads((folder / "out" / "report.json").read_text()), [json.loads(line) for line in lines]


def mean(values: Any) -> float:
    return 100 * float(np.mean(list(values)))


def first(line: dict[str, Any], count: int) -> bool:
    """Whether a class of the clip is among so many."""
    return any(name in line["classes"] for name, _ in line["top"][:count])


@pytest.mark.parametrize("model", MODELS)
def test_one_class_each_as_in_ucf101(model: str, tmp_path: Path) -> None:
    if model == "univl":
        pytest.importorskip("vtp_univl")
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for number, name in enumerate(CLASSES, start=1):
        for group, split in (("g01", "train"), ("g01", "train"), ("g02", "test"), ("g02", "test"))[: 3 + number % 2]:
            path = f"{name}/v_{name}_{group}_c{len(lists[split]):02}.avi"
            lists[split].append(path + (f" {number}" if split == "train" else ""))
            clip((tmp_path / "UCF-101" / path).with_suffix(".mp4"), name)
    for split, lines in lists.items():
        (tmp_path / f"{split}list01.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "classInd.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(CLASSES, start=1)))
    report, lines = run(tmp_path, "task=ucf101", "dataset.root=.", *MODELS[model])
    assert [line["classes"] for line in lines] == [[path.split("/")[0]] for path in lists["test"]]
    assert report["facts"]["classes"] == 7 and report["ledger"]["evaluated"] == len(lists["test"])
    assert not report["protocol"]["official"]  # 11 clips instead of 3,783
    metrics = report["metrics"]
    by_class = [mean(first(line, 1) for line in lines if line["classes"] == [name]) for name in CLASSES]
    assert metrics["top1"] == pytest.approx(mean(first(line, 1) for line in lines))
    assert metrics["top5"] == pytest.approx(mean(first(line, 5) for line in lines))
    assert metrics["mean_class"] == pytest.approx(np.mean(by_class))
    assert report["rows"]["without looking"]["top1"] == pytest.approx(mean([1 / 7] * len(lines)))  # each twice


@pytest.mark.parametrize("model", MODELS)
def test_several_classes_of_own_clips(model: str, tmp_path: Path) -> None:
    if model == "univl":
        pytest.importorskip("vtp_univl")
    rows = []
    for number in range(24):
        names = [name for place, name in enumerate(CLASSES) if (number >> place % 4) & 1 and place % 3 != number % 3]
        clip(tmp_path / f"clip{number}.mp4", *names)
        row = {"video": f"clip{number}.mp4", "labels": names, "split": "train" if number < 12 else "test"}
        rows.append(json.dumps(row) + "\n")
    (tmp_path / "my.jsonl").write_text("".join(rows))
    report, lines = run(tmp_path, "task=classification", "dataset=csv", "dataset.file=my.jsonl", *MODELS[model])
    assert report["facts"]["several"] and len(lines) == 12 and report["ledger"]["evaluated"] == 12
    precisions = {}
    for name in sorted({name for line in lines for name in line["classes"]}):
        scored = [(dict(line["top"])[name], name in line["classes"]) for line in lines]
        above = [[hit for other, hit in scored if other >= score] for score, right in scored if right]
        precisions[name] = mean(np.mean(hits) for hits in above)
        assert report["metrics"][f"map/{name}"] == pytest.approx(precisions[name], abs=1e-3), name
    assert report["metrics"]["map"] == pytest.approx(np.mean([*precisions.values()]), abs=1e-3)
    assert report["metrics"]["top1"] == pytest.approx(mean(first(line, 1) for line in lines))
    share = [np.mean([name in line["classes"] for line in lines]) for name in precisions]
    assert report["rows"]["without looking"]["map"] == pytest.approx(mean(share))
