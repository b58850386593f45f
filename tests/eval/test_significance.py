from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from vtp.eval.significance import bootstrap_interval, paired_test


def test_the_interval_of_a_mean_agrees_with_the_normal_approximation():
    values = (np.random.default_rng(0).random(2000) < 0.4).astype(float)
    low, high = bootstrap_interval(values, samples=2000)
    half = 1.96 * math.sqrt(values.mean() * (1 - values.mean()) / len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.002)
    assert high == pytest.approx(values.mean() + half, abs=0.002)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(200):
        low, high = bootstrap_interval((rng.random(150) < 0.3).astype(float), samples=300, seed=seed)
        inside += low <= 0.3 <= high
    assert 0.90 <= inside / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval_and_constants_have_none():
    values = np.random.default_rng(0).random(50)
    assert (
        bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    )
    assert bootstrap_interval(np.ones(9)) == (1.0, 1.0)
    assert all(math.isnan(end) for end in bootstrap_interval(np.array([])))


def test_a_median_can_be_bootstrapped_and_chunks_do_not_matter(monkeypatch):
    values = np.arange(101.0)
    low, high = bootstrap_interval(values, np.median)
    assert low < 50 < high and (high - low) < 50
    monkeypatch.setattr("vtp.eval.significance._CHUNK", 1010)
    assert bootstrap_interval(values, np.median) == (low, high)


def exact_p_value(difference: np.ndarray) -> float:
    """All sign flips."""
    observed = abs(difference.sum())
    flips = [
        abs(np.dot(signs, difference)) >= observed - 1e-9
        for signs in itertools.product((-1, 1), repeat=len(difference))
    ]
    return float(np.mean(flips))


@pytest.mark.parametrize(
    "difference",
    [
        np.array([1.0, 1, 1, 1, 1, 1, -1, 1]),
        np.array([0.5, -0.25, 1, 1, -0.5, 0.25, 1]),
        np.array([3.0, -1, 2, 2, 5, -0.5]),
    ],
)
def test_the_paired_test_equals_all_sign_flips(difference):
    a = np.random.default_rng(0).random(len(difference))
    found = paired_test(a, a + difference, samples=40_000)
    assert found.p_value == pytest.approx(exact_p_value(difference), abs=0.01)
    assert found.difference == pytest.approx(difference.mean())
    assert (found.better, found.worse) == ((difference > 0).sum(), (difference < 0).sum())


def test_equal_systems_are_not_different_and_a_clear_winner_is():
    a = (np.random.default_rng(0).random(500) < 0.5).astype(float)
    same = paired_test(a, a)
    assert same.p_value == 1.0 and same.difference == 0.0 and same.equal == 500
    better = np.maximum(a, (np.random.default_rng(1).random(500) < 0.2).astype(float))
    found = paired_test(a, better)
    assert found.p_value < 0.001 and found.interval[0] > 0 and found.worse == 0


def test_both_systems_must_have_answered_the_same_queries():
    with pytest.raises(ValueError, match="one value per query"):
        paired_test(np.zeros(3), np.zeros(4))
