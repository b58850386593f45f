from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vtp.errors import ConfigError, DataError
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.types import MediaRef, Sample
from vtp_tasks.retrieval import Pairs, Retrieval, gallery

CAPTIONS = ["a dog runs", "a cat sleeps", "a car turns", "a bird sings", "a boat sinks", "a child laughs"]


def pair(number: int, text: str, video: int) -> Sample:
    media = MediaRef(f"video{video}.mp4")
    return Sample(f"ret{number}", media, media, (text,), {}, {"video_id": f"video{video}"})


TEST = [pair(i, text, i) for i, text in enumerate(CAPTIONS)]


class Embedding:
    """Unit vectors given by tables; ``needs`` as an objective over video and text has it."""

    needs = frozenset({"video", "text"})

    def __init__(self, videos, texts, matches=None):
        self.tables = {"video": videos, "text": texts}
        self.matches = matches
        self.seen: list[str] = []

    def embed(self, ctx, modality):
        samples = ctx.batch.extra["sample"]
        keys = [s.id if modality == "video" else s.texts[0] for s in samples]
        self.seen += keys
        return torch.tensor(np.array([self.tables[modality][key] for key in keys], dtype=np.float32))


def one_hot(names) -> dict[str, np.ndarray]:
    return dict(zip(names, np.eye(len(names), dtype=np.float32), strict=True))


@pytest.fixture
def task(fake_dataset):
    return Retrieval(dataset=fake_dataset(test=TEST), protocol="msrvtt_1ka")


@pytest.fixture
def oracle():
    return Embedding(one_hot([f"video{i}" for i in range(6)]), one_hot(CAPTIONS))


def test_an_oracle_finds_everything_first(task, oracle, fake_model, make_evaluator):
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task))
    for direction in ("t2v", "v2t"):
        assert [result.metrics[f"{direction}/{m}"] for m in ("r1", "r5", "r10", "mdr", "mnr")] == [100, 100, 100, 1, 1]
    assert result.metrics["r_mean"] == 100.0 and task.monitor[0] in result.metrics
    assert result.ledger.complete and result.ledgers["videos"].complete


def test_every_clip_and_every_text_is_encoded_once(fake_dataset, fake_model, make_evaluator):
    samples = [pair(0, "a dog runs", 0), pair(1, "a cat sleeps", 0), pair(2, "a dog runs", 1)]
    task = Retrieval(dataset=fake_dataset(test=samples))
    objective = Embedding(one_hot(["video0", "video1"]), one_hot(["a dog runs", "a cat sleeps"]))
    task.evaluate(make_evaluator(fake_model(vtc=objective), task))
    assert objective.seen == ["video0", "video1", "a dog runs", "a cat sleeps"]


def test_equal_captions_of_two_clips_share_the_first_place(fake_dataset, fake_model, make_evaluator):
    """Both queries score the clips alike, and only the clip that a caption was written for is right."""
    samples = [pair(0, "a dog runs", 0), pair(1, "a dog runs", 1), pair(2, "a cat sleeps", 2)]
    videos = {"video0": [1.0, 0.0], "video1": [1.0, 0.0], "video2": [0.0, 1.0]}
    task = Retrieval(dataset=fake_dataset(test=samples))
    objective = Embedding(videos, {"a dog runs": [1.0, 0.0], "a cat sleeps": [0.0, 1.0]})
    metrics = task.evaluate(make_evaluator(fake_model(vtc=objective), task)).metrics
    assert metrics["t2v/r1"] == pytest.approx(100 * (0.5 + 0.5 + 1) / 3)
    assert metrics["v2t/r1"] == pytest.approx(100 * (0.5 + 0.5 + 1) / 3)
    assert metrics["t2v/mnr"] == pytest.approx((1.5 + 1.5 + 1) / 3)


def test_a_collapsed_model_is_at_chance(task, fake_model, make_evaluator):
    same = Embedding(dict.fromkeys((f"video{i}" for i in range(6)), [1.0]), dict.fromkeys(CAPTIONS, [1.0]))
    metrics = task.evaluate(make_evaluator(fake_model(vtc=same), task)).metrics
    assert metrics["t2v/r1"] == pytest.approx(100 / 6) and metrics["v2t/r1"] == pytest.approx(100 / 6)
    assert metrics["t2v/r5"] == pytest.approx(500 / 6) and metrics["t2v/mdr"] == 3.5


