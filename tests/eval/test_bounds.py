"""Whatever missing items would have scored, metrics lie between their bounds; and the bounds are taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtp.eval.bounds import between, rank_bounds
from vtp.eval.metrics import TIE_RULES, rank_queries, retrieval_metrics


def of(sim, relevant, missing, rule):
    """Metrics as reported, and their bounds."""
    ranks = rank_queries(sim, relevant, missing=missing)
    lost = (relevant & missing).any(1)
    hidden, own = (missing & ~relevant).sum(1), (missing & relevant).sum(1)

    def metrics(one):
        return retrieval_metrics(one, ties=rule, ks=(1, 2, 5))

    return metrics(ranks), between(metrics, *rank_bounds(ranks, hidden, lost, own=own, ties=rule))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 8), st.sampled_from(TIE_RULES))
def test_no_scores_of_missing_candidates_leave_the_bounds(seed, queries, gallery, rule):
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, 4, (queries, gallery)).astype(np.float32)
    relevant = rng.random((queries, gallery)) < 0.3
    relevant[np.arange(queries), rng.integers(0, gallery, queries)] = True
    missing = rng.random(gallery) < 0.3
    seen = np.where(missing, np.nan, whole)
    reported, bounds = of(seen, relevant, missing, rule)
    other = np.where(missing, rng.integers(-1, 5, whole.shape), whole).astype(np.float32)
    possible = [retrieval_metrics(rank_queries(sim, relevant), ties=rule, ks=(1, 2, 5)) for sim in (whole, other)]
    for found in (reported, *possible):
        for name, value in found.items():
            low, high = bounds[name]
            assert low - 1e-9 <= value <= high + 1e-9, name


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 8), st.sampled_from(TIE_RULES))
def test_the_bounds_are_taken(seed, gallery, rule):
    rng = np.random.default_rng(seed)
    sim = rng.integers(0, 4, (gallery, gallery)).astype(np.float32)
    own = np.eye(gallery, dtype=bool)
    missing = rng.random(gallery) < 0.4
    missing[rng.integers(gallery)] = False
    _, bounds = of(np.where(missing, np.nan, sim), own, missing, rule)
    for below, name in ((np.where(own, 9, -9), "high"), (np.where(own, -9, 9), "low")):
        found = retrieval_metrics(rank_queries(np.where(missing, below, sim), own), ties=rule, ks=(1, 2))
        for metric, value in found.items():
            falls = metric in ("mdr", "mnr")
            assert value == pytest.approx(bounds[metric][(name == "high") != falls])


def test_a_hub_that_goes_missing_raises_the_score_and_not_the_upper_bound():
    """20 clips, each text nearest to clip 0 and then to its own: without clip 0 everything but it is found."""
    sim = 0.5 * np.eye(20)
    sim[:, 0] = 1.0
    own = np.eye(20, dtype=bool)
    whole = retrieval_metrics(rank_queries(sim, own))
    missing = np.arange(20) == 0
    reported, bounds = of(np.where(missing, np.nan, sim), own, missing, "expected")
    assert (whole["r1"], reported["r1"], bounds["r1"]) == (5.0, 95.0, (0.0, 100.0))


def test_bounds_of_a_complete_result_are_the_result():
    sim = np.random.default_rng(0).normal(size=(9, 9))
    reported, bounds = of(sim, np.eye(9, dtype=bool), np.zeros(9, bool), "expected")
    assert bounds == {name: (value, value) for name, value in reported.items()}
