from __future__ import annotations

import numpy as np
import pytest
import torch

from vtp.eval import scores as module
from vtp.eval.metrics import dual_softmax, rank_queries
from vtp.eval.scores import DualSoftmax, Embeddings, Matrix, Overlaid, Shuffled
from vtp.eval.search import search


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
