from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vtp.contracts import Task, member
from vtp.errors import ConfigError, DataError
from vtp.eval.leaks import check_leaks, media_names, train_record
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.types import MediaRef, Sample
from vtp_tasks.multiple_choice import MultipleChoice

TEXTS = ("a dog runs", "a cat sleeps", "a car turns", "a bird sings", "a boat sinks")


def choice(number, right, texts=TEXTS, clip=None):
    media = MediaRef(f"video{number if clip is None else clip}.mp4")
    extra = {"video_id": f"video{number if clip is None else clip}"}
    return Sample(f"mc{number}", media, media, tuple(texts), {"answer_index": right}, extra)


# clip i shows TEXTS[i]; the right one stands elsewhere in each question
TEST = [choice(i, 4 - i, [TEXTS[(place + 2 * i + 1) % 5] for place in range(5)]) for i in range(5)]


class Embedding:
    """The vector of a clip and of a text, by table."""

    needs = frozenset({"video", "text"})

    def __init__(self, videos, texts):
        self.tables = {"video": videos, "audio": videos, "text": texts}
        self.seen: list[str] = []

    def embed(self, ctx, modality):
        keys = [s.texts[0] if modality == "text" else s.id for s in ctx.batch.extra["sample"]]
        self.seen += keys
        return torch.tensor(np.array([self.tables[modality][key] for key in keys], dtype=np.float32))


def shows(sample):
    return sample.texts[sample.labels["answer_index"]]


def one_hot(text):
    return np.eye(len(TEXTS))[TEXTS.index(text)]


@pytest.fixture
def oracle():
    return Embedding({s.extra["video_id"]: one_hot(shows(s)) for s in TEST}, {text: one_hot(text) for text in TEXTS})


@pytest.fixture
def task(fake_dataset):
    return MultipleChoice(dataset=fake_dataset(test=TEST), protocol="msrvtt_mc")


def test_an_oracle_chooses_right_wherever_the_answer_stands(task, oracle, fake_model, make_evaluator):
    assert sorted(s.labels["answer_index"] for s in TEST) == [0, 1, 2, 3, 4]
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task))
    assert result.metrics == {"accuracy": 100.0} and task.monitor[0] in result.metrics
    assert result.rows == {"chance": {"accuracy": pytest.approx(20.0)}}
    assert result.intervals["accuracy"] == (100.0, 100.0) and result.ledger.complete
    assert [line["prediction"] for line in result.predictions] == [shows(s) for s in TEST]
    assert oracle.seen == [f"video{i}" for i in range(5)] + list(dict.fromkeys(t for s in TEST for t in s.texts))


def test_tied_maxima_share_the_credit(fake_dataset, fake_model, make_evaluator):
    """Of 2, 5 and 1 best scores, with the right one among them, among them, and not."""
    test = [choice(0, 0), choice(1, 3), choice(2, 1)]
    videos = {"video0": [1, 1, 0, 0, 0], "video1": [0] * 5, "video2": [1, 0, 0, 0, 0]}
    model = fake_model(vtc=Embedding(videos, {text: one_hot(text) for text in TEXTS}))
    task = MultipleChoice(dataset=fake_dataset(test=test))
    result = task.evaluate(make_evaluator(model, task))
    assert [line["credit"] for line in result.predictions] == pytest.approx([1 / 2, 1 / 5, 0])
    assert result.metrics["accuracy"] == pytest.approx(100 * (1 / 2 + 1 / 5) / 3)
    strict = MultipleChoice(dataset=fake_dataset(test=test), ties="pessimistic")
    assert strict.evaluate(make_evaluator(model, strict)).metrics["accuracy"] == 0.0


def test_the_same_text_twice_among_the_candidates_is_a_tie(fake_dataset, oracle, fake_model, make_evaluator):
    test = [choice(0, 0, [shows(TEST[0]), shows(TEST[0]), *[t for t in TEXTS if t != shows(TEST[0])]])]
    task = MultipleChoice(dataset=fake_dataset(test=test))
    assert task.evaluate(make_evaluator(fake_model(vtc=oracle), task)).metrics["accuracy"] == pytest.approx(50.0)


def test_an_undecodable_clip_is_a_miss_and_the_denominator_stays(task, oracle, fake_model, make_evaluator):
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task, broken=("video3.mp4",)))
    assert result.metrics["accuracy"] == pytest.approx(80.0) and result.rows[EVALUATED_ONLY]["accuracy"] == 100.0
    assert dict(result.ledger.missing) == {"mc3": "moov atom not found"}
    assert result.ledger.modality_coverage()["video"] == 1.0
    assert "4 of 5 questions evaluated" in result.tables[0].notes[0]
    assert result.predictions[3]["prediction"] is None and result.predictions[3]["credit"] == 0.0


def test_scores_that_are_not_numbers_are_misses(task, oracle, fake_model, make_evaluator):
    oracle.tables["video"]["video1"] = np.full(5, np.nan)
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task))
    assert result.metrics["accuracy"] == pytest.approx(80.0)
    assert dict(result.ledger.missing) == {"mc1": "a score is not a finite number"}


