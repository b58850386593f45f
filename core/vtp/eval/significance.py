"""How sure a number is: bootstrap intervals over queries, and a paired test between two systems on the same queries.

Values are one number per query (credit for a right answer, a rank). Everything is drawn from a seed, so a report can
be recomputed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PairedTest", "bootstrap_interval", "paired_test"]

Array = npt.NDArray[Any]
_CHUNK = 1 << 22  # resampled values held at a time


def bootstrap_interval(
    values: Array,
    statistic: Callable[..., Array] = np.mean,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap over queries (Efron 1979): resample the queries with replacement and read the middle
    ``level`` of the statistic.

    Args:
        values: (Q,), one value per query.
        statistic: ``statistic(resampled, axis=1)`` maps (R, Q) to (R,); ``np.mean`` or ``np.median``.
        samples: number of resamples R.
        level: share of resamples inside the interval.
        seed: of the resampling.

    Returns:
        lower and upper end; (nan, nan) without a query.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(values))
    found = [
        statistic(values[rng.integers(0, len(values), size=(min(step, samples - start), len(values)))], axis=1)
        for start in range(0, samples, step)
    ]
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Outcome of :func:`paired_test`, B against A.

    Attributes:
        difference: mean of ``b - a``.
        interval: 95 % bootstrap interval of that mean.
        p_value: two-sided probability of a difference at least this large if A and B were interchangeable on every
            query.
        better, worse, equal: queries on which B is above, below, the same as A.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    better: int
    worse: int
    equal: int


def paired_test(a: Array, b: Array, *, samples: int = 10_000, seed: int = 0) -> PairedTest:
    """Sign-flip permutation test on the per-query differences of two systems that answered the same queries.

    Under the null hypothesis the two values of a query could be swapped, so the sign of each difference is a fair
    coin. Queries with equal values say nothing and are left out of the flips. Flips are drawn per distinct size of
    difference as one binomial number.

    Raises:
        ValueError: ``a`` and ``b`` have different lengths.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a paired test needs one value per query from both systems, not {a.shape} and {b.shape}")
    difference = b - a
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    rng = np.random.default_rng(seed)
    totals = np.zeros(samples)
    for size, count in zip(sizes, counts, strict=True):
        totals += size * (2.0 * rng.binomial(count, 0.5, size=samples) - count)
    observed = abs(float(difference.sum()))
    # the observed assignment is one of the permutations, and sums of floats that are equal on paper differ in the last
    # digits
    extreme = int((np.abs(totals) >= observed * (1 - 1e-12) - 1e-12).sum())
    return PairedTest(
        difference=float(difference.mean()) if len(difference) else float("nan"),
        interval=bootstrap_interval(difference, seed=seed),
        p_value=(extreme + 1) / (samples + 1),
        better=int((difference > 0).sum()),
        worse=int((difference < 0).sum()),
        equal=int((difference == 0).sum()),
    )
