"""The reader of Clotho on small files, with names as Freesound has them."""

from __future__ import annotations

import pytest
from small_files import CLOTHO, malformed, write

from vtp.errors import DataError
from vtp.types import MediaRef
from vtp_datasets.clotho import Clotho


def test_clotho(tmp_path):
    dataset = Clotho(root=write(tmp_path, {"clotho_captions_evaluation.csv": CLOTHO}))
    waves, radio, gap = dataset.samples("retrieval", "test")
    assert waves.texts == ("Waves roll in", "Water, then wind", "Surf", "The sea moves", "Waves")
    assert (radio.id, radio.video, len(radio.texts)) == ("evaluation/Distorted AM Radio noise", None, 5)
    assert gap.texts == ("one", "three", "four", "five")
    assert malformed(dataset, "clotho_captions_evaluation.csv") == [
        "line 4: Distorted AM Radio noise is there already",
        "line 5: no caption",
    ]
    with pytest.raises(DataError, match=r"clotho_captions_development\.csv"):
        dataset.samples("retrieval", "train")


@pytest.mark.parametrize(
    ("folder", "audio"),
    [
        ("evaluation", None),
        ("clotho_audio_files/evaluation", None),
        ("clotho_audio_evaluation/evaluation", None),
        ("sounds/evaluation", "sounds"),
        ("sounds", "sounds"),
    ],
)
def test_sounds_are_those_of_their_split(tmp_path, folder, audio):
    """Two people may call their sounds by one name, and only folders keep them apart."""
    name = "Ambience, waves .wav"
    files = {f"clotho_captions_{part}.csv": CLOTHO for part in ("development", "evaluation")}
    root = write(tmp_path, files | {f"{folder}/{name}": "", f"development/{name}": "another"})
    dataset = Clotho(root=root, audio=audio)
    found = dataset.samples("caption", "test")[0]
    assert found.audio == MediaRef(str(tmp_path / folder / name))
    if audio is None:
        other = dataset.samples("caption", "train")[0]
        assert other.audio == MediaRef(str(tmp_path / "development" / name))
        assert other.id != found.id


def test_version_1_has_no_validation_split(tmp_path):
    dataset = Clotho(root=write(tmp_path, {"clotho_captions_development.csv": CLOTHO}), version="v1")
    assert dataset.splits("caption") == ("train", "test") and not dataset.samples("caption", "val")
