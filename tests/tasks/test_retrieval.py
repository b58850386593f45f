from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vtp.errors import ConfigError, DataError
from vtp.eval.forms import sha256_lines
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.types import MediaRef, Sample
from vtp_tasks.pairs import Pairs, gallery
from vtp_tasks.retrieval import Retrieval

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


def test_published_results_stand_beside_the_own_ones(fake_dataset, oracle, fake_model, make_evaluator):
    published = {"somebody": {"t2v/r1": 33.9, "t2v/mnr": 27.4}}
    task = Retrieval(dataset=fake_dataset(test=TEST), references=published)
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task))
    assert result.record()["references"] == {"published: somebody": published["somebody"]} and not result.rows
    assert result.tables[0].rows[-1] == ("published: somebody", 33.9, None, None, None, 27.4, *[None] * 5)


def test_every_clip_and_every_text_is_encoded_once(fake_dataset, fake_model, make_evaluator):
    samples = [pair(0, "a dog runs", 0), pair(1, "a cat sleeps", 0), pair(2, "a dog runs", 1)]
    task = Retrieval(dataset=fake_dataset(test=samples))
    objective = Embedding(one_hot(["video0", "video1"]), one_hot(["a dog runs", "a cat sleeps"]))
    task.evaluate(make_evaluator(fake_model(vtc=objective), task))
    assert objective.seen == ["video0", "video1", "a dog runs", "a cat sleeps"]


def test_a_split_without_a_text_is_refused_before_training_and_by_whoever_scores_it(
    fake_dataset, fake_model, make_evaluator, oracle
):
    silent = [Sample(f"s{i}", MediaRef(f"video{i}.mp4"), None, (), {}, {"video_id": f"video{i}"}) for i in range(6)]
    task = Retrieval(dataset=fake_dataset(test=silent))
    with pytest.raises(DataError, match="none of the 6 samples of the test split has a text"):
        task.check_split("test")
    for score in (task.evaluate, task.predict):
        with pytest.raises(DataError, match="nothing to search with"):
            score(make_evaluator(fake_model(vtc=oracle), task))
    Retrieval(dataset=fake_dataset(test=[*silent[1:], TEST[0]])).check_split("test")  # one is enough


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


@pytest.mark.parametrize("v2t", ["any", "set"])
def test_a_clip_without_a_text_is_a_candidate_and_asks_nothing(v2t, fake_dataset, fake_model, make_evaluator):
    """An oracle finds everything: no clip of which nothing could be right makes it look worse."""
    media = MediaRef("silent.mp4")
    silent = Sample("silent", media, media, (), {}, {"video_id": "silent"})
    samples = [silent, pair(0, "a dog runs", 0), pair(1, "a cat sleeps", 0), pair(2, "a car turns", 1)]
    objective = Embedding(
        {"silent": [0, 0, 1], "video0": [1, 0, 0], "video1": [0, 1, 0]},
        {"a dog runs": [1, 0, 0], "a cat sleeps": [0.9, 0, 0.2], "a car turns": [0, 1, 0]},
    )
    task = Retrieval(dataset=fake_dataset(test=samples), v2t=v2t, top=9)
    result = task.evaluate(make_evaluator(fake_model(vtc=objective), task))
    assert result.metrics["t2v/r1"] == result.metrics["v2t/r1"] == 100.0
    assert result.facts["gallery"] == 3
    asked = [line["id"] for line in result.predictions if line["direction"] == "v2t"]
    assert asked == ["v2t:video0", "v2t:video1"]
    assert any("1 of the videos have no text: v2t is scored on the others" in line for line in result.warnings)
    broken = task.evaluate(make_evaluator(fake_model(vtc=objective), task, broken=("video1.mp4",)))
    assert broken.metrics["v2t/r1"] == 50.0 and broken.rows[EVALUATED_ONLY]["v2t/r1"] == 100.0


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
        "higher": 0, "tied": 0,
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


def several(clips, texts):
    """``texts`` captions for each of ``clips`` clips, with random vectors."""
    rng = np.random.default_rng(3)
    table = [
        Sample(f"v{i}", MediaRef(f"v{i}.mp4"), MediaRef(f"v{i}.mp4"), tuple(f"{i} {j}" for j in range(texts)))
        for i in range(clips)
    ]
    table = [Sample(s.id, s.video, s.audio, s.texts, {}, {"video_id": s.id}) for s in table]
    vectors = Embedding(
        {s.id: rng.standard_normal(4) for s in table}, {t: rng.standard_normal(4) for s in table for t in s.texts}
    )
    return table, vectors


