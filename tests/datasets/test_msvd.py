"""The reader of MSVD and MSVD-CN on small files, of records that the format's description quotes."""

from __future__ import annotations

import pytest
from small_files import MSVD_FILES, malformed, write

from vtp_datasets.msvd import MSVD, MSVDCN


def test_msvd_captions_repeat_and_lists_are_checked(tmp_path):
    dataset = MSVD(root=write(tmp_path, MSVD_FILES))
    (train,) = dataset.samples("retrieval", "train")
    assert train.texts == ("a squirrel is eating a peanut in it s shell", "a chipmunk is eating")
    (test,) = dataset.samples("caption", "test")
    assert test.texts == ("someone pours liquid",) * 2
    assert malformed(dataset, "captions_msvd.json") == ["bQJQGoJF7_k_162_169, caption 2: no caption"]
    assert sorted(malformed(dataset, "test_list.txt")) == [
        "line 2: nobody_1_2 has no caption", "line 3: bQJQGoJF7_k_162_169 is there already",
    ]  # fmt: skip


def test_msvd_questions_and_captions_name_clips_alike(tmp_path):
    dataset = MSVD(root=write(tmp_path, MSVD_FILES))
    (question,) = dataset.samples("qa", "train")
    assert question.extra["video_id"] == dataset.samples("retrieval", "train")[0].extra["video_id"]
    assert (question.id, question.labels, question.extra["question_type"]) == ("0", {"answer": "animal"}, "what")
    (second,) = dataset.samples("qa", "val")  # the csv form
    assert (second.id, second.texts, second.extra["video_id"]) == ("30933", ("who pours",), "bQJQGoJF7_k_162_169")
    assert malformed(dataset, "val.csv") == ["line 3: no 7"]
    assert dataset.media_namespace == MSVDCN(root=tmp_path).media_namespace == "msvd"


@pytest.mark.parametrize("name", ["videos/-4wsuPCjDBc_5_15.avi", "YouTubeClips/vid1.mp4", "vid1.webm"])
def test_msvd_clips_go_by_two_names(tmp_path, name):
    root = write(tmp_path, MSVD_FILES | {name: ""})
    for dataset, kind in ((MSVD(root=root), "retrieval"), (MSVD(root=root), "qa"), (MSVDCN(root=root), "caption")):
        assert dataset.samples(kind, "train")[0].video.path == str(tmp_path / name)
    missing = MSVD(root=root).samples("retrieval", "test")[0].video.path
    assert missing.endswith("bQJQGoJF7_k_162_169.mp4")


def test_msvd_cn(tmp_path):
    dataset = MSVDCN(root=write(tmp_path, MSVD_FILES))
    splits = dataset.splits("caption")
    found = {split: [(s.id, s.texts) for s in dataset.samples("retrieval", split)] for split in splits}
    train = [("1", ("一个小猫在舔舐牛奶", "小猫"))]
    assert found == {"train": train, "val": [("2", ("倒",))], "test": [("5", ("有",))]}
    assert malformed(dataset, "msvd_cn_captions_release_utf8.csv") == ["line 5: no 9999"]
