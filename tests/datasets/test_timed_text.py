"""Timed speech: segments that are too short take in their neighbours."""

from __future__ import annotations

import json

import pytest

from vtp.errors import ConfigError
from vtp_datasets.timed_text import CNVid, HowTo100M

SPEECH = {
    "start": [0.0, 2.0, 10.0, 11.0, 40.0],
    "end": [1.5, 4.0, 11.0, 12.5, 50.0],
    "text": ["first", "cut the onion", "ok", "now stir", "and a long explanation"],
}


def segments(folder, cls=HowTo100M, speech=SPEECH, **options):
    (folder / "caption.json").write_text(json.dumps({"v1": speech}))
    found = cls(root=folder, **options).samples("retrieval", "train")
    return {s.id.rpartition("#")[2]: (s.video.start, s.video.end, s.texts[0]) for s in found}


def test_short_segments_take_in_the_nearer_neighbour_until_they_are_long_enough(tmp_path):
    found = segments(tmp_path, min_seconds=5.0, grow="neighbours")
    assert found["4"] == (40.0, 50.0, "and a long explanation")
    # alone 0 to 1.5; the only neighbour is behind: 4 s, still short; then 11 s
    assert found["0"] == (0.0, 11.0, "first cut the onion ok")
    # 10 to 11: behind gives 2.5 s, before 9 s; then before gives 10.5 s, behind 40 s
    assert found["2"] == found["3"] == (2.0, 12.5, "cut the onion ok now stir")


def test_short_texts_grow_too(tmp_path):
    found = segments(tmp_path, min_characters=6, grow="neighbours")
    assert found["2"] == (10.0, 12.5, "ok now stir")
    assert found["0"] == (0.0, 4.0, "first cut the onion")
    assert found["1"] == (2.0, 4.0, "cut the onion")


def test_a_video_without_enough_speech_is_one_segment(tmp_path):
    assert set(segments(tmp_path, min_seconds=900.0, grow="neighbours").values()) == {
        (0.0, 50.0, "first cut the onion ok now stir and a long explanation")
    }


def test_chinese_is_joined_without_spaces(tmp_path):
    speech = {"start": [0.0, 2.0], "end": [2.0, 4.0], "text": ["切洋葱", "炒一下"]}
    found = segments(tmp_path, CNVid, speech, min_characters=5, grow="neighbours")
    assert found == {"0": (0.0, 4.0, "切洋葱炒一下"), "1": (0.0, 4.0, "切洋葱炒一下")}


def test_segments_without_sense_are_no_neighbours(tmp_path):
    speech = {"start": [0.0, 5.0, 3.0], "end": [1.0, 2.0, 4.0], "text": ["one", "backwards", "two"]}
    assert segments(tmp_path, speech=speech, min_seconds=2.0, grow="neighbours") == {
        "0": (0.0, 4.0, "one two"),
        "2": (0.0, 4.0, "one two"),
    }


def test_characters_need_neighbours(tmp_path):
    with pytest.raises(ConfigError, match="grow=neighbours"):
        HowTo100M(root=tmp_path, min_characters=5)
