"""The reader of lists of files on small files, of records that the format's description quotes."""

from __future__ import annotations

from small_files import malformed, write

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
