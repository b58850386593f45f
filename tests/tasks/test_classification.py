from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vtp.errors import ConfigError, DataError
from vtp.eval.forms import Form, sha256_lines
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.types import IGNORE, MediaRef, Sample
from vtp_tasks.classification import Classification, average_precision

CLASSES = ("archery", "basketball", "cricket", "diving", "fencing", "golf")


def item(number, label, clip=None):
    media = MediaRef(f"clip{number if clip is None else clip}.mp4")
    labels = {} if label is None else {"answer": label}
    return Sample(f"i{number}", media, media, ("",), labels, {"video_id": f"clip{number}"})


def tagged(number, labels):
    media = MediaRef(f"clip{number}.mp4")
    extra = {"video_id": f"clip{number}"} | ({} if labels is None else {"labels": list(labels)})
    return Sample(f"i{number}", media, media, ("",), {}, extra)


ONE = [item(i, name) for i, name in enumerate((*CLASSES, *CLASSES[:2]))]
SEVERAL = [tagged(i, names) for i, names in enumerate([("a",), ("a", "b"), (), ("c",), ("b", "c"), ("a",)])]


@pytest.fixture
def scores_from(logits_from):
    """An objective ``classification`` with scores by the number of the item."""

    def make(table):
        return logits_from(lambda sample, present: list(table[int(sample.id[1:])]))

    return make


def brute_force(scores, right):
    """Average precision: the mean over the items of the class of the precision among all that score as high."""
    found = [
        np.mean([r for s, r in zip(scores, right, strict=True) if s >= score])
        for score, hit in zip(scores, right, strict=True)
        if hit and np.isfinite(score)
    ]
    return sum(found) / sum(right)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 2.0, float("nan")]), st.booleans()), min_size=1))
def test_average_precision_equals_brute_force(rows):
    scores, right = (np.array(column) for column in zip(*rows, strict=True))
    found = average_precision(scores, right)
    assert np.isnan(found) if not right.any() else found == pytest.approx(brute_force(scores, right))


def test_average_precision_of_known_cases():
    right = np.array([True, False, True, False])
    assert average_precision(np.array([4, 3, 2, 1.0]), right) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.array([4, 1, 3, 2.0]), right) == 1.0
    assert average_precision(np.zeros(4), right) == 0.5  # a model that always says the same has the prevalence
    for order in itertools.permutations(range(4)):  # no order of the file helps
        scores = np.array([1.0, 1.0, 0.0, 0.0])
        assert average_precision(scores[list(order)], right[list(order)]) == pytest.approx(0.5)
    assert average_precision(np.array([np.nan, 0, 1, 0]), right) == 0.5  # what was not decoded is never found


def test_an_oracle_is_right_about_everything(fake_dataset, fake_model, make_evaluator, scores_from):
    task = Classification(dataset=fake_dataset(train=ONE, test=ONE))
    table = [np.eye(6)[CLASSES.index(s.labels["answer"])] for s in ONE]
    result = task.evaluate(make_evaluator(fake_model(classification=scores_from(table)), task))
    assert {key: result.metrics[key] for key in task.metrics} == {"top1": 100.0, "top5": 100.0, "mean_class": 100.0}
    assert task.monitor == ("top1", "max") and task.answers == CLASSES
    assert [line["prediction"] for line in result.predictions] == [s.labels["answer"] for s in ONE]
    assert result.predictions[0]["classes"] == ["archery"]
    assert result.rows["without looking"]["top1"] == pytest.approx(100 * 4 * 0.5 / 8)  # two classes stand twice
    assert result.protocol["name"] == "own data" and result.metrics["top1/archery"] == 100.0
    json.dumps([result.record(), result.predictions])


def test_top_1_top_5_and_the_mean_over_classes(fake_dataset, fake_model, make_evaluator, scores_from):
    """The right class is first, second, fifth, sixth, and tied with five others."""
    test = [item(0, "archery"), item(1, "archery"), item(2, "archery"), item(3, "diving"), item(4, "golf")]
    table = [
        [9, 5, 4, 3, 2, 1],
        [8, 9, 4, 3, 2, 1],
        [2, 9, 8, 7, 6, 1],
        [9, 8, 7, 1, 5, 4],
        [0, 0, 0, 0, 0, 0],
    ]
    task = Classification(dataset=fake_dataset(train=ONE, test=test))
    result = task.evaluate(make_evaluator(fake_model(classification=scores_from(table)), task))
    assert result.metrics["top1"] == pytest.approx(100 * (1 + 0 + 0 + 0 + 1 / 6) / 5)
    assert result.metrics["top5"] == pytest.approx(100 * (1 + 1 + 1 + 0 + 5 / 6) / 5)
    assert result.metrics["mean_class"] == pytest.approx(100 * (1 / 3 + 0 + 1 / 6) / 3)
    strict = Classification(dataset=fake_dataset(train=ONE, test=test), ties="pessimistic")
    found = strict.evaluate(make_evaluator(fake_model(classification=scores_from(table)), strict)).metrics
    assert found["top1"] == pytest.approx(20.0) and found["top5"] == pytest.approx(60.0)


