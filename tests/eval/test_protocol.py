from __future__ import annotations

import csv
from pathlib import Path

import pytest

import vtp_tasks
from vtp.errors import ConfigError
from vtp.eval.protocol import Protocol
from vtp.types import MediaRef, Sample

FOLDER = Path(vtp_tasks.__file__).parent / "protocols"


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def retrieval_pairs(shared_data: Path) -> list[Sample]:
    return [
        Sample(r["key"], MediaRef(f"{r['video_id']}.mp4"), None, (r["sentence"],), {}, {"video_id": r["video_id"]})
        for r in rows(shared_data / "annotations/msrvtt/MSRVTT_JSFUSION_test.csv")
    ]


def questions(shared_data: Path, split: str) -> list[Sample]:
    return [
        Sample(r["qid"], None, None, (r["question"],), {"answer": r["answer"]}, {"video_id": f"video{r['video']}"})
        for r in rows(shared_data / f"annotations/msrvtt_qa/{split}.csv")
    ]


@pytest.mark.data
def test_the_real_1ka_annotation_is_recognised_in_any_order(shared_data):
    protocol = Protocol.find("msrvtt_1ka")
    pairs = retrieval_pairs(shared_data)
    match = protocol.match(pairs[::-1], "msrvtt", "test")
    assert match.official and match.name == "msrvtt_1ka" and not match.unverified()
    assert match.counts == {"videos": 1000, "queries": 1000}


@pytest.mark.data
def test_one_changed_word_is_not_the_official_set(shared_data):
    protocol = Protocol.find("msrvtt_1ka")
    pairs = retrieval_pairs(shared_data)
    first = pairs[0]
    changed = [Sample(first.id, first.video, None, ("a person is connecting a thing",), {}, first.extra), *pairs[1:]]
    match = protocol.match(changed, "msrvtt", "test")
    assert not match.official and "the queries are not the official ones" in match.line()
    assert "999 videos instead of 1,000" in protocol.match(pairs[1:], "msrvtt", "test").line()


@pytest.mark.data
def test_the_real_qa_test_set_is_recognised_with_and_without_question_marks(shared_data):
    protocol = Protocol.find("msrvtt_qa")
    test = questions(shared_data, "test")
    assert protocol.match(test, "msrvtt", "test").official
    json_like = [Sample(s.id, None, None, (f"{s.texts[0]}?",), s.labels, s.extra) for s in test]
    assert protocol.match(json_like, "msrvtt", "test").official
    validation = protocol.match(questions(shared_data, "val"), "msrvtt", "val")
    assert not validation.official and validation.name == "msrvtt_qa@msrvtt:val"
    assert "12,278 questions instead of 72,821" in validation.line()


@pytest.mark.data
def test_training_lists_are_named(shared_data):
    protocol = Protocol.find("msrvtt_1ka")
    for name, file in (("train.9k", "train.9k"), ("train.7k", "train.7k"), ("train.full", "train.full")):
        media = [row["video_id"] for row in rows(shared_data / f"annotations/msrvtt/MSRVTT_{file}.csv")]
        assert protocol.train_list(media) == name and len(media) == protocol.train_lists[name]["videos"]
        assert protocol.train_list(media[1:]) is None


@pytest.mark.data
def test_the_full_test_set_names_what_could_not_be_verified(shared_data):
    protocol = Protocol.find("msrvtt_full")
    media = [row["video_id"] for row in rows(shared_data / "annotations/msrvtt/MSRVTT_test.full.csv")]
    samples = [Sample(name, None, None, ("one", "two"), {}, {"video_id": name}) for name in media]
    match = protocol.match(samples, "msrvtt", "test")
    assert match.official and match.unverified() == ["queries"]


def test_generated_data_is_never_the_official_set():
    match = Protocol.find("msrvtt_qa").match([Sample("1", texts=("what?",))], "shapes-small-0", "test")
    assert match.name == "msrvtt_qa@shapes-small-0" and "the data set is shapes-small-0, not msrvtt" in match.line()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_protocol_is_complete(path):
    protocol = Protocol.load(path)
    assert protocol.name == path.stem and protocol.split in ("test", "val") and protocol.ties == "expected"
    assert protocol.kind in ("qa", "retrieval", "mc", "caption", "classification", "moments") and protocol.source
    assert bool(protocol.metrics) == (protocol.kind != "caption")  # those of captioning are not there yet
    assert protocol.frames is None  # these benchmarks leave the number of frames to the method
    hashes = [*protocol.sha256.values(), *(facts["sha256"] for facts in protocol.train_lists.values())]
    assert all(len(value) == 64 and int(value, 16) >= 0 for value in hashes)
    assert set(protocol.sha256) <= set(protocol.counts)


def test_an_unknown_protocol_lists_the_known_ones_and_a_path_is_taken(tmp_path):
    with pytest.raises(ConfigError, match="Known: .*msrvtt_1ka, msrvtt_captioning, msrvtt_full, msrvtt_mc, msrvtt_qa"):
        Protocol.find("msrvtt1ka")
    own = tmp_path / "mine.yaml"
    own.write_text("{name: mine, title: t, dataset: d, kind: qa, split: test, counts: {questions: 1}}")
    assert Protocol.find(str(own)).name == "mine"


BASE = "{name: x, title: t, dataset: d, kind: qa, split: test, "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x", "keys missing or unknown: counts, dataset"),
        ("[1]", "not a mapping"),
        ("a: [", "cannot be read"),
        ("{name: x, title: t, dataset: d, kind: qa, split: test, counts: {}, tie: x}", "keys missing or unknown: tie"),
        (
            "{name: x, title: t, dataset: d, kind: qa, split: test, counts: {}, ties: none}",
            "ties: 'none' must be one of",
        ),
        (
            "{name: x, title: t, dataset: d, kind: qa, split: test, counts: {}, frames: many}",
            "frames: 'many' must be the",
        ),
        (BASE + "counts: lots}", r"counts: expected .*, got 'lots'"),
        (BASE + "counts: {videos: four}}", r"counts: expected .*'four'"),
        (BASE + "counts: {}, options: [a]}", r"options: expected .*'a'"),
        (BASE + "counts: {}, metrics: accuracy}", r"metrics: expected .*'accuracy'"),
        (BASE + "counts: {}, sha256: null}", r"sha256: expected .*None"),
        (
            BASE + "counts: {quesions: 3, video: 4}}",
            "quesions: of this kind, videos and questions .*Did you mean 'questions'",
        ),
        (BASE + "counts: {questions: 3}, sha256: {question: a}}", "sha256: question: of this kind"),
        (BASE + "counts: {questions: 3}, sha256: {questions: a}}", "64 hexadecimal digits, got 'a'"),
        (BASE.replace("kind: qa", "kind: [qa]") + "counts: {}}", "kind: expected str"),
        (BASE.replace("name: x", "name: 5") + "counts: {}}", "name: expected str, got 5"),
    ],
)
def test_a_broken_protocol_file_is_explained(tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Protocol.load(path)


def test_a_protocol_that_recognises_nothing_makes_nothing_official(tmp_path):
    path = tmp_path / "open.yaml"
    path.write_text(BASE + "counts: {}}")
    samples = [Sample("0", MediaRef("a.mp4"), texts=("what",), labels={"answer": "red"})]
    match = Protocol.load(path).match(samples, "d", "test")
    assert not match.official and "neither a count nor a hash" in match.line()
