"""The reader of UCF101 on small files, of records that the format's description quotes."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_files import UCF101_FILES, malformed, write

from vtp.errors import DataError
from vtp.types import MediaRef
from vtp_datasets.ucf101 import UCF101


def test_ucf101_lists(tmp_path):
    dataset = UCF101(root=write(tmp_path, UCF101_FILES))
    assert dataset.class_names == ("ApplyEyeMakeup", "ApplyLipstick", "Biking")
    assert dataset.splits("classification") == ("train", "test") and not dataset.samples("classification", "val")
    first, second = dataset.samples("classification", "train")
    assert (first.id, first.texts, first.labels) == ("v_ApplyEyeMakeup_g08_c01", ("",), {"answer": "ApplyEyeMakeup"})
    assert first.video == MediaRef(str(tmp_path / "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"))
    assert second.labels == {"answer": "Biking"} and not Path(second.video.path).exists()
    (test,) = dataset.samples("classification", "test")
    assert test.labels == {"answer": "ApplyLipstick"} and test.extra["video_id"] == "v_ApplyLipstick_g01_c01"
    assert test.video.path == str(tmp_path / "UCF-101/v_ApplyLipstick_g01_c01.mp4")
    assert malformed(dataset, "trainlist01.txt") == [
        "line 3: v_Biking_g01_c01 is there already", "line 4: no 3",
    ]  # fmt: skip
    assert malformed(dataset, "testlist01.txt")[0].startswith("line 2: Knitting/v_Knitting_g01_c01.avi is in no folder")


def test_another_fold_of_ucf101_is_another_list(tmp_path):
    with pytest.raises(DataError, match=r"trainlist02\.txt"):
        UCF101(root=write(tmp_path, UCF101_FILES), fold=2).samples("classification", "train")
