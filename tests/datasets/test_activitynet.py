"""The reader of ActivityNet Captions on small files, of records that the format's description quotes."""

from __future__ import annotations

from small_files import ACTIVITYNET, malformed, write

from vtp.types import MediaRef
from vtp_datasets.activitynet import ActivityNet


def test_activitynet_paragraphs(tmp_path):
    files = {"val_1.json": ACTIVITYNET, "val_1_list.txt": "v_two\nv_three", "videos/QOlSCBRmfWY.mkv": ""}
    root = write(tmp_path, files)
    dataset = ActivityNet(root=root)
    assert dataset.splits("retrieval") == ("train", "test")
    first, second = dataset.samples("retrieval", "test")
    assert first.texts == ("A young woman is seen. The girl dances. She continues.",)
    assert first.video == MediaRef(str(tmp_path / "videos" / "QOlSCBRmfWY.mkv"))
    assert second.video.path == str(tmp_path / "videos" / "v_two.mp4")
    assert malformed(dataset, "val_1.json") == ["clip v_bad: 2 sentences with 1 time stamps"]
    listed = ActivityNet(root=root, lists=True)
    assert [s.id for s in listed.samples("retrieval", "test")] == ["v_two"]
    assert malformed(listed, "val_1_list.txt") == ["line 2: v_three has no sentence"]


def test_activitynet_moments(tmp_path):
    dataset = ActivityNet(root=write(tmp_path, {"train.json": ACTIVITYNET}), moments=True)
    table = dataset.samples("retrieval", "train")
    assert [(s.id, s.texts[0], s.video.start, s.video.end) for s in table] == [
        ("v_QOlSCBRmfWY#0", "A young woman is seen.", 0.83, 19.86),
        ("v_QOlSCBRmfWY#1", "The girl dances.", 17.0, 60.81),
        ("v_two#0", "x", 0.0, 9.0),
    ]
    assert table[0].extra["video_id"] == "v_QOlSCBRmfWY[0.83-19.86]"
    assert table[0].video.path.endswith("v_QOlSCBRmfWY.mp4")
    assert "clip v_QOlSCBRmfWY, sentence 2: [60, 56.26] is no span" in malformed(dataset, "train.json")[0]
