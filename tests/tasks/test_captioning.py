from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vtp.errors import ConfigError, DataError
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.types import MediaRef, Sample, TextSpec
from vtp_tasks.caption_metrics import caption_scores
from vtp_tasks.captioning import Captioning

VOCABULARY = ["", "", "", "", "", "a", "man", "sings", "dog", "runs", "fast"]


def ids_of(text: str) -> list[int]:
    return [VOCABULARY.index(word) for word in text.split()]


def clip(number: int, *texts: str) -> Sample:
    media = MediaRef(f"clip{number}.mp4")
    return Sample(f"c{number}", media, media, texts, extra={"video_id": f"clip{number}"})


TRAIN = [clip(10, "a dog runs", "a dog runs fast"), clip(11, "a dog runs"), clip(12, "a man sings")]
TEST = [
    clip(0, "a man sings", "man sings"),
    clip(1, "a dog runs fast", "a dog runs"),
    clip(2, "a man runs"),
    clip(3, "dog runs fast"),
]


def writer(function, calls=None):
    """An objective that writes ``function(sample, present)``: a text, or a text and its score."""

    def generate(ctx, **search):
        if calls is not None:
            calls.append((search, dict(ctx.batch.present)))
        rows, scores = [], []
        for i, sample in enumerate(ctx.batch.extra["sample"]):
            found = function(sample, {m: bool(here[i]) for m, here in ctx.batch.present.items()})
            text, score = found if isinstance(found, tuple) else (found, -0.5)
            rows.append((ids_of(text) + [0] * 6)[:6])
            scores.append(score)
        return torch.tensor(rows), torch.tensor(scores)

    return SimpleNamespace(generate=generate)


@pytest.fixture
def make_model(fake_model):
    def make(objective, detokenize=lambda ids: " ".join(VOCABULARY[i] for i in ids if i > 4)):
        spec = TextSpec(lambda texts: [[2, 3] for _ in texts], 0, 4, 2, 3, (0, 1, 2, 3, 4), 11, 8, detokenize)
        text = nn.Identity()
        text.spec = spec
        model = fake_model(caption=objective)
        model.encoders = {"text": text}
        return model

    return make


@pytest.fixture
def task(fake_dataset):
    return Captioning(dataset=fake_dataset(train=TRAIN, test=TEST))


SAID = {"c0": "a man sings", "c1": "a dog", "c2": "", "c3": "fast dog runs"}


@pytest.fixture
def model(make_model):
    return make_model(writer(lambda sample, present: SAID[sample.id]))


def test_scores_are_the_best_over_the_references_of_each_clip(task, model, make_evaluator):
    result = task.evaluate(make_evaluator(model, task))
    f1 = [1.0, 2 * 2 / (2 + 3), 0.0, 1.0]
    assert list(result.metrics)[:2] == ["token_f1", "exact_match"]  # the headline first
    assert result.metrics["token_f1"] == pytest.approx(100 * sum(f1) / 4) and result.metrics["exact_match"] == 25.0
    said, references = [SAID[sample.id] for sample in TEST], [sample.texts for sample in TEST]
    want = caption_scores(said, references)
    assert {name: result.metrics[name] for name in want.percent()} == want.percent()
    for name, values in want.by_sentence.items():
        assert [line[name] for line in result.predictions] == values.tolist()
        assert result.intervals[name][0] <= result.metrics[name] <= result.intervals[name][1]
    assert set(want.percent()) <= set(result.rows["most frequent training caption"])
    assert [line["token_f1"] for line in result.predictions] == pytest.approx(f1)
    assert [line["exact_match"] for line in result.predictions] == [1.0, 0.0, 0.0, 0.0]
    assert result.ledger.complete and task.monitor[0] in result.metrics


def test_one_line_per_clip_with_its_sentence_and_all_references(task, model, make_evaluator):
    lines = task.evaluate(make_evaluator(model, task, broken=("clip3.mp4",))).predictions
    further = {"cider", "rouge_l", *(name for name in lines[0] if name.startswith("meteor"))}
    lines = [{key: value for key, value in line.items() if key not in further} for line in lines]
    assert lines[0] == {
        "id": "c0", "video": "clip0", "references": ["a man sings", "man sings"], "token_f1": 1.0, "exact_match": 1.0,
        "prediction": "a man sings", "score": -0.5,
    }  # fmt: skip
    assert lines[3] == {
        "id": "c3", "video": "clip3", "references": ["dog runs fast"], "token_f1": 0.0, "exact_match": 0.0,
        "prediction": None, "missing": "moov atom not found",
    }  # fmt: skip


def test_a_missing_clip_scores_nothing_and_the_denominator_stays(task, model, make_evaluator):
    result = task.evaluate(make_evaluator(model, task, broken=("clip0.mp4",)))
    assert result.metrics["exact_match"] == 0.0
    assert result.metrics["token_f1"] == pytest.approx(100 * (0.8 + 1.0) / 4)
    assert result.rows[EVALUATED_ONLY]["token_f1"] == pytest.approx(100 * (0.8 + 1.0) / 3)
    assert "3 of 4 clips evaluated (75.00 %), 1 missing counted as miss" in result.tables[0].notes[0]
    with pytest.raises(DataError, match=r"1 of 4 clips .*c0: moov atom not found"):
        task.evaluate(make_evaluator(model, task, broken=("clip0.mp4",), max_missing=0))


def test_empty_sentences_are_counted_and_named(task, model, make_evaluator):
    result = task.evaluate(make_evaluator(model, task))
    assert result.facts["empty_sentences"] == 1
    assert any("1 of 4 sentences are empty (first: c2)" in warning for warning in result.warnings)


