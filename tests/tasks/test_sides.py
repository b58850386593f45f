"""Retrieval from every side of a clip to every other one: ranks are those of counting, whoever lacks something is
counted and named, and everything follows from the predictions."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vtp.errors import ConfigError
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.eval.metrics import rank_queries, retrieval_metrics
from vtp.eval.report import finite
from vtp.types import MODALITIES, MediaRef, Sample
from vtp_tasks.retrieval import Retrieval
from vtp_tasks.sides import find_space, read_side

ONE_BY_ONE = [("text", "video"), ("text", "audio"), ("audio", "video")]
WITH_TWO = [("text", "video+audio"), ("audio+text", "video"), ("video+text", "audio")]
EVERY = [pair for one, two in (*ONE_BY_ONE, *WITH_TWO) for pair in ((one, two), (two, one))]
NAMES = ["t2v", "v2t", "t2a", "a2t", "a2v", "v2a", "t2va", "va2t", "at2v", "v2at", "vt2a", "a2vt"]
CLIPS = 7
SILENT = ("2.wav", "5.wav")


def split(several: bool):
    """Seven clips; with several texts for some of them, some of which are equal."""
    found = []
    for i in range(CLIPS):
        texts = tuple(f"text {(i + j) % 5}" for j in range(1 + i % 3)) if several else (f"text {i}",)
        ref, sound = MediaRef(f"{i}.mp4"), MediaRef(f"{i}.wav")
        found.append(Sample(f"s{i}", ref, sound, texts, {}, {"video_id": f"clip{i}"}))
    return found


class Pair:
    """Embeddings of two modalities by tables, with ``ties`` of small whole numbers."""

    def __init__(self, rng, *pair, embeds=None, ties=True):
        self.needs, self.ties = frozenset(pair), ties
        self.embeds = embeds or {}
        self.tables = {m: {} for m in pair}
        self.rng = rng

    def of(self, modality, key):
        table = self.tables[modality]
        if key not in table:
            found = self.rng.standard_normal(4)
            table[key] = self.rng.integers(-1, 2, 4) + 0.5 if self.ties else found / np.linalg.norm(found)
        return table[key]

    def embed(self, ctx, modality):
        rows = []
        for s in ctx.batch.extra["sample"]:
            key = (s.texts or ("",))[0] if modality == "text" else s.extra.get("video_id", s.id)
            rows.append(self.of(modality, key))
        return torch.tensor(np.array(rows), dtype=torch.float32)


def three(rng, ties=True):
    pairs = {"vt": ("video", "text"), "at": ("audio", "text"), "av": ("audio", "video")}
    return {name: Pair(rng, *pair, ties=ties) for name, pair in pairs.items()}


def vector(objectives, sides, turn, sample, text, silent):
    """What stands for an item of a side: by every pair of modalities its embedding, zero for what it lacks."""
    parts = []
    for a in sides[0]:
        for b in sides[1]:
            objective = next(o for o in objectives.values() if {a, b} == o.needs)
            m = (a, b)[turn]
            there = m != "audio" or sample.audio.path not in silent
            key = text if m == "text" else sample.extra["video_id"]
            parts.append(objective.of(m, key) if there else np.zeros(4))
    joined = np.concatenate(parts)
    return joined / max(np.linalg.norm(joined), 1e-12) if len(parts) > 1 else joined


def by_counting(samples, objectives, query, gallery, silent):
    """Metrics of both directions from the whole matrix of scores."""
    q, g = read_side("q", query), read_side("g", gallery)
    sides = (g, q) if "text" in g else (q, g)
    lacks = {m: m == "audio" for m in MODALITIES}

    def missing(side, sample):
        return sample.audio.path in silent and all(lacks[m] for m in side)

    told = [(s, t) for s in samples for t in s.texts] if "text" in sides[0] else [(s, "") for s in samples]
    rows = np.array([vector(objectives, sides, 0, s, t, silent) for s, t in told], np.float32)
    columns = np.array([vector(objectives, sides, 1, s, "", silent) for s in samples], np.float32)
    sim = (rows.astype(np.float64) @ columns.astype(np.float64).T).astype(np.float32)
    no_row = np.array([missing(sides[0], s) for s, _ in told])
    no_column = np.array([missing(sides[1], s) for s in samples])
    sim[no_row], sim[:, no_column] = np.nan, np.nan
    relevant = np.array([[s is c for c in samples] for s, _ in told])
    forward = rank_queries(sim, relevant, missing=no_column)
    back = rank_queries(sim.T, relevant.T, missing=no_row)
    found = {}
    for name, ranks in zip(("rows", "columns"), (forward, back), strict=True):
        found[name] = retrieval_metrics(ranks)
    return found if "text" not in g else {"rows": found["columns"], "columns": found["rows"]}


@pytest.mark.parametrize(
    "several, silent",
    [
        pytest.param(False, (), marks=pytest.mark.slow, id="one text"),
        pytest.param(False, SILENT, id="one text, silent clips"),
        pytest.param(True, (), id="several texts"),
        pytest.param(True, SILENT, marks=pytest.mark.slow, id="several texts, silent clips"),
    ],
)
@pytest.mark.parametrize("query, gallery", EVERY, ids=NAMES)
def test_every_direction_equals_counting(query, gallery, several, silent, fake_dataset, fake_model, make_evaluator):
    samples, objectives = split(several), three(np.random.default_rng(len(query) * 7), ties="+" not in query + gallery)
    task = Retrieval(dataset=fake_dataset(test=samples), query=query, gallery=gallery, objective=None)
    result = task.evaluate(make_evaluator(fake_model(**objectives), task, silent=silent))
    letters = ["".join(m[0] for m in read_side("", side)) for side in (query, gallery)]
    there, back = "2".join(letters), "2".join(reversed(letters))
    assert there == NAMES[EVERY.index((query, gallery))]
    want = by_counting(samples, objectives, query, gallery, silent)
    for name, side in ((there, "rows"), (back, "columns")):
        for key, value in want[side].items():
            assert result.metrics[f"{name}/{key}"] == pytest.approx(value, abs=1e-4), (name, key)
    assert next(iter(result.metrics)) == f"{there}/r1" and task.metrics[1] == f"{there}/r1"
    assert result.predictions[0]["direction"] == there and list(result.chart) == [there, back]

    # whoever lacks what is asked for is missing, or counted and named where something else speaks for it
    alone = "audio" in (query, gallery)
    assert bool(result.missing) == bool(silent and alone) and bool(result.bounds) == bool(result.missing)
    if silent and alone:
        lost = {line["id"] for line in result.predictions if "missing" in line or "no_query" in line}
        assert all(any(f"{i}" in name for name in lost) for i in (2, 5)) and EVALUATED_ONLY in result.rows
    elif silent and "audio" in query + gallery:
        what = "queries" if "audio" in "+".join(task.sides[0]) else "clips"
        named = result.facts["lacking"][what]["audio"]
        clips = {"clip2", "clip5"} if what == "clips" else {"s2", "s5"}
        assert {name.partition("#")[0] for name in named} == clips
        assert any(f"{what} have no audio (first: {named[0]})" in line for line in result.warnings)

    # and all of it follows from the predictions
    lines = [json.loads(json.dumps(finite(line))) for line in result.predictions]
    counted = task.recount(lines, json.loads(json.dumps(finite(result.facts))))
    assert counted.metrics == result.metrics and counted.bounds == result.bounds
    assert counted.intervals(task.seed) == result.intervals
    assert (counted.expected, counted.missing) == (len(result.ledger.expected), dict(result.ledger.missing))
    form = task.protocol.form.lines(counted.samples)
    again = task.protocol.match(counted.samples, "toy", "test")
    assert {what: len(found) for what, found in form.items()} == result.protocol["counts"]
    assert dict(again.sha256) == result.protocol["sha256"]


@pytest.mark.parametrize("query, gallery", [("audio", "video"), ("audio+text", "video")])
def test_silent_clips_could_have_been_anywhere_between_the_bounds(
    query, gallery, fake_dataset, fake_model, make_evaluator
):
    def run(silent, seed):
        objectives = three(np.random.default_rng(0))
        for i in range(CLIPS):
            for m in ("audio", "video"):
                objectives["av"].of(m, f"clip{i}")
        for i in (2, 5) if seed is not None else ():
            objectives["av"].tables["audio"][f"clip{i}"] = np.random.default_rng(seed + i).uniform(-1, 1, 4)
        task = Retrieval(dataset=fake_dataset(test=split(False)), query=query, gallery=gallery, objective=None)
        return task.evaluate(make_evaluator(fake_model(**objectives), task, silent=silent))

    reported = run(SILENT, None)
    for seed in range(4) if reported.missing else ():
        for name, value in run((), 10 * seed).metrics.items():
            low, high = reported.bounds[name]
            assert low - 1e-9 <= value <= high + 1e-9, name
    assert bool(reported.bounds) == (query == "audio")


def test_texts_do_not_matter_where_no_side_has_one(fake_dataset, fake_model, make_evaluator):
    """Neither for the numbers nor for what the items are recognised by, nor are they needed."""
    found = []
    for texts in (("a", "b"), ("c",), ()):
        samples = [Sample(s.id, s.video, s.audio, texts, {}, s.extra) for s in split(False)]
        objectives = three(np.random.default_rng(1))
        task = Retrieval(dataset=fake_dataset(test=samples), query="audio", gallery="video", objective="av")
        task.check_split("test")
        found.append(task.evaluate(make_evaluator(fake_model(**objectives), task)))
    assert found[0].metrics == found[1].metrics == found[2].metrics
    assert found[0].protocol["sha256"] == found[1].protocol["sha256"] == found[2].protocol["sha256"]
    assert found[0].protocol["counts"] == {"videos": CLIPS, "queries": CLIPS}
    assert found[0].predictions[0]["query"] == "clip0" and found[0].predictions[0]["target"] == ["clip0"]
    assert found[0].tables[0].title == "retrieval: audio-video retrieval (test)"


def test_subsets_of_a_side_of_several_are_rows(fake_dataset, fake_model, make_evaluator):
    """What is withheld leaves the retrieval by the rest, under the name of the whole."""
    samples = split(False)
    objectives = three(np.random.default_rng(3), ties=False)
    task = Retrieval(
        dataset=fake_dataset(test=samples), query="audio+text", gallery="video", objective=None, subsets="all"
    )
    result = task.evaluate(make_evaluator(fake_model(**objectives), task))
    assert set(result.rows) == {"only video+audio", "only video+text"}
    for label, letters, query in (("only video+audio", "a", "audio"), ("only video+text", "t", "text")):
        task = Retrieval(dataset=fake_dataset(test=samples), query=query, gallery="video", objective=None)
        want = task.evaluate(make_evaluator(fake_model(**objectives), task)).metrics
        for key in ("r1", "r5", "mdr", "mnr"):
            assert result.rows[label][f"at2v/{key}"] == pytest.approx(want[f"{letters}2v/{key}"]), (label, key)
            assert result.rows[label][f"v2at/{key}"] == pytest.approx(want[f"v2{letters}/{key}"]), (label, key)


@pytest.mark.parametrize("query, gallery", [("text", "video"), ("video", "audio"), ("text", "audio")])
def test_several_views_are_a_row_beside_the_headline(query, gallery, fake_dataset, fake_model, make_evaluator):
    objectives = three(np.random.default_rng(5))
    plain = {name: objective.embed for name, objective in objectives.items()}
    for name, objective in objectives.items():  # of several views the features of a video point the other way

        def embed(ctx, modality, name=name):
            found = plain[name](ctx, modality)
            assert ctx.batch.extra["views"][0] in ((1, 4) if modality == "video" else (1,))
            return -found if ctx.batch.extra["views"][0] == 4 else found

        objective.embed = embed
    given = {"dataset": fake_dataset(test=split(False)), "query": query, "gallery": gallery, "objective": None}
    task, one = Retrieval(views=4, **given), Retrieval(**given)
    evaluator = make_evaluator(fake_model(**objectives), task)
    result, want = task.evaluate(evaluator), one.evaluate(evaluator)
    assert result.metrics == want.metrics
    if "video" not in (query, gallery):
        assert not result.rows and "task.views: no row, because no side has a picture." in result.warnings
        return
    for objective in objectives.values():
        if "video" in objective.tables:
            for key, vector in objective.tables["video"].items():
                objective.tables["video"][key] = -vector
    turned = one.evaluate(evaluator)
    assert result.rows == {"4 views of a video averaged": turned.metrics} and turned.metrics != want.metrics


def test_what_compares_two_sides():
    rng = np.random.default_rng(0)
    joint = Pair(rng, "video", "audio", "text", embeds={"video": ("video", "audio"), "audio": ("video", "audio")})
    objectives = {"joint": joint, **three(rng)}

    def names(one, other, name=None):
        return find_space("t", objectives, name, read_side("", one), read_side("", other)).names

    assert names("text", "video") == ["vt"] and names("text", "video", "joint") == ["joint"]
    assert names("text", "video+audio") == ["joint"] and names("audio", "video") == ["av"]
    assert names("audio+text", "video") == ["av", "vt"]
    del objectives["joint"]
    assert names("text", "video+audio") == ["vt", "at"]


BAD = {
    "modality": ({"query": "vidio"}, r"task.query: unknown modality 'vidio'. Did you mean 'video'"),
    "list": ({"gallery": ["video", "sound"]}, "task.gallery: unknown modality 'sound'.* Expected video, audio, text"),
    "none": ({"query": []}, "task.query=.*at least one"),
    "twice": ({"gallery": ["video", "video"]}, "each modality once"),
    "itself": ({"query": ["text", "audio"], "gallery": ["text", "video"]}, "both hold text"),
}


@pytest.mark.parametrize("options, words", BAD.values(), ids=BAD)
def test_wrong_sides_are_refused(options, words, fake_dataset):
    with pytest.raises(ConfigError, match=words):
        Retrieval(dataset=fake_dataset(), **options)


def test_what_nothing_compares_is_told(fake_dataset, fake_model, make_evaluator):
    objectives = three(np.random.default_rng(0))
    del objectives["av"]
    data = fake_dataset(test=split(False))
    task = Retrieval(dataset=data, query="audio", gallery="video", objective=None)
    with pytest.raises(ConfigError, match=r"audio with video, and no objective .*vt: text, video; at: audio, text.*av"):
        task.check(fake_model(**objectives))
    task = Retrieval(dataset=data, query="audio", gallery="video", objective="vtm")
    head = SimpleNamespace(needs=frozenset({"video", "text"}), match_logits=lambda *_: None)
    with pytest.raises(ConfigError, match="vtm matches texts with clips, and task.query=audio"):
        task.check(fake_model(vtm=head))
