from __future__ import annotations

import numpy as np
import pytest

from vtp.eval import search as module
from vtp.eval.metrics import TIE_RULES, rank_queries, retrieval_metrics
from vtp.eval.scores import Embeddings, Matrix
from vtp.eval.search import search


def count(scores, relevant, missing):
    """Of one asker: what :class:`vtp.eval.metrics.Ranks` holds, by plain counting over Python lists."""
    usable = [j for j in range(len(scores)) if not missing[j]]
    own = [scores[j] for j in usable if j in relevant and np.isfinite(scores[j])]
    others = [scores[j] for j in usable if j not in relevant]
    if not own or not all(map(np.isfinite, others)):
        return None
    best = max(own)
    return sum(s > best for s in others), others.count(best), own.count(best)


def agrees(ranks, found):
    """Whether ranks hold what was counted for every asker."""
    for i, one in enumerate(found):
        if one is None:
            assert ranks.miss[i], i
        else:
            assert not ranks.miss[i] and (ranks.higher[i], ranks.tied[i], ranks.positives[i]) == one, i


def case(rng):
    """A small matrix with ties, scores that are no numbers, several right candidates or none, missing rows and
    columns, and tiles of any size."""
    queries, gallery = rng.integers(1, 9, 2)
    sim = rng.integers(0, rng.integers(1, 6), (queries, gallery)).astype(np.float32)
    bad = rng.random(sim.shape) < rng.choice([0, 0, 0.1])
    sim = np.where(bad, rng.choice([np.nan, np.inf, -np.inf], sim.shape), sim).astype(np.float32)
    relevant = rng.random(sim.shape) < rng.choice([0.1, 0.4])
    missing = [rng.random(n) < rng.choice([0, 0.2]) for n in sim.shape]
    scores = Matrix(sim)
    scores.tile_shape = tuple(rng.integers(1, 10, 2))
    return scores, relevant, missing


@pytest.mark.parametrize("seed", range(4))
def test_ranks_in_both_directions_equal_plain_counting(seed):
    """Two thousand random cases in all."""
    rng = np.random.default_rng(seed)
    misses = ties = 0
    for _ in range(500):
        scores, relevant, missing = case(rng)
        found = search(scores, *np.nonzero(relevant), missing_rows=missing[0], missing_columns=missing[1])
        sides = ((found.forward, scores.scores, relevant), (found.back, scores.scores.T, relevant.T))
        for (ranks, sim, right), own, other in zip(sides, missing, missing[::-1], strict=True):
            want = [
                None if gone else count(row.tolist(), set(np.flatnonzero(line)), other)
                for row, line, gone in zip(sim, right, own, strict=True)
            ]
            agrees(ranks, want)
            assert ranks.gallery == sim.shape[1]
            misses, ties = misses + ranks.miss.sum(), ties + (ranks.tied[~ranks.miss] > 0).sum()
    assert misses > 300 and ties > 300  # there was something to get wrong


@pytest.mark.parametrize("seed", range(2))
def test_sets_are_scored_by_their_best_query(seed):
    rng = np.random.default_rng(seed)
    for _ in range(400):
        scores, _, missing = case(rng)
        queries, gallery = scores.shape
        sets = rng.integers(0, gallery, queries)
        found = search(
            scores, np.arange(queries), sets, sets=sets, missing_rows=missing[0], missing_columns=missing[1]
        ).sets
        described = np.unique(sets)
        assert found.gallery == len(described)
        for clip in described:
            best = {}  # of each set that has a text, NaN where none of them has a score
            for one in described:
                own = scores.scores[(sets == one) & ~missing[0], clip]
                if len(own):
                    own = own[np.isfinite(own)]
                    best[one] = max(own) if len(own) else np.nan
            names = list(best)
            relevant = {names.index(clip)} if clip in names else set()
            want = count([float(best[n]) for n in names], relevant, [False] * len(names))
            agrees(found.take(np.array([clip])), [None if missing[1][clip] else want])


def test_first_candidates_are_those_of_a_stable_sort():
    rng = np.random.default_rng(5)
    for k in (1, 3, 20):
        for _ in range(60):
            scores, relevant, missing = case(rng)
            found = search(scores, *np.nonzero(relevant), missing_rows=missing[0], missing_columns=missing[1], top=k)
            sim = np.where(np.isfinite(scores.scores), scores.scores, -np.inf)
            sim[missing[0]] = sim[:, missing[1]] = -np.inf
            for first, one in ((found.first, sim), (found.first_back, sim.T)):
                order = np.argsort(-one, axis=1, kind="stable")[:, :k]
                want = np.take_along_axis(one, order, 1)
                np.testing.assert_array_equal(first.scores, want)
                np.testing.assert_array_equal(first.index, np.where(want == -np.inf, -1, order))


@pytest.mark.parametrize("rule", TIE_RULES)
def test_a_collapsed_model_has_the_ranks_of_chance(rule):
    same = np.repeat(np.random.default_rng(3).standard_normal((1, 33)).astype(np.float32), 200, 0)
    found = search(Embeddings(same, same), np.arange(200), np.arange(200), top=10)
    want = retrieval_metrics(rank_queries(np.zeros((200, 200)), np.eye(200, dtype=bool)), ties=rule)
    assert retrieval_metrics(found.forward, ties=rule) == retrieval_metrics(found.back, ties=rule) == want
    assert (found.first.index == np.arange(10)).all()


def test_progress_is_told(monkeypatch):
    told = []
    scores = Matrix(np.zeros((5, 4)))
    scores.tile_shape = (2, 3)

    class Bar:
        def __init__(self, label, shown):
            assert (label, shown) == ("compare things", True)

        def __enter__(self):
            return lambda done, total: told.append((done, total))

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(module, "bar", Bar)
    search(scores, np.arange(4), np.arange(4), label="compare things", shown=True)
    assert told == [(i, 6) for i in range(1, 7)]


def test_a_sort_of_one_number_is_the_stable_sort_of_three():
    rng = np.random.default_rng(6)
    owner = rng.integers(0, 7, 4000)
    scores = rng.choice([-np.inf, -2.5, -1e-30, -0.0, 0.0, 1e-30, 0.5, 3e38], 4000).astype(np.float32)
    for some in (slice(None), slice(1), slice(0)):
        found = module._by_owner_and_score(owner[some], scores[some])
        np.testing.assert_array_equal(found, np.lexsort((-scores[some], owner[some])))


def test_no_query_and_no_candidate_are_no_error():
    none = np.zeros(0, np.int64)
    assert len(search(Matrix(np.zeros((0, 3))), none, none, top=2).forward) == 0
    found = search(Matrix(np.zeros((3, 2))), none, none, missing_columns=np.ones(2, bool), top=5)
    assert found.forward.miss.all() and (found.first.index == -1).all()
