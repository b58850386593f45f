from __future__ import annotations

import json
import math

import pytest
import torch

from vtp.errors import ConfigError, DataError
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.types import MediaRef, Sample
from vtp_tasks.answers import AnswerPrior, answer_list
from vtp_tasks.qa import QuestionAnswering


def question(number: int, text: str, answer: str, *, video: str | None = None, **extra) -> Sample:
    media = MediaRef(f"{video or f'clip{number}'}.mp4")
    return Sample(
        f"q{number}", media, media, (text,), {"answer": answer}, {"video_id": video or f"clip{number}", **extra}
    )


TRAIN = [
    question(100, "what colour is it?", "red"),
    question(101, "what colour is it?", "blue"),
    question(102, "what colour is it", "blue"),
    question(103, "who moves?", "circle"),
    question(104, "who moves?", "circle"),
    question(105, "who moves?", "square"),
    question(106, "who moves?", "circle"),
    question(107, "what is rare?", "hapax"),
]
TEST = [
    question(0, "what colour is it?", "red"),
    question(1, "what colour is it?", "blue"),
    question(2, "What colour is it?", "blue"),
    question(3, "who moves?", "square"),
    question(4, "who moves?", "circle"),
    question(5, "who stays?", "triangle"),  # not a training answer
    question(6, "how many?", "circle"),
]


@pytest.fixture
def task(fake_dataset):
    return QuestionAnswering(dataset=fake_dataset(train=TRAIN, test=TEST), answers=4, protocol="msrvtt_qa")


@pytest.fixture
def oracle(task, logits_from):
    """Knows every answer that can be given."""
    return logits_from(lambda sample, present: [float(a == sample.labels["answer"]) for a in task.answers])


def test_the_answer_list_is_by_training_frequency_and_ties_by_first_appearance(task):
    assert answer_list(["b", "a", "c", "a", "b", "d"]) == ("b", "a", "c", "d")
    assert answer_list(["b", "a", "c", "a", "b", "d"], 3) == ("b", "a", "c")
    assert task.answers == ("circle", "blue", "red", "square")


def test_training_questions_with_another_answer_are_dropped_and_counted(task):
    assert [sample.id for sample in task.train_samples()] == [f"q{i}" for i in range(100, 107)]
    assert task.dropped == 1
    assert task.labels(TRAIN[-1]) == {"answer": -100}
    assert task.labels(TRAIN[0]) == {"answer": 2}
    assert task.labels(Sample("x", texts=("what?",))) == {"answer": -100}
    assert len(list(task.texts())) == len(TRAIN)


def test_an_oracle_reaches_the_ceiling_of_the_answer_list(task, oracle, fake_model, make_evaluator):
    result = task.evaluate(make_evaluator(fake_model(qa=oracle), task))
    assert result.metrics["accuracy"] == pytest.approx(100 * 6 / 7)
    assert result.metrics["in_vocabulary"] == pytest.approx(100 * 6 / 7)
    assert result.metrics["accuracy/what"] == 100.0
    assert result.metrics["accuracy/who"] == pytest.approx(100 * 2 / 3)
    assert result.metrics["top10"] == pytest.approx(100 * 6 / 7)
    assert result.ledger.complete
    assert result.predictions[5]["credit"] == 0.0 and result.predictions[5]["in_vocabulary"] is False


def test_an_oracle_with_every_answer_in_the_list_reaches_100_percent(oracle, fake_dataset, fake_model, make_evaluator):
    task = QuestionAnswering(dataset=fake_dataset(train=TRAIN, test=TEST[:5]), answers=None)
    result = task.evaluate(make_evaluator(fake_model(qa=_oracle(task)), task))
    assert result.metrics["accuracy"] == 100.0
    assert result.intervals["accuracy"] == (100.0, 100.0)


def _oracle(task):
    from types import SimpleNamespace

    def logits(ctx):
        return torch.nn.functional.one_hot(ctx.batch.labels["answer"].clamp(min=0), len(task.answers)).float()

    return SimpleNamespace(logits=logits)


