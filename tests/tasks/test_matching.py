"""Retrieval and multiple choice by a matching head over all pairs, with a real (untrained) model on random frames."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matching_models import QUESTIONS, SPLIT, WANTED, WORDS, frames_of, make_model, score_on_rank, scores
from matching_models import make_evaluator as make_evaluator_of
from torch import nn

from vtp.data import Example, collate
from vtp.errors import ConfigError, RunError
from vtp.model.context import ForwardContext
from vtp.types import MediaRef, Sample
from vtp_tasks import matching
from vtp_tasks.multiple_choice import MultipleChoice
from vtp_tasks.pairs import Pairs, compare_embeddings, gallery
from vtp_tasks.rerank import score_pairs
from vtp_tasks.retrieval import Retrieval


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def evaluator(model):
    return make_evaluator_of(model)


@pytest.fixture
def dataset(fake_dataset):
    return fake_dataset(train=SPLIT, test=SPLIT)


def alone(model, clip, text):
    """The log-odds of one pair in a batch of its own."""
    spec = model.specs()["text"]
    batch = collate([Example("pair", frames=frames_of(clip), token_ids=spec.tokenize([text])[0])], model.specs())
    with torch.no_grad():
        logits = model.objectives["vtm"].match_logits(ForwardContext(model, batch))[0]
    return float(logits[1] - logits[0])


def every_pair(model):
    clips = [f"clip{i}.mp4" for i in range(5)]
    return np.array([[alone(model, clip, text) for clip in clips] for text in WORDS])


def counting(monkeypatch, model):
    """Rows that each encoder has been given, by slot."""
    rows = {slot: [] for slot in model.encoders}
    for slot, encoder in model.encoders.items():

        def count(module, args, kwargs, slot=slot):
            tensors = next(iter(args or tuple(kwargs.values())))
            tensors = next(iter(tensors.values())).x if isinstance(tensors, dict) else tensors
            rows[slot].append(len(tensors))

        encoder.register_forward_pre_hook(count, with_kwargs=True)
    return rows


@pytest.mark.parametrize("pair_batch", [1, 4, 256])
def test_all_pairs_score_as_each_does_alone(model, evaluator, monkeypatch, pair_batch):
    """Texts of other lengths, other clips and the cuts between pieces change nothing; nothing is encoded twice."""
    pairs = Pairs.of(SPLIT, gallery(SPLIT))
    want = every_pair(model)
    rows = counting(monkeypatch, model)
    everything = np.ones((len(WORDS), 5), bool)
    scores, clips = score_pairs(evaluator, pairs, everything, "vtm", pair_batch=pair_batch)
    np.testing.assert_allclose(scores, want, atol=1e-5)
    assert want.std() > 0.05 and clips.ledger.complete
    assert sum(rows["text"]) == 5 and sum(rows["video"]) == 5  # distinct texts and clips
    assert max(rows["fusion"]) <= pair_batch and sum(rows["fusion"]) == 25


def test_only_the_wanted_pairs_are_scored(model, evaluator):
    pairs = Pairs.of(SPLIT, gallery(SPLIT))
    wanted = np.random.default_rng(0).random((6, 5)) < 0.4
    wanted[:, 3] = False  # a clip that no text is compared with
    wanted[4] |= wanted[0]
    wanted[0] = wanted[4]  # the two queries with one text
    scores, _ = score_pairs(evaluator, pairs, wanted, "vtm")
    assert (np.isfinite(scores) == wanted).all()
    np.testing.assert_allclose(scores[wanted], every_pair(model)[wanted], atol=1e-5)


def test_pairs_stand_in_the_order_of_the_length_of_their_texts(model, evaluator, monkeypatch):
    widths = []
    model.encoders["fusion"].register_forward_pre_hook(lambda module, args: widths.append(args[0]["text"].x.shape[1]))
    pairs = Pairs.of(SPLIT, gallery(SPLIT))
    score_pairs(evaluator, pairs, np.ones((6, 5), bool), "vtm", pair_batch=3)  # a text with the 3 clips of a batch
    lengths = sorted(len(ids) for ids in model.specs()["text"].tokenize(list(dict.fromkeys(WORDS))))
    assert widths[:5] == lengths  # no padding at all


def test_reranking_every_candidate_is_the_exhaustive_result(model, evaluator, dataset):
    task = Retrieval(dataset=dataset, rerank=6, exhaustive=True)
    rows = task.evaluate(evaluator).rows
    assert rows["re-rank(6) by vtm"] == rows["all pairs by vtm"]
    few = Retrieval(dataset=dataset, rerank=2, exhaustive=True).evaluate(evaluator).rows
    assert few["all pairs by vtm"] == rows["all pairs by vtm"] != few["re-rank(2) by vtm"]


def test_a_matching_head_can_be_the_headline(model, evaluator, dataset):
    """R@1 is that of the plain scores; embeddings and re-ranked candidates stand beside it."""
    task = Retrieval(dataset=dataset, objective="vtm", rerank=2)
    result = task.evaluate(evaluator)
    best = every_pair(model).argmax(1)
    hits = [best[i] == i % 5 for i in range(6)]
    assert result.metrics["t2v/r1"] == pytest.approx(100 * np.mean(hits))
    assert list(result.rows)[1:] == ["embeddings of vtc", "re-rank(2) by vtm"]
    assert result.facts["score_row"] == "all pairs by vtm" and result.tables[0].rows[0][0] == "all pairs by vtm"
    other = Retrieval(dataset=dataset, rerank=2, exhaustive=True).evaluate(evaluator)
    assert result.rows["embeddings of vtc"] == other.metrics
    assert result.rows["re-rank(2) by vtm"] == other.rows["re-rank(2) by vtm"]
    assert result.metrics == other.rows["all pairs by vtm"]
    assert result.predictions[0]["top"][0][0] == f"clip{best[0]}"


def test_a_clip_that_is_not_there_is_a_miss_of_the_matching_head_too(evaluator, fake_dataset):
    lost = Sample("lost", MediaRef("lost.mp4"), None, ("rain falls here",), {}, {"video_id": "lost"})
    task = Retrieval(dataset=fake_dataset(test=[*SPLIT, lost]), objective="vtm", rerank=9)
    result = task.evaluate(evaluator)
    assert dict(result.ledger.missing) == {"lost": "no such file"} and result.facts["gallery"] == 6
    assert result.rows["re-rank(9) by vtm"] == result.metrics


def test_a_clip_with_a_broken_score_is_missing(model, evaluator, dataset):
    head = model.objectives["vtm"].match_logits

    def broken(ctx, rows):
        logits = head(ctx, rows)
        ids = [ctx.batch.ids[i] for i in rows["video"].tolist()]
        return logits.masked_fill(torch.tensor([name == "clip1" for name in ids])[:, None], torch.nan)

    model.objectives["vtm"].match_logits = broken
    result = Retrieval(dataset=dataset, objective="vtm").evaluate(evaluator)
    assert dict(result.ledger.missing) == {"q1": "a score is not a finite number"}
    assert result.metrics["t2v/mnr"] < 5


@pytest.mark.parametrize("shape", ["one column", "a vector", "nought beside it"])
def test_a_head_may_give_one_number(model, evaluator, dataset, shape):
    head = model.objectives["vtm"].match_logits

    def one(ctx, rows):
        logits = head(ctx, rows)
        score = logits[:, 1:] - logits[:, :1]
        return {"one column": score, "a vector": score[:, 0]}.get(shape, torch.cat([0 * score, score], 1))

    want = Retrieval(dataset=dataset, objective="vtm").evaluate(evaluator)
    model.objectives["vtm"].match_logits = one
    found = Retrieval(dataset=dataset, objective="vtm").evaluate(evaluator)
    assert [line["top"] for line in found.predictions] == [line["top"] for line in want.predictions]


def test_a_head_that_gives_something_else_is_told(model, evaluator, dataset):
    model.objectives["vtm"].match_logits = lambda ctx, rows: torch.zeros(len(rows["text"]), 3)
    with pytest.raises(RunError, match=r"objective vtm: match_logits gave shape \(15, 3\).*\(15, 2\)"):
        Retrieval(dataset=dataset, objective="vtm").evaluate(evaluator)


def test_candidates_need_an_objective_that_embeds(model, evaluator, dataset):
    del model.objectives["vtc"]
    task = Retrieval(dataset=dataset, objective="vtm", rerank=2)
    with pytest.raises(ConfigError, match=r"task.rerank=2 takes the first candidates by embeddings.*objective=\[vtc"):
        task.evaluate(evaluator)
    assert list(Retrieval(dataset=dataset, objective="vtm").evaluate(evaluator).rows) == [
        "v2t: a clip's texts as one set"
    ]
    with pytest.raises(ConfigError, match=r"task.embed_objective=other: the model has no such objective"):
        Retrieval(dataset=dataset, objective="vtm", embed_objective="other").evaluate(evaluator)


def test_multiple_choice_by_the_matching_head_equals_scoring_each_option_alone(model, evaluator, fake_dataset):
    task = MultipleChoice(dataset=fake_dataset(test=QUESTIONS), objective="vtm", pair_batch=2)
    found = task.evaluate(evaluator)
    for line in found.predictions:
        want = [alone(model, f"{line['video']}.mp4", text) for text in line["options"]]
        assert line["scores"] == pytest.approx(want, abs=1e-5)


# --- several vectors per clip --------------------------------------------------------------------------------------


def test_several_vectors_of_a_clip_are_compared_by_log_sum_exp(monkeypatch):
    rng = np.random.default_rng(2)
    texts, clips = rng.standard_normal((7, 4)).astype("f"), rng.standard_normal((3, 5, 4)).astype("f")
    want = [[np.log(sum(np.exp(float(t @ c)) for c in clip)) for clip in clips] for t in texts]
    np.testing.assert_allclose(compare_embeddings(texts, clips), want, rtol=1e-5)
    monkeypatch.setattr("vtp.eval.embedding._BLOCK", 1)  # a text at a time
    np.testing.assert_allclose(compare_embeddings(texts, clips), want, rtol=1e-5)


def test_one_vector_per_clip_is_a_cosine():
    rng = np.random.default_rng(3)
    texts, clips = rng.standard_normal((4, 6)).astype("f"), rng.standard_normal((5, 6)).astype("f")
    np.testing.assert_allclose(compare_embeddings(texts, clips), texts @ clips.T, atol=1e-6)
    np.testing.assert_allclose(compare_embeddings(texts, clips[:, None]), texts @ clips.T, atol=1e-6)


def test_retrieval_and_multiple_choice_take_objectives_with_several_vectors(fake_dataset, fake_model, make_evaluator):
    """Clip i holds text i in one of its three vectors; the first of them alone would be wrong everywhere."""
    eye = np.eye(6, dtype=np.float32)
    texts = dict(zip("abcdef", eye, strict=True))
    clips = {f"clip{i}": np.stack([eye[(i + 1) % 6], eye[i], eye[i]]) for i in range(6)}

    def embed(ctx, modality):
        samples = ctx.batch.extra["sample"]
        found = [texts[s.texts[0]] if modality == "text" else clips[s.id] for s in samples]
        return torch.tensor(np.array(found))

    vtc = SimpleNamespace(embed=embed, needs=frozenset({"video", "text"}))
    split = [
        Sample(f"q{i}", MediaRef(f"{i}.mp4"), None, (text,), {}, {"video_id": f"clip{i}"})
        for i, text in enumerate("abcdef")
    ]
    task = Retrieval(dataset=fake_dataset(test=split))
    result = task.evaluate(make_evaluator(fake_model(vtc=vtc), task))
    assert result.metrics["t2v/r1"] == result.metrics["v2t/r1"] == 100.0
    lines = {line["id"]: line for line in result.predictions}
    assert lines["t2v:q0"]["top"][0] == ["clip0", pytest.approx(np.log(1 + 2 * np.e), abs=1e-5)]
    clips["clip2"][1, 0] = np.nan
    broken = task.evaluate(make_evaluator(fake_model(vtc=vtc), task))
    assert dict(broken.ledger.missing) == {"q2": "the embedding is not a finite number"}
    clips["clip2"][1, 0] = 0
    questions = [
        Sample(f"m{i}", s.video, None, tuple("abcdef"), {"answer_index": i}, s.extra) for i, s in enumerate(split)
    ]
    choice = MultipleChoice(dataset=fake_dataset(test=questions))
    assert choice.evaluate(make_evaluator(fake_model(vtc=vtc), choice)).metrics["accuracy"] == 100.0


# --- parameters sharded over processes -----------------------------------------------------------------------------


def test_all_processes_make_as_many_passes_where_passes_are_collective(monkeypatch):
    rows = np.arange(5)
    assert [piece.tolist() for piece in matching._pieces(rows, 2, False)] == [[0, 1], [2, 3], [4]]
    monkeypatch.setattr(matching.distributed, "gather_objects", lambda count: [count, 5])
    pieces = matching._pieces(rows, 2, True)
    assert [piece.tolist() for piece in pieces] == [[0, 1], [2, 3], [4], [0, 1], [0, 1]]
    assert not matching._is_collective(nn.Linear(1, 1))


@pytest.mark.slow
def test_sharded_parameters_give_the_scores_of_one_process(tmp_path):
    """Also where the processes have different numbers of pairs, and one of them none."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = torch.multiprocessing.spawn(score_on_rank, (str(tmp_path), port), nprocs=2, join=False)
    end = time.monotonic() + 240
    try:
        while not processes.join(timeout=5):
            assert time.monotonic() < end, "the ranks wait for each other"
    finally:
        for process in processes.processes:
            process.kill()
    want = [scores(make_model(), wanted) for wanted in WANTED]
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        for one, other in zip(found, want, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5, equal_nan=True)
