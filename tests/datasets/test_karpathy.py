"""The reader of COCO and Flickr30k on small files, of records that the format's description quotes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_files import malformed, write

from vtp_datasets.karpathy import COCO, Flickr30k

IMAGE = "COCO_val2014_000000391895.jpg"


SENTENCES = [{"raw": "a man"}, {"raw": "b ", "tokens": []}]


@pytest.mark.parametrize(
    "name, content",
    [
        ("coco_karpathy_test.jsonl", json.dumps({"caption": [" a man ", "b"], "image": f"coco/val2014/{IMAGE}"})),
        ("coco_karpathy_test.json", [{"caption": text, "image": f"val2014/{IMAGE}"} for text in ("a man", "b")]),
        (
            "dataset_coco.json",
            {"images": [
                {"filepath": "val2014", "filename": IMAGE, "split": "test", "sentences": SENTENCES},
                {"filepath": "val2014", "filename": "x.jpg", "split": "restval", "sentences": [{"raw": "c"}]},
            ], "dataset": "coco"},
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["images/val2014", "val2014", "images"])
def test_coco(tmp_path, name, content, place):
    root = write(tmp_path, {name: content, f"{place}/{IMAGE}": ""})
    (sample,) = COCO(root=root).samples("retrieval", "test")
    assert sample.texts == ("a man", "b") and sample.extra["video_id"] == IMAGE
    assert Path(sample.video.path).samefile(tmp_path / place / IMAGE) and sample.audio is None
    if name == "dataset_coco.json":
        assert [s.texts for s in COCO(root=root).samples("retrieval", "train")] == [("c",)]


def test_coco_in_its_own_files(tmp_path):
    content = {
        "images": [{"id": 5, "file_name": "a.jpg"}, {"id": 6, "file_name": "b.jpg"}],
        "annotations": [
            {"image_id": 5, "id": 50, "caption": "one"}, {"image_id": 6, "id": 51, "caption": "two "},
            {"image_id": 5, "id": 52, "caption": "three"}, {"image_id": 7, "id": 53, "caption": "four"},
        ],
    }  # fmt: skip
    dataset = COCO(root=write(tmp_path, {"annotations/captions_train2017.json": content, "train2017/b.jpg": ""}))
    first, second = dataset.samples("caption", "train")
    assert (first.id, first.texts, second.texts) == ("50", ("one", "three"), ("two",))
    assert second.video.path == str(tmp_path / "train2017" / "b.jpg")
    assert malformed(dataset, "captions_train2017.json") == ["annotation 3: no 7"]


def test_flickr30k(tmp_path):
    rows = [{"caption": ["one"], "image": "flickr30k-images/1007129816.jpg"}, {"image": "x.jpg"}, {"caption": "y"}]
    root = write(tmp_path, {"my.jsonl": "\n".join(map(json.dumps, rows))})
    dataset = Flickr30k(root=root, test_file="my.jsonl")
    (sample,) = dataset.samples("retrieval", "test")
    assert sample.texts == ("one",)
    assert malformed(dataset, "my.jsonl") == ["line 2: no caption", "line 3: no image"]