def test_several_classes_are_measured_by_average_precision(fake_dataset, fake_model, make_evaluator, scores_from):
    rng = np.random.default_rng(4)
    table = rng.normal(size=(6, 3)).round(1)
    task = Classification(dataset=fake_dataset(train=SEVERAL, test=SEVERAL))
    assert task.several and task.answers == ("a", "b", "c") and task.monitor == ("map", "max")
    result = task.evaluate(make_evaluator(fake_model(classification=scores_from(table)), task))
    right = np.array([[name in s.extra["labels"] for name in "abc"] for s in SEVERAL])
    want = [100 * brute_force(table[:, c].astype("f"), right[:, c]) for c in range(3)]
    assert result.metrics["map"] == pytest.approx(np.mean(want))
    assert [result.metrics[f"map/{name}"] for name in "abc"] == pytest.approx(want)
    best = table.argmax(1)
    assert result.metrics["top1"] == pytest.approx(100 * np.mean([right[i, best[i]] for i in range(6)]))
    assert result.rows["without looking"]["map"] == pytest.approx(100 * right.mean(0).mean())  # the prevalence
    assert result.predictions[2]["classes"] == [] and result.predictions[2]["credit"] == 0.0


def test_a_lost_clip_is_a_miss_and_the_denominator_stays(fake_dataset, fake_model, make_evaluator, scores_from):
    table = [np.eye(6)[CLASSES.index(s.labels["answer"])] for s in ONE]
    task = Classification(dataset=fake_dataset(train=ONE, test=ONE))
    model = fake_model(classification=scores_from(table))
    result = task.evaluate(make_evaluator(model, task, broken=("clip2.mp4",)))
    assert result.metrics["top1"] == pytest.approx(100 * 7 / 8) and result.rows[EVALUATED_ONLY]["top1"] == 100.0
    assert result.metrics["mean_class"] == pytest.approx(100 * 5 / 6)
    assert dict(result.ledger.missing) == {"i2": "moov atom not found"}
    assert result.predictions[2]["prediction"] is None and result.predictions[2]["credit"] == 0.0
    labels = np.array([[float(name in s.extra["labels"]) for name in "abc"] for s in SEVERAL])
    several = Classification(dataset=fake_dataset(train=SEVERAL, test=SEVERAL))
    model = fake_model(classification=scores_from(labels))
    result = several.evaluate(make_evaluator(model, several, broken=("clip1.mp4",)))
    assert [result.metrics[f"map/{name}"] for name in "abc"] == pytest.approx([200 / 3, 50.0, 100.0])
    assert result.rows[EVALUATED_ONLY]["map"] == 100.0


def test_scores_that_are_not_numbers_are_misses(fake_dataset, fake_model, make_evaluator, scores_from):
    table = [np.eye(6)[CLASSES.index(s.labels["answer"])] for s in ONE]
    table[1] = np.full(6, np.nan)
    task = Classification(dataset=fake_dataset(train=ONE, test=ONE))
    result = task.evaluate(make_evaluator(fake_model(classification=scores_from(table)), task))
    assert dict(result.ledger.missing) == {"i1": "scores are not finite numbers"}
    assert result.metrics["top1"] == pytest.approx(100 * 7 / 8)


def test_a_class_that_training_lacks_is_never_right_unless_asked_for(
    fake_dataset, fake_model, make_evaluator, scores_from
):
    test = [item(0, "archery"), item(1, "zumba")]
    task = Classification(dataset=fake_dataset(train=ONE, test=test))
    result = task.evaluate(make_evaluator(fake_model(classification=scores_from([[1, 0, 0, 0, 0, 0]] * 2)), task))
    assert result.metrics["top1"] == 50.0 and "1 classes of the test split are not known" in result.warnings[0]
    assert task.labels(test[1]) == {"class": IGNORE}
    every = Classification(dataset=fake_dataset(train=ONE, test=test), classes_from="all")
    assert every.answers == (*CLASSES, "zumba") and every.labels(test[1]) == {"class": 6}


def test_training_takes_what_has_a_known_class(fake_dataset):
    train = [*ONE, item(20, None)]
    task = Classification(dataset=fake_dataset(train=train))
    assert [s.id for s in task.train_samples()] == [s.id for s in ONE]
    task.use_answers(("golf", "archery"))
    assert [s.labels["answer"] for s in task.train_samples()] == ["archery", "golf", "archery"]
    assert task.labels(ONE[0]) == {"class": 1}
    assert list(task.texts())[-2:] == ["golf", "archery"]


