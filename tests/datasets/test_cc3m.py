"""The reader of CC3M on small files, of records that the format's description quotes."""

from __future__ import annotations

import pytest
from small_files import malformed, write

from vtp_datasets.cc3m import CC3M


@pytest.mark.parametrize("place", ["images/00000/000000001.jpg", "images/training/1.jpg", "train/1.jpg"])
def test_cc3m(tmp_path, place):
    text = 'a "very typical bus station\thttp://x/1.jpg\nsecond\thttp://y/2.jpg\nno url\n\thttp://z\n'
    dataset = CC3M(root=write(tmp_path, {"Train_GCC-training.tsv": text, place: ""}))
    first, second = dataset.samples("retrieval", "train")
    assert first.texts == ('a "very typical bus station',) and first.extra["url"] == "http://x/1.jpg"
    assert second.video.path == str(tmp_path / place) and second.audio is None
    assert malformed(dataset, "Train_GCC-training.tsv") == [
        "line 3: 1 cells instead of caption and url", "line 4: no caption",
    ]  # fmt: skip
