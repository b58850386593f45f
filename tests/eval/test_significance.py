from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from vtp.eval.significance import bootstrap_interval, paired_test, visible_difference


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


def clustered(rng, clips: int, per_clip: int, mean: float) -> np.ndarray:
    """0 and 1 per sentence; clips differ in how easy they are (beta-binomial, correlation within a clip 1/3)."""
    easy = rng.beta(2 * mean, 2 * (1 - mean), size=clips)
    return (rng.random((clips, per_clip)) < easy[:, None]).astype(float).ravel()


def test_intervals_cover_the_truth_with_41_sentences_per_clip():
    """Nominal 95 %: between 93 and 97 % of simulated test sets; over sentences it would be fewer than six in ten."""
    rng, clips = np.random.default_rng(2), 200
    names = [f"clip{i}" for i in range(clips) for _ in range(41)]
    inside, naive = 0, 0
    for seed in range(500):
        values = clustered(rng, clips, 41, 0.4)
        low, high = bootstrap_interval(values, clusters=names, samples=400, seed=seed)
        inside += low <= 0.4 <= high
        half = 1.96 * values.std() / math.sqrt(len(values))
        naive += abs(values.mean() - 0.4) <= half
    assert 0.93 <= inside / 500 <= 0.97
    assert naive / 500 < 0.6


def test_the_paired_test_flips_clips_and_not_sentences():
    """No difference on average, but it goes with the clip: 5 % of tests may find one."""
    rng = np.random.default_rng(3)
    names = [f"clip{i}" for i in range(60) for _ in range(41)]
    found, naive = [], []
    for seed in range(40):
        difference = np.repeat(rng.normal(size=60), 41) + rng.normal(size=60 * 41)
        found.append(paired_test(difference * 0, difference, clusters=names, samples=300, seed=seed).p_value <= 0.05)
        naive.append(paired_test(difference * 0, difference, samples=300, seed=seed).p_value <= 0.05)
    assert np.mean(found) < 0.15 and np.mean(naive) > 0.5


def test_clusters_of_one_are_no_clusters_and_their_names_do_not_matter():
    values = np.random.default_rng(4).random(90)
    names = [f"c{i}" for i in range(90)]
    assert bootstrap_interval(values, clusters=names) == pytest.approx(bootstrap_interval(values), abs=1e-12)
    twice, mixed = np.repeat(values, 3), np.random.default_rng(0).permutation(270)
    who = np.repeat(names, 3)
    assert bootstrap_interval(twice, clusters=who) == pytest.approx(bootstrap_interval(values), abs=1e-12)
    low, high = bootstrap_interval(twice[mixed], clusters=who[mixed])  # another order: other draws, the same width
    assert high - low == pytest.approx(np.subtract(*bootstrap_interval(values)[::-1]), rel=0.15)


def test_medians_of_clusters_equal_those_of_what_was_drawn():
    from vtp.eval.significance import _medians

    rng = np.random.default_rng(5)
    values, where = rng.integers(0, 9, 40).astype(float), rng.integers(0, 7, 40)
    chosen = rng.integers(0, 7, size=(30, 7))
    want = [np.median(np.concatenate([values[where == c] for c in row])) for row in chosen]
    assert _medians(values, where, chosen, 7).tolist() == want


def test_the_difference_that_can_be_seen_is_found_8_times_in_10():
    rng = np.random.default_rng(6)
    names = [f"clip{i}" for i in range(200) for _ in range(5)]

    def draw(shift):
        return shift + np.repeat(rng.normal(size=200), 5) + rng.normal(size=1000)

    visible = np.mean([visible_difference(draw(0.0), names) for _ in range(20)])
    expected = (1.96 + 0.8416) * math.sqrt((1 + 1 / 5) / 200)
    assert visible == pytest.approx(expected, rel=0.05)
    tests = [paired_test(np.zeros(1000), draw(visible), clusters=names, samples=400, seed=s) for s in range(120)]
    assert 0.70 <= np.mean([one.p_value <= 0.05 for one in tests]) <= 0.90


def test_of_many_clips_the_interval_is_the_normal_one(monkeypatch):
    values = np.random.default_rng(7).random(3000)
    drawn = bootstrap_interval(values)
    monkeypatch.setattr("vtp.eval.significance._MANY", 100)
    assert bootstrap_interval(values) == pytest.approx(drawn, abs=0.001)


def test_many_sizes_of_differences_are_flipped_one_by_one():
    difference = np.random.default_rng(8).normal(0.1, 1, 400)
    want = 2 * (1 - 0.5 * (1 + math.erf(difference.sum() / np.linalg.norm(difference) / math.sqrt(2))))
    assert paired_test(np.zeros(400), difference).p_value == pytest.approx(want, abs=0.02)