def test_labels_of_several_classes_are_a_row_of_noughts_and_ones(fake_dataset):
    task = Classification(dataset=fake_dataset(train=SEVERAL))
    assert task.labels(SEVERAL[1]) == {"class": [1.0, 1.0, 0.0]} and task.labels(SEVERAL[2]) == {"class": [0.0] * 3}
    assert np.isnan(task.labels(tagged(9, None))["class"]).all()
    assert len(task.train_samples()) == 6  # also those to which none applies


def test_classes_are_in_the_order_of_numbers_or_of_the_data_set(fake_dataset):
    train = [item(i, name) for i, name in enumerate(["10", "9", "b", "a", "9"])]
    dataset = fake_dataset(train=train)
    assert Classification(dataset=dataset).answers == ("9", "10", "a", "b")
    dataset.class_names = ("b", "a", "unseen")
    assert Classification(dataset=dataset).answers == ("b", "a", "unseen", "9", "10")


def test_what_cannot_be_scored_is_refused(fake_dataset, fake_model, make_evaluator, scores_from):
    dataset = fake_dataset(train=ONE, test=[*ONE, item(9, None)])
    task = Classification(dataset=dataset)
    with pytest.raises(DataError, match=r"1 of 9 items of the test split have no class \(first: i9\).*mode=predict"):
        task.check_split("test")
    objective = scores_from(np.zeros((10, 6)))
    assert len(task.predict(make_evaluator(fake_model(classification=objective), task)).predictions) == 9
    with pytest.raises(ConfigError, match=r"no objective 'classification' that scores classes"):
        task.check(fake_model(qa=None))
    with pytest.raises(ConfigError, match=r"there are 6 classes, but objective 'classification' scores 2"):
        task.predict(make_evaluator(fake_model(classification=scores_from(np.zeros((10, 2)))), task))
    with pytest.raises(DataError, match=r"i1 has 2 classes, and task.several=false"):
        _ = Classification(dataset=fake_dataset(train=SEVERAL[:2]), several=False).answers
    with pytest.raises(DataError, match="no training items with a class"):
        _ = Classification(dataset=fake_dataset(train=[item(0, None)])).answers


def test_a_protocol_recognises_clips_with_their_classes():
    form = Form.find("classification")
    assert form.counted == "items"
    lines = form.lines([item(0, "High Jump"), tagged(1, ("b", "A"))])
    assert lines == {"videos": ["clip0", "clip1"], "items": ["clip0\thigh jump", "clip1\ta\tb"]}
    assert sha256_lines(lines["items"]) != sha256_lines(
        form.lines([item(0, "archery"), tagged(1, ("b", "A"))])["items"]
    )


@pytest.mark.parametrize(("fold", "count"), [(1, 3783), (2, 3734), (3, 3696)])
def test_ucf101_is_recognised_by_its_counts(fake_dataset, fake_model, make_evaluator, logits_from, fold, count):
    test = [item(i, CLASSES[i % 6]) for i in range(count)]
    task = Classification(dataset=fake_dataset(name="ucf101", train=ONE, test=test), protocol=f"ucf101_{fold}")
    model = fake_model(classification=logits_from(lambda sample, present: [0.0] * 6))
    result = task.evaluate(make_evaluator(model, task, size=2000))
    assert result.protocol["official"] and result.task == f"ucf101_{fold}"
    fewer = Classification(dataset=fake_dataset(name="ucf101", train=ONE, test=test[1:]), protocol=f"ucf101_{fold}")
    assert not fewer.evaluate(make_evaluator(model, fewer, size=2000)).protocol["official"]


def test_a_row_for_each_subset(fake_dataset, fake_model, make_evaluator, logits_from):
    """The picture alone tells the class."""

    def see(sample, present):
        return np.eye(6)[CLASSES.index(sample.labels["answer"])] * present["video"]

    task = Classification(dataset=fake_dataset(train=ONE, test=ONE), subsets=[["video"], ["audio"]])
    result = task.evaluate(make_evaluator(fake_model(classification=logits_from(see)), task))
    assert result.rows["only video"]["top1"] == 100.0 and result.rows["only audio"]["top1"] == pytest.approx(100 / 6)


def test_examples_show_clips_with_their_classes(fake_dataset, fake_model, make_evaluator, scores_from):
    task = Classification(dataset=fake_dataset(train=ONE, test=ONE))
    table = [np.eye(6)[CLASSES.index(s.labels["answer"])] for s in ONE]
    evaluator = make_evaluator(fake_model(classification=scores_from(table)), task)
    strips = task.examples(evaluator, task.evaluate(evaluator), 2)
    assert [(s.question, s.answer, s.prediction, s.correct) for s in strips] == [
        ("which class?", "archery", "archery", True),
        ("which class?", "fencing", "fencing", True),
    ]
    assert isinstance(strips[0].frames, np.ndarray) and torch.is_tensor(torch.from_numpy(strips[0].frames))
