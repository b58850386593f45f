"""The reader of YouCook2 on small files, of records that the format's description quotes."""

from __future__ import annotations

import pytest
from small_files import STEPS, malformed, write

from vtp.errors import DataError
from vtp.types import MediaRef
from vtp_datasets.youcook2 import YouCook2


def test_youcook2_steps_are_spans_with_a_sentence(tmp_path):
    root = write(tmp_path, {"youcookii_annotations_trainval.json": STEPS, "videos/GLd3aX16zBg.mkv": ""})
    dataset = YouCook2(root=root)
    assert dataset.splits("caption") == ("train", "test")
    first, second = dataset.samples("caption", "train")
    assert (first.id, first.texts) == ("GLd3aX16zBg#0", ("spread margarine on white bread",))
    assert first.video == MediaRef(str(tmp_path / "videos" / "GLd3aX16zBg.mkv"), 90.0, 102.0)
    assert second.extra["video_id"] == "GLd3aX16zBg[114-127]" and second.texts == ("place cheese on the bread",)
    assert malformed(dataset, "youcookii_annotations_trainval.json") == [
        "video GLd3aX16zBg, step 2: [130, 130] is no span with a start before its end",
        "video GLd3aX16zBg, step 3: no sentence",
        "video broken: no subset",
    ]
    assert [s.id for s in dataset.samples("retrieval", "test")] == ["xHr8X2Wpmno#0"]


def test_youcook2_with_what_is_said_during_a_step(tmp_path):
    said = {"GLd3aX16zBg": {"start": [80, 88.5, 101, 102, 200], "end": [90, 92, 110, 120, 210], "text": list("abcde")}}
    root = write(tmp_path, {"youcookii_annotations_trainval.json": STEPS, "asr.json": said})
    first, second = YouCook2(root=root, transcripts="asr.json").samples("caption", "train")
    assert first.extra["transcript"] == "b c" and second.extra["transcript"] == "d"  # ends are exclusive
    (other,) = YouCook2(root=root, transcripts="asr.json").samples("caption", "test")
    assert other.extra["transcript"] == ""
    with pytest.raises(DataError, match="none.json"):
        YouCook2(root=root, transcripts="none.json").samples("caption", "train")
