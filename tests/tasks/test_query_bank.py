from __future__ import annotations

import numpy as np
import pytest

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
    assert 0 < found.rows.sum() < 8 or len(active) > 3
    np.testing.assert_array_equal(found.pairs(np.arange(5), here), np.diagonal(tile))


def test_a_hub_of_the_bank_gives_way():
    """Candidate 0 is near to everything: first for the bank and for two of three queries, wrong for one of them."""
    sim = np.array([[0.9, 0.1, 0.0], [0.8, 0.7, 0.0], [0.0, 0.0, 0.9]])
    bank = np.array([[0.8, 0.1, 0.0], [0.8, 0.0, 0.1]])
    own = np.arange(3)
    before = search(small(sim), own, own, top=1)
    assert before.forward.values().tolist() == [1, 2, 1]
    by = normalised(small(sim), small(bank), before.first.index[:, 0], np.zeros(3, bool))
    assert by.rows.tolist() == [True, True, False]
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

        keys = [s.id if modality == "video" else s.texts[0] for s in ctx.batch.extra["sample"]]
        return torch.tensor(np.array([self.tables[key] for key in keys], np.float32))


def test_it_is_a_row_of_its_own_from_text_alone(fake_dataset, fake_model, make_evaluator):
    rng = np.random.default_rng(0)
    test, train = [pair(i, f"text {i}") for i in range(6)], [pair(10 + i, f"old {i}") for i in range(9)]
    names = [*(f"v{i}" for i in range(6)), *(s.texts[0] for s in (*test, *train))]
    vectors = rng.standard_normal((len(names), 4))
    tables = dict(zip(names, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))
    task = Retrieval(dataset=fake_dataset(train=train, test=test), qb_norm=5, dsl=True)
    result = task.evaluate(make_evaluator(fake_model(vtc=Embedding(tables)), task))
    plain = Retrieval(dataset=fake_dataset(train=train, test=test))
    assert result.metrics == plain.evaluate(make_evaluator(fake_model(vtc=Embedding(tables)), plain)).metrics
    (row,) = (row for label, row in result.rows.items() if label == "t2v: QB-Norm (sees 5 training texts)")
    assert set(row) == {"t2v/r1", "t2v/r5", "t2v/r10", "t2v/mdr", "t2v/mnr"}
    assert result.facts["qb_norm"]["bank"] == 5 and 0 <= result.facts["qb_norm"]["normalised_queries"] <= 6
    alone = Retrieval(dataset=fake_dataset(test=test), qb_norm=5)
    found = alone.evaluate(make_evaluator(fake_model(vtc=Embedding(tables)), alone))
    assert not found.rows and "task.qb_norm: no row, because there are no training texts here." in found.warnings
