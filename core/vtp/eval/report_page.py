"""``report.html``: what ``report.json`` and ``predictions.jsonl`` hold, to be looked at: the headline with its coverage
and protocol, intervals, bars by type, ranks, modalities, what is missing and why, and the worst and best items."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vtp.data.table import media_id
from vtp.eval.report import cell, headed
from vtp.eval.task import ReportTable, TaskResult
from vtp.page import bar, document, heading, number, paragraph, picture, table, text
from vtp.types import Sample

__all__ = ["Picked", "page", "picked"]

SHOWN = 10  # worst and best items each
BINS: tuple[int, ...] = (
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1000,
    10_000,
    100_000,
)  # largest rank of each bar of the histogram
QUALITIES = ("credit", "token_f1", "hit")  # of a line without a rank, larger is better
MOST_REASONS = 50


@dataclass(frozen=True, slots=True)
class Picked:
    """An item of the page.

    Attributes:
        line: of predictions.jsonl.
        right: the clip that it is about.
        first: the clip that came first, where clips were searched and it is another one.
    """

    line: Mapping[str, Any]
    right: Sample | None = None
    first: Sample | None = None

    @property
    def clips(self) -> list[Sample]:
        """What there is to show."""
        return [clip for clip in (self.right, self.first) if clip is not None]


def picked(predictions: Sequence[Mapping[str, Any]], samples: Iterable[Sample]) -> tuple[list[Picked], list[Picked]]:
    """The worst and the best evaluated items, by their rank (or credit), those the model was surest of first.

    Args:
        predictions: lines of predictions.jsonl; of those of several directions the first counts.
        samples: of the split.
    """
    first = predictions[0].get("direction") if predictions else None
    lines = [line for line in predictions if "missing" not in line and line.get("direction") == first]
    judged = [(quality, line) for line in lines if (quality := _quality(line)) is not None]
    most = min(SHOWN, -(-len(judged) // 2))  # of few items the better half
    best = [line for _, line in sorted(judged, key=lambda one: (-one[0], -_sureness(one[1])))[:most]]
    taken = {id(line) for line in best}
    rest = [one for one in judged if id(one[1]) not in taken]
    worst = [line for _, line in sorted(rest, key=lambda one: (one[0], -_sureness(one[1])))[:SHOWN]]
    wanted = {name for line in (*worst, *best) for name in (*_names(line), _came_first(line)) if name}
    clips: dict[str, Sample] = {}
    for sample in samples if wanted else ():
        clips |= {name: sample for name in {media_id(sample), sample.id} & wanted if name not in clips}
    return [_shown(line, clips) for line in worst], [_shown(line, clips) for line in best]


def _shown(line: Mapping[str, Any], clips: Mapping[str, Sample]) -> Picked:
    right = next((clips[name] for name in _names(line) if name in clips), None)
    first = clips.get(_came_first(line) or "")
    same = first is not None and right is not None and media_id(first) == media_id(right)
    return Picked(line, right, None if same else first)


def _quality(line: Mapping[str, Any]) -> float | None:
    if (rank := line.get("rank")) is not None:
        return -float(rank)
    return next((float(line[key]) for key in QUALITIES if line.get(key) is not None), None)


def _sureness(line: Mapping[str, Any]) -> float:
    top = line.get("top") or ()
    return float(top[0][1]) if top and isinstance(top[0], (list, tuple)) else 0.0


def _names(line: Mapping[str, Any]) -> list[str]:
    """What the clip of a line may be called, the likeliest first."""
    target = line.get("target") or [None]
    found = (line.get("video"), target[0], line.get("query"), line.get("id"))
    return [str(name) for name in found if name is not None]


def _came_first(line: Mapping[str, Any]) -> str | None:
    if "direction" not in line or not line.get("top"):
        return None
    return str(line["top"][0][0])


def page(
    record: Mapping[str, Any],
    result: TaskResult,
    title: str,
    worst: Sequence[Picked],
    best: Sequence[Picked],
    pictures: Mapping[str, str],
) -> str:
    """The whole page.

    Args:
        record: what ``report.json`` holds.
        result: tables, predictions and chart.
        title: what it is about, in a few words.
        worst, best: from :func:`picked`.
        pictures: id of a sample -> a picture of its clip, from :func:`vtp.page.jpeg`.
    """
    parts = [
        heading(title, 1),
        *_headline(record, result),
        *_tables(result),
        *_bars(result.chart),
        *_ranks(result.predictions),
        *_modalities(record),
        *_ledgers(record),
        *_items("The worst", worst, pictures),
        *_items("The best", best, pictures),
        *_facts(record),
    ]
    return document(title, parts)


def _headline(record: Mapping[str, Any], result: TaskResult) -> Iterator[str]:
    name, value = next(iter(record["metrics"].items()), ("", None))
    if record["incomplete"]:
        yield paragraph("INCOMPLETE", "bad")
    if name:
        low, high = (record["intervals"].get(name) or (None, None))[:2]
        spread = "" if low is None else f" (95 % interval {low:.2f} to {high:.2f})"
        yield paragraph(f"{name} {cell(value)}{spread}", "headline")
    yield paragraph(result.ledger.line(), "ok" if result.ledger.complete else "bad")
    notes = [note for one in result.tables for note in one.notes if note != result.ledger.line()]
    yield from (paragraph(note, "note") for note in notes)
    yield from (paragraph(warning, "bad") for warning in record["warnings"] if warning not in notes)


def _tables(result: TaskResult) -> Iterator[str]:
    for one in headed(result):
        yield heading(one.title)
        yield _report_table(one)
    if result.intervals:
        yield heading("95 % intervals")
        rows = [
            (text(name), *(number(x, cell(float(x))) for x in (result.metrics[name], *spread)))
            for name, spread in result.intervals.items()
            if name in result.metrics
        ]
        yield table(("metric", "value", "from", "to"), rows, (1, 2, 3))


def _report_table(one: ReportTable) -> str:
    rows = [[text(cell(value)) if isinstance(value, str) else _value(value) for value in row] for row in one.rows]
    return table(one.columns, rows, range(1, len(one.columns)))


def _value(value: Any) -> str:
    return "-" if value is None or not math.isfinite(float(value)) else number(value, cell(value))


def _bars(chart: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    if not chart:
        return
    yield heading("In bars")
    first, values = next(iter(chart.items()))
    groups = list(values)
    rows = []
    for group in groups:
        there = {label: values[group] for label, values in chart.items() if group in values}
        for place, (label, value) in enumerate(there.items()):
            shown = bar(value / 100, "pale" if label != first else "")
            rows.append((text("" if place else group), text(label), _value(value), shown))
    yield table(("", "", "percent", ""), rows, (2,))


def _ranks(predictions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How many items have the right one in which place, by direction."""
    found: dict[str, list[float]] = {}
    for line in predictions:
        if line.get("rank") is not None and math.isfinite(line["rank"]):
            found.setdefault(str(line.get("direction", "")), []).append(float(line["rank"]))
    for direction, ranks in found.items():
        yield heading(f"Where the right one stands{f', {direction}' if direction else ''}")
        last = next((place for place, end in enumerate(BINS) if end >= max(ranks)), len(BINS) - 1)
        edges: tuple[int, ...] = (0, *BINS[: last + 1])
        bins: list[tuple[str, int, float]] = [
            (f"{low + 1:,}" if high - low == 1 else f"{low + 1:,} to {high:,}", low, high)
            for low, high in pairwise(edges)
        ]
        if max(ranks) > edges[-1]:
            bins.append((f"above {edges[-1]:,}", edges[-1], math.inf))
        counts = [(label, sum(low < rank <= high for rank in ranks)) for label, low, high in bins]
        yield table(
            ("rank", "items", ""),
            [(text(label), number(count), bar(count / len(ranks))) for label, count in counts],
            (1,),
        )
        if half := sum(rank != int(rank) for rank in ranks):
            yield paragraph(f"{half:,} tied ranks lie between two places.", "note")


