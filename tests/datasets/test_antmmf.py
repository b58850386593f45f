"""The reader of AntMMF's files on small files, of records that the format's description quotes."""

from __future__ import annotations

import json
from pathlib import Path

from small_files import ANTMMF, malformed, write

from vtp.types import MediaRef
from vtp_datasets.antmmf import AntMMF


def test_antmmf_mixes_clips_spans_and_images(tmp_path):
    files = {"train.jsonl": "\n".join(map(json.dumps, ANTMMF)), "mp4/video9770.avi": "", "images/dog.jpg": ""}
    dataset = AntMMF(root=write(tmp_path, files), namespace="msrvtt")
    clip, span, image = dataset.samples("caption", "train")
    assert clip.texts == ("a person", "the system") and clip.video == MediaRef(str(tmp_path / "mp4/video9770.avi"))
    assert clip.extra["label"] == 1 and dataset.media_namespace == "msrvtt"
    assert (span.video.start, span.video.end, span.extra["video_id"]) == (0.0, 3.7, "video9770[0-3.7]")
    assert image.video.path == str(tmp_path / "images/dog.jpg") and image.audio is None
    assert malformed(dataset, "train.jsonl") == [
        "line 5: no caption", "line 6: 3 to 1 s is no span with a start before its end",
    ]  # fmt: skip
    assert dataset.splits("caption") == ("train",) and dataset.splits("mc") == ("test",)


def test_antmmf_clips_may_be_folders_of_key_frames(tmp_path):
    lines = "\n".join(json.dumps({"caption": "c", "clip_name": name}) for name in ("video1", "video2.mp4", "video3"))
    root = write(tmp_path, {"train.jsonl": lines, "videos/video1/frame_1.jpg": "", "videos/video2/frame_1.jpg": ""})
    (root / "videos/video2.mp4").touch()
    found = AntMMF(root=root).samples("caption", "train")
    names = [str(Path(sample.video.path).relative_to(root)) for sample in found]
    assert names == ["videos/video1", "videos/video2.mp4", "videos/video3.mp4"]  # a file counts before a folder


def test_antmmf_labels_are_numbers_names_or_lists(tmp_path):
    rows = [*ANTMMF[:5], {"clip_name": "a", "label": ["b", 3]}, {"clip_name": "c", "caption": "x"}]
    files = {"train.jsonl": "\n".join(map(json.dumps, rows))}
    found = AntMMF(root=write(tmp_path, files)).samples("classification", "train")
    assert [s.labels.get("answer") for s in found] == ["1", "2", "1", "1", "13", None, None]
    assert [s.texts[0] for s in found] == ["a person", "the system", "a span", "a dog", "", "", "x"]
    assert found[5].extra["labels"] == ["b", "3"] and "label" not in found[0].extra
