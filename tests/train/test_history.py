"""Best checkpoint and early stop follow from the list of evaluations; metrics.jsonl lines from the steps."""

from __future__ import annotations

import math

import pytest
import torch

from vtp.train.history import Evaluations, Window
from vtp.train.step import Observation


def evaluations(values, mode="max", **options) -> Evaluations:
    entries = Evaluations(("r1", mode), **options)
    for step, value in enumerate(values, start=1):
        entries.add(step, {"r1": value, "loss": 0.0})
    return entries


@pytest.mark.parametrize(
    ("values", "mode", "best"),
    [
        ([1.0, 3.0, 2.0], "max", 2),
        ([1.0, 3.0, 2.0], "min", 1),
        ([3.0, 3.0], "max", 1),  # a tie keeps the earlier one
        ([math.nan, 1.0, math.nan], "max", 2),
        ([math.nan, math.inf], "max", None),
        ([], "max", None),
    ],
)
def test_best(values, mode, best):
    assert evaluations(values, mode).best() == best


def test_add_tells_whether_it_is_the_best():
    entries = Evaluations(("r1", "max"))
    assert [entries.add(i, {"r1": v}) for i, v in enumerate([1.0, 0.5, 2.0, 2.0])] == [True, False, True, False]


def test_without_monitor_nothing_is_best():
    entries = Evaluations()
    assert entries.add(1, {"r1": 1.0}) is False
    assert entries.best() is None


@pytest.mark.parametrize(
    ("values", "patience", "delta", "stop"),
    [
        ([1, 2, 3], 1, 0.0, False),
        ([3, 2], 1, 0.0, True),
        ([3, 2], 2, 0.0, False),
        ([3, 2, 2.5], 2, 0.0, True),
        ([3, 2, 4, 3], 2, 0.0, False),
        ([1.0, 1.05, 1.08], 2, 0.1, True),  # better, but never by more than delta than the last that counted
        ([1.0, 1.05, 1.2], 2, 0.1, False),
        ([3, 2], None, 0.0, False),
        ([math.nan, math.nan], 2, 0.0, True),
    ],
)
def test_patience(values, patience, delta, stop):
    assert evaluations(values, patience=patience, min_delta=delta).exhausted() is stop


def test_a_line_holds_the_mean_over_its_steps_and_goes_on_after_a_resume():
    def observe(window, step, loss, weight):
        window.add(step, 0.1 * step, 4, [Observation("qa", torch.tensor(loss), torch.tensor(weight), {})], None)

    window = Window()
    observe(window, 1, 1.0, 2.0)
    observe(window, 2, 4.0, 6.0)
    window.fetch()
    saved = window.state_dict()
    resumed = Window()
    resumed.load_state_dict(saved)
    for each in (window, resumed):
        observe(each, 3, 7.0, 1.0)
        each.fetch()
    lines = [each.line({"qa": 0.5}) for each in (window, resumed)]
    assert lines[0]["losses"] == {"qa": 4.0}  # steps count alike, as they do in the update
    assert lines[0]["loss"] == 2.0
    assert lines[0]["items"] == {"qa": 9.0}
    assert lines[0]["lr"] == pytest.approx(0.3)
    for line in lines:
        line.pop("timing")
    assert lines[0] == lines[1]


def test_micro_batches_are_averaged_by_items_and_empty_ones_do_not_count():
    window = Window()
    parts = [(2.0, 3.0), (0.0, 0.0), (6.0, 1.0)]
    seen = [Observation("qa", torch.tensor(a), torch.tensor(b), {"hits": torch.tensor(a)}) for a, b in parts]
    window.add(1, 0.1, 4, seen, None)
    (values,) = window.fetch()
    assert values.losses == {"qa": 3.0}
    assert values.metrics == {"qa/hits": 3.0}


def test_nan_of_an_empty_micro_batch_is_seen():
    window = Window()
    window.add(1, 0.1, 4, [Observation("qa", torch.tensor(math.nan), torch.tensor(0.0), {})], None)
    (values,) = window.fetch()
    assert math.isnan(values.losses["qa"])
