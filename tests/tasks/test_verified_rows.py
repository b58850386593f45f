"""Every row of a report follows from the predictions: a changed digit of a row, an interval or a line is named."""

from __future__ import annotations

import json

import pytest
from matching_models import SPLIT, make_evaluator, make_model
from random_tasks import BROKEN, NAMES, TASKS, measure

from vtp.eval.ledger import EVALUATED_ONLY
from vtp.eval.protocol import Protocol
from vtp.eval.report import write_report
from vtp.eval.seal import checked_line, write_sealed
from vtp.eval.verify import verify
from vtp.types import MediaRef, Sample
from vtp_tasks.retrieval import Retrieval

CUTS = {
    "a_clip_less": {"title": "all but one", "rule": "without", "without": ["clip3"]},
    "first": {"title": "one text of each clip", "rule": "first_caption"},
}
TWO = "re-rank(2) by vtm"
ROWS = {
    "retrieval": {
        "cut a_clip_less: 5 of 6 videos, 6 of 7 queries",
        "cut first: 6 of 6 videos, 6 of 7 queries",
        "v2t: a clip's texts as one set",
        EVALUATED_ONLY,
        "all pairs by vtm",
        TWO,
        "DSL (sees all queries at once)",
        "t2v: QB-Norm (sees 3 training texts)",
        "v2t: QB-Norm (sees 3 training clips)",
    },
    "captions": {EVALUATED_ONLY, "most frequent training caption", "only video"},
    "one class": {EVALUATED_ONLY, "without looking", "only video"},
    "several classes": {EVALUATED_ONLY, "without looking", "only video"},
}


def searched(fake_dataset):
    """Every row of a retrieval, of a real model with random weights; one clip is lost."""
    lost = Sample("q9", MediaRef("lost.mp4"), None, ("a lost dog",), {}, {"video_id": "lost"})
    test = [*SPLIT, lost]
    train = [
        Sample(f"t{i}", MediaRef(f"old{i}.mp4"), None, (f"{text} today",), {}, {"video_id": f"old{i}"})
        for i, text in enumerate(("a dog", "rain", "two"))
    ]
    task = Retrieval(
        dataset=fake_dataset(train=train, test=test),
        dsl=True, qb_norm=3, rerank=2, exhaustive=True,
    )  # fmt: skip
    task.protocol = Protocol("toy", "a toy", "fake", "retrieval", "test", {}, cuts=CUTS)
    return task.evaluate(make_evaluator(make_model()))


@pytest.fixture(scope="module")
def results():
    return {}


@pytest.fixture(params=ROWS)
def run(request, results, tmp_path, fake_dataset, fake_model, make_evaluator):
    kind = request.param
    if kind not in results and kind == "retrieval":
        results[kind] = searched(fake_dataset)
    elif kind not in results:
        task = TASKS[kind](fake_dataset)
        task.subsets = [["video"]]
        results[kind] = measure(task, fake_model, make_evaluator, None, BROKEN)
    config = {"task": {"name": NAMES[kind]}}
    write_report(tmp_path, results[kind], selection="last", seed=0, config=config)
    assert set(results[kind].rows) == ROWS[kind]
    return tmp_path


def report_of(run):
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


def change(run, edit):
    """Edit the lines as a forger would, with marks that fit."""
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    edit(lines)
    marked = [checked_line({k: v for k, v in line.items() if k != "check"}, i) + "\n" for i, line in enumerate(lines)]
    (run / "predictions.jsonl").write_text("".join(marked), encoding="utf-8")


def test_nothing_is_only_sealed(run):
    found = verify(run)
    assert found.problems == []
    assert [note for note in found.notes if "only sealed" in note] == []
    report = report_of(run)
    assert set(report["row_intervals"]) == set(report["rows"])
    numbers = [row for part in ("rows", "row_intervals") for row in report[part].values()]
    assert found.counted > sum(map(len, numbers)) + len(report["metrics"]) + len(report["intervals"])


def test_every_changed_digit_of_a_row_is_named(run):
    report = report_of(run)
    wanted = set()
    for label, row in report["rows"].items():
        for name, value in row.items():
            row[name] = value + 1e-9
            wanted.add(f"rows.{label}.{name}")
        for name, span in report["row_intervals"][label].items():
            span[0] = (span[0] or 0) - 1e-9
            wanted.add(f"row_intervals.{label}.{name}")
    for name, cut in (report["protocol"].get("cuts") or {}).items():
        for metric in cut["metrics"]:
            cut["metrics"][metric] += 1e-9
            wanted.add(f"protocol.cuts.{name}.metrics.{metric}")
        for metric, parts in cut["difference"].items():
            parts["total"] += 1e-9
            wanted.add(f"protocol.cuts.{name}.difference.{metric}")
        cut["sha256"]["queries"] = "0" * 64
        wanted.add(f"protocol.cuts.{name}.sha256.queries")
    write_sealed(run / "report.json", report)
    found = {problem.removeprefix("report.json: ").split(" is ")[0] for problem in verify(run).problems}
    assert found == wanted


def test_a_row_or_a_number_that_was_put_in_is_told(run):
    report = report_of(run)
    first = next(iter(report["rows"]))
    report["rows"][first]["fame"] = 1.0
    report["rows"]["ours, better"] = {"r1": 99.0}
    report["intervals"]["fame"] = [0, 1]
    write_sealed(run / "report.json", report)
    (told,) = [note for note in verify(run).notes if "only sealed" in note]
    assert told.endswith(f"intervals.fame, rows.{first}.fame, ours, better")


def test_a_changed_rank_of_a_row_is_named(run):
    """Each row in its turn loses what its best item had, in one line."""
    whole = (run / "predictions.jsonl").read_text(encoding="utf-8")
    rows = {label: row for label, row in report_of(run)["rows"].items() if f'"{label}"' in whole}
    assert len(rows) >= len(report_of(run)["rows"]) - 2  # evaluated items, the most frequent caption
    for label in list(rows)[::3]:  # all go the same way

        def spoil(lines, label=label):
            asking = [line["rows"] for line in lines if line.get("rows", {}).get(label)]
            told = max(
                asking, key=lambda row: str(row[label]) if isinstance(row[label], str) else _sureness(row[label])
            )
            told[label] = "nothing at all" if isinstance(told[label], str) else _other(told[label])

        change(run, spoil)
        problems = verify(run).problems
        assert problems and all(f"rows.{label}." in one or f"row_intervals.{label}." in one or "cuts" in one
                                for one in problems), label  # fmt: skip
        (run / "predictions.jsonl").write_text(whole, encoding="utf-8")


def _sureness(told):
    """Of ``[higher, tied]``, alone or with scores: the best come last."""
    rank = told if isinstance(told, list) else told["rank"]
    return -sum(rank[:2]) if rank else -1000


def _other(told):
    if isinstance(told, list):
        return [told[0] + 20, *told[1:]]
    return {**told, "rank": [told["rank"][0] + 20, *told["rank"][1:]]}


def test_a_line_that_left_a_row_is_named(run):
    def leave(lines):
        label = next(label for line in lines for label in line.get("rows", ()))
        leave.label = label
        del next(line for line in reversed(lines) if label in line.get("rows", {}))["rows"][label]

    change(run, leave)
    problems = verify(run).problems
    assert any(leave.label in problem for problem in problems)
