from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vtp.eval.metrics import (
    TIE_RULES,
    accuracy_by_type,
    dual_softmax,
    rank_queries,
    retrieval_metrics,
    sanity_warnings,
)

KS = (1, 2, 3, 5)


def brute_force(scores: list[float], relevant: set[int], ks=KS) -> tuple[float, dict[int, float]]:
    """Mean rank of the first relevant candidate and probability of the first K, over ALL orders of tied candidates."""
    ranks = []
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            ranks.append(1 + min(order.index(j) for j in relevant))
    return float(np.mean(ranks)), {k: float(np.mean(np.array(ranks) <= k)) for k in ks}


@st.composite
def queries(draw):
    """One row of up to six scores with many ties, and a non-empty set of relevant candidates."""
    count = draw(st.integers(1, 6))
    scores = draw(st.lists(st.integers(0, 3).map(float), min_size=count, max_size=count))
    relevant = draw(st.sets(st.integers(0, count - 1), min_size=1))
    return scores, relevant


@settings(max_examples=150, deadline=None)
@given(queries())
def test_expected_ranks_are_the_mean_over_all_orders_of_tied_candidates(query):
    scores, relevant = query
    ranks = rank_queries(np.array([scores]), [sorted(relevant)])
    mean, within = brute_force(scores, relevant)
    assert ranks.values()[0] == pytest.approx(mean)
    assert {k: ranks.hits(k)[0] for k in KS} == pytest.approx(within)


@settings(max_examples=100, deadline=None)
@given(queries())
def test_pessimistic_and_optimistic_ranks_are_the_ends(query):
    scores, relevant = query
    ranks = rank_queries(np.array([scores]), [sorted(relevant)])
    best = max(scores[j] for j in relevant)
    others = [s for j, s in enumerate(scores) if j not in relevant]
    assert ranks.values("optimistic")[0] == 1 + sum(s > best for s in others)
    assert ranks.values("pessimistic")[0] == 1 + sum(s >= best for s in others)
    for rule in ("optimistic", "pessimistic"):
        assert ranks.hits(2, rule)[0] == float(ranks.values(rule)[0] <= 2)


@settings(max_examples=200, deadline=None)
@given(queries())
def test_the_average_rule_is_the_mean_position_among_all_that_tie(query):
    """As the formula has it: sort the row, look up every column with the score of a relevant candidate, take the mean
    of their positions, counted from 0, and of several relevant candidates the least."""
    scores, relevant = query
    ordered = sorted(scores, reverse=True)
    position = min(np.mean([i for i, s in enumerate(ordered) if s == scores[j]]) for j in relevant)
    ranks = rank_queries(np.array([scores]), [sorted(relevant)])
    assert ranks.values("average")[0] == position + 1
    assert ranks.hits(1, "average")[0] == float(position == 0)
    assert [ranks.hits(k, "average")[0] for k in (2, 3, 5)] == [float(position < k) for k in (2, 3, 5)]


def test_the_average_rule_differs_where_it_was_taken_for_another():
    five = rank_queries(np.zeros((1, 10)), [[0]])  # positions 0 to 9: 4.5
    assert five.values("average") == [5.5] and five.hits(5, "average") == [1.0] and five.hits(1, "average") == [0.0]
    own = rank_queries(np.zeros((1, 3)), [[0, 1, 2]])  # three captions of the clip itself, and nothing else
    assert own.values("average") == [2.0] and own.hits(1, "average") == [0.0] and own.hits(1) == [1.0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(2, 7), st.sampled_from(TIE_RULES))
def test_metrics_do_not_depend_on_the_order_of_queries_and_candidates(seed, count, gallery, rule):
    rng = np.random.default_rng(seed)
    sim = rng.integers(0, 4, size=(count, gallery)).astype(np.float32)
    relevant = rng.random((count, gallery)) < 0.4
    rows, columns = rng.permutation(count), rng.permutation(gallery)
    plain = retrieval_metrics(rank_queries(sim, relevant), ties=rule)
    mixed = retrieval_metrics(rank_queries(sim[rows][:, columns], relevant[rows][:, columns]), ties=rule)
    assert mixed == pytest.approx(plain)


def test_all_scores_equal_is_chance_and_not_a_perfect_model():
    metrics = retrieval_metrics(rank_queries(np.zeros((20, 20)), np.eye(20, dtype=bool)))
    assert metrics == pytest.approx({"r1": 5.0, "r5": 25.0, "r10": 50.0, "mdr": 10.5, "mnr": 10.5})


