from __future__ import annotations

import numpy as np
import pytest
import torch

from vtp.eval import search as module
from vtp.eval.metrics import TIE_RULES, dual_softmax, rank_queries, retrieval_metrics
from vtp.eval.search import DualSoftmax, Embeddings, Matrix, Overlaid, Shuffled, search


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


def unit(rng, *shape):
    x = rng.standard_normal(shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def with_twins(rng, count, width):
    """Unit vectors of which a third are copies of others."""
    x = unit(rng, count, width)
    x[rng.integers(0, count, count // 3)] = x[rng.integers(0, count, count // 3)]
    return x


@pytest.mark.parametrize("double", [False, True])
def test_embeddings_rank_as_their_whole_matrix_and_twins_tie_exactly(double, monkeypatch):
    """Copies stand in many tiles and at their edges: an implementation that sums in another order somewhere breaks
    their ties, which plain numpy does."""
    monkeypatch.setattr(module, "ROWS", 192)
    monkeypatch.setattr(module, "COLUMNS", 128)
    if double:
        monkeypatch.setattr(Embeddings, "_gives_equal_scores", lambda self: False)
    rng = np.random.default_rng(0)
    text, clip = with_twins(rng, 500, 96), with_twins(rng, 300, 96)
    own = rng.integers(0, 300, 700)
    row_of = rng.integers(0, 500, 700)
    scores = Embeddings(text, clip, row_of)
    assert scores.shape == (700, 300) and scores.tile_shape == (192, 128)
    found = search(scores, np.arange(700), own, sets=own, top=4)
    exact = np.float64(text)[row_of] @ np.float64(clip).T
    same = scores.tile(np.arange(100), np.arange(100))
    np.testing.assert_allclose(same, exact[:100, :100], atol=1e-6)
    distinct = {part.tobytes(): i for i, part in enumerate(clip)}
    twin = np.array([distinct[part.tobytes()] for part in clip])
    by_twin = np.float64(np.float32(exact))[:, twin]  # float64 products of copies are equal once they are rounded
    want = rank_queries(by_twin, own[:, None])
    np.testing.assert_array_equal(found.forward.tied, want.tied)
    assert want.tied.sum() > 100
    assert (found.forward.higher != want.higher).mean() < 0.01  # float32 and float64 may differ in the last bit


def test_a_matrix_product_that_favours_some_places_is_made_in_float64(monkeypatch):
    """Numbers are added in another order at the edges: 1e-7 matters where twins must tie."""
    plain = torch.mm

    def at_the_edges(a, b, *, out):
        plain(a, b, out=out)
        out[-1] = torch.stack([(a[-1].flip(0) * row.flip(0)).cumsum(0)[-1] for row in b.T])
        return out

    assert not Embeddings(unit(np.random.default_rng(0), 70, 96), unit(np.random.default_rng(1), 70, 96)).double
    monkeypatch.setattr(torch, "mm", at_the_edges)
    assert Embeddings(unit(np.random.default_rng(0), 70, 96), unit(np.random.default_rng(1), 70, 96)).double


@pytest.mark.parametrize("vectors", [(1, 3), (2, 1), (2, 3)])
def test_several_vectors_are_compared_by_log_sum_exp(vectors, monkeypatch):
    monkeypatch.setattr(module, "_PRODUCTS", 64 * 64 * 2)
    rng = np.random.default_rng(1)
    text, clip = unit(rng, 90, vectors[0], 8), unit(rng, 70, vectors[1], 8)
    scores = Embeddings(text if vectors[0] > 1 else text[:, 0], clip if vectors[1] > 1 else clip[:, 0])
    want = np.log(np.exp(np.einsum("aie,bje->abij", np.float64(text), np.float64(clip))).sum((2, 3)))
    found = scores.tile(np.arange(60), np.arange(10, 70))
    np.testing.assert_allclose(found, want[:60, 10:], atol=1e-5)
    assert np.array_equal(scores.pairs(np.arange(60), np.arange(10, 70)), np.diagonal(found))


@pytest.mark.parametrize("over", [0, 1])
def test_dual_softmax_equals_that_of_the_whole_matrix(over):
    rng = np.random.default_rng(2)
    sim = rng.standard_normal((9, 7)).astype(np.float32)
    missing = [np.zeros(9, bool), np.zeros(7, bool)]
    missing[0][3] = missing[1][[0, 5]] = True
    raw = Matrix(sim)
    raw.tile_shape = (4, 3)
    whole = sim.copy()
    whole[3] = whole[:, [0, 5]] = np.nan
    want = dual_softmax(whole) if over == 0 else dual_softmax(whole.T).T
    scores = DualSoftmax(raw, over, *missing)
    rows, columns = np.flatnonzero(~missing[0]), np.flatnonzero(~missing[1])
    tile = scores.tile(rows, columns)
    np.testing.assert_allclose(tile, want[np.ix_(rows, columns)], rtol=1e-5)
    assert np.array_equal(scores.pairs(rows[:5], columns), np.diagonal(tile))


def test_other_scores_of_some_pairs_and_another_order():
    sim = np.arange(20.0).reshape(4, 5)
    scores = Overlaid(Matrix(sim), np.array([3, 0]), np.array([1, 2]), np.array([-1.0, np.nan]))
    want = sim.copy()
    want[3, 1], want[0, 2] = -1, np.nan
    np.testing.assert_array_equal(scores.tile(np.array([3, 0]), np.array([2, 1])), want[[3, 0]][:, [2, 1]])
    np.testing.assert_array_equal(scores.pairs(np.array([3, 0, 1]), np.array([1, 2, 1])), [-1, np.nan, 6])
    mixed = Shuffled(scores, np.array([3, 2, 1, 0]), np.array([1, 0, 2, 3, 4]))
    np.testing.assert_array_equal(mixed.tile(np.array([0, 3]), np.array([0, 2])), want[[3, 0]][:, [1, 2]])
    np.testing.assert_array_equal(mixed.pairs(np.array([0]), np.array([0])), [-1])


@pytest.mark.parametrize("rule", TIE_RULES)
def test_a_collapsed_model_has_the_ranks_of_chance(rule):
    same = np.repeat(unit(np.random.default_rng(3), 1, 33), 200, 0)
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


def test_no_query_and_no_candidate_are_no_error():
    none = np.zeros(0, np.int64)
    assert len(search(Matrix(np.zeros((0, 3))), none, none, top=2).forward) == 0
    found = search(Matrix(np.zeros((3, 2))), none, none, missing_columns=np.ones(2, bool), top=5)
    assert found.forward.miss.all() and (found.first.index == -1).all()
