"""How sure a number is: bootstrap intervals, a paired test between two systems on the same queries, and how small a
difference they could show.

Values are one number per query (credit for a right answer, a rank). Queries about one clip are no independent
witnesses: 41 sentences about a clip that the model sees well are right together. So clips are resampled, each with all
its queries, and signs are flipped by clip. Everything is drawn from a seed, so a report can be recomputed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PairedTest", "bootstrap_interval", "paired_test", "standard_error", "visible_difference"]

Array = npt.NDArray[Any]
_CHUNK = 1 << 22  # resampled values held at a time
_Z95, _Z80 = 1.959963984540054, 0.8416212335729143  # quantiles of the normal distribution at 97.5 and at 80 %
_MANY = 5000  # clips from which the interval of a mean is that of the normal distribution
_SIZES = 256  # distinct sizes of differences up to which flips are drawn as binomial numbers


def bootstrap_interval(
    values: Array,
    statistic: Callable[..., Any] = np.mean,
    *,
    clusters: Sequence[str] | None = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap (Efron 1979) over clips: resample the clips with replacement, each with all its queries, and
    read the middle ``level`` of the statistic. For the mean over more than 5,000 clips, where both agree, it is the
    normal interval with the standard error between clips.

    Args:
        values: (Q,), one value per query.
        statistic: ``np.mean`` or ``np.median``; without ``clusters`` any ``statistic(resampled, axis=1)`` from (R, Q)
            to (R,).
        clusters: the clip of each query; None: every query is one of its own.
        samples: number of resamples R.
        level: share of resamples inside the interval.
        seed: of the resampling.

    Returns:
        lower and upper end; (nan, nan) without a query.

    Raises:
        ValueError: another statistic of clusters.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        return float("nan"), float("nan")
    where, count = _numbered(clusters, len(values))
    if count > _MANY and statistic is np.mean and level == 0.95:
        middle, half = float(values.mean()), _Z95 * standard_error(values, clusters)
        return middle - half, middle + half
    rng = np.random.default_rng(seed)
    if clusters is not None and statistic not in (np.mean, np.median):
        raise ValueError("of clusters, the statistic is np.mean or np.median")
    sums, sizes = np.bincount(where, values, count), np.bincount(where, minlength=count).astype(np.float64)

    def draw(chosen: Array) -> Array:
        if statistic is np.mean:
            means: Array = sums[chosen].sum(1) / sizes[chosen].sum(1)
            return means
        if clusters is None:
            return np.asarray(statistic(values[chosen], axis=1))
        return _medians(values, where, chosen, count)

    step = max(1, _CHUNK // count)
    found = [
        draw(rng.integers(0, count, size=(min(step, samples - start), count))) for start in range(0, samples, step)
    ]
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _numbered(clusters: Sequence[str] | None, length: int) -> tuple[Array, int]:
    """Number of the cluster of each value, in the order of their first appearance, and how many there are."""
    if clusters is None:
        return np.arange(length), length
    numbers: dict[str, int] = {}
    where = np.fromiter((numbers.setdefault(name, len(numbers)) for name in clusters), np.int64, count=length)
    return where, len(numbers)


def _medians(values: Array, where: Array, chosen: Array, count: int) -> Array:
    """Of each resample of clusters the median of all its values."""
    order = np.argsort(values, kind="stable")
    ordered, where = values[order], where[order]
    out = np.empty(len(chosen))
    for row, clusters in enumerate(chosen):
        seen = np.cumsum(np.bincount(clusters, minlength=count)[where])
        middle = np.searchsorted(seen, [(seen[-1] - 1) // 2, seen[-1] // 2], side="right")
        out[row] = ordered[middle].mean()
    return out


def standard_error(values: Array, clusters: Sequence[str] | None = None) -> float:
    """Standard error of a mean whose values come in clusters of any size (linearised; Liang and Zeger 1986); NaN of
    fewer than two clusters."""
    values = np.asarray(values, np.float64)
    where, count = _numbered(clusters, len(values))
    if count < 2:
        return float("nan")
    rest = np.bincount(where, values - values.mean(), count)
    return float(math.sqrt(count / (count - 1) * float(rest @ rest)) / len(values))


def visible_difference(difference: Array, clusters: Sequence[str] | None = None) -> float:
    """The smallest true difference that a two-sided test at 5 % would find 8 times in 10 (power 80 %), given how much
    the differences ``b - a`` (Q,) vary between clips."""
    return (_Z95 + _Z80) * standard_error(difference, clusters)


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Outcome of :func:`paired_test`, B against A.

    Attributes:
        difference: mean of ``b - a``.
        interval: 95 % bootstrap interval of that mean.
        p_value: two-sided probability of a difference at least this large if A and B were interchangeable on every
            clip.
        better, worse, equal: queries on which B is above, below, the same as A.
        visible: see :func:`visible_difference`.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    better: int
    worse: int
    equal: int
    visible: float = float("nan")


def paired_test(
    a: Array, b: Array, *, clusters: Sequence[str] | None = None, samples: int = 10_000, seed: int = 0
) -> PairedTest:
    """Sign-flip permutation test on the differences of two systems that answered the same queries.

    Under the null hypothesis the two systems could be swapped on a clip, with all its queries, so the sign of the sum
    of its differences is a fair coin. Clips with equal sums say nothing and are left out of the flips. Of few distinct
    sizes the flips are drawn as one binomial number each.

    Args:
        a, b: (Q,), one value per query.
        clusters: the clip of each query; None: every query is one of its own.
        samples: number of draws.
        seed: of the draws.

    Raises:
        ValueError: ``a`` and ``b`` have different lengths.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a paired test needs one value per query from both systems, not {a.shape} and {b.shape}")
    difference = b - a
    where, count = _numbered(clusters, len(difference))
    sums = np.bincount(where, difference, count)
    sums = sums[sums != 0]
    rng = np.random.default_rng(seed)
    sizes, counts = np.unique(np.abs(sums), return_counts=True)
    totals = np.zeros(samples)
    if len(sizes) <= _SIZES:
        for size, many in zip(sizes, counts, strict=True):
            totals += size * (2.0 * rng.binomial(many, 0.5, size=samples) - many)
    else:
        step = max(1, _CHUNK // len(sums))
        for start in range(0, samples, step):
            signs = rng.integers(0, 2, size=(min(step, samples - start), len(sums)), dtype=np.int8)
            totals[start : start + step] = (2.0 * signs - 1.0) @ sums
    observed = abs(float(difference.sum()))
    # the observed assignment is one of the permutations, and sums of floats that are equal on paper differ in the last
    # digits
    extreme = int((np.abs(totals) >= observed * (1 - 1e-12) - 1e-12).sum())
    return PairedTest(
        difference=float(difference.mean()) if len(difference) else float("nan"),
        interval=bootstrap_interval(difference, clusters=clusters, seed=seed),
        p_value=(extreme + 1) / (samples + 1),
        better=int((difference > 0).sum()),
        worse=int((difference < 0).sum()),
        equal=int((difference == 0).sum()),
        visible=visible_difference(difference, clusters),
    )
