"""The reader of VALOR-32K on small files."""

from __future__ import annotations

import pytest
from small_files import VALOR, malformed, write

from vtp.types import MediaRef
from vtp_datasets.valor32k import VALOR32K


def test_valor32k(tmp_path):
    dataset = VALOR32K(root=write(tmp_path, {"desc_test.json": VALOR}))
    bird, train, own = dataset.samples("retrieval", "test")
    assert bird.texts == ("In one room, a yellow bird leaped over the fence.",)
    assert bird.extra["video_id"] == "CEfOX4fYlsY_20.000_30.000" and bird.audio == bird.video
    assert (train.texts, own.texts) == (("A train whistles.",), ("A dog barks.",))
    assert malformed(dataset, "desc_test.json") == [
        "item 2: a_b-c4fYlsY_0.000_10.000 is there already with this caption",
        "item 4: no desc",
    ]


@pytest.mark.parametrize(
    ("name", "whole", "span"),
    [
        ("videos/CEfOX4fYlsY_20.000_30.000.mp4", True, (None, None)),
        ("CEfOX4fYlsY_20_30.mkv", True, (None, None)),
        ("clips/CEfOX4fYlsY_20000_30000.mp4", False, (None, None)),
        ("videos/test/CEfOX4fYlsY_20.mp4", False, (None, None)),
        ("videos/CEfOX4fYlsY.mp4", False, (None, None)),
        ("videos/CEfOX4fYlsY.mp4", True, (20.0, 30.0)),
    ],
)
def test_names_of_files(tmp_path, name, whole, span):
    root = write(tmp_path, {"descs_ret_test.json": VALOR, name: ""})
    clip = VALOR32K(root=root, whole_videos=whole).samples("caption", "test")[0].video
    assert clip == MediaRef(str(tmp_path / name), *span)


def test_sounds_of_their_own(tmp_path):
    files = {"desc_test.json": VALOR, "wav/CEfOX4fYlsY_20.000_30.000.wav": "", "videos/CEfOX4fYlsY.mp4": ""}
    dataset = VALOR32K(root=write(tmp_path, files), audio="wav", whole_videos=True)
    bird = dataset.samples("caption", "test")[0]
    assert bird.audio == MediaRef(str(tmp_path / "wav/CEfOX4fYlsY_20.000_30.000.wav"))
    assert bird.video == MediaRef(str(tmp_path / "videos/CEfOX4fYlsY.mp4"), 20.0, 30.0)