class Matcher:
    """A head that reads clip and text together and knows what fits; counts what it is asked."""

    needs = frozenset({"video", "text"})

    def __init__(self):
        self.asked: list[tuple[str, str]] = []

    def match_logits(self, ctx, rows):
        videos = [ctx.batch.ids[i] for i in rows["video"].tolist()]
        texts = [ctx.texts.batch.ids[i] for i in rows["text"].tolist()]
        self.asked += zip(texts, videos, strict=True)
        distinct = list(dict.fromkeys(t for s in TEST for t in s.texts))
        right = [float(distinct[int(t)] == shows(TEST[int(v[-1])])) for t, v in zip(texts, videos, strict=True)]
        return torch.stack([-torch.tensor(right), torch.tensor(right)], dim=1)


def test_a_matching_head_scores_every_candidate_of_a_clip_once(fake_dataset, fake_model, make_evaluator):
    again = choice(5, TEST[0].labels["answer_index"], TEST[0].texts, clip=0)
    task = MultipleChoice(dataset=fake_dataset(test=[*TEST, again]), objective="vtm")
    model = fake_model(vtm=Matcher())
    model.encoders = {"video": None, "text": None}
    model.forward = lambda batch, run: run(
        SimpleNamespace(batch=batch, model=model, device=torch.device("cpu"), modalities=("video", "text"))
    )
    result = task.evaluate(make_evaluator(model, task))
    assert result.metrics["accuracy"] == 100.0 and result.facts["score_row"] == "matching head"
    asked = model.objectives["vtm"].asked
    assert len(asked) == len(set(asked)) == 25  # two questions about video0 with the same texts ask once


def test_training_uses_captions_and_the_9k_list_is_a_leak(fake_dataset):
    captions = [Sample(f"video{i}", MediaRef(f"video{i}.mp4"), None, ("one", "two")) for i in (4, 7)]

    class Captions:
        name = "msrvtt"

        def samples(self, kind, split):
            return {("retrieval", "train"): captions, ("mc", "test"): TEST}.get((kind, split), [])

    task = MultipleChoice(dataset=Captions(), protocol="msrvtt_mc")
    assert task.train_samples() is captions and list(member(task, Task, "texts")()) == ["one", "two"] * 2
    assert task.selection == "last" and member(task, Task, "labels")(TEST[0]) == {}
    named = [Sample(s.id, s.video, None, s.texts, {}, {"video_id": s.id}) for s in captions]
    with pytest.raises(DataError, match=r"LEAK: 1 of 5 test clips were in training .*msrvtt:video4"):
        check_leaks([train_record("train", named, task.dataset)], media_names(task.samples("test"), task.dataset))


def test_without_captions_the_right_texts_are_trained_on(fake_dataset):
    dataset = fake_dataset(train=TEST)
    dataset.kinds = ("mc",)
    trained = MultipleChoice(dataset=dataset).train_samples()
    assert [sample.texts for sample in trained] == [(shows(sample),) for sample in TEST]
    assert [sample.video for sample in trained] == [sample.video for sample in TEST]


def test_a_result_can_be_written_and_predicted_without_labels(task, fake_dataset, oracle, fake_model, make_evaluator):
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task, broken=("video1.mp4",)))
    json.dumps([result.predictions, result.metrics, result.protocol, result.facts, result.rows], allow_nan=False)
    assert "5 choices instead of 2,990" in result.tables[0].notes[1] and result.protocol["official"] is False
    unlabelled = [Sample(s.id, s.video, s.audio, s.texts, {}, s.extra) for s in TEST]
    blind = MultipleChoice(dataset=fake_dataset(test=unlabelled))
    found = blind.predict(make_evaluator(fake_model(vtc=oracle), blind))
    assert found.metrics == {} and [line["prediction"] for line in found.predictions] == [shows(s) for s in TEST]
    assert not any("credit" in line or "answer" in line for line in found.predictions)


def test_examples_show_what_was_chosen(task, oracle, fake_model, make_evaluator):
    evaluator = make_evaluator(fake_model(vtc=oracle), task, broken=("video0.mp4",))
    strips = task.examples(evaluator, task.evaluate(evaluator), 2)
    assert [(s.answer, s.prediction, s.correct) for s in strips] == [(shows(TEST[i]),) * 2 + (True,) for i in (1, 3)]


def test_an_unknown_protocol_is_refused(fake_dataset):
    with pytest.raises(ConfigError, match="no such protocol"):
        MultipleChoice(dataset=fake_dataset(), protocol="msrvtt_cm")


def test_what_cannot_be_scored_is_explained(fake_dataset, task, oracle, fake_model, make_evaluator):
    with pytest.raises(ConfigError, match=r"no objective 'vtc' that scores texts.*it has: qa"):
        task.evaluate(make_evaluator(fake_model(qa=object()), task))
    sound = MultipleChoice(dataset=fake_dataset(test=TEST), modality="audio")
    with pytest.raises(ConfigError, match=r"compares text with video.*vtc.modalities=\[audio,text\]"):
        sound.evaluate(make_evaluator(fake_model(vtc=oracle), sound))
    wrong = MultipleChoice(dataset=fake_dataset(test=[choice(0, 5)]))
    with pytest.raises(DataError, match=r"1 multiple-choice questions .*mc0: answer 5 of 5 texts"):
        wrong.evaluate(make_evaluator(fake_model(vtc=oracle), wrong))
    empty = MultipleChoice(dataset=fake_dataset())
    with pytest.raises(DataError, match="no multiple-choice question in the test split"):
        empty.evaluate(make_evaluator(fake_model(vtc=oracle), empty))