@pytest.mark.parametrize("broken", [(), ("v2.mp4",)])
def test_both_forms_of_v2t_equal_what_counting_gives(broken, fake_dataset, fake_model, make_evaluator):
    table, vectors = several(7, 5)
    video, text = vectors.tables["video"], vectors.tables["text"]
    score = {v.id: {c.id: [float(np.float32(video[v.id]) @ np.float32(text[t])) for t in c.texts] for c in table}
             for v in table}  # fmt: skip
    missing = {name.removesuffix(".mp4") for name in broken}
    any_ranks, set_ranks = [], []
    for v in table:
        best = max(score[v.id][v.id])
        others = [s for c in table if c is not v for s in score[v.id][c.id]]
        any_ranks.append(7 if v.id in missing else 1 + sum(s > best for s in others))
        beaten = sum(max(score[v.id][c.id]) > best for c in table if c is not v)
        set_ranks.append(7 if v.id in missing else 1 + beaten)
    if missing:  # a missed clip has the last rank: of 35 texts, or of 7 sets
        any_ranks[2] = 35
    results = {}
    for form in ("any", "set"):
        task = Retrieval(dataset=fake_dataset(test=table), v2t=form)
        results[form] = task.evaluate(make_evaluator(fake_model(vtc=vectors), task, broken=broken))
    assert results["any"].metrics["v2t/mnr"] == pytest.approx(np.mean(any_ranks))
    assert results["set"].metrics["v2t/mnr"] == pytest.approx(np.mean(set_ranks))
    assert results["set"].metrics["v2t/r1"] == pytest.approx(100 * np.mean([r == 1 for r in set_ranks]))
    assert np.mean(any_ranks) > np.mean(set_ranks)  # the forms differ, and which one is told
    assert results["any"].metrics["t2v/r1"] == results["set"].metrics["t2v/r1"]
    row = results["any"].rows["v2t: a clip's texts as one set"]
    assert row["v2t/mnr"] == results["set"].metrics["v2t/mnr"] and "t2v/r1" not in row
    assert results["set"].rows["v2t: any of a clip's texts"]["v2t/mnr"] == results["any"].metrics["v2t/mnr"]
    assert results["set"].facts["v2t"] in results["set"].tables[0].notes[3]
    if missing:
        seen = [v for v in table if v.id not in missing]
        beaten = [sum(max(score[v.id][c.id]) > max(score[v.id][v.id]) for c in seen if c is not v) for v in seen]
        assert results["set"].rows[EVALUATED_ONLY]["v2t/mnr"] == pytest.approx(1 + np.mean(beaten))


def test_with_one_text_per_clip_there_is_one_form(task, oracle, fake_model, make_evaluator):
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task))
    assert result.rows == {} and result.facts["v2t"] == "one text per clip"


def test_sounds_are_searched_like_clips(fake_dataset, fake_model, make_evaluator):
    names = [{"video_id": f"video{i}.wav"} for i in range(6)]
    table = [
        Sample(f"clip{i}", None, MediaRef(f"video{i}.wav"), (text,), {}, names[i]) for i, text in enumerate(CAPTIONS)
    ]
    objective = Embedding(one_hot([f"video{i}.wav" for i in range(6)]), one_hot(CAPTIONS))
    objective.needs = frozenset({"audio", "text"})
    objective.tables["audio"] = objective.tables.pop("video")
    objective.embed = lambda ctx, modality: torch.tensor(
        np.array([objective.tables[modality][s.texts[0] if modality == "text" else s.id]
                  for s in ctx.batch.extra["sample"]], dtype=np.float32)
    )  # fmt: skip
    task = Retrieval(dataset=fake_dataset(test=table), gallery="audio", protocol="audiocaps")
    evaluator = make_evaluator(fake_model(vtc=objective), task)
    result = task.evaluate(evaluator)
    assert result.metrics["t2a/r1"] == result.metrics["a2t/r1"] == result.metrics["r_mean"] == 100.0
    assert not any(name.startswith(("t2v", "v2t")) for name in result.metrics)
    assert set(result.ledgers) == {"clips"} and "text-audio retrieval" in result.tables[0].title
    assert result.predictions[0]["direction"] == "t2a" and task.examples(evaluator, result) == []
    coverage = result.ledger.modality_coverage()
    assert coverage["audio"] == 1.0 and coverage["video"] == 0.0


def seen_and_heard(samples):
    """An objective that embeds picture and sound together, as a third party writes it, and what it was shown."""
    names = [sample.id for sample in samples]
    shown = []

    def embed(ctx, modality):
        shown.append({m: bool(here.any()) for m, here in ctx.batch.present.items()})
        table = {"text": lambda s: CAPTIONS.index(s.texts[0]), "video": lambda s: names.index(s.id)}[modality]
        return torch.eye(len(names))[[table(s) for s in ctx.batch.extra["sample"]]]

    embeds = {"video": ("video", "audio")}
    return SimpleNamespace(needs=frozenset({"text"}), embeds=embeds, embed=embed), shown


