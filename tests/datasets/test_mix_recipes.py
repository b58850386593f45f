"""The recipes COCO + Visual Genome, CC3M + WebVid and HowTo100M + COCO + Visual Genome on generated pictures and films
in those layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vtp.cli.main import main
from vtp.cli.run import compose

SHORT = ["train.steps=4", "train.epochs=null", "train.global_batch=6", "train.eval_every=0", "train.tensorboard=false"]
SHORT += ["train.log_every=1", "threads=1", "data.workers=0"]


def picture(path: Path, number: int) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(path)


def film(path: Path, number: int, seconds: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(10 * seconds):
            frame = av.VideoFrame.from_ndarray(pixels.integers(0, 255, (48, 64, 3), dtype=np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def coco(root: Path) -> None:
    """8 images for training, 2 each for validation and testing, 2 captions each, in Karpathy's file."""
    images = []
    for number, split in enumerate(["train"] * 7 + ["restval"] + ["val"] * 2 + ["test"] * 2):
        name = f"COCO_val2014_{number:012d}.jpg"
        picture(root / "val2014" / name, number)
        sentences = [{"raw": f"a picture of {number}"}, {"raw": f"number {number} again"}]
        images.append({"filepath": "val2014", "filename": name, "split": split, "sentences": sentences})
    (root / "dataset_coco.json").write_text(json.dumps({"images": images}))


def visual_genome(root: Path) -> None:
    """5 images in two folders, 3 phrases each."""
    rows = []
    for number in range(1, 6):
        picture(root / ("VG_100K" if number < 3 else "VG_100K_2") / f"{number}.jpg", 100 + number)
        regions = [{"region_id": 9 * number + i, "phrase": f"region {i} of {number}"} for i in range(3)]
        rows.append({"id": number, "regions": regions})
    (root / "region_descriptions.json").write_text(json.dumps(rows))


def cc3m(root: Path) -> None:
    """9 images for training and 2 for validation, as img2dataset lays them."""
    for split, name, count in (("train", "Train_GCC-training", 9), ("val", "Validation_GCC-1.1.0-Validation", 2)):
        root.mkdir(parents=True, exist_ok=True)
        lines = [f"conceptual caption {i} of {split}\thttp://x/{i}.jpg\n" for i in range(count)]
        (root / f"{name}.tsv").write_text("".join(lines))
        for i in range(count):
            picture(root / "images" / split / f"{i}.jpg", 200 + i + 50 * (split == "val"))


def webvid(root: Path) -> None:
    """4 films for training and 2 for validation, in a folder per page."""
    for split, first, count in (("train", 1000, 4), ("val", 2000, 2)):
        rows = [f'{first + i},"stock film {i}, {split}",1,000_050,PT00H00M04S,http://x' for i in range(count)]
        root.mkdir(parents=True, exist_ok=True)
        header = "videoid,name,page_idx,page_dir,duration,contentUrl"
        (root / f"results_2M_{split}.csv").write_text("\n".join([header, *rows]) + "\n")
        for i in range(count):
            film(root / "videos" / "000_050" / f"{first + i}.mp4", 300 + first + i)


def howto100m(root: Path) -> None:
    """3 films with 4 segments of speech each, and one of YouCook2 to test."""
    (root / "captions").mkdir(parents=True)
    for number, name in enumerate(["abcdefghijk", "bbcdefghijk", "cbcdefghijk", "youcookyouc"]):
        film(root / "videos" / name[0] / f"{name}.mp4", 400 + number)
        lines = [f"{i},{i + 1},word {i} of {name}" for i in range(4)]
        if number < 3:
            (root / "captions" / f"{name}.csv").write_text("\n".join(["start,end,text", *lines]) + "\n")
    test = "end,start,task,text,video_id\n2,0,226,stir,youcookyouc\n4,2,226,fry,youcookyouc\n"
    (root / "captions" / "validation_youcook.csv").write_text(test)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for make in (coco, visual_genome, cc3m, webvid, howto100m):
        make(root / make.__name__)
    return root


RECIPES = {
    # parts with their training rows; rows of a part in an epoch
    "coco_vg": ({"coco": 8, "vg": 5}, {"coco": 8, "vg": 5}),
    "cc3m_webvid": ({"cc3m": 9, "webvid": 4}, {"cc3m": 9, "webvid": 4}),
    # 12^0.5 : 8^0.5 : 5^0.5 of 25 rows are 10.19, 8.32, 6.58; the largest remainder gets the last one
    "howto100m_coco_vg": ({"howto100m": 12, "coco": 8, "vg": 5}, {"howto100m": 10, "coco": 8, "vg": 7}),
}


def options(recipe: str, data: Path) -> list[str]:
    found = [f"dataset={recipe}"]
    for part in RECIPES[recipe][0]:
        found.append(f"dataset.parts.{part}.root={data / ('visual_genome' if part == 'vg' else part)}")
    return found


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_composes_and_gives_its_shares(recipe: str, data: Path) -> None:
    from vtp.components import build
    from vtp.plugins import host

    dataset = build("dataset", compose(["task=msrvtt_retrieval", *options(recipe, data)])["dataset"], host().registry)
    mixture = dataset.samples("retrieval", "train").mixture
    sizes, rows = RECIPES[recipe]
    assert {name: len(table) for name, table in mixture.tables.items()} == sizes
    assert dict(zip(mixture.names, mixture.counts(6).tolist(), strict=True)) == rows


@pytest.mark.parametrize("recipe, how", [("coco_vg", []), ("cc3m_webvid", ["dataset.batches=part"]),
                                         ("howto100m_coco_vg", ["data.stills=pad"])])  # fmt: skip
def test_a_recipe_trains(
    recipe: str, how: list[str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["run", "task=retrieval", *options(recipe, data), *how, *SHORT, "run_dir=out", "task.selection=last"]
    assert main([*command, "mode=train"]) == 0
    assert [line["step"] for line in lines(Path("out")) if "loss" in line] == [1, 2, 3, 4]
    provenance = json.loads(Path("out/checkpoints/last/provenance.json").read_text())
    (stage,) = provenance["stages"]
    assert {name: part["samples"] for name, part in stage["parts"].items()} == RECIPES[recipe][0]
    spaces = {name.partition(":")[0] for name in stage["media"]}
    assert spaces == {"visual_genome" if name == "vg" else name for name in RECIPES[recipe][0]}
    assert set(provenance["dataset"]["parts"]) == set(RECIPES[recipe][0])
