"""The reader of VATEX on small files, of records that the format's description quotes."""

from __future__ import annotations

import pytest
from small_files import PUMPKIN, VATEX_ROWS, malformed, write

from vtp.errors import ConfigError, DataError
from vtp.types import MediaRef
from vtp_datasets.vatex import VATEX


def test_vatex(tmp_path):
    files = {
        "vatex_training_v1.0.json": VATEX_ROWS[:1],
        "vatex_validation_v1.0.json": VATEX_ROWS[1:],
        "train_list.txt": "nJ6KPT1uwe8_000047_000057\n-J6KPT_uwe8_000001_000011\nshort_1_2",
        "val_list.txt": "-J6KPT_uwe8_000001_000011",
        "test1k5_sec_list.txt": "-J6KPT_uwe8_000001_000011",
        "videos/nJ6KPT1uwe8.mp4": "",
        "videos/-J6KPT_uwe8_000001_000011.mp4": "",
    }
    dataset = VATEX(root=write(tmp_path, files))
    whole, cut = dataset.samples("retrieval", "train")
    assert whole.texts == ("A woman is carving a pumpkin", "B")
    assert whole.video == MediaRef(str(tmp_path / "videos/nJ6KPT1uwe8.mp4"), 47.0, 57.0)
    assert cut.video == MediaRef(str(tmp_path / "videos/-J6KPT_uwe8_000001_000011.mp4"))
    assert malformed(dataset, "train_list.txt") == ["line 3: 'short_1_2' is no id_start_end with six digits each"]
    chinese = VATEX(root=tmp_path, language="zh")
    assert [s.texts for s in chinese.samples("caption", "train")] == [("雕刻", "南瓜")]
    second = VATEX(root=tmp_path, test="second")
    assert second.splits("retrieval") == ("train", "test") and len(second.samples("retrieval", "val")) == 0
    assert len(second.samples("retrieval", "test")) == 1
    with pytest.raises(DataError, match=r"test_list.txt"):
        dataset.samples("retrieval", "test")
    with pytest.raises(ConfigError, match="language='de' must be one of en, zh"):
        VATEX(language="de")


def test_vatex_with_the_splits_of_its_release(tmp_path):
    released = [*VATEX_ROWS, VATEX_ROWS[0], {"videoID": "short_1_2", "enCap": ["x"]}]
    files = {
        "vatex_training_v1.0.json": released,
        "vatex_validation_v1.0.json": VATEX_ROWS[1:],
        "vatex_public_test_english_v1.1.json": [{"videoID": VATEX_ROWS[0]["videoID"], "enCap": PUMPKIN}],
        "train_list.txt": "-J6KPT_uwe8_000001_000011",  # is not read
        "videos/nJ6KPT1uwe8.mp4": "",
    }
    dataset = VATEX(root=write(tmp_path, files), test="public")
    train = dataset.samples("caption", "train")
    assert [(s.id, s.texts) for s in train] == [
        ("nJ6KPT1uwe8_000047_000057", ("A woman is carving a pumpkin", "B")), ("-J6KPT_uwe8_000001_000011", ("C",)),
    ]  # fmt: skip
    assert train[0].video == MediaRef(str(tmp_path / "videos/nJ6KPT1uwe8.mp4"), 47.0, 57.0)
    assert malformed(dataset, "vatex_training_v1.0.json") == [
        "item 2: nJ6KPT1uwe8_000047_000057 is there already",
        "item 3: 'short_1_2' is no id_start_end with six digits each",
    ]
    assert [len(dataset.samples("caption", split)) for split in ("val", "test")] == [1, 1]
