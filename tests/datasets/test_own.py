"""Own data: columns by whatever name, paths, splits, and every row that makes no sense."""

from __future__ import annotations

import json
import pickle

import pytest

from vtp.errors import ConfigError, DataError
from vtp.types import MediaRef
from vtp_datasets.own import OwnData

CAPTIONS = "video,caption\na.mp4,a dog\nsub/b.mp4,a cat\na.mp4,the same dog\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def everything(dataset, kind):
    return {s.id: s for split in ("train", "val", "test") for s in dataset.samples(kind, split)}


def test_captions_of_a_clip_are_one_sample_with_paths_from_the_folder_of_the_file(tmp_path):
    dataset = OwnData(file=write(tmp_path / "my.csv", CAPTIONS), val_share=0, test_share=0)
    assert dataset.kinds == ("caption", "retrieval")
    first, second = dataset.samples("retrieval", "train")
    assert first.texts == ("a dog", "the same dog") and first.video == MediaRef(str(tmp_path / "a.mp4"))
    assert first.audio == first.video and first.extra["source"] == "my.csv:2" and first.extra["video_id"] == "a.mp4"
    assert (second.id, second.texts, second.video.path) == ("3", ("a cat",), str(tmp_path / "sub" / "b.mp4"))


@pytest.mark.parametrize(
    "text",
    [
        CAPTIONS.replace(",", "\t"),
        CAPTIONS.replace("\n", "\r\n"),
        "\ufeff" + CAPTIONS,
        CAPTIONS.replace("video,caption", "Video_Path,Sentence"),
        CAPTIONS.replace("video,caption", "filename, text"),
    ],
    ids=["tab", "crlf", "byte order mark", "other names", "spaces in the header"],
)
def test_the_same_table_in_other_spellings(tmp_path, text):
    dataset = OwnData(file=write(tmp_path / "my.csv", text), val_share=0, test_share=0)
    assert [s.texts for s in dataset.samples("caption", "train")] == [("a dog", "the same dog"), ("a cat",)]


@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_json_rows_may_hold_lists(tmp_path, ending):
    rows = [{"video": "a.mp4", "caption": ["a dog", "eine Katze"]}, {"video": "b.mp4", "caption": "ein Schiff 船"}]
    text = json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows))
    dataset = OwnData(file=write(tmp_path / f"my.{ending}", text), val_share=0, test_share=0)
    assert [s.texts for s in dataset.samples("caption", "train")] == [("a dog", "eine Katze"), ("ein Schiff 船",)]


def test_media_are_relative_to_the_root_then_to_the_file_and_found_without_an_extension(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.webm").touch()
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "b.mp4").touch()
    (tmp_path / "clips" / "x.mp4").touch()
    text = f"video,caption\na,1\nb.mp4,2\n{tmp_path}/c.mp4,3\nsub/x.mp4,4\n"
    file = write(tmp_path / "list" / "my.csv", text)
    dataset = OwnData(file=file, root=tmp_path / "clips", val_share=0, test_share=0)
    found = [s.video.path for s in dataset.samples("caption", "train")]
    # the last one is another file than clips/x.mp4, and missing
    assert found == [str(tmp_path / p) for p in ("clips/a.webm", "list/b.mp4", "c.mp4", "clips/sub/x.mp4")]
    tables = dataset.origin()["tables"]["caption/train"]
    assert tables == {"samples": 4, "clips": 4, "clips_on_disk": 2}


def test_spans_are_clips_of_their_own(tmp_path):
    text = "video,start,end,caption\na.mp4,0,2.5,x\na.mp4,00:01:02.5,63,y\na.mp4,,,z\na.mp4,0,2.5,w\n"
    table = OwnData(file=write(tmp_path / "my.csv", text), val_share=0, test_share=0).samples("caption", "train")
    assert [(s.video.start, s.video.end, s.texts) for s in table] == [
        (0.0, 2.5, ("x", "w")), (62.5, 63.0, ("y",)), (None, None, ("z",)),
    ]  # fmt: skip
    assert [s.extra["video_id"] for s in table] == ["a.mp4[0-2.5]", "a.mp4[62.5-63]", "a.mp4"]


def test_sound_may_lie_in_a_file_of_its_own_or_be_all_there_is(tmp_path):
    text = "video,audio,caption\na.mp4,a.wav,x\n,b.wav,y\nc.mp4,,z\n"
    first, second, third = OwnData(file=write(tmp_path / "my.csv", text), val_share=0, test_share=0).samples(
        "caption", "train"
    )
    assert first.audio.path.endswith("a.wav") and first.video.path.endswith("a.mp4")
    assert second.video is None and second.audio.path.endswith("b.wav")
    assert third.audio == third.video


