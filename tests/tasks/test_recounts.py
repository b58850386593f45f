"""What a task counts from its predictions is what it counts from its scores, to the last bit, also through JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from random_tasks import BROKEN, TASKS, measure

from vtp.eval.report import finite


@pytest.mark.parametrize("broken", [(), BROKEN], ids=["whole", "incomplete"])
@pytest.mark.parametrize("kind", TASKS)
def test_the_same_numbers_from_lines_as_from_scores(kind, broken, fake_dataset, fake_model, make_evaluator):
    task = TASKS[kind](fake_dataset)

    given = task, fake_model, make_evaluator, None, broken
    headline = measure(*given, detail=False).metrics  # counted from the scores alone
    result = measure(*given)
    lines = [json.loads(json.dumps(finite(line))) for line in result.predictions]
    counted = task.recount(lines, json.loads(json.dumps(finite(result.facts))))
    assert set(headline) <= set(counted.metrics) == set(result.metrics)
    assert {name: counted.metrics[name] for name in headline} == headline
    assert counted.metrics == result.metrics and counted.bounds == result.bounds
    assert counted.intervals(task.seed) == result.intervals
    for label, row in counted.rows.items():
        assert result.rows[label] == row
    for name, items in counted.items.items():
        assert items.metric() == pytest.approx(counted.metrics[name])
        low, high = result.intervals[name]
        assert low <= counted.metrics[name] <= high or items.median
    assert (counted.expected, counted.missing) == (len(result.ledger.expected), dict(result.ledger.missing))
    for line, derived in zip(lines, counted.derived, strict=True):
        assert {key: line[key] for key in derived} == derived
    form = task.protocol.form.lines(counted.samples)
    assert {what: len(found) for what, found in form.items()} == result.protocol["counts"]
    again = task.protocol.match(counted.samples, "toy", "test")
    assert dict(again.sha256) == result.protocol["sha256"]


def test_queries_about_one_clip_are_one_witness(fake_dataset, fake_model, make_evaluator):
    """Nineteen texts of eight clips: the interval is that over clips, wider than over texts."""
    from vtp.eval.significance import bootstrap_interval

    task = TASKS["retrieval"](fake_dataset)
    result = measure(task, fake_model, make_evaluator)
    lines = [line for line in result.predictions if line["direction"] == "t2v"]
    hits, clips = [line["hit"] for line in lines], [line["target"][0] for line in lines]
    low, high = bootstrap_interval(np.array(hits), clusters=clips, seed=0)
    assert result.intervals["t2v/r1"] == (100 * low, 100 * high)
