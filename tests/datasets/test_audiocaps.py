"""The reader of AudioCaps on small files, of records that the format's description quotes."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_files import AUDIOCAPS, malformed, write

from vtp.errors import DataError
from vtp.types import MediaRef
from vtp_datasets.audiocaps import AudioCaps


def test_audiocaps(tmp_path):
    dataset = AudioCaps(root=write(tmp_path, {"val.csv": AUDIOCAPS}))
    first, second = dataset.samples("retrieval", "val")
    assert first.texts == ("Rustling occurs, ducks quack and water splashes", "Ducks quack", "again")
    assert (first.id, first.extra["video_id"], first.video) == ("97151", "vfY_TJq7n_U_130", None)
    assert second.audio.path.endswith("r1nicOVtvkQ_7.wav")
    assert [line.partition(": ")[0] for line in malformed(dataset, "val.csv")] == ["line 6"]
    table = AudioCaps(root=tmp_path, version="v2")
    with pytest.raises(DataError, match=r"v2_val.csv or dataset2.0/val.csv"):
        table.samples("retrieval", "val")


@pytest.mark.parametrize(
    "name, span",
    [
        ("audio/vfY_TJq7n_U_130.flac", (None, None)),
        ("wavs/Yvfy_TJq7n_U_130.wav", None),
        ("audio/YvfY_TJq7n_U_130.wav", (None, None)),
        ("audio/val/vfY_TJq7n_U_130000_140000.mp3", (None, None)),
        ("videos/vfY_TJq7n_U_130_140.mp4", (None, None)),
        ("waveforms/val/YvfY_TJq7n_U.wav", (130.0, 140.0)),
        ("vfY_TJq7n_U.mp4", (130.0, 140.0)),
    ],
)
def test_names_of_audiocaps_files(tmp_path, name, span):
    root = write(tmp_path, {"val.csv": AUDIOCAPS, name: ""})
    audio = AudioCaps(root=root, whole_videos=True).samples("caption", "val")[0].audio
    if span is None:
        assert not Path(audio.path).exists()  # YouTube ids tell capitals apart
    else:
        assert (audio.path, audio.start, audio.end) == (str(tmp_path / name), *span)
        clip = AudioCaps(root=root, video=True).samples("caption", "val")[0]
        assert clip.video == clip.audio == MediaRef(str(tmp_path / name))
