"""Learning rates against the formulas that docs/training.md gives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vtp.train.config import TrainConfig
from vtp.train.schedule import learning_rate, warmup_steps


def rates(total: int, **options) -> list[float]:
    config = TrainConfig(steps=total, **options)
    assert config.validate() == []
    return [learning_rate(config, step, total) for step in range(total)]


@pytest.mark.parametrize(("total", "warm"), [(100, 10), (40, 40), (7, 2)])
def test_simvtp_schedule_is_reachable(total, warm):
    """linspace(0, base, W), then final + (base - final) / 2 * (1 + cos(pi i / n)), i = 0 .. n - 1, n = total - W."""
    base, final, n = 6e-4, 4e-5, total - warm
    cosine = [final + 0.5 * (base - final) * (1 + math.cos(math.pi * i / n)) for i in range(n)]
    want = [*np.linspace(0, base, warm), *cosine]
    got = rates(total, lr=base, min_lr=final, warmup=warm, warmup_lr=0.0)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-18)


def test_default_warm_up_rises_by_equal_steps_to_the_full_rate():
    np.testing.assert_allclose(rates(20, lr=1.0, warmup=0.2, schedule="constant")[:5], [0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates(20, lr=1.0, warmup=1, schedule="constant")[0] == 1.0
    assert rates(20, lr=1.0, warmup=0, schedule="constant")[0] == 1.0


def test_linear_goes_straight_to_the_minimum():
    np.testing.assert_allclose(rates(4, lr=1.0, min_lr=0.2, warmup=0, schedule="linear"), [1.0, 0.8, 0.6, 0.4])


def test_milestones_count_from_the_start_of_training():
    got = rates(8, lr=1.0, warmup=2, warmup_lr=0.1, schedule="step", lr_milestones=[4, 6], lr_decay=0.1)
    np.testing.assert_allclose(got, [0.1, 1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


def test_warm_up_is_a_share_below_one_and_steps_from_one_on():
    assert warmup_steps(TrainConfig(steps=200, warmup=0.05), 200) == 10
    assert warmup_steps(TrainConfig(steps=200, warmup=5), 200) == 5
    assert warmup_steps(TrainConfig(epochs=1, warmup=500), 20) == 20
