"""Of every task: whatever the items would have scored that could not be read, each metric lies between its bounds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from random_tasks import BROKEN, TASKS, measure, sample

from vtp_tasks.captioning import Captioning


@pytest.mark.parametrize("kind", TASKS)
def test_no_metric_leaves_its_bounds(kind, fake_dataset, fake_model, make_evaluator):
    task = TASKS[kind](fake_dataset)

    given = task, fake_model, make_evaluator
    reported = measure(*given, broken=BROKEN)
    assert reported.missing and reported.record()["incomplete"]
    assert set(reported.bounds) == set(reported.metrics)
    others = [measure(*given, np.random.default_rng(seed)) for seed in range(6)]
    assert len({tuple(one.metrics.values()) for one in others}) > 2 and not any(one.bounds for one in others)
    for one in (reported, *others):
        assert not one.missing or one is reported
        for name, (low, high) in reported.bounds.items():
            assert low - 1e-9 <= one.metrics[name] <= high + 1e-9, name
    assert any(low < high for low, high in reported.bounds.values())


def test_about_a_lost_clip_a_reference_could_have_been_written(fake_dataset, make_evaluator, fake_model):
    from vtp.types import TextSpec

    words = ("", "", "", "", "", "a", "man", "sings")
    text = TextSpec(lambda texts: [[5]], 0, 1, 2, 3, (0, 1, 2, 3, 4), 8, 6, lambda ids: " ".join(words[i] for i in ids))
    clips = [sample(0, 0, "a man sings"), sample(1, 1, "a man"), sample(2, 2, "a", "!")]
    task = Captioning(dataset=fake_dataset(train=clips, test=clips))
    ids = torch.tensor([[5, 6]])
    writer = SimpleNamespace(
        generate=lambda ctx, **_: (ids.repeat(len(ctx.batch.ids), 1), torch.zeros(len(ctx.batch.ids)))
    )
    model = fake_model(caption=writer)
    model.encoders = {"text": SimpleNamespace(spec=text)}
    found = task.evaluate(make_evaluator(model, task, broken=("clip1.mp4",)))
    f1 = 0.8 + 2 / 3
    assert found.bounds["token_f1"] == pytest.approx((100 * f1 / 3, 100 * (f1 + 1) / 3))
    assert found.bounds["exact_match"] == pytest.approx((0.0, 100 / 3))