def test_a_column_says_the_split(tmp_path):
    text = "video,caption,split\na.mp4,1,train\nb.mp4,2,validation\nc.mp4,3,Test\nd.mp4,4,dev\ne.mp4,5,\nf.mp4,6,x\n"
    dataset = OwnData(file=write(tmp_path / "my.csv", text))
    found = {split: [s.texts[0] for s in dataset.samples("retrieval", split)] for split in dataset.splits("retrieval")}
    assert found == {"train": ["1"], "val": ["2", "4"], "test": ["3"]}
    record = dataset.origin()["files"][0]
    assert record["rows"] == 4 and record["malformed"] == 2
    assert record["malformed_first"][0] == "line 6: no split" and "split 'x' is none of" in record["malformed_first"][1]


def test_without_one_whole_clips_are_held_out(tmp_path):
    lines = [f"clip{n % 50}.mp4,caption {n}" for n in range(200)]
    dataset = OwnData(file=write(tmp_path / "my.csv", "\n".join(["video,caption", *lines])))
    splits = ("train", "val", "test")
    clips = {split: {s.extra["video_id"] for s in dataset.samples("caption", split)} for split in splits}
    assert {split: len(found) for split, found in clips.items()} == {"train": 40, "val": 5, "test": 5}
    assert len(set.union(*clips.values())) == 50
    texts = sorted(text for s in everything(dataset, "caption").values() for text in s.texts)
    assert texts == sorted(f"caption {n}" for n in range(200))
    shuffled = OwnData(file=write(tmp_path / "other.csv", "\n".join(["video,caption", *lines[::-1]])))
    assert {s.extra["video_id"] for s in shuffled.samples("caption", "val")} == clips["val"]
    other = OwnData(file=tmp_path / "my.csv", seed=1)
    assert {s.extra["video_id"] for s in other.samples("caption", "test")} != clips["test"]


def test_questions_about_one_clip_stay_in_one_split(tmp_path):
    lines = [f"clip{n % 5}.mp4,who is {n}?,man" for n in range(50)]
    dataset = OwnData(file=write(tmp_path / "my.csv", "\n".join(["video,question,answer", *lines])))
    clips = [{s.extra["video_id"] for s in dataset.samples("qa", split)} for split in ("train", "val", "test")]
    assert [len(found) for found in clips] == [3, 1, 1] and len(set.union(*clips)) == 5
    assert len(everything(dataset, "qa")) == 50


def test_files_may_be_splits(tmp_path):
    train = write(tmp_path / "train.csv", "video,caption\na.mp4,x\n")
    test = write(tmp_path / "test.csv", "video,caption\nb.mp4,y\n")
    dataset = OwnData(file=train, test_file=test)
    assert dataset.splits("caption") == ("train", "test")
    assert [len(dataset.samples("caption", split)) for split in ("train", "val", "test")] == [1, 0, 1]
    alone = OwnData(test_file=test)  # a checkpoint is evaluated without training data
    assert len(alone.samples("retrieval", "test")) == 1 and len(alone.samples("retrieval", "train")) == 0


def test_questions(tmp_path):
    text = "video,question,answer,id,category,type\na.mp4,What is it?,dog,q1,animals,\nb.mp4,who?,,q2,,\n"
    dataset = OwnData(file=write(tmp_path / "my.csv", text), val_share=0, test_share=0)
    assert dataset.kinds == ("qa",)
    first, second = dataset.samples("qa", "train")
    assert (first.id, first.texts, first.labels) == ("q1", ("What is it?",), {"answer": "dog"})
    assert first.extra["question_type"] == "what" and first.extra["category"] == "animals"
    assert second.labels == {}  # for predictions


@pytest.mark.parametrize(
    "text",
    [
        "video,question,options,answer\na.mp4,who?,a man|a dog|two,a dog\n",
        'video,question,options,answer\na.mp4,who?,"[""a man"", ""a dog"", ""two""]",1\n',
        "video,question,a0,a1,a2,answer\na.mp4,who?,a man,a dog,two,1\n",
        "video,question,option_a,option_b,option_c,answer\na.mp4,who?,a man,a dog,two,a dog\n",
    ],
)
def test_multiple_choice(tmp_path, text):
    dataset = OwnData(file=write(tmp_path / "my.csv", text), val_share=0, test_share=0)
    assert dataset.kinds == ("qa", "mc")
    (sample,) = dataset.samples("mc", "train")
    assert (sample.texts, sample.labels) == (("a man", "a dog", "two"), {"answer_index": 1})
    assert sample.extra["question"] == "who?"
    (sample,) = dataset.samples("qa", "train")
    assert (sample.texts, sample.labels) == (("who?",), {"answer": "a dog"})


