"""Whole runs, small enough for a second each: grey clips, a dual encoder of a few thousand weights, in this process."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from vtp.cli.main import main

CLIPS = 16
TINY = [
    "task=retrieval",
    "dataset=csv",
    "model=dual",
    "encoder.video.width=16",
    "encoder.video.depth=1",
    "encoder.video.heads=1",
    "encoder.video.frames=2",
    "encoder.video.size=32",
    "encoder.text.width=16",
    "encoder.text.depth=1",
    "encoder.text.heads=1",
    "objectives.vtc.width=8",
    "train.epochs=null",
    "train.steps=4",
    "train.global_batch=4",
    "train.log_every=1",
    "train.eval_every=0",
    "train.tensorboard=false",
    "task.selection=last",
    "data.workers=0",
    "media.isolate=false",
    "threads=1",
]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with c0.mp4 to c15.mp4, half a second each."""
    import av
    import numpy as np

    folder = tmp_path_factory.mktemp("clips")
    for number in range(CLIPS):
        with av.open(str(folder / f"c{number}.mp4"), "w") as file:
            stream = file.add_stream("mpeg4", rate=8)
            stream.width = stream.height = 32
            for value in range(4):
                grey = np.full((32, 32, 3), 15 * number + value, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
            file.mux(stream.encode(None))
    return folder


@pytest.fixture
def table(clips: Path) -> Callable[..., str]:
    """``table("a.csv", train=[0, 1], test=[2], val=[])``: a table in the folder of the clips; gives its path."""

    def write(name: str, **splits: Iterable[int]) -> str:
        with open(clips / name, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["video", "caption", "split"])
            for split, numbers in splits.items():
                writer.writerows(
                    [f"c{number}.mp4", f"{('dark', 'light')[number % 2]} clip", split] for number in numbers
                )
        return str(clips / name)

    return write


@pytest.fixture
def tiny() -> list[str]:
    """The options of :func:`vtp`."""
    return list(TINY)


@pytest.fixture
def vtp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``vtp("mode=train", ...)``: a tiny run in an empty working folder; gives the exit code."""
    monkeypatch.chdir(tmp_path)
    return lambda *options: main(["run", *TINY, *options])


@pytest.fixture
def losses(tmp_path: Path) -> Callable[[str], dict[int, float]]:
    """``losses("a")``: step -> loss of a run folder."""

    def read(run: str) -> dict[int, float]:
        lines: list[dict[str, Any]] = [
            json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        ]
        return {line["step"]: line["loss"] for line in lines if "loss" in line}

    return read
