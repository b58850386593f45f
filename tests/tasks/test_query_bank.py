from __future__ import annotations

import numpy as np
import pytest

from vtp.data.table import evenly
from vtp.eval.scores import Matrix
from vtp.eval.search import search
from vtp.types import MediaRef, Sample
from vtp_tasks.query_bank import normalised
from vtp_tasks.retrieval import Retrieval


def small(scores):
    found = Matrix(scores.astype(np.float32))
    found.tile_shape = (3, 2)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_the_formula(seed):
    """exp(beta s) over the sum of the bank, for queries whose first candidate is one of the bank's; raw for others."""
    rng = np.random.default_rng(seed)
    sim, bank = rng.uniform(-1, 1, (8, 6)), rng.uniform(-1, 1, (4, 6))
    missing = np.zeros(6, bool)
    missing[rng.integers(6)] = True
    here = np.flatnonzero(~missing)
    best = here[sim[:, here].argmax(1)]
    active = set(here[bank[:, here].argmax(1)].tolist())
    found = normalised(small(sim), small(bank), best, missing, beta=5.0)
    tile = found.tile(np.arange(8), here)
    for row in range(8):
        want = sim[row, here]
        if best[row] in active:
            want = np.log(np.exp(5 * want) / np.exp(5 * bank[:, here]).sum(0))
        np.testing.assert_allclose(tile[row], want, rtol=1e-4, atol=1e-5)
    assert 0 < found.active.sum() < 8 or len(active) > 3
    np.testing.assert_array_equal(found.pairs(np.arange(5), here), np.diagonal(tile))


@pytest.mark.parametrize("seed", range(3))
def test_columns_that_ask_are_normalised_as_rows_are(seed):
    rng = np.random.default_rng(seed)
    sim, bank = rng.uniform(-1, 1, (8, 6)), rng.uniform(-1, 1, (4, 6))
    missing = rng.random(6) < 0.2
    best = np.flatnonzero(~missing)[sim[:, ~missing].argmax(1)]
    here = np.flatnonzero(~missing)
    there = normalised(small(sim), small(bank), best, missing, beta=5.0)
    back = normalised(small(sim.T), small(bank.T), best, missing, beta=5.0, back=True)
    np.testing.assert_array_equal(there.active, back.active)
    np.testing.assert_allclose(back.tile(here, np.arange(8)), there.tile(np.arange(8), here).T, rtol=1e-5)
    np.testing.assert_allclose(
        back.pairs(here, np.arange(len(here))), there.pairs(np.arange(len(here)), here), rtol=1e-5
    )


def test_a_hub_of_the_bank_gives_way():
    """Candidate 0 is near to everything: first for the bank and for two of three queries, wrong for one of them."""
    sim = np.array([[0.9, 0.1, 0.0], [0.8, 0.7, 0.0], [0.0, 0.0, 0.9]])
    bank = np.array([[0.8, 0.1, 0.0], [0.8, 0.0, 0.1]])
    own = np.arange(3)
    before = search(small(sim), own, own, top=1)
    assert before.forward.values().tolist() == [1, 2, 1]
    by = normalised(small(sim), small(bank), before.first.index[:, 0], np.zeros(3, bool))
    assert by.active.tolist() == [True, True, False]
    assert search(by, own, own).forward.values().tolist() == [1, 1, 1]


def pair(number, text):
    media = MediaRef(f"v{number}.mp4")
    return Sample(f"q{number}", media, media, (text,), {}, {"video_id": f"v{number}"})


class Embedding:
    needs = frozenset({"video", "text"})

    def __init__(self, tables):
        self.tables = tables

    def embed(self, ctx, modality):
        import torch

        keys = [s.extra["video_id"] if modality == "video" else s.texts[0] for s in ctx.batch.extra["sample"]]
        return torch.tensor(np.array([self.tables[key] for key in keys], np.float32))


def test_it_is_a_row_of_its_own_in_each_direction(fake_dataset, fake_model, make_evaluator):
    rng = np.random.default_rng(0)
    test, train = [pair(i, f"text {i}") for i in range(6)], [pair(10 + i, f"old {i}") for i in range(9)]
    names = [*(s.extra["video_id"] for s in (*test, *train)), *(s.texts[0] for s in (*test, *train))]
    vectors = rng.standard_normal((len(names), 4))
    tables = dict(zip(names, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))
    task = Retrieval(dataset=fake_dataset(train=train, test=test), qb_norm=5, dsl=True)
    result = task.evaluate(make_evaluator(fake_model(vtc=Embedding(tables)), task))
    plain = Retrieval(dataset=fake_dataset(train=train, test=test))
    assert result.metrics == plain.evaluate(make_evaluator(fake_model(vtc=Embedding(tables)), plain)).metrics
    assert list(result.rows)[1:] == [
        f"{d}: QB-Norm (sees 5 training {w})" for d, w in (("t2v", "texts"), ("v2t", "clips"))
    ]
    for (label, row), name in zip(list(result.rows.items())[1:], ("t2v", "v2t"), strict=True):
        assert set(row) == {f"{name}/{key}" for key in ("r1", "r5", "r10", "mdr", "mnr")}, label
        assert result.facts["qb_norm"][name]["bank"] == 5
        assert 0 <= result.facts["qb_norm"][name]["normalised_queries"] <= 6

    def sims(one, other):
        return np.array([tables[key] for key in one], np.float64) @ np.array([tables[key] for key in other]).T

    chosen = evenly(range(9), 5)
    clips, texts = [s.extra["video_id"] for s in test], [s.texts[0] for s in test]
    raw, bank = sims(clips, texts), sims([train[i].extra["video_id"] for i in chosen], texts)
    for row in range(6):
        if raw[row].argmax() in bank.argmax(1):
            raw[row] = np.log(np.exp(20 * raw[row]) / np.exp(20 * bank).sum(0))
    ranks = (raw > np.diagonal(raw)[:, None]).sum(1) + 1
    assert result.rows["v2t: QB-Norm (sees 5 training clips)"]["v2t/mnr"] == pytest.approx(ranks.mean())
    alone = Retrieval(dataset=fake_dataset(test=test), qb_norm=5)
    found = alone.evaluate(make_evaluator(fake_model(vtc=Embedding(tables)), alone))
    assert not found.rows and "task.qb_norm: no row, because there are no training texts here." in found.warnings
