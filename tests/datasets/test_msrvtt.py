"""MSR-VTT in every spelling that its files have, and the real files where they are."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from pathlib import Path

import pytest

from vtp.errors import ConfigError, DataError
from vtp.eval.protocol import Protocol
from vtp_datasets.msrvtt import MSRVTT, clip_name

QUESTIONS = [
    {"answer": "couch", "id": 3, "question": "what are they sitting on?", "video_id": 7010, "category_id": 14},
    {"answer": "man", "id": 4, "question": "who is singing?", "video_id": 7010, "category_id": 14},
    {"answer": "two", "id": 5, "question": "how many men are there?", "video_id": 7011, "category_id": 0},
]
DATA = {
    "info": {},
    "videos": [
        {"category": 9, "url": "u", "video_id": "video0", "start time": 137.72, "end time": 149.44, "split": "train",
         "id": 0},
        {"category": 16, "url": "u", "video_id": "video7010", "start time": 0.0, "end time": 9.0, "split": "test",
         "id": 7010},
    ],
    "sentences": [
        {"caption": " a car is shown ", "video_id": "video0", "sen_id": 0},
        {"caption": "a man sings", "video_id": "video7010", "sen_id": 1},
        {"caption": "一个男人在唱歌", "video_id": "video7010", "sen_id": 2},
    ],
}  # fmt: skip


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return root


def retrieval_root(root, **more):
    return write(
        root,
        {
            "MSRVTT_data.json": DATA,
            "MSRVTT_train.9k.csv": "video_id\nvideo0\n",
            "MSRVTT_train.7k.csv": "video_id\nvideo0\n",
            "MSRVTT_train.full.csv": "video_id\nvideo0\n",
            "MSRVTT_val.full.csv": "video_id\nvideo0\n",
            "MSRVTT_test.full.csv": "video_id\nvideo7010\n",
            "MSRVTT_JSFUSION_test.csv": "key,vid_key,video_id,sentence\nret0,msr7010,video7010,a man sings\n",
        }
        | more,
    )


# -- questions -------------------------------------------------------------------------------------------------------


def test_questions_in_the_original_json(tmp_path):
    root = write(tmp_path, {"test_qa.json": QUESTIONS, "videos/video7010.mp4": b""})
    table = MSRVTT(root=root).samples("qa", "test")
    first = table[0]
    assert (first.id, first.texts, first.labels) == ("3", ("what are they sitting on?",), {"answer": "couch"})
    assert first.video.path == first.audio.path == str(root / "videos" / "video7010.mp4")
    assert first.video.start is None and first.video.end is None
    assert first.extra["video_id"] == "video7010" and first.extra["category"] == 14
    assert first.extra["source"] == "test_qa.json:0"
    assert [s.extra["question_type"] for s in table] == ["what", "who", "how"]


CSV = "video,question,answer,qid,type\n7010,what are they sitting on,couch,3,14\n7010,who is singing,man,4,14\n"


@pytest.mark.parametrize(
    "text",
    [
        CSV,
        CSV.replace("\n", "\r\n"),
        CSV.rstrip("\n"),
        CSV.replace(",", "\t"),
        "\ufeff" + CSV,
        "qid,type,answer,question,video\n3,14,couch,what are they sitting on,video7010\n"
        "4,14,man,who is singing,msr7010\n",
        CSV.replace("what are they sitting on", '"what are they sitting on"'),
        CSV + "\n\n",
    ],
    ids=["lf", "crlf", "no final newline", "tab", "byte order mark", "other order", "quotes", "empty lines"],
)
def test_questions_in_the_csv_variant(tmp_path, text):
    table = MSRVTT(root=write(tmp_path, {"test.csv": text.encode()})).samples("qa", "test")
    assert [(s.id, s.texts[0], s.labels["answer"], s.extra["video_id"], s.extra["category"]) for s in table] == [
        ("3", "what are they sitting on", "couch", "video7010", 14),
        ("4", "who is singing", "man", "video7010", 14),
    ]


def test_a_line_separator_inside_a_question_ends_no_row(tmp_path):
    text = CSV.replace("who is singing", "who is\u2028singing")
    table = MSRVTT(root=write(tmp_path, {"test.csv": text})).samples("qa", "test")
    assert table[1].texts == ("who is\u2028singing",) and table[1].extra["source"] == "test.csv:3"


def test_malformed_questions_are_left_out_counted_and_named(tmp_path, caplog):
    bad = [
        {"answer": "x", "id": 90, "question": "who?", "video_id": "kitchen"},
        {"answer": "", "id": 91, "question": "who?", "video_id": 1},
        {"answer": "x", "id": 92, "question": None, "video_id": 1},
        {"answer": "x", "id": 93, "question": "who?"},
        {"answer": "x", "id": 94, "question": "who?", "video_id": 1, "category_id": "news"},
        "who?",
        QUESTIONS[0],
    ]
    dataset = MSRVTT(root=write(tmp_path, {"test_qa.json": QUESTIONS + bad}))
    with caplog.at_level(logging.WARNING, logger="vtp"):
        assert [s.id for s in dataset.samples("qa", "test")] == ["3", "4", "5"]
    (record,) = dataset.origin()["files"]
    assert record["rows"] == 3 and record["malformed"] == len(bad)
    for number, word in zip(
        range(3, 10), ["kitchen", "answer", "question", "video", "news", "object", "id 3"], strict=True
    ):
        assert record["malformed_first"][number - 3].startswith(f"item {number}: ")
        assert word in record["malformed_first"][number - 3]
    assert "7 malformed rows are left out (item 3" in caplog.text


def test_malformed_lines_are_named_by_their_line(tmp_path):
    text = CSV + "7010,what, a man,couch,6,14\n7011,who\n7012,who is it,boy,7,2\n"
    dataset = MSRVTT(root=write(tmp_path, {"test.csv": text}))
    assert [s.id for s in dataset.samples("qa", "test")] == ["3", "4", "7"]
    (record,) = dataset.origin()["files"]
    assert record["malformed_first"] == ["line 4: 6 cells instead of 5", "line 5: 2 cells instead of 5"]


def test_only_the_first_malformed_rows_are_named_but_all_are_counted(tmp_path):
    dataset = MSRVTT(root=write(tmp_path, {"test_qa.json": [*QUESTIONS, *[{}] * 1000]}))
    assert len(dataset.samples("qa", "test")) == 3
    (record,) = dataset.origin()["files"]
    assert record["malformed"] == 1000 and len(record["malformed_first"]) == 20


def test_questions_without_an_id_get_one(tmp_path):
    items = [{k: v for k, v in item.items() if k != "id"} for item in QUESTIONS]
    assert [s.id for s in MSRVTT(root=write(tmp_path, {"val_qa.json": items})).samples("qa", "val")] == [
        "val0", "val1", "val2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "spelling", [7010, "7010", "video7010", "msr7010", "video7010.mp4", "all/video7010.avi", " 7010 "]
)
def test_spellings_of_a_clip(spelling):
    assert clip_name(spelling) == "video7010"


def test_clips_keep_their_number():
    assert [clip_name(x) for x in (0, "video0", "msr00")] == ["video0"] * 3
    for wrong in ("kitchen", "", "video", "v_7010", "video70x10", None):
        with pytest.raises(ValueError, match="no MSR-VTT clip"):
            clip_name(wrong)


# -- captions and retrieval ------------------------------------------------------------------------------------------


def test_training_captions_are_those_of_the_list(tmp_path):
    (sample,) = MSRVTT(root=retrieval_root(tmp_path)).samples("retrieval", "train")
    assert (sample.id, sample.texts, sample.extra["category"]) == ("video0", ("a car is shown",), 9)
    assert sample.video.start is None  # "start time" is that of the YouTube video


def test_the_1ka_test_is_pairs(tmp_path):
    dataset = MSRVTT(root=retrieval_root(tmp_path))
    (pair,) = dataset.samples("retrieval", "test")
    assert (pair.id, pair.texts, pair.extra["video_id"]) == ("ret0", ("a man sings",), "video7010")
    (clip,) = dataset.samples("caption", "test")
    assert (clip.id, clip.texts) == ("video7010", ("a man sings", "一个男人在唱歌"))


def test_the_full_test_has_all_captions(tmp_path):
    (sample,) = MSRVTT(root=retrieval_root(tmp_path), test="full").samples("retrieval", "test")
    assert (sample.id, sample.texts) == ("video7010", ("a man sings", "一个男人在唱歌"))


@pytest.mark.parametrize("train_list, validation", [("9k", 0), ("7k", 0), ("full", 1)])
def test_only_the_full_list_leaves_a_validation_split(tmp_path, train_list, validation):
    """9k and 7k contain the 497 validation clips."""
    dataset = MSRVTT(root=retrieval_root(tmp_path), train_list=train_list)
    assert len(dataset.samples("retrieval", "val")) == len(dataset.samples("caption", "val")) == validation


def test_without_a_validation_split_its_list_is_not_missed(tmp_path):
    root = retrieval_root(tmp_path)
    (root / "MSRVTT_val.full.csv").unlink()
    assert len(MSRVTT(root=root).samples("retrieval", "val")) == 0
    with pytest.raises(DataError, match="MSRVTT_val.full.csv"):
        MSRVTT(root=root, train_list="full").samples("retrieval", "val")


def test_the_two_files_of_the_first_release_are_one(tmp_path):
    root = retrieval_root(tmp_path)
    (root / "MSRVTT_data.json").unlink()
    parts = {
        "train_val_videodatainfo.json": {"videos": DATA["videos"][:1], "sentences": DATA["sentences"][:1]},
        "test_videodatainfo.json": {"videos": DATA["videos"][1:], "sentences": DATA["sentences"][1:]},
    }
    dataset = MSRVTT(root=write(root, parts), test="full")
    assert [len(dataset.samples("retrieval", split)[0].texts) for split in ("train", "test")] == [1, 2]


def test_lists_without_a_header_and_with_other_spellings(tmp_path):
    root = retrieval_root(tmp_path, **{"MSRVTT_train.9k.csv": "video0\r\nmsr7010"})
    assert [s.id for s in MSRVTT(root=root).samples("retrieval", "train")] == ["video0", "video7010"]


def test_listed_clips_without_captions_and_twice_are_named(tmp_path):
    root = retrieval_root(tmp_path, **{"MSRVTT_train.9k.csv": "video_id\nvideo0\nvideo5\nvideo0\nnothing\n"})
    dataset = MSRVTT(root=root)
    assert [s.id for s in dataset.samples("retrieval", "train")] == ["video0"]
    record = next(f for f in dataset.origin()["files"] if f["path"].endswith("9k.csv"))
    assert sorted(record["malformed_first"]) == [
        "line 3: video5 has no caption",
        "line 4: video0 is there already",
        "line 5: 'nothing' is no MSR-VTT clip",
    ]


def test_malformed_captions_are_named(tmp_path):
    data = DATA | {"sentences": [*DATA["sentences"], {"caption": " ", "video_id": "video0"}, {"caption": "x"}]}
    dataset = MSRVTT(root=retrieval_root(tmp_path, **{"MSRVTT_data.json": data}))
    dataset.samples("retrieval", "train")
    record = next(f for f in dataset.origin()["files"] if f["path"].endswith("data.json"))
    assert record["rows"] == 3 and record["malformed_first"] == ["sentence 3: no caption", "sentence 4: no video_id"]


# -- where files lie -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["videos/video7010.mp4", "videos/all/video7010.mp4", "TestVideo/video7010.mp4", "video7010.webm",
              "videos/video7010.AVI"]
)  # fmt: skip
@pytest.mark.parametrize("folder", ["", "annotations/", "msrvtt_qa/"])
def test_files_are_found_in_the_usual_places(tmp_path, place, folder):
    root = write(tmp_path, {f"{folder}test_qa.json": QUESTIONS, place: b""})
    dataset = MSRVTT(root=root)
    assert dataset.samples("qa", "test")[0].video.path == str(root / place)
    assert dataset.origin()["tables"]["qa/test"] == {"samples": 3, "clips": 2, "clips_on_disk": 1}


@pytest.mark.parametrize("absolute", [False, True])
def test_the_folder_of_the_clips_can_be_named(tmp_path, absolute):
    root = write(tmp_path, {"test_qa.json": QUESTIONS, "raw/video7010.mp4": b"", "videos/video7010.mp4": b""})
    dataset = MSRVTT(root=root, videos=root / "raw" if absolute else "raw")
    assert dataset.samples("qa", "test")[0].video.path == str(root / "raw" / "video7010.mp4")


def test_a_named_folder_that_is_not_there(tmp_path):
    root = write(tmp_path, {"test_qa.json": QUESTIONS})
    with pytest.raises(DataError, match=r"dataset.videos=raw: there is no folder .*raw"):
        MSRVTT(root=root, videos="raw").samples("qa", "test")


def test_a_clip_without_a_file_is_kept_with_the_place_where_it_should_be(tmp_path, caplog):
    root = write(tmp_path, {"test_qa.json": QUESTIONS, "videos/readme.txt": ""})
    with caplog.at_level(logging.WARNING, logger="vtp"):
        table = MSRVTT(root=root).samples("qa", "test")
    assert [s.video.path for s in table] == [str(root / "videos" / f"video{n}.mp4") for n in (7010, 7010, 7011)]
    assert "none has its media; the first should be" in caplog.text and "videos/video7010.mp4" in caplog.text


def test_json_is_preferred_to_csv(tmp_path):
    root = write(tmp_path, {"test_qa.json": QUESTIONS, "test.csv": CSV})
    assert len(MSRVTT(root=root).samples("qa", "test")) == 3


# -- what is wrong with files ----------------------------------------------------------------------------------------


def test_a_git_lfs_pointer_is_explained(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 24174410\n"
    root = retrieval_root(tmp_path, **{"MSRVTT_data.json": pointer, "test.csv": pointer})
    for kind, split in (("retrieval", "train"), ("qa", "test")):
        with pytest.raises(DataError, match="Git LFS pointer .* bytes.*git lfs pull"):
            MSRVTT(root=root).samples(kind, split)


@pytest.mark.parametrize(
    "content, words",
    [
        (b'[{"question": "caf\xe9"}]', "not UTF-8 at byte 18"),
        (b'[{"question": "who', "not JSON"),
        (b'{"questions": []}', "expected a list of questions, found dict"),
    ],
)
def test_unreadable_files_are_named(tmp_path, content, words):
    with pytest.raises(DataError, match=words) as error:
        MSRVTT(root=write(tmp_path, {"test_qa.json": content})).samples("qa", "test")
    assert str(tmp_path / "test_qa.json") in str(error.value)


def test_a_caption_file_of_another_kind(tmp_path):
    root = retrieval_root(tmp_path, **{"MSRVTT_data.json": {"videos": []}})
    with pytest.raises(DataError, match="expected an object with the lists videos and sentences"):
        MSRVTT(root=root).samples("retrieval", "train")


def test_everything_that_is_missing_is_told_at_once(tmp_path):
    with pytest.raises(DataError) as error:
        MSRVTT(root=tmp_path / "nowhere").samples("qa", "train")
    message = str(error.value)
    for words in (
        f"folder  {tmp_path / 'nowhere'}",
        "train_qa.json or train.csv",
        "val_qa.json or val.csv",
        "test_qa.json or test.csv",
        "video0.mp4",
        "TrainValVideo/",
        "dataset.root=",
        "Microsoft Research",
        "CVPR 2016",
        "ACM Multimedia 2017",
        "dataset=shapes",
    ):
        assert words in message, words
    assert "http" not in message and "MSRVTT_data.json" not in message


def test_only_what_is_missing_is_told(tmp_path):
    root = write(tmp_path, {"test_qa.json": QUESTIONS, "val_qa.json": QUESTIONS, "videos/video7010.mp4": b""})
    dataset = MSRVTT(root=root)
    assert len(dataset.samples("qa", "test")) == 3  # a checkpoint is evaluated without training files
    with pytest.raises(DataError) as error:
        dataset.samples("qa", "train")
    message = str(error.value)
    assert "train_qa.json or train.csv" in message
    for words in ("  folder", "test_qa.json", "val_qa.json", "video0.mp4"):
        assert words not in message


def test_missing_retrieval_files_are_told_at_once(tmp_path):
    with pytest.raises(DataError) as error:
        MSRVTT(root=tmp_path).samples("retrieval", "test")
    message = str(error.value)
    for words in ("MSRVTT_data.json", "MSRVTT_train.9k.csv", "MSRVTT_JSFUSION_test.csv"):
        assert words in message
    assert "7k" not in message and "qa.json" not in message


@pytest.mark.parametrize("options, words", [({"train_list": "8k"}, "9k, 7k, full"), ({"test": "1kb"}, "1ka, full")])
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        MSRVTT(**options)


def test_splits_that_exist_by_definition(tmp_path):
    dataset, full = MSRVTT(root=tmp_path), MSRVTT(root=tmp_path, train_list="full")
    assert dataset.splits("qa") == full.splits("caption") == ("train", "val", "test")
    assert dataset.splits("retrieval") == ("train", "test") and dataset.splits("mc") == ("test",)


# -- multiple choice -------------------------------------------------------------------------------------------------


def test_choices_and_their_malformed_rows(tmp_path):
    good = {"qid": "mc0", "clip_name": "data/mp4/video9770", "answer": "1", "options": [" a ", "b", "c"]}
    rows = [
        good,
        good | {"qid": "mc1", "clip_name": "msr9771", "answer": 2},
        good,
        good | {"qid": "mc3", "answer": "7"},
        good | {"qid": "mc4", "options": ["only one"]},
        good | {"qid": "mc5", "clip_name": "kitchen"},
    ]
    text = "\n".join(map(json.dumps, rows)) + "\nno json"
    dataset = MSRVTT(root=write(tmp_path, {"msrvtt_multi_choice_qa.jsonl": text}))
    first, second = dataset.samples("mc", "test")
    assert (first.id, first.texts, first.labels) == ("mc0", ("a", "b", "c"), {"answer_index": 1})
    assert first.extra["video_id"] == "video9770" and Path(first.video.path).name == "video9770.mp4"
    assert (second.extra["video_id"], second.labels) == ("video9771", {"answer_index": 2})
    assert len(dataset.samples("mc", "train")) == 0
    (record,) = dataset.origin()["files"]
    assert record["rows"] == 2 and [why.partition(": ")[0] for why in record["malformed_first"]] == [
        f"line {n}" for n in range(3, 8)
    ]


@pytest.mark.data
def test_the_real_choices(shared_data):
    table = MSRVTT(root=shared_data / "videos" / "msrvtt", videos=".").samples("mc", "test")
    assert [s.texts[s.labels["answer_index"]] for s in table] == [
        "the boy is trying to fix the problem", "a young girl is in the gym",
    ]  # fmt: skip
    assert all(len(s.texts) == 5 and Path(s.video.path).is_file() for s in table)


# -- the real files --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared_data):
    return MSRVTT(root=shared_data / "annotations", videos=shared_data / "videos" / "msrvtt")


@pytest.mark.data
@pytest.mark.slow
def test_the_real_questions(real, shared_data):
    """Counts of the protocol, section 6, and of the annotation list, section 4."""
    test, val = real.samples("qa", "test"), real.samples("qa", "val")
    assert (len(test), len(val)) == (72_821, 12_278)
    assert Counter(s.extra["question_type"] for s in test) == {
        "what": 49_869, "who": 20_385, "how": 1640, "when": 677, "where": 250,
    }  # fmt: skip
    assert (val[0].texts, val[0].labels["answer"]) == (("what are three people sitting on",), "couch")
    assert (test[0].id, test[-1].id, val[0].id, val[-1].id) == ("170859", "243679", "158581", "170858")
    assert val[1].labels["answer"] == "coversation"  # misspelt answers stay
    assert {s.extra["category"] for s in test} == set(range(20))
    assert [f["malformed"] for f in real.origin()["files"]] == [0, 0]
    path = shared_data / "annotations" / "msrvtt_qa" / "test.csv"
    assert real.origin()["files"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert real.origin()["tables"]["qa/test"] == {"samples": 72_821, "clips": 2990, "clips_on_disk": 2}


@pytest.mark.data
@pytest.mark.parametrize("name, kind", [("msrvtt_qa", "qa"), ("msrvtt_1ka", "retrieval")])
def test_the_real_tables_are_the_official_protocols(real, name, kind):
    protocol = Protocol.find(name)
    match = protocol.match(real.samples(kind, "test"), "msrvtt", "test")
    assert match.official, match.differences


@pytest.mark.data
def test_the_real_1ka_list(real):
    pairs = real.samples("retrieval", "test")
    assert len({s.id for s in pairs}) == len({s.extra["video_id"] for s in pairs}) == len(pairs) == 1000
    assert len({s.texts for s in pairs}) == 995
    assert (pairs[0].id, pairs[0].texts) == ("ret0", ("a person is connecting something to system",))


@pytest.mark.data
def test_the_folder_of_the_questions_alone_is_a_root_too(shared_data):
    assert len(MSRVTT(root=shared_data / "annotations" / "msrvtt_qa").samples("qa", "val")) == 12_278
