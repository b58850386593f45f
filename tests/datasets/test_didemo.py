"""The reader of DiDeMo on small files, of records that the format's description quotes."""

from __future__ import annotations

import pytest
from small_files import malformed, write

from vtp.errors import ConfigError
from vtp.types import MediaRef
from vtp_datasets.didemo import DiDeMo


def didemo_root(tmp_path):
    first, second = "26292851@N04_4253489686_265c3c8051.m4v", "10052357@N03_7585070382_5762149bfc."
    item = {"num_segments": 6, "dl_link": "x", "times": [[4, 4], [0, 0]]}
    rows = [
        item | {"video": first, "description": " someone kicks the bug. ", "annotation_id": 1},
        item | {"video": second, "description": "a dog", "annotation_id": 2},
        item | {"video": first, "description": "the bug flies.", "annotation_id": 3},
        item | {"video": "1@N00_1_1.mov", "description": "not listed", "annotation_id": 4},
        item | {"video": first, "annotation_id": 5},
    ]
    lists = {"val_list.txt": f"{second}\n{first}\nnobody.mp4"}
    return write(tmp_path, lists | {"val_data.json": rows, "videos/10052357@N03_7585070382_5762149bfc.": ""})


def test_didemo_joins_descriptions_of_listed_clips(tmp_path):
    dataset = DiDeMo(root=didemo_root(tmp_path))
    dotted, other = dataset.samples("retrieval", "val")
    assert dotted.id == "10052357@N03_7585070382_5762149bfc" and dotted.texts == ("a dog",)
    assert dotted.video == MediaRef(str(tmp_path / "videos" / "10052357@N03_7585070382_5762149bfc."), 0.0, 30.0)
    assert other.texts == ("someone kicks the bug. the bug flies.",)
    assert malformed(dataset, "val_list.txt") == ["line 3: nobody.mp4 has no description"]
    assert malformed(dataset, "val_data.json") == ["item 4: no description"]
    record = next(f for f in dataset.origin()["files"] if f["path"].endswith("val_data.json"))
    assert record["rows"] == 4 and record["rows_of_clips_that_are_not_listed"] == 1
    assert dataset.origin()["clip_window_seconds"] == 30.0


def test_didemo_without_a_cut(tmp_path):
    dataset = DiDeMo(root=didemo_root(tmp_path), seconds=None)
    assert {(s.video.start, s.video.end) for s in dataset.samples("caption", "val")} == {(None, None)}
    with pytest.raises(ConfigError, match="more than 0"):
        DiDeMo(seconds=0)