def test_a_constant_model_has_the_accuracy_of_the_majority_prior(task, logits_from, fake_model, make_evaluator):
    constant = logits_from(lambda sample, present: [3.0, 2.0, 1.0, 0.0])
    result = task.evaluate(make_evaluator(fake_model(qa=constant), task))
    assert result.metrics["accuracy"] == result.rows["majority answer"]["accuracy"] == pytest.approx(100 * 2 / 7)


def test_equal_scores_earn_chance_and_not_the_first_place(task, logits_from, fake_model, make_evaluator):
    collapsed = logits_from(lambda sample, present: [0.0, 0.0, 0.0, 0.0])
    result = task.evaluate(make_evaluator(fake_model(qa=collapsed), task))
    assert result.metrics["accuracy"] == pytest.approx(100 * 6 / 7 / 4)  # a quarter of what the list can answer
    assert result.predictions[0]["prediction"] == "circle" and result.predictions[0]["rank"] == 2.5


def test_the_question_only_prior_is_the_majority_answer_to_the_same_question(task, oracle, fake_model, make_evaluator):
    prior = AnswerPrior(TRAIN)
    assert prior("What colour is  it") == "blue" and prior("who moves?") == "circle" and prior("why?") == "circle"
    result = task.evaluate(make_evaluator(fake_model(qa=oracle), task))
    # right: both "blue", the moving "circle", and "how many?" through the fall-back to the majority answer
    assert result.rows["question-only prior"]["accuracy"] == pytest.approx(100 * 4 / 7)


@pytest.mark.parametrize("processes, accuracy", [(1, 600 / 7), (4, 700 / 8), (5, 900 / 10)])
def test_questions_that_a_padding_sampler_counts_twice_are_a_row_of_their_own(
    processes, accuracy, fake_dataset, fake_model, make_evaluator, oracle
):
    """7 questions on 4 processes are 8 and on 5 are 10: the first one, or the first three, all of them right here."""
    data = fake_dataset(train=TRAIN, test=TEST)
    task = QuestionAnswering(dataset=data, answers=4, padded=processes, ablate=False)
    result = task.evaluate(make_evaluator(fake_model(qa=oracle), task))
    label = f"{-(-7 // processes) * processes} questions, padded to {processes} processes"
    assert result.metrics["accuracy"] == pytest.approx(600 / 7)
    assert result.rows[label]["accuracy"] == pytest.approx(accuracy)
    assert result.chart[label]["who"] == pytest.approx(100 * 2 / 3)
    assert result.chart[label]["how"] == 100.0


def test_published_results_stand_beside_the_own_ones_and_are_not_among_them(
    fake_dataset, fake_model, make_evaluator, oracle
):
    published = {"somebody": {"accuracy": 42.1, "accuracy/who": 52.2}}
    data = fake_dataset(train=TRAIN, test=TEST)
    task = QuestionAnswering(dataset=data, answers=4, references=published, ablate=False)
    result = task.evaluate(make_evaluator(fake_model(qa=oracle), task))
    assert result.record()["references"] == {"published: somebody": published["somebody"]}
    assert "published: somebody" not in result.rows and "published: somebody" not in result.chart
    (table,) = result.tables
    assert table.columns[-1] == "published: somebody"
    assert {row[0]: row[-1] for row in table.rows} == {"what": None, "who": 52.2, "how": None, "all": 42.1}


def test_ablations_withhold_each_modality(task, logits_from, fake_model, make_evaluator):
    def sees(sample, present):
        right = [float(a == sample.labels["answer"]) for a in task.answers]
        return right if present["video"] and present["text"] else [-1.0 * r for r in right]

    result = task.evaluate(make_evaluator(fake_model(qa=logits_from(sees)), task))
    accuracy = {label: row["accuracy"] for label, row in result.rows.items()}
    assert accuracy["without audio"] == result.metrics["accuracy"] == pytest.approx(100 * 6 / 7)
    assert accuracy["without video"] == accuracy["without question"] == 0.0
    assert result.chart["without video"] == {"what": 0.0, "who": 0.0, "how": 0.0}