def test_several_captions_per_clip_count_the_best_one(fake_dataset, fake_model, make_evaluator):
    media = [MediaRef("video0.mp4"), MediaRef("video1.mp4")]
    samples = [
        Sample("video0", media[0], None, ("right", "wrong"), {}, {"video_id": "video0"}),
        Sample("video1", media[1], None, ("other",), {}, {"video_id": "video1"}),
    ]
    task = Retrieval(dataset=fake_dataset(test=samples))
    objective = Embedding(one_hot(["video0", "video1"]), {"right": [1, 0], "wrong": [0, 0.5], "other": [0, 1]})
    result = task.evaluate(make_evaluator(fake_model(vtc=objective), task))
    assert result.ledger.expected == ("video0#0", "video0#1", "video1")
    assert result.metrics["t2v/r1"] == pytest.approx(200 / 3) and result.metrics["v2t/r1"] == 100.0


def test_an_undecodable_clip_is_a_miss_both_ways_and_stays_in_the_gallery(task, oracle, fake_model, make_evaluator):
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task, broken=("video2.mp4",)))
    assert result.metrics["t2v/r1"] == result.metrics["v2t/r1"] == pytest.approx(500 / 6)
    assert result.metrics["t2v/mnr"] == pytest.approx((5 * 1 + 6) / 6)  # the missed query has the last rank
    assert result.rows[EVALUATED_ONLY]["t2v/r1"] == 100.0
    assert dict(result.ledger.missing) == {"ret2": "moov atom not found"}
    assert dict(result.ledgers["videos"].missing) == {"video2": "moov atom not found"}
    assert "5 of 6 videos evaluated" in result.tables[0].notes[1]
    missing = [line for line in result.predictions if "missing" in line]
    assert [(line["id"], line["rank"], line["hit"]) for line in missing] == [
        ("t2v:ret2", 6.0, 0.0),
        ("v2t:video2", 6.0, 0.0),
    ]


def test_embeddings_that_are_not_numbers_are_misses(task, oracle, fake_model, make_evaluator):
    oracle.tables["video"]["video3"] = np.full(6, np.nan)
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task))
    assert result.metrics["t2v/r1"] == result.metrics["v2t/r1"] == pytest.approx(500 / 6)
    assert dict(result.ledger.missing) == {"ret3": "the embedding is not a finite number"}


def test_a_text_that_cannot_be_embedded_is_a_miss_for_its_query_and_its_clip(task, oracle, fake_model, make_evaluator):
    oracle.tables["text"]["a bird sings"] = np.full(6, np.inf)
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task))
    assert result.metrics["t2v/r1"] == result.metrics["v2t/r1"] == pytest.approx(500 / 6)


def test_too_many_misses_are_an_error(task, oracle, fake_model, make_evaluator):
    with pytest.raises(DataError, match=r"2 of 6 videos could not be evaluated \(first: video1"):
        broken = ("video1.mp4", "video2.mp4")
        task.evaluate(make_evaluator(fake_model(vtc=oracle), task, broken=broken, max_missing=0.2))


