"""The reader of caption files in JSON on small files, of records that the format's description quotes."""

from __future__ import annotations

import pytest
from small_files import malformed, write

from vtp.errors import DataError
from vtp_datasets.caption_json import CaptionJson


def test_caption_json(tmp_path):
    content = {"105384/1053841541.mp4": "Travel blogger", f"{tmp_path}/else/a.mp4": ["x", "y"], "b.mp4": " ", " ": "z"}
    files = {"train.json": content, "videos/105384/1053841541.mp4": "", "my.json": {"c.mp4": "q"}}
    dataset = CaptionJson(root=write(tmp_path, files))
    first, second = dataset.samples("retrieval", "train")
    assert first.texts == ("Travel blogger",) and first.video.path == str(tmp_path / "videos/105384/1053841541.mp4")
    assert second.texts == ("x", "y") and second.video.path == f"{tmp_path}/else/a.mp4"
    assert malformed(dataset, "train.json") == ["item 2: no caption", "item 3: no path"]
    assert dataset.splits("retrieval") == ("train",) and len(dataset.samples("retrieval", "test")) == 0
    other = CaptionJson(root=tmp_path, test_file="my.json")
    assert [s.texts for s in other.samples("retrieval", "test")] == [("q",)]
    with pytest.raises(DataError, match=r"gone.json"):
        CaptionJson(root=tmp_path, file="gone.json").samples("caption", "train")
