"""``vtp antmmf-videos``: files from an LMDB and from key frames."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vtp.cli.main import main
from vtp.errors import ConfigError, DataError
from vtp.media import read_clip
from vtp.types import MediaRef
from vtp_univl.video_files import copy_videos


def write_frames(folder, numbers, ending="png", size=(64, 48)):
    folder.mkdir(parents=True)
    for number in numbers:
        pixels = np.full((size[1], size[0], 3), (200, number, 30), np.uint8)
        Image.fromarray(pixels).save(folder / f"frame_{number}.{ending}", quality=95)


def test_key_frames_become_a_video_in_the_order_of_their_numbers(tmp_path):
    write_frames(tmp_path / "in/video7", [100, 20, 3])
    write_frames(tmp_path / "in/other.v2", [5, 6], "jpg")
    assert copy_videos(tmp_path / "in", tmp_path / "out", fps=2.0) == (2, 0, [])
    clip = read_clip(MediaRef(str(tmp_path / "out/video7.mov")))
    # as the pictures were, red first, and not encoded anew
    assert clip.frames[:, 0, 0].tolist() == [[200, 3, 30], [200, 20, 30], [200, 100, 30]]
    assert clip.timestamps.tolist() == [0.0, 0.5, 1.0]
    jpeg = read_clip(MediaRef(str(tmp_path / "out/other.v2.mov")))
    assert jpeg.frames.shape == (2, 48, 64, 3) and abs(int(jpeg.frames[0, 0, 0, 0]) - 200) < 4


def test_a_second_run_goes_on(tmp_path):
    write_frames(tmp_path / "in/a", [1])
    copy_videos(tmp_path / "in", tmp_path / "out")
    write_frames(tmp_path / "in/b", [1])
    assert copy_videos(tmp_path / "in", tmp_path / "out") == (1, 1, [])
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.mov", "b.mov"]


def test_folders_that_make_no_video_are_named(tmp_path):
    write_frames(tmp_path / "in/good", [1])
    (tmp_path / "in/empty").mkdir()
    write_frames(tmp_path / "in/mixed", [1])
    write_frames(tmp_path / "in/mixed2", [1], "jpg")
    (tmp_path / "in/mixed2/frame_1.jpg").rename(tmp_path / "in/mixed/frame_2.jpg")
    write_frames(tmp_path / "in/sizes", [1])
    Image.new("RGB", (20, 20)).save(tmp_path / "in/sizes/frame_2.png")
    (tmp_path / "in/mixed2/frame_1.png").write_bytes(b"no picture")
    write_frames(tmp_path / "in/unnumbered", [1])
    (tmp_path / "in/unnumbered/frame_1.png").rename(tmp_path / "in/unnumbered/cover.png")
    made, there, wrong = copy_videos(tmp_path / "in", tmp_path / "out")
    assert (made, there) == (1, 0)
    told = dict(line.split(": ", 1) for line in wrong)
    assert told["empty"] == "it has no .jpg or .png" and told["mixed"] == "it has both .jpg and .png"
    assert told["sizes"] == "its pictures have 2 sizes" and "damaged" in told["mixed2"]
    assert told["unnumbered"].startswith("cover.png has no number")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["good.mov"]


@pytest.mark.parametrize("subdir", [True, False])
def test_an_lmdb_is_copied_byte_by_byte(tmp_path, subdir):
    lmdb = pytest.importorskip("lmdb")
    values = {"video1": b"\0\0\0\x18ftypisom" + b"x" * 20, "video2": b"\x1aE\xdf\xa3" + b"y" * 9, "../etc": b"z"}
    with (
        lmdb.open(str(tmp_path / "v.lmdb"), subdir=subdir, map_size=1 << 20) as database,
        database.begin(write=True) as t,
    ):
        for key, value in values.items():
            t.put(key.encode(), value)
    made, there, wrong = copy_videos(tmp_path / "v.lmdb", tmp_path / "out")
    assert (made, there) == (2, 0) and wrong == ["../etc: its key is no name of a file"]
    found = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert found == {"video1.mp4": values["video1"], "video2.mkv": values["video2"]}
    assert not (tmp_path / "etc").exists()
    assert copy_videos(tmp_path / "v.lmdb", tmp_path / "out")[:2] == (0, 2)


def test_without_the_package_lmdb_its_name_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    (tmp_path / "v.lmdb").mkdir()
    with pytest.raises(ConfigError, match="pip install lmdb"):
        copy_videos(tmp_path / "v.lmdb", tmp_path / "out")


def test_what_is_no_source_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        copy_videos(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no videos found"):
        copy_videos(tmp_path / "empty", tmp_path / "out")


def test_the_command(tmp_path, capsys):
    write_frames(tmp_path / "in/a", [1, 2])
    assert main(["antmmf-videos", str(tmp_path / "in"), str(tmp_path / "out"), "fps=4"]) == 0
    assert capsys.readouterr().out == f"1 video in {tmp_path / 'out'}\n"
    assert main(["antmmf-videos", str(tmp_path / "in")]) == 2
    assert main(["antmmf-videos", str(tmp_path / "in"), str(tmp_path / "out"), "rate=4"]) == 2
    assert main(["antmmf-videos", str(tmp_path / "in"), str(tmp_path / "out"), "fps=-1"]) == 2