def test_scores_match_a_brute_force_count(fake_dataset, fake_model, make_evaluator):
    rng = np.random.default_rng(3)
    videos = {f"video{i}": rng.normal(size=4) for i in range(7)}
    samples = [pair(i, f"text {i}", int(rng.integers(7))) for i in range(15)]
    texts = {sample.texts[0]: rng.normal(size=4) for sample in samples}
    task = Retrieval(dataset=fake_dataset(test=samples))
    result = task.evaluate(make_evaluator(fake_model(vtc=Embedding(videos, texts)), task))
    names = [video.id for video in gallery(samples)]
    ranks = []
    for sample in samples:
        scores = {name: float(texts[sample.texts[0]] @ videos[name]) for name in names}
        ranks.append(1 + sum(s > scores[sample.extra["video_id"]] for s in scores.values()))
    assert result.metrics["t2v/r1"] == pytest.approx(100 * np.mean(np.array(ranks) <= 1))
    assert result.metrics["t2v/r5"] == pytest.approx(100 * np.mean(np.array(ranks) <= 5))
    assert result.metrics["t2v/mnr"] == pytest.approx(np.mean(ranks))
    back = []
    for name in names:
        scores = {s.id: float(texts[s.texts[0]] @ videos[name]) for s in samples}
        own = max(scores[s.id] for s in samples if s.extra["video_id"] == name)
        back.append(1 + sum(v > own for s, v in scores.items() if samples[int(s[3:])].extra["video_id"] != name))
    assert result.metrics["v2t/mnr"] == pytest.approx(np.mean(back))
    assert result.metrics["v2t/mdr"] == pytest.approx(np.median(back))


def test_predictions_have_one_line_per_query_and_direction(task, oracle, fake_model, make_evaluator):
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task))
    assert len({line["id"] for line in result.predictions}) == len(result.predictions) == 12
    assert result.predictions[1] == {
        "id": "t2v:ret1", "direction": "t2v", "query": "a cat sleeps", "target": ["video1"], "rank": 1.0, "hit": 1.0,
        "top": [["video1", 1.0], *([f"video{i}", 0.0] for i in (0, 2, 3, 4, 5))],
    }  # fmt: skip
    json.dumps([result.predictions, result.metrics, result.protocol, result.rows, result.facts], allow_nan=False)
    blind = task.predict(make_evaluator(fake_model(vtc=oracle), task))
    assert blind.metrics == {} and not any("rank" in line or "target" in line for line in blind.predictions)


def test_a_limit_makes_a_smaller_gallery_and_says_so(task, oracle, fake_model, make_evaluator):
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task, limit=0.5))
    assert result.ledgers["videos"].expected == ("video0", "video2", "video4")
    assert result.facts["limited"] is True and result.facts["gallery"] == 3
    assert result.protocol["name"] == "msrvtt_1ka@toy"


def test_dsl_is_a_row_of_its_own(fake_dataset, oracle, fake_model, make_evaluator):
    task = Retrieval(dataset=fake_dataset(test=TEST), dsl=True)
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task))
    assert [row[0] for row in result.tables[0].rows] == ["raw", "DSL (sees all queries at once)"]


class Matcher:
    """Knows which text belongs to which clip; counts what it is asked."""

    def __init__(self):
        self.asked: list[tuple[str, str]] = []

    def match_logits(self, ctx, rows):
        videos = [ctx.batch.ids[i] for i in rows["video"].tolist()]
        texts = [CAPTIONS[int(ctx.texts.batch.ids[i])] for i in rows["text"].tolist()]
        self.asked += zip(texts, videos, strict=True)
        right = torch.tensor([float(f"video{CAPTIONS.index(t)}" == v) for t, v in zip(texts, videos, strict=True)])
        return torch.stack([-right, right], dim=1)


def _rerank(task, k, objective, make_evaluator, fake_model):
    """Retrieval with the fake context replaced by one that has what re-ranking needs."""
    model = fake_model(vtc=objective, vtm=Matcher())
    model.encoders = {"video": None, "text": None}
    model.forward = lambda batch, run: run(
        SimpleNamespace(batch=batch, model=model, device=torch.device("cpu"), modalities=("video", "text"))
    )
    return task.evaluate(make_evaluator(model, task)), model.objectives["vtm"]


def test_reranking_puts_the_first_k_in_the_order_of_the_matching_head(fake_dataset, fake_model, make_evaluator):
    """Texts are one place off in the raw scores, and the right clip is second; the matching head mends that."""
    videos = one_hot([f"video{i}" for i in range(6)])
    shifted = {text: np.roll(np.eye(6)[i], 1) + 0.5 * np.eye(6)[i] for i, text in enumerate(CAPTIONS)}
    task = Retrieval(dataset=fake_dataset(test=TEST), rerank=2)
    result, matcher = _rerank(task, 2, Embedding(videos, shifted), make_evaluator, fake_model)
    assert result.metrics["t2v/r1"] == 0.0
    row = result.rows["re-rank(2) by vtm"]
    assert row["t2v/r1"] == row["v2t/r1"] == 100.0
    assert len(matcher.asked) == len(set(matcher.asked)) == 12  # two candidates for each of six queries, both ways