def test_ablation_can_be_switched_off(fake_dataset, fake_model, make_evaluator, oracle):
    task = QuestionAnswering(dataset=fake_dataset(train=TRAIN, test=TEST), answers=4, ablate=False)
    assert not any("without" in label for label in task.evaluate(make_evaluator(fake_model(qa=oracle), task)).rows)


def test_scores_that_are_not_numbers_are_misses(task, logits_from, fake_model, make_evaluator):
    def broken(sample, present):
        bad = {"q0": math.nan, "q4": math.inf}.get(sample.id)
        return [float(a == sample.labels["answer"]) if bad is None else bad for a in task.answers]

    result = task.evaluate(make_evaluator(fake_model(qa=logits_from(broken)), task))
    assert result.metrics["accuracy"] == pytest.approx(100 * 4 / 7)
    assert dict(result.ledger.missing) == dict.fromkeys(("q0", "q4"), "scores are not finite numbers")
    assert result.predictions[0]["prediction"] is None and result.predictions[0]["missing"]


def test_an_undecodable_video_is_a_miss_and_the_denominator_stays(task, oracle, fake_model, make_evaluator):
    result = task.evaluate(make_evaluator(fake_model(qa=oracle), task, broken=("clip1.mp4",)))
    assert result.metrics["accuracy"] == pytest.approx(100 * 5 / 7)
    assert result.rows[EVALUATED_ONLY]["accuracy"] == pytest.approx(100 * 5 / 6)
    assert dict(result.ledger.missing) == {"q1": "moov atom not found"}
    assert "6 of 7 questions evaluated (85.71 %), 1 missing counted as miss" in result.tables[0].notes[0]
    line = {key: value for key, value in result.predictions[1].items() if key != "rows"}
    assert line == {
        "id": "q1", "video": "clip1", "question": "what colour is it?", "type": "what", "answer": "blue",
        "in_vocabulary": True, "credit": 0.0, "rank": 4.0, "prediction": None, "missing": "moov atom not found",
    }  # fmt: skip


def test_everything_missing_is_zero_percent_and_not_a_crash(task, oracle, fake_model, make_evaluator):
    broken = tuple(f"clip{i}.mp4" for i in range(7))
    result = task.evaluate(make_evaluator(fake_model(qa=oracle), task, broken=broken))
    assert result.metrics["accuracy"] == 0.0 and result.ledger.evaluated == 0
    assert len(result.predictions) == 7


def test_too_many_misses_are_an_error_that_names_the_first(task, oracle, fake_model, make_evaluator):
    with pytest.raises(DataError, match=r"1 of 7 questions .*q1: moov atom not found.*data.max_missing=0 allows 0"):
        task.evaluate(make_evaluator(fake_model(qa=oracle), task, broken=("clip1.mp4",), max_missing=0))
    task.evaluate(make_evaluator(fake_model(qa=oracle), task, broken=("clip1.mp4",), max_missing=1))


def test_modality_coverage_is_the_share_of_evaluated_items_that_had_it(task, oracle, fake_model, make_evaluator):
    result = task.evaluate(
        make_evaluator(fake_model(qa=oracle), task, broken=("clip1.mp4",), silent=("clip2.mp4", "clip3.mp4"))
    )
    coverage = result.ledger.modality_coverage()
    assert coverage == {"video": 1.0, "audio": pytest.approx(4 / 6), "text": 1.0}


def test_the_report_says_that_a_generated_set_is_not_the_official_one(task, oracle, fake_model, make_evaluator):
    protocol = task.evaluate(make_evaluator(fake_model(qa=oracle), task)).protocol
    assert protocol["name"] == "msrvtt_qa@toy" and protocol["official"] is False
    assert protocol["counts"] == {"videos": 7, "questions": 7}


