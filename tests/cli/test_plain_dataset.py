"""A data set that has nothing but `samples`, exactly as docs/plugins.md allows, goes all the way."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from vtp.cli.main import main
from vtp.plugins import host

MODULE = """
from vtp import hookimpl

@hookimpl
def vtp_register_datasets(register):
    register("plain", "plain.data:Pictures")
"""
DATA = """
from vtp.types import MediaRef, Sample

class Pictures:
    def __init__(self, *, root: str):
        self.root = root

    def samples(self, kind, split):
        if kind != "qa" or split == "val":
            return []
        answers = ("red", "blue")
        return [
            Sample(f"{split}{i}", MediaRef(f"{self.root}/{split}{i}.png"), texts=("what colour?",),
                   labels={"answer": answers[i % 2]})
            for i in range(8)
        ]
"""
SMALL = ["train.steps=2", "train.global_batch=4", "train.tensorboard=false", "threads=1", "data.workers=0"]
MODEL = ["encoder.video.width=16", "encoder.text.width=16", "encoder.fusion.width=16", "encoder.video.size=32"]


@pytest.fixture
def root(install, tmp_path):
    install("plain", MODULE, files={"data.py": DATA, "conf/dataset/plain.yaml": "# pictures\nname: plain\nroot: ???\n"})
    folder = tmp_path / "pictures"
    folder.mkdir()
    for split in ("train", "test"):
        for i in range(8):
            picture(folder / f"{split}{i}.png", i)
    host.cache_clear()
    yield folder
    host.cache_clear()


def picture(file: Path, number: int) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[..., 2 * (number % 2)] = 100 + 10 * number
    with av.open(str(file), "w") as out:
        stream = out.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb24"
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")), *stream.encode()]:
            out.mux(packet)


def test_it_is_checked(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", "plain", f"root={root}"]) == 0, capsys.readouterr()
    report = json.loads(next(tmp_path.rglob("report.json")).read_text())
    assert report["target"] == "plain" and report["ok"]
    assert {(t["kind"], t["split"]) for t in report["tables"]} == {("qa", "train"), ("qa", "test")}


def test_it_is_trained_on_and_reported(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "task=qa", "dataset=plain", f"dataset.root={root}", "run_dir=run", *SMALL, *MODEL]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["dataset"] == {"name": "plain"}
    assert report["train"][0]["dataset"] == "plain" and report["train"][0]["clips"] == 8
