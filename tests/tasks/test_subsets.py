"""Rows with some modalities only: which are made, what they are called, and what the model then sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vtp.errors import ConfigError
from vtp.types import MediaRef, Sample
from vtp_tasks.multiple_choice import MultipleChoice
from vtp_tasks.qa import QuestionAnswering
from vtp_tasks.retrieval import Retrieval
from vtp_tasks.subsets import withheld

TEXTS = ["a red ball", "a blue box", "two stars", "a drum"]
ALL = ("video", "audio", "text")


def clip(i, texts, sound=True, **labels):
    ref = MediaRef(f"clip{i}.mp4")
    return Sample(f"q{i}", ref, ref if sound else None, texts, labels, {"video_id": f"clip{i}"})


PAIRS = [clip(i, (text,)) for i, text in enumerate(TEXTS)]
CHOICES = [clip(i, tuple(TEXTS), answer_index=i) for i in range(4)]
QUESTIONS = [clip(i, ("what is it?",), answer=text) for i, text in enumerate(TEXTS)]


class Joined:
    """A clip's vector is right where its sound is there; without it the clip is taken for the next one."""

    needs = frozenset(ALL)

    def embed(self, ctx, modality):
        rows = []
        for row, sample in enumerate(ctx.batch.extra["sample"]):
            if modality == "text":
                place = TEXTS.index(sample.texts[0])
            else:
                assert not ctx.batch.present["text"][row]
                place = int(sample.extra["video_id"][4:]) + (not ctx.batch.present["audio"][row])
            rows.append(np.eye(4, dtype=np.float32)[place % 4])
        return torch.tensor(np.array(rows))


@pytest.mark.parametrize("gallery, found", [(None, "t2v"), ("video+audio", "t2va")])
def test_retrieval_reports_each_subset_of_what_the_objective_looks_at(
    fake_dataset, fake_model, make_evaluator, gallery, found
):
    model = fake_model(vtc=Joined())
    plain = Retrieval(dataset=fake_dataset(test=PAIRS), gallery=gallery)
    want = plain.evaluate(make_evaluator(model, plain))
    task = Retrieval(dataset=fake_dataset(test=PAIRS), gallery=gallery, subsets="all")
    result = task.evaluate(make_evaluator(model, task))
    assert want.rows == {} and result.metrics == want.metrics
    for line, plain_line in zip(result.predictions, want.predictions, strict=True):
        assert line.pop("rows").keys() == result.rows.keys() and line == plain_line
    assert {label: row[f"{found}/r1"] for label, row in result.rows.items()} == {
        "only video+text": 0.0,
        "only audio+text": 100.0,
    }
    assert result.rows["only video+text"].keys() == result.metrics.keys()
    labels = [row[0] for row in result.tables[0].rows]
    assert labels == ["raw", "only video+text", "only audio+text"]


@pytest.mark.parametrize("subsets", [[["video"], ["video", "audio"]], [["text", "video"], ["audio", "video", "text"]]])
def test_multiple_choice_reports_the_subsets_that_are_named(fake_dataset, fake_model, make_evaluator, subsets):
    task = MultipleChoice(dataset=fake_dataset(test=CHOICES), subsets=subsets)
    result = task.evaluate(make_evaluator(fake_model(vtc=Joined()), task))
    assert result.metrics == {"accuracy": 100.0} and result.warnings == []
    assert {k: v["accuracy"] for k, v in result.rows.items()} == {
        "chance": 25.0,
        "only video+text": 0.0,
        "only video+audio+text": 100.0,
    }


def test_a_matching_head_is_asked_again_for_each_subset(fake_dataset, fake_model, make_evaluator):
    from vtp_tasks import multiple_choice

    dropped = []

    def match(evaluator, videos, texts, wanted, objective, drop=(), pair_batch=0):
        dropped.append(tuple(drop))
        collected = evaluator.run(videos, lambda ctx: {"match": torch.eye(4)[: len(ctx.batch)]}, drop=("text", *drop))
        return np.eye(4, dtype=np.float32), collected

    before, multiple_choice.match_texts = multiple_choice.match_texts, match
    try:
        task = MultipleChoice(dataset=fake_dataset(test=CHOICES), objective="vtm", subsets="all")
        matcher = type("Matcher", (), {"needs": frozenset({"video", "text"}), "match_logits": lambda *_: None})()
        result = task.evaluate(make_evaluator(fake_model(vtm=matcher), task, size=4))
    finally:
        multiple_choice.match_texts = before
    assert list(result.rows) == ["chance", "only video+text", "only audio+text"]
    assert dropped == [(), ("audio",), ("video",)]


def test_qa_withholds_the_question_too(fake_dataset, fake_model, make_evaluator, logits_from):
    def sees(sample, present):
        right = np.eye(4)[TEXTS.index(sample.labels["answer"])]
        return right if present["audio"] or present["text"] else -right

    def rows(**options):
        task = QuestionAnswering(dataset=fake_dataset(train=QUESTIONS, test=QUESTIONS), answers=None, **options)
        result = task.evaluate(make_evaluator(fake_model(qa=logits_from(sees)), task))
        assert result.metrics["accuracy"] == 100.0
        assert all(label in result.chart for label in result.rows)
        return {k: v["accuracy"] for k, v in result.rows.items() if k.startswith(("only ", "without "))}

    every = rows(subsets="all")
    assert every == {
        "only video": 0.0,
        "only audio": 100.0,
        "only question": 100.0,
        "only video+audio": 100.0,
        "only video+question": 100.0,
        "only audio+question": 100.0,
    }
    assert rows(subsets=[["video"]]) == {"only video": 0.0}
    assert rows(subsets=[["video"]], ablate=True).keys() == {
        "only video", "without video", "without audio", "without question"
    }  # fmt: skip
    assert rows().keys() == {"without video", "without audio", "without question"}


def test_a_subset_that_nothing_shows_is_told_and_no_row(fake_dataset, fake_model, make_evaluator):
    silent = [clip(i, (text,), sound=False) for i, text in enumerate(TEXTS)]
    task = Retrieval(dataset=fake_dataset(test=silent), subsets=[["video", "audio"], ["text"]])
    result = task.evaluate(make_evaluator(fake_model(vtc=Joined()), task))
    assert result.rows == {}
    told = [line for line in result.warnings if line.startswith("task.subsets")]
    assert told == [
        "task.subsets: no row for audio+video: audio is not in the items, or not looked at (it is: video, text).",
        "task.subsets: no row for text: nothing else of an item would be left.",
    ]


def test_withheld_is_the_complement():
    warnings: list[str] = []
    assert withheld(None, ALL, warnings) == {}
    assert withheld("all", ("text", "video"), warnings) == {"only video": ("text",), "only text": ("video",)}
    assert withheld("all", ("video",), warnings) == withheld("all", ("video", "text"), warnings, always=("text",)) == {}
    assert len(withheld("all", ALL, warnings)) == 6
    assert withheld([["audio", "video"]], ALL, warnings) == {"only video+audio": ("text",)}
    assert warnings == []


@pytest.mark.parametrize("subsets, words", [([["sound"]], "unknown modality 'sound'"), ([[]], "at least one modality")])
@pytest.mark.parametrize("cls", [Retrieval, MultipleChoice, QuestionAnswering])
def test_wrong_subsets_are_refused(fake_dataset, cls, subsets, words):
    with pytest.raises(ConfigError, match=f"task.subsets: .*{words}"):
        cls(dataset=fake_dataset(test=PAIRS), subsets=subsets)