def test_a_limit_takes_evenly_spaced_questions_and_is_stamped(task, oracle, fake_model, make_evaluator):
    result = task.evaluate(make_evaluator(fake_model(qa=oracle), task, limit=3))
    assert [line["id"] for line in result.predictions] == ["q0", "q2", "q4"]
    assert result.facts["limited"] is True and result.facts["limit"] == 3
    assert len(result.ledger.expected) == 3


def test_during_training_only_the_headline_is_computed(task, oracle, fake_model, make_evaluator):
    result = task.evaluate(make_evaluator(fake_model(qa=oracle), task), detail=False)
    assert set(result.metrics) == {"accuracy", "top10", "in_vocabulary"}
    assert task.monitor[0] in result.metrics
    assert not result.rows and not result.predictions


def test_a_checkpoint_is_evaluated_without_training_files(fake_dataset, fake_model, make_evaluator):
    task = QuestionAnswering(dataset=fake_dataset(test=TEST, missing=("train",)))
    task.use_answers(["circle", "blue", "red", "square"])
    result = task.evaluate(make_evaluator(fake_model(qa=_oracle(task)), task))
    assert result.metrics["accuracy"] == pytest.approx(100 * 6 / 7)
    assert "question-only prior" not in result.rows


def test_prediction_needs_no_labels(fake_dataset, fake_model, make_evaluator, logits_from):
    unlabelled = [Sample(s.id, s.video, s.audio, s.texts, {}, s.extra) for s in TEST]
    task = QuestionAnswering(dataset=fake_dataset(train=TRAIN, test=unlabelled), answers=4, top=2)
    constant = logits_from(lambda sample, present: [0.0, 1.0, 5.0, 2.0])
    result = task.predict(make_evaluator(fake_model(qa=constant), task, broken=("clip3.mp4",)))
    assert result.metrics == {}
    first = result.predictions[0]
    assert first["prediction"] == "red" and [answer for answer, _ in first["top"]] == ["red", "square"]
    assert first["top"][0][1] == pytest.approx(torch.tensor([0.0, 1.0, 5.0, 2.0]).softmax(0)[2].item(), abs=1e-5)
    assert result.predictions[3]["missing"] == "moov atom not found"
    assert not any("credit" in line or "answer" in line for line in result.predictions)


def test_the_data_sets_own_types_break_the_table_down(fake_dataset, fake_model, make_evaluator):
    kinds = ["colour", "colour", "motion", "motion", "sound", "sound", "sound"]
    test = [
        question(i, s.texts[0], str(s.labels["answer"]), question_type=k)
        for i, (s, k) in enumerate(zip(TEST, kinds, strict=True))
    ]
    task = QuestionAnswering(dataset=fake_dataset(train=TRAIN, test=test), answers=4)
    result = task.evaluate(make_evaluator(fake_model(qa=_oracle(task)), task))
    assert result.chart["model"] == {"sound": pytest.approx(200 / 3), "colour": 100.0, "motion": 100.0}
    assert [row[:2] for row in result.tables[0].rows] == [("sound", 3), ("colour", 2), ("motion", 2), ("all", 7)]


def test_everything_in_a_result_can_be_written_as_json(task, oracle, fake_model, make_evaluator):
    result = task.evaluate(make_evaluator(fake_model(qa=oracle), task, broken=("clip1.mp4",)))
    content = [result.predictions, result.metrics, result.protocol, result.rows, result.facts, result.ledger.record()]
    assert json.loads(json.dumps(content, allow_nan=False))