def _modalities(record: Mapping[str, Any]) -> Iterator[str]:
    rows = {k: v for k, v in record["rows"].items() if k.startswith(("only ", "without "))}
    if rows:
        yield heading("With some modalities only")
        names = list(next(iter(rows.values())))
        everything = {"all": record["metrics"], **rows}
        cells = [(text(label), *(_value(row.get(name)) for name in names)) for label, row in everything.items()]
        yield table(("there is", *names), cells, range(1, len(names) + 1))
    if record["modality_coverage"]:
        yield heading("What the evaluated items have")
        cells = [(text(m), number(share, f"{100 * share:.2f}")) for m, share in record["modality_coverage"].items()]
        yield table(("modality", "percent"), cells, (1,))


def _ledgers(record: Mapping[str, Any]) -> Iterator[str]:
    yield heading("What was expected, and what is missing")
    every = {record["ledger"]["what"]: record["ledger"], **record["ledgers"]}
    keys = ("expected", "evaluated", "missing")
    yield table(
        ("", *keys), [(text(label), *(number(one[key]) for key in keys)) for label, one in every.items()], (1, 2, 3)
    )
    for label, one in every.items():
        if one["reasons"]:
            yield heading(f"Why {label} are missing")
            first: dict[str, str] = {}
            for name, reason in one["missing_items"].items():
                first.setdefault(reason, name)
            reasons = list(one["reasons"].items())[:MOST_REASONS]
            rows = [(text(reason), number(count), text(first.get(reason, ""))) for reason, count in reasons]
            yield table(("reason", label, "the first"), rows, (1,))


