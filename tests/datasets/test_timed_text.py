"""The readers of timed speech on small files; segments that are too short take in their neighbours."""

from __future__ import annotations

import json

import pytest
from small_files import malformed, write

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


def test_howto100m_with_a_file_per_video(tmp_path):
    files = {
        "captions/-tCQ4tCQdWE.csv": "start,end,text\n0.41,3.91,check pic tonight pick\n3.91,3.91,x\n5,6,\n7,9,bowl\n",
        "captions/abc.csv": "end,start,text\n4,1,salt\n",
        "captions/validation_youcook.csv": "end,start,task,text,video_id\n60,47,226,pick the ends,xHr8X2Wpmno\n",
        "videos/-/-tCQ4tCQdWE.mp4": "",
    }
    dataset = HowTo100M(root=write(tmp_path, files))
    table = dataset.samples("retrieval", "train")
    assert [(s.texts[0], s.video.start, s.video.end) for s in table] == [
        ("check pic tonight pick", 0.41, 3.91), ("bowl", 7.0, 9.0), ("salt", 1.0, 4.0),
    ]  # fmt: skip
    assert table[0].video.path == str(tmp_path / "videos/-/-tCQ4tCQdWE.mp4")
    assert table[0].extra["video_id"] == "-tCQ4tCQdWE[0.41-3.91]" and len({s.id for s in table}) == 3
    record = dataset.origin()["files"][0]
    assert (record["rows"], record["malformed"], record["files"]) == (3, 2, 2)
    assert record["malformed_first"][0].startswith("-tCQ4tCQdWE.csv, line 3: ")
    (test,) = dataset.samples("retrieval", "test")
    assert (test.texts, test.video.start, test.video.end) == (("pick the ends",), 47.0, 60.0)
    longer = HowTo100M(root=tmp_path, min_seconds=6).samples("retrieval", "train")
    assert [(s.video.start, s.video.end) for s in longer] == [(0.0, 6.0), (5.0, 11.0), (0.0, 6.0)]


def test_a_changed_folder_of_captions_is_read_again(tmp_path):
    root = write(tmp_path, {"captions/a.csv": "start,end,text\n0,1,x\n"})
    assert len(HowTo100M(root=root).samples("caption", "train")) == 1
    write(tmp_path, {"captions/b.csv": "start,end,text\n0,1,x\n2,3,y\n"})
    assert len(HowTo100M(root=root).samples("caption", "train")) == 3


@pytest.mark.parametrize("cls", [CNVid, HowTo100M])
def test_timed_text_in_one_file(tmp_path, cls):
    good = {"text": ["睡了。", "吃"], "start": [0.76, 3], "end": [2.2, 4.5]}
    dataset = cls(root=write(tmp_path, {"caption.json": {"v1": good, "v2": {"text": ["a"], "start": []}}}))
    first, second = dataset.samples("caption", "train")
    assert (first.texts, first.video.start, first.video.end) == (("睡了。",), 0.76, 2.2)
    assert (second.id, second.extra["source"]) == ("v1#1", "caption.json:v1:1")
    assert malformed(dataset, "caption.json") == ["video v2: no end"]