@pytest.mark.parametrize(
    "row, words",
    [
        (",,x,,", "neither video nor audio"),
        ("a.mp4,,,,", "no caption"),
        ("a.mp4,,x,5,5", "the end 5 s is not after the start 5 s"),
        ("a.mp4,,x,soon,", "could not convert string to float"),
        ("a.mp4,,x,-1,", "is no time in seconds"),
        ("a.mp4,,x,nan,", "is no time in seconds"),
        ("a.mp4,x", "2 cells instead of 5"),
    ],
)
def test_rows_that_make_no_sense_are_named(tmp_path, row, words):
    text = f"video,audio,caption,start,end\n{row}\nb.mp4,,fine,1,2\n"
    dataset = OwnData(file=write(tmp_path / "my.csv", text), val_share=0, test_share=0)
    assert [s.texts for s in dataset.samples("caption", "train")] == [("fine",)]
    (record,) = dataset.origin()["files"]
    assert (record["rows"], record["malformed"]) == (1, 1)
    assert record["malformed_first"][0].startswith("line 2: ") and words in record["malformed_first"][0]


def test_rows_with_one_id_are_all_there(tmp_path):
    text = "id,video,caption\n1,a.mp4,x\n1,b.mp4,y\n2,c.mp4,z\n1,b.mp4,y\nb.mp4/1,d.mp4,w\n"
    dataset = OwnData(file=write(tmp_path / "my.csv", text), val_share=0, test_share=0)
    rows = dataset.samples("caption", "train")
    assert [(s.id, s.texts) for s in rows] == [
        ("1", ("x",)), ("b.mp4/1", ("y",)), ("2", ("z",)), ("d.mp4/b.mp4/1", ("w",))
    ]  # fmt: skip
    record = dataset.origin()["files"][0]
    assert record["rows"] == 4 and record["ids_that_repeat"] == 2
    assert record["malformed_first"] == ["line 5: the id 1 is there already, with the same content"]


def test_questions_that_are_numbered_per_clip_are_all_there(tmp_path):
    """The form of NExT-QA: qid counts the questions of a clip, so that the same few ids come for every clip."""
    head = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
    rows = [f"{c},99,640,480,why {c} {q}?,{q % 5},{q},CW,a,b,c,d,e {c}\n" for c in (2400, 3300) for q in range(9)]
    dataset = OwnData(file=write(tmp_path / "val.csv", head + "".join(rows)), val_share=0, test_share=0)
    for kind in ("qa", "mc"):
        table = dataset.samples(kind, "train")
        assert len(table) == len({s.id for s in table}) == 18
        asked = [s.texts[0] if kind == "qa" else s.extra["question"] for s in table]
        assert asked == [f"why {c} {q}?" for c in (2400, 3300) for q in range(9)]
    assert [s.id for s in table][8:11] == ["8", "3300/0", "3300/1"]


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"needs dataset.file=FILE"):
        OwnData().samples("caption", "train")
    with pytest.raises(DataError, match="there is no such file"):
        OwnData(file=tmp_path / "none.csv").samples("caption", "train")
    with pytest.raises(DataError, match=r"found: a, b.*Understood names: .*caption"):
        OwnData(file=write(tmp_path / "my.csv", "a,b\n1,2\n")).samples("caption", "train")
    with pytest.raises(ConfigError, match=r"no table of the kind 'qa'; it has: caption, retrieval"):
        OwnData(file=write(tmp_path / "my.csv", CAPTIONS)).samples("qa", "train")
    with pytest.raises(ConfigError, match="less than 1"):
        OwnData(val_share=0.5, test_share=0.5)
    missing = OwnData(file=tmp_path / "my.csv", test_file=tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"gone.csv"):
        missing.samples("retrieval", "test")
    with pytest.raises(DataError, match="quotation mark that is never closed"):
        OwnData(file=write(tmp_path / "q.csv", 'video,caption\na.mp4,"' + "x\n" * 100_000)).samples("caption", "train")


def test_namespaces(tmp_path):
    assert OwnData(file=tmp_path / "data" / "a.csv").media_namespace == "csv:data"
    assert OwnData(file=tmp_path / "a.csv", root=tmp_path / "clips").media_namespace == "csv:clips"
    assert OwnData(file=tmp_path / "a.csv", namespace="mine").media_namespace == "mine"


def test_tables_travel_to_workers(tmp_path):
    table = OwnData(file=write(tmp_path / "my.csv", CAPTIONS), val_share=0, test_share=0).samples("caption", "train")
    assert list(pickle.loads(pickle.dumps(table))) == list(table) == [table[0], table[-1]]
    with pytest.raises(IndexError, match="2 rows"):
        table[2]