def test_examples_show_the_frames_that_the_model_saw(task, oracle, fake_model, make_evaluator):
    evaluator = make_evaluator(fake_model(qa=oracle), task, broken=("clip1.mp4",))
    strips = task.examples(evaluator, task.evaluate(evaluator), 3)
    assert [(s.question, s.answer, s.prediction, s.correct) for s in strips][0] == (
        "what colour is it?", "red", "red", True,
    )  # fmt: skip
    assert len(strips) == 3 and strips[0].frames.shape == (4, 8, 8, 3) and strips[0].frames.dtype == "uint8"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "msrvtt_aq"}, "no such protocol. Did you mean .*Known: .*, msrvtt_full, msrvtt_mc, msrvtt_qa"),
        ({"answers": 0}, "at least 1"),
    ],
)
def test_wrong_options_are_refused(options, message, fake_dataset):
    with pytest.raises(ConfigError, match=message):
        QuestionAnswering(dataset=fake_dataset(), **options)


def test_a_model_without_the_objective_is_refused(task, fake_model, make_evaluator):
    with pytest.raises(ConfigError, match=r"no objective 'qa'.*objective=\[qa\]"):
        task.evaluate(make_evaluator(fake_model(vtc=None), task))


def test_a_head_of_another_size_than_the_answer_list_is_refused(task, logits_from, fake_model, make_evaluator):
    wrong = logits_from(lambda sample, present: [0.0, 1.0, 2.0])
    with pytest.raises(ConfigError, match="answer list has 4 answers, but objective 'qa' scores 3"):
        task.evaluate(make_evaluator(fake_model(qa=wrong), task))


def test_the_checkpoint_is_chosen_by_validation_where_there_is_one(fake_dataset):
    assert QuestionAnswering(dataset=fake_dataset(train=TRAIN)).selection == "last"
    assert QuestionAnswering(dataset=fake_dataset(train=TRAIN, val=TEST)).selection == "val"
    assert QuestionAnswering(dataset=fake_dataset(train=TRAIN, val=TEST), selection="last").selection == "last"
    with pytest.raises(ConfigError, match="no validation split"):
        _ = QuestionAnswering(dataset=fake_dataset(train=TRAIN), selection="val").selection


def test_the_list_may_hold_the_answers_of_all_splits(fake_dataset):
    """MUSIC-AVQA gathers its 42 answers over all splits; here triangle is asked for in the test split alone."""
    dataset = fake_dataset(train=TRAIN, test=TEST)
    train = QuestionAnswering(dataset=dataset, answers=None).answers
    assert train == ("circle", "blue", "red", "square", "hapax")
    everything = QuestionAnswering(dataset=dataset, answers=None, answers_from="all")
    assert everything.answers == (*train, "triangle")
    assert QuestionAnswering(dataset=dataset, answers=3, answers_from="all").answers == train[:3]


def test_a_breakdown_by_what_no_question_has_is_refused_before_training(fake_dataset):
    task = QuestionAnswering(
        dataset=fake_dataset(train=TRAIN, test=TEST), answers=4, breakdown=["question_type", "nope", "category"]
    )
    with pytest.raises(ConfigError, match=r"^task.breakdown: no question of the test split has nope.* There are: "):
        task.check_split("test")
    QuestionAnswering(dataset=fake_dataset(train=TRAIN, test=TEST), answers=4).check_split("test")