def test_coarse_scores_neither_add_nor_lose_ranks():
    """Counting every tied column, as often done, gives more ranks than queries; here each query has exactly one."""
    rng = np.random.default_rng(0)
    sim = torch.tensor(rng.normal(size=(300, 300)) + 2 * np.eye(300))
    exact = retrieval_metrics(rank_queries(sim.float().numpy(), np.eye(300, dtype=bool)))
    coarse = rank_queries(sim.bfloat16().float().numpy(), np.eye(300, dtype=bool))
    assert (coarse.tied > 0).mean() > 0.1  # there are ties to get wrong
    assert retrieval_metrics(coarse)["r1"] == pytest.approx(exact["r1"], abs=1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_a_miss_at_the_last_rank(bad):
    sim = np.eye(4)
    sim[1, 1] = bad
    ranks = rank_queries(sim, np.eye(4, dtype=bool))
    assert ranks.miss.tolist() == [False, True, False, False]
    assert ranks.values().tolist() == [1, 4, 1, 1]
    assert ranks.hits(10).tolist() == [1, 0, 1, 1]  # not even in the first ten of four


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_score_of_a_wrong_candidate_is_never_an_advantage(bad):
    sim = np.array([[0.0, bad, 1.0], [0.0, 1.0, 0.0], [0.0, 0.5, 1.0]])
    assert rank_queries(sim, np.eye(3, dtype=bool)).miss.tolist() == [True, False, False]


def test_a_query_or_gallery_of_broken_scores_is_zero_percent_and_not_a_crash():
    metrics = retrieval_metrics(rank_queries(np.full((5, 5), np.nan), np.eye(5, dtype=bool)))
    assert metrics == {"r1": 0.0, "r5": 0.0, "r10": 0.0, "mdr": 5.0, "mnr": 5.0}


def test_a_missing_candidate_is_a_miss_for_its_own_query_and_last_for_all_others():
    sim = np.eye(4) + 0.1
    sim[:, 2] = np.nan
    ranks = rank_queries(sim, np.eye(4, dtype=bool))
    assert ranks.values().tolist() == [1, 1, 4, 1] and ranks.gallery == 4


def test_without_relevant_candidates_a_query_is_a_miss():
    assert rank_queries(np.eye(2), [[0], []]).miss.tolist() == [False, True]


def test_the_best_of_several_relevant_candidates_counts():
    sim = np.array([[0.9, 0.1, 0.8, 0.7]])
    assert rank_queries(sim, [[1, 2]]).values()[0] == 2
    assert rank_queries(sim, np.array([[False, True, True, False]])).values()[0] == 2


def test_large_matrices_go_in_blocks_with_the_same_result(monkeypatch):
    rng = np.random.default_rng(2)
    sim, relevant = rng.integers(0, 9, size=(37, 11)), rng.random((37, 11)) < 0.2
    sim = np.where(rng.random(sim.shape) < 0.05, np.nan, sim)
    whole = rank_queries(sim, relevant)
    monkeypatch.setattr("vtp.eval.metrics._CHUNK", 30)
    pieces = rank_queries(sim, relevant)
    assert whole.values().tolist() == pieces.values().tolist() and whole.miss.tolist() == pieces.miss.tolist()


def test_half_precision_scores_are_ranked_in_float32():
    sim = np.array([[1.0, 1.0 + 1e-9], [0.0, 1.0]])  # differ in float64 only
    assert rank_queries(sim, np.eye(2, dtype=bool)).values()[0] == 1.5


@pytest.mark.data
def test_metrics_equal_the_recorded_ones_of_another_implementation(golden):
    cases = torch.load(golden / "antmmf_losses.pt", weights_only=True)["retrieval_metrics"]
    assert len(cases) == 3
    for case in cases:
        sim, relevant = case["sim"].numpy(), case["relevant"].numpy()
        for direction, scores, labels in (("t2v", sim, relevant), ("v2t", sim.T, relevant.T)):
            if f"{direction}-r@1" not in case["metrics"]:
                continue
            found = retrieval_metrics(rank_queries(scores, labels))
            assert [found["r1"], found["r5"], found["r10"], found["mdr"]] == pytest.approx(
                [100 * case["metrics"][f"{direction}-r@{k}"] for k in (1, 5, 10)] + [case["metrics"][f"{direction}-mr"]]
            )


def test_impossible_metrics_are_noticed():
    published = {"r1": 53.6, "r5": 81.9, "r10": 90.7, "mdr": 3.0, "mnr": 9.0}  # a row of a public README
    assert "median rank is 1, not 3" in sanity_warnings(published)[0]
    assert sanity_warnings({"r1": 9.0, "r5": 8.0, "r10": 10.0, "mdr": 30.0, "mnr": 40.0})
    assert not sanity_warnings({"r1": 53.6, "r5": 81.9, "r10": 90.7, "mdr": 1.0, "mnr": 9.0})


def test_dual_softmax_is_the_formula():
    sim = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    prior = torch.tensor(sim).softmax(0).numpy()  # over the query axis
    np.testing.assert_allclose(dual_softmax(sim), sim * prior * 5, rtol=1e-5)


def test_dual_softmax_leaves_missing_scores_missing():
    sim = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    sim[1], sim[:, 2] = np.nan, np.nan
    out = dual_softmax(sim)
    assert np.isnan(out[1]).all() and np.isnan(out[:, 2]).all()
    kept = np.ix_([0, 2, 3], [0, 1, 3])
    np.testing.assert_allclose(out[kept], sim[kept] * torch.tensor(sim[kept]).softmax(0).numpy() * 4, rtol=1e-5)


def test_accuracy_by_type_is_sorted_by_frequency():
    found = accuracy_by_type(np.array([1, 0, 1, 0.5, 0]), ["who", "what", "what", "what", "how"])
    assert found == {"what": (50.0, 3), "how": (0.0, 1), "who": (100.0, 1)}
    assert list(found) == ["what", "how", "who"]


def test_no_query_at_all_is_not_a_number():
    assert all(np.isnan(v) for v in retrieval_metrics(rank_queries(np.zeros((0, 3)), np.zeros((0, 3), bool))).values())


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="two axes"):
        rank_queries(np.zeros(3), [[0]])
    with pytest.raises(ValueError, match="2 lists of indices"):
        rank_queries(np.zeros((2, 2)), [[0]])