def test_scores_that_are_no_numbers_are_misses(task, make_model, make_evaluator):
    broken = make_model(writer(lambda sample, present: ("a man sings", math.nan if sample.id == "c0" else -1.0)))
    result = task.evaluate(make_evaluator(broken, task))
    assert dict(result.ledger.missing) == {"c0": "scores are not finite numbers"}
    assert result.predictions[0]["prediction"] is None


def test_texts_are_withheld_while_sentences_are_written(task, make_model, make_evaluator):
    calls = []
    task.evaluate(make_evaluator(make_model(writer(lambda sample, present: "a", calls)), task))
    assert calls and not any(present["text"].any() for _, present in calls)
    assert all(present["video"].all() for _, present in calls)


def test_how_to_search_is_an_option(fake_dataset, make_model, make_evaluator):
    calls = []
    search = {"beams": 3, "length_penalty": 0.6, "min_length": 2, "max_length": 9}
    task = Captioning(dataset=fake_dataset(train=TRAIN, test=TEST), **search)
    result = task.evaluate(make_evaluator(make_model(writer(lambda sample, present: "a", calls)), task))
    assert all(given == search for given, _ in calls) and result.facts["search"] == search
    assert "3 beams, length penalty 0.6" in result.tables[0].notes[2]
    with pytest.raises(ConfigError, match="min_length=9 leaves no room for the end in task.max_length=9"):
        Captioning(dataset=fake_dataset(), min_length=9, max_length=9)


def test_the_most_frequent_training_caption_stands_beside_the_model(task, model, make_evaluator):
    row = task.evaluate(make_evaluator(model, task)).rows["most frequent training caption"]  # a dog runs
    assert row["exact_match"] == 25.0
    assert row["token_f1"] == pytest.approx(100 * (2 / 6 + 1.0 + 4 / 6 + 4 / 6) / 4)


def test_subsets_of_the_modalities_are_rows(fake_dataset, make_model, make_evaluator):
    task = Captioning(dataset=fake_dataset(train=TRAIN, test=TEST), subsets="all")
    sees = make_model(writer(lambda sample, present: SAID[sample.id] if present["video"] else "a"))
    result = task.evaluate(make_evaluator(sees, task))
    assert result.rows["only video"] == result.metrics
    assert result.rows["only audio"]["exact_match"] == 0.0
    assert result.chart["only audio"]["token F1"] == result.rows["only audio"]["token_f1"]


def test_during_training_only_the_headline_is_computed(task, model, make_evaluator):
    result = task.evaluate(make_evaluator(model, task), detail=False)
    assert tuple(result.metrics) == Captioning.metrics and not result.rows and not result.predictions


def test_prediction_needs_no_references(fake_dataset, model, make_evaluator):
    task = Captioning(dataset=fake_dataset(test=[clip(i) for i in range(4)], missing=("train",)))
    result = task.predict(make_evaluator(model, task, broken=("clip1.mp4",)))
    assert result.metrics == {}
    assert result.predictions[0] == {"id": "c0", "video": "clip0", "prediction": "a man sings", "score": -0.5}
    assert result.predictions[1]["missing"] == "moov atom not found"


def test_own_clips_without_a_column_of_captions_can_be_written_about(tmp_path):
    from vtp_datasets.own import OwnData

    (tmp_path / "my.csv").write_text("video\na.mp4\nb.mp4\n")
    task = Captioning(dataset=OwnData(test_file=tmp_path / "my.csv"))
    assert [sample.extra["video_id"] for sample in task.samples("test")] == ["a.mp4", "b.mp4"]
    with pytest.raises(DataError, match=r"2 of 2 clips of the test split have no caption \(first: .*mode=predict"):
        task.check_split("test")


def test_clips_without_a_reference_are_refused_before_they_are_scored(fake_dataset, model, make_evaluator):
    task = Captioning(dataset=fake_dataset(train=TRAIN, test=[*TEST, clip(4)]))
    with pytest.raises(DataError, match=r"1 of 5 clips of the test split have no caption \(first: c4\)"):
        task.check_split("test")
    with pytest.raises(DataError, match="there is no clip in the val split"):
        task.evaluate(make_evaluator(model, task), "val")


def test_a_model_that_cannot_write_is_refused(task, fake_model, make_model):
    with pytest.raises(ConfigError, match=r"no objective 'caption' that writes sentences \(it has: vtc\)"):
        task.check(fake_model(vtc=SimpleNamespace()))
    with pytest.raises(ConfigError, match="cannot turn ids into words"):
        task.check(make_model(writer(lambda sample, present: "a"), detokenize=None))


def test_examples_show_a_reference_and_the_sentence(task, model, make_evaluator):
    evaluator = make_evaluator(model, task, broken=("clip1.mp4",))
    strips = task.examples(evaluator, task.evaluate(evaluator), 3)
    assert [(s.question, s.answer, s.prediction, s.correct) for s in strips] == [
        ("reference: a man sings", None, "a man sings", True),
        ("reference: a man runs", None, "", False),
        ("reference: dog runs fast", None, "fast dog runs", True),
    ]
    assert strips[0].frames.shape == (4, 8, 8, 3)


def test_everything_in_a_result_can_be_written_as_json(task, model, make_evaluator):
    result = task.evaluate(make_evaluator(model, task, broken=("clip1.mp4",)))
    content = [result.predictions, result.record(), result.chart]
    assert json.loads(json.dumps(content, allow_nan=False))


def test_the_protocol_recognises_clips_and_captions(fake_dataset, model, make_evaluator):
    task = Captioning(dataset=fake_dataset(train=TRAIN, test=TEST), protocol="msrvtt_captioning")
    result = task.evaluate(make_evaluator(model, task))
    assert result.protocol["name"] == "msrvtt_captioning@toy" and result.protocol["official"] is False
    assert result.protocol["counts"] == {"videos": 4, "captions": 6}