def test_accuracy_by_group_type_and_category(fake_dataset, fake_model, make_evaluator):
    kinds = ["Audio/Counting"] * 2 + ["Visual/Counting"] * 2 + ["Audio-Visual/Existential"] * 3
    test = [
        question(i, s.texts[0], str(s.labels["answer"]), question_type=kind, category="real" if i % 2 else "synthetic")
        for i, (s, kind) in enumerate(zip(TEST, kinds, strict=True))
    ]
    breakdown = ["question_group", "question_type", "category", "nothing"]
    task = QuestionAnswering(dataset=fake_dataset(train=TRAIN, test=test), answers=4, breakdown=breakdown)
    result = task.evaluate(make_evaluator(fake_model(qa=_oracle(task)), task))
    found = {name: value for name, value in result.metrics.items() if "=" in name}
    assert found == {
        "accuracy/question_group=Audio": 100.0,
        "accuracy/question_group=Visual": 100.0,
        "accuracy/question_group=Audio-Visual": pytest.approx(200 / 3),
        "accuracy/question_type=Audio/Counting": 100.0,
        "accuracy/question_type=Visual/Counting": 100.0,
        "accuracy/question_type=Audio-Visual/Existential": pytest.approx(200 / 3),
        "accuracy/category=real": pytest.approx(200 / 3),
        "accuracy/category=synthetic": 100.0,
    }
    first, types, categories = result.tables
    assert [row[:2] for row in first.rows] == [("Audio-Visual", 3), ("Audio", 2), ("Visual", 2), ("all", 7)]
    assert types.rows[0] == ("Audio-Visual/Existential", 3, pytest.approx(200 / 3))
    assert [row[0] for row in categories.rows] == ["synthetic", "real"]
    first_words = QuestionAnswering(dataset=fake_dataset(train=TRAIN, test=TEST), answers=4, breakdown=breakdown)
    plain = first_words.evaluate(make_evaluator(fake_model(qa=_oracle(first_words)), first_words))
    assert [row[0] for row in plain.tables[0].rows] == ["what", "who", "how", "all"] and len(plain.tables) == 1


def test_accuracy_on_clips_with_sound_and_on_those_without(fake_dataset, fake_model, make_evaluator):
    """The clips of questions 4 and 5, one of which has no answer in the list, are silent; that of 0 cannot be read."""
    breakdown = ["question_type", "modalities"]
    task = QuestionAnswering(dataset=fake_dataset(train=TRAIN, test=TEST), answers=4, breakdown=breakdown)
    task.check_split("test")
    evaluator = make_evaluator(
        fake_model(qa=_oracle(task)), task, broken=("clip0.mp4",), silent=("clip4.mp4", "clip5.mp4"), max_missing=1
    )
    result = task.evaluate(evaluator)
    (table,) = [table for table in result.tables if "modalities" in table.title]
    assert sorted(table.rows) == [("missing", 1, 0.0), ("video", 2, 50.0), ("video+audio", 4, 100.0)]
    assert result.metrics["accuracy/modalities=video"] == 50.0


def test_own_questions_have_no_official_protocol(fake_dataset, fake_model, make_evaluator):
    task = QuestionAnswering(dataset=fake_dataset(name="csv", train=TRAIN, test=TEST), answers=4)
    result = task.evaluate(make_evaluator(fake_model(qa=_oracle(task)), task))
    assert result.tables[0].notes[1].startswith("protocol own data (csv test: 7 videos, 7 questions, sha256 ")
    assert task.name == "qa" and not result.warnings


def test_the_validation_split_can_be_reported(fake_dataset, fake_model, make_evaluator):
    task = QuestionAnswering(dataset=fake_dataset(train=TRAIN, test=TEST[:2], val=TEST[2:]), answers=4, split="val")
    result = task.evaluate(make_evaluator(fake_model(qa=_oracle(task)), task), task.split)
    assert result.split == "val" and len(result.ledger.expected) == 5 and task.selection == "last"


class Columns(list):
    """A table that can be read in columns and cut; counts the samples it makes."""

    made = 0

    def __iter__(self):
        for sample in super().__iter__():
            self.made += 1
            yield sample

    def video_ids(self):
        return [sample.extra["video_id"] for sample in list.__iter__(self)]

    def all_texts(self):
        return [text for sample in list.__iter__(self) for text in sample.texts]

    def select(self, rows):
        return [list.__getitem__(self, int(row)).id for row in rows]


def test_the_training_table_is_read_once(fake_dataset):
    table = Columns(TRAIN)
    task = QuestionAnswering(dataset=fake_dataset(train=table, test=TEST), answers=4)
    assert task.answers == ("circle", "blue", "red", "square") and task.dropped == 1
    assert task.train_samples() == [f"q{i}" for i in range(100, 107)]  # a view: the answer hapax is not in the list
    assert len(list(task.texts())) == 8 and task.known_list() is None
    assert table.made == len(TRAIN)