def test_texts_are_compared_with_picture_and_sound(fake_dataset, fake_model, make_evaluator):
    table = [
        Sample(f"clip{i}", MediaRef(f"{i}.mp4"), MediaRef(f"{i}.wav"), (text,), extra={"video_id": f"clip{i}"})
        for i, text in enumerate(CAPTIONS)
    ]
    objective, shown = seen_and_heard(table)
    for searched, there, back in ((["video", "audio"], "t2va", "va2t"), (None, "t2v", "v2t")):
        task = Retrieval(dataset=fake_dataset(test=table), gallery=searched)
        result = task.evaluate(make_evaluator(fake_model(vtc=objective), task))
        assert result.metrics[f"{there}/r1"] == result.metrics[f"{back}/r1"] == 100.0
        assert result.facts["gallery_shown"] == ["video", "audio"]
        clips = [one for one in shown if one["video"]]
        assert clips and all(one == {"video": True, "audio": True, "text": False} for one in clips)
        shown.clear()
    task = Retrieval(dataset=fake_dataset(test=table), gallery="video")
    result = task.evaluate(make_evaluator(fake_model(vtc=objective), task))
    assert all(not one["audio"] for one in shown) and "t2v/r1" in result.metrics
    assert any("audio, which was withheld: task.gallery=[video,audio] shows it" in line for line in result.warnings)
    objective.embeds = {"video": ("video",)}
    assert not task.evaluate(make_evaluator(fake_model(vtc=objective), task)).warnings


def test_an_objective_that_does_not_say_what_it_embeds_is_told_how(fake_dataset, fake_model, make_evaluator):
    objective, _ = seen_and_heard(TEST)
    objective.embeds = {}
    task = Retrieval(dataset=fake_dataset(test=TEST))
    with pytest.raises(
        ConfigError, match=r"does not say that it embeds video: .*embeds = \{\"video\": \(\"video\",\)\}"
    ):
        task.evaluate(make_evaluator(fake_model(vtc=objective), task))


def test_an_objective_about_something_else_is_refused(fake_dataset, oracle, fake_model, make_evaluator):
    task = Retrieval(dataset=fake_dataset(test=TEST), gallery="audio")
    with pytest.raises(ConfigError, match=r"compares text with video, and .*with audio\. .*modalities=\[audio,text"):
        task.evaluate(make_evaluator(fake_model(vtc=oracle), task))


def test_own_data_have_no_official_protocol(fake_dataset, oracle, fake_model, make_evaluator):
    task = Retrieval(dataset=fake_dataset(name="csv", test=TEST))
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task))
    line = result.tables[0].notes[2]
    digest = sha256_lines(f"video{i}\t{text}" for i, text in enumerate(CAPTIONS))
    assert line == f"protocol own data (csv test: 6 videos, 6 queries, sha256 {digest[:12]})"
    assert result.protocol["official"] is False and result.protocol["official_name"] is None
    assert not result.warnings and "official" not in line and task.name == result.task == "retrieval"


def test_the_validation_split_can_be_reported(fake_dataset, oracle, fake_model, make_evaluator):
    dataset = fake_dataset(test=TEST[:3], val=TEST[3:])
    task = Retrieval(dataset=dataset, split="val", protocol="didemo_val")
    result = task.evaluate(make_evaluator(fake_model(vtc=oracle), task), task.split)
    assert result.split == "val" and result.facts["gallery"] == 3 and task.selection == "last"
    assert "the split is" not in result.tables[0].notes[2]  # didemo_val is about val
    assert task.samples("val") == TEST[3:] and task.samples("test") == TEST[:3]
    assert Retrieval(dataset=dataset).selection == "val"
    with pytest.raises(ConfigError, match="the split that task.selection=val chooses"):
        Retrieval(dataset=dataset, split="val", selection="val")


def test_a_negative_number_of_candidates_is_refused(fake_dataset):
    with pytest.raises(ConfigError, match="number of candidates"):
        Retrieval(dataset=fake_dataset(), rerank=-1)


def test_embeddings_in_files_give_what_embeddings_in_memory_give(
    fake_dataset, fake_model, make_evaluator, monkeypatch, tmp_path
):
    table, vectors = several(7, 5)
    vectors.tables["video"]["v3"] = np.full(4, np.nan)
    task = Retrieval(dataset=fake_dataset(test=table), dsl=True)
    want = task.evaluate(make_evaluator(fake_model(vtc=vectors), task, broken=("v2.mp4",)))
    monkeypatch.setattr("vtp.eval.shelf.MOST", 0)
    found = task.evaluate(make_evaluator(fake_model(vtc=vectors), task, broken=("v2.mp4",), scratch=tmp_path))
    assert found.record() == want.record() and found.predictions == want.predictions
