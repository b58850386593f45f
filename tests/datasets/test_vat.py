"""The reader of lists of files on small files, of records that the format's description quotes."""

from __future__ import annotations

import pytest
from small_files import malformed, write

from vtp.errors import ConfigError, DataError
from vtp_datasets.vat import VAT


def test_vat(tmp_path):
    files = {
        "train.csv": "audio,text,video\na/1.wav,1.txt,1.mp4\n2.wav,2.json,2.mp4\n3.wav,3.txt,3.mp4\n,4.txt,4.mp4\n",
        "text/1.txt": "a title #tag #more",
        "text/2.json": {"title": "第二"},
        "text/4.txt": "four",
        "video/1.mp4": "",
        "audio/a/1.wav": "",
    }
    dataset = VAT(root=write(tmp_path, files))
    first, second, fourth = dataset.samples("retrieval", "train")
    assert first.texts == ("a title #tag #more",) and first.video.path == str(tmp_path / "video/1.mp4")
    assert first.audio.path == str(tmp_path / "audio/a/1.wav") and first.extra["video_id"] == "1"
    assert second.texts == ("第二",) and fourth.audio == fourth.video
    assert malformed(dataset, "train.csv") == [f"line 4: No such file or directory: {tmp_path}/text/3.txt"]
    assert VAT(root=tmp_path, tags=False).samples("caption", "train")[0].texts == ("a title",)


CLASSES = {
    "train.csv": "audio,text,video,label\n1.wav,1.txt,1.mp4,dog bark\n2.m4a,,,rain\n,,3.mp4,\n,none.txt,4.mp4,rain\n",
    "test.csv": "audio,video,labels\n1.wav,1.mp4,dog|rain\n2.wav,2.mp4,\n3.wav,3.mp4,[]\n",
    "text/1.txt": "a title #tag",
}


def test_classes_of_clips(tmp_path):
    """One each, or several; a text is not needed, and no class is one to be predicted."""
    dataset = VAT(root=write(tmp_path, CLASSES), tags=False)
    first, sound, hidden = dataset.samples("classification", "train")
    assert (first.texts, first.labels) == (("a title",), {"answer": "dog bark"})
    assert (sound.texts, sound.video, sound.labels) == (("",), None, {"answer": "rain"})
    assert sound.audio.path == str(tmp_path / "audio/2.m4a") and hidden.labels == {} and hidden.audio == hidden.video
    assert malformed(dataset, "train.csv") == [f"line 5: No such file or directory: {tmp_path}/text/none.txt"]
    found = dataset.samples("classification", "test")
    assert [sample.extra.get("labels") for sample in found] == [["dog", "rain"], None, []]


def test_classes_need_their_column(tmp_path):
    dataset = VAT(root=write(tmp_path, CLASSES | {"train.csv": "audio,text,video\n1.wav,1.txt,1.mp4\n"}))
    assert dataset.kinds == ("caption", "retrieval") and len(dataset.samples("caption", "train")) == 1
    with pytest.raises(DataError, match="no column that says the class of a clip. Add label"):
        dataset.samples("classification", "train")
    with pytest.raises(ConfigError, match="no table of the kind 'qa'"):
        dataset.samples("qa", "train")