def test_a_clip_has_one_name_in_splits_and_samples(tmp_path):
    for name in ("clips/c0.mp4", "clips/c1.mp4", "other/c0.mp4"):
        write(tmp_path / name, "")
    spelled = ["clips/c0.mp4", "./clips/c0.mp4", "clips/c0", f"{tmp_path}/clips/c0.mp4", "clips//c0", "other/c0.mp4"]
    rows = [f"{name},text {n}\n" for n, name in enumerate(spelled)]
    file = write(tmp_path / "my.csv", "video,caption\n" + "".join(rows))
    first, second = OwnData(file=file, val_share=0, test_share=0).samples("retrieval", "train")
    assert first.texts == tuple(f"text {n}" for n in range(5)) and first.extra["video_id"] == "clips/c0.mp4"
    assert second.extra["video_id"] == "other/c0.mp4"


@pytest.mark.parametrize("bare", [True, False], ids=["without extension", "with it"])
def test_files_that_are_not_there_change_no_split(tmp_path, bare):
    names = [f"c{n}" for n in range(40)]
    rows = "".join(f"{name}{'' if bare else '.mp4'},x\n" for name in names)
    file = write(tmp_path / "my.csv", "video,caption\n" + rows)

    def split() -> dict[str, set[str]]:
        dataset = OwnData(file=file)
        tables = {part: dataset.samples("caption", part) for part in ("train", "val", "test")}
        return {part: {s.extra["video_id"].removesuffix(".mp4") for s in table} for part, table in tables.items()}

    before = split()
    assert [len(before[part]) for part in ("train", "val", "test")] == [32, 4, 4]
    for name in names[::3]:
        write(tmp_path / f"{name}.mp4", "")
    assert split() == before


def test_rows_of_json_need_not_have_the_same_keys(tmp_path):
    rows = [
        {"video": "a.mp4", "question": "who?"},
        {"video": "b.mp4", "question": "what?", "answer": "dog", "id": "1"},
        {"video": "c.mp4", "query": "where?", "answer": "here"},
        "no object",
    ]
    file = write(tmp_path / "my.json", json.dumps(rows))
    dataset = OwnData(file=file, val_share=0, test_share=0)
    table = dataset.samples("qa", "train")
    assert [(s.id, s.texts, s.labels) for s in table] == [
        ("0", ("who?",), {}), ("1", ("what?",), {"answer": "dog"}), ("2", ("where?",), {"answer": "here"})
    ]  # fmt: skip
    record = dataset.origin()["files"][0]
    assert (record["rows"], record["malformed_first"]) == (3, ["item 3: not an object"])  # named once


@pytest.mark.parametrize("column", ["label", "target", "class"])
def test_labels_of_clips(tmp_path, column):
    text = f"video,{column}\na.mp4,archery\nb.mp4,\n"
    dataset = OwnData(file=write(tmp_path / "my.csv", text), val_share=0, test_share=0)
    assert dataset.kinds == ("classification",)
    first, second = dataset.samples("classification", "train")
    assert (first.texts, first.labels) == (("",), {"answer": "archery"}) and second.labels == {}


@pytest.mark.parametrize(
    "text",
    [
        'video,labels,caption\na.mp4,indoor|two people,a talk\nb.mp4,"[""indoor""]",\nc.mp4,[],\nd.mp4,,\n',
        '{"video": "a.mp4", "labels": ["indoor", "two people"], "caption": "a talk"}\n'
        '{"video": "b.mp4", "labels": "indoor"}\n{"video": "c.mp4", "labels": []}\n{"video": "d.mp4"}\n',
    ],
)
def test_several_labels_of_clips(tmp_path, text):
    suffix = "jsonl" if text.startswith("{") else "csv"
    dataset = OwnData(file=write(tmp_path / f"my.{suffix}", text), val_share=0, test_share=0)
    assert dataset.kinds == ("caption", "retrieval", "classification")
    found = dataset.samples("classification", "train")
    assert [s.extra.get("labels") for s in found] == [["indoor", "two people"], ["indoor"], [], None]
    assert [s.texts for s in found] == [("a talk",), ("",), ("",), ("",)]


def test_a_label_beside_a_question_is_its_answer(tmp_path):
    dataset = OwnData(file=write(tmp_path / "my.csv", "video,question,label\na.mp4,who?,man\n"))
    assert dataset.kinds == ("qa",)


def test_rows_with_one_id_and_other_labels_are_all_there(tmp_path):
    text = "id,video,labels\n1,a.mp4,x\n1,a.mp4,y\n1,a.mp4,x\n"
    dataset = OwnData(file=write(tmp_path / "my.csv", text), val_share=0, test_share=0)
    assert [s.extra["labels"] for s in dataset.samples("classification", "train")] == [["x"], ["y"]]