def _items(which: str, items: Sequence[Picked], pictures: Mapping[str, str]) -> Iterator[str]:
    if not items:
        return
    yield heading(f"{which} {len(items)}")
    searched = any(item.first is not None for item in items)
    columns = ("clip", *(("came first",) if searched else ()), "rank", "asked", "right", "said")
    rows = []
    for item in items:
        line = item.line
        shown = [picture(pictures.get(item.right.id, "")) if item.right else ""]
        if searched:
            shown.append(picture(pictures.get(item.first.id, "")) if item.first else "")
        shown[0] += f'<span class="note">{text(_names(line)[0])}</span>'
        place = line.get("rank", _quality(line))
        rows.append((*shown, _value(place), *map(text, (_asked(line), _right(line), _said(line)))))
    yield table(columns, rows, (len(columns) - 4,))


def _asked(line: Mapping[str, Any]) -> str:
    return str(line.get("question") or line.get("query") or "; ".join(map(str, line.get("options", ()))))


def _right(line: Mapping[str, Any]) -> str:
    if line.get("answer") is not None:
        return str(line["answer"])
    many = line.get("classes") or line.get("references") or line.get("target") or ()
    return "; ".join(map(str, many[:5])) + ("; ..." if len(many) > 5 else "")


def _said(line: Mapping[str, Any]) -> str:
    if line.get("prediction") is not None:
        return str(line["prediction"])
    return "; ".join(str(name) for name, _ in (line.get("top") or ())[:3])


def _facts(record: Mapping[str, Any]) -> Iterator[str]:
    yield heading("How it was measured")
    protocol, weights = record["protocol"], record.get("checkpoint") or {}
    facts = {
        "protocol": protocol.get("title"),
        "differences": "; ".join(protocol.get("differences") or ()),
        "not verified by a hash": ", ".join(protocol.get("unverified") or ()),
        "checkpoint": weights.get("path"),
        "sha256 of its weights": weights.get("sha256"),
        "chosen by": record.get("selection"),
        "trained on": "; ".join(_stage(stage) for stage in record.get("train") or ()),
        "vtp": (record.get("environment") or {}).get("vtp"),
        **{name: value for name, value in record["facts"].items() if name != "rows"},
    }
    rows = [(text(name), text(_plain(value))) for name, value in facts.items() if value not in (None, "", [], {})]
    yield table(("", ""), rows)


def _stage(stage: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {stage[key]}" for key in ("dataset", "list", "videos", "samples") if stage.get(key))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(one)}" for key, one in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, (list, tuple)) else str(value)