def test_reranking_cannot_find_what_is_not_among_the_first_k(fake_dataset, fake_model, make_evaluator):
    videos = one_hot([f"video{i}" for i in range(6)])
    shifted = {text: np.roll(np.eye(6)[i], 1) + 0.5 * np.eye(6)[i] for i, text in enumerate(CAPTIONS)}
    task = Retrieval(dataset=fake_dataset(test=TEST), rerank=1)
    result, _ = _rerank(task, 1, Embedding(videos, shifted), make_evaluator, fake_model)
    assert result.rows["re-rank(1) by vtm"]["t2v/r1"] == 0.0
    assert result.rows["re-rank(1) by vtm"]["t2v/mnr"] == 2.0


def test_reranking_needs_a_matching_head(fake_dataset, oracle, fake_model, make_evaluator):
    task = Retrieval(dataset=fake_dataset(test=TEST), rerank=2)
    with pytest.raises(ConfigError, match=r"no 'vtm' that does.*objective=\[vtc,vtm\]"):
        task.evaluate(make_evaluator(fake_model(vtc=oracle), task))


def test_a_model_without_embeddings_is_refused(task, fake_model, make_evaluator):
    with pytest.raises(ConfigError, match=r"no objective 'vtc' that embeds"):
        task.evaluate(make_evaluator(fake_model(qa=None), task))


def test_queries_and_gallery_are_read_from_pairs():
    samples = [pair(0, "a", 5), pair(1, "b", 3), pair(2, "a", 5)]
    pairs = Pairs.of(samples, gallery(samples))
    assert [video.id for video in pairs.videos] == ["video5", "video3"]
    assert [text.texts[0] for text in pairs.texts] == ["a", "b"]
    assert pairs.video_of.tolist() == [0, 1, 0] and pairs.text_of.tolist() == [0, 1, 0]
    assert [rows.tolist() for rows in pairs.queries_of()] == [[0, 2], [1]]
    assert all(not video.texts for video in pairs.videos) and all(text.video is None for text in pairs.texts)


def test_published_training_lists_are_named(fake_dataset):
    def clips(*numbers):
        return [Sample(f"s{i}", texts=("x",), extra={"video_id": f"video{i}"}) for i in numbers]

    def known(count, **options):
        return Retrieval(dataset=fake_dataset(train=clips(*range(count))), **options).known_list()

    assert known(7010, protocol="msrvtt_1ka") == "train.7k"
    assert known(7009, protocol="msrvtt_1ka") is None
    assert known(7010) is None  # own data know no lists


def test_validation_is_carved_from_training_only_when_asked_for(fake_dataset):
    train = [
        Sample(f"video{i}", MediaRef(f"video{i}.mp4"), None, ("one", "two"), {}, {"video_id": f"video{i}"})
        for i in range(40)
    ]
    plain = Retrieval(dataset=fake_dataset(train=train), val_share=0.25)
    assert plain.selection == "last" and len(plain.train_samples()) == 40 and not plain.samples("val")
    carved = Retrieval(dataset=fake_dataset(train=train), selection="val", val_share=0.25, seed=1)
    val = carved.samples("val")
    assert carved.selection == "val" and 0 < len(val) < 20
    assert {s.id for s in val} | {s.id for s in carved.train_samples()} == {s.id for s in train}
    assert len(val) + len(carved.train_samples()) == 40
    assert {s.texts for s in val} == {("one",)}


def test_examples_show_the_right_clip_and_what_came_first(task, oracle, fake_model, make_evaluator):
    evaluator = make_evaluator(fake_model(vtc=oracle), task)
    strips = task.examples(evaluator, task.evaluate(evaluator), 2)
    assert [(s.question, s.answer, s.prediction, s.correct) for s in strips] == [
        ("a dog runs", "video0", "video0", True),
        ("a bird sings", "video3", "video3", True),
    ]
