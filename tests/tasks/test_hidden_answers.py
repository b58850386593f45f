"""Questions whose answers are hidden: never scored as one answer or another, left out of training, and predicted."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vtp.errors import DataError
from vtp.eval.task import check_scored
from vtp.types import MediaRef, Sample
from vtp_tasks.multiple_choice import MultipleChoice
from vtp_tasks.pretrain import Pretrain
from vtp_tasks.qa import QuestionAnswering
from vtp_tasks.retrieval import Retrieval

HIDDEN = [{}, {"answer": None}, {"answer": ""}, {"answer": "  "}, {"answer": math.nan}]
OPTIONS = ("a dog", "a cat", "a car")


def asked(number, labels, texts=("who?",)):
    media = MediaRef(f"c{number}.mp4")
    return Sample(f"q{number}", media, media, texts, labels, {"video_id": f"c{number}"})


ANSWERS = ["dog", "cat", "dog", "fox"]
TRAIN = [asked(10 + i, {"answer": answer}) for i, answer in enumerate(ANSWERS)]


@pytest.mark.parametrize("labels", HIDDEN, ids=str)
def test_questions_with_a_hidden_answer_are_refused_and_can_be_predicted(
    labels, fake_dataset, fake_model, make_evaluator, logits_from
):
    test = [asked(0, {"answer": "dog"}), asked(1, labels), asked(2, labels)]
    task = QuestionAnswering(dataset=fake_dataset(train=TRAIN, test=test))
    words = r"toy: 2 of 3 questions of the test split have no answer \(first: q1\).*mode=predict"
    with pytest.raises(DataError, match=words):
        check_scored(task, task.dataset, "test")
    evaluator = make_evaluator(fake_model(qa=logits_from(lambda sample, present: [1.0, 0.0, 0.0])), task)
    with pytest.raises(DataError, match=words):
        task.evaluate(evaluator)
    check_scored(task, task.dataset, "test", judged=False)
    lines = task.predict(evaluator).predictions
    assert [line["prediction"] for line in lines] == ["dog"] * 3 and not any("credit" in line for line in lines)


@pytest.mark.parametrize("labels", HIDDEN, ids=str)
def test_training_questions_without_an_answer_are_left_out_and_counted(
    labels, fake_dataset, fake_model, make_evaluator, logits_from, caplog
):
    train = [TRAIN[0], asked(20, labels), *TRAIN[1:], asked(21, labels)]
    task = QuestionAnswering(dataset=fake_dataset(train=train, test=[asked(0, {"answer": "dog"})]), answers=2)
    assert task.answers == ("dog", "cat")
    assert [s.id for s in task.train_samples()] == ["q10", "q11", "q12"]
    assert (task.unanswered, task.dropped) == (2, 3)  # and the one whose answer is not in the list
    assert "2 training questions have no answer and are left out" in caplog.text
    model = fake_model(qa=logits_from(lambda sample, present: [1.0, 0.0]))
    facts = task.evaluate(make_evaluator(model, task)).facts
    assert facts["train_questions_dropped"] == 3 and facts["train_questions_without_an_answer"] == 2


def test_without_any_training_answer_there_is_nothing_to_train_and_a_checkpoint_can_be_scored(
    fake_dataset, fake_model, make_evaluator, logits_from
):
    task = QuestionAnswering(dataset=fake_dataset(train=[asked(1, {})], test=[asked(0, {"answer": "dog"})]))
    with pytest.raises(DataError, match="no training questions with an answer"):
        task.train_samples()
    task.use_answers(["dog", "cat"])
    model = fake_model(qa=logits_from(lambda sample, present: [1.0, 0.0]))
    assert task.evaluate(make_evaluator(model, task)).metrics["accuracy"] == 100.0


@pytest.mark.parametrize("labels", [{}, {"answer_index": None}, {"answer_index": -1}], ids=str)
def test_choices_with_a_hidden_answer(labels, fake_dataset, fake_model, make_evaluator, caplog):
    test = [asked(0, {"answer_index": 1}, OPTIONS), asked(1, labels, OPTIONS)]
    task = MultipleChoice(dataset=fake_dataset(test=test))
    words = "q1.*mode=predict"
    with pytest.raises(DataError, match=words):
        check_scored(task, task.dataset, "test")

    class Last:
        """Of every clip the last option fits."""

        needs = frozenset({"video", "text"})

        def embed(self, ctx, modality):
            texts = [s.texts[0] if modality == "text" else OPTIONS[2] for s in ctx.batch.extra["sample"]]
            return torch.tensor(np.array([np.eye(3)[OPTIONS.index(text)] for text in texts], np.float32))

    evaluator = make_evaluator(fake_model(vtc=Last()), task)
    with pytest.raises(DataError, match=words):
        task.evaluate(evaluator)
    lines = task.predict(evaluator).predictions
    assert [line["prediction"] for line in lines] == ["a car"] * 2
    assert not any(key in line for line in lines for key in ("answer", "answer_index", "credit"))
    dataset = fake_dataset(train=test)
    dataset.kinds = ("mc",)
    (kept,) = MultipleChoice(dataset=dataset).train_samples()
    assert kept.texts == ("a cat",) and "1 training questions have no answer" in caplog.text


@pytest.mark.parametrize("make", [Retrieval, QuestionAnswering, MultipleChoice], ids=lambda c: c.__name__)
def test_an_empty_split_is_said_with_what_helps(make, fake_dataset):
    labels = {"answer": "dog", "answer_index": 0}
    task = make(dataset=fake_dataset(train=TRAIN, val=[asked(0, labels, OPTIONS)]))
    hint = r"nothing in the test split to evaluate. task.split=val takes that split \(1 items\); mode=train"
    for judged in (True, False):
        with pytest.raises(DataError, match=hint):
            check_scored(task, task.dataset, "test", judged=judged, others=("test", "val"))
    with pytest.raises(DataError, match="test split to evaluate. mode=train"):
        check_scored(make(dataset=fake_dataset(missing=("val",))), SimpleNamespace(name="x"), "test", others=("val",))
    check_scored(task, task.dataset, "val")


def test_pre_training_says_that_it_has_no_validation_part(fake_dataset):
    with pytest.raises(DataError, match=r"no validation part.*mode=train"):
        check_scored(Pretrain(dataset=fake_dataset(train=TRAIN)), None, "val")
