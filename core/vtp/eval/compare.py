"""Two or more runs on the same items: differences with intervals over clips, a paired test, and how small a difference
could have been seen.

What is compared must be the same benchmark, to the last item and rule; runs that are not are refused, and it is said in
which way they differ. Several runs of one system that differ in their seeds are averaged query by query; their spread
stands beside. What is compared is the headline of a run, or one of its rows, such as that of a modality withheld.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.errors import DataError
from vtp.eval.recount import Items, Recount
from vtp.eval.seal import SEAL, changed_keys
from vtp.eval.significance import paired_test
from vtp.eval.verify import read_predictions, read_report, recounted

__all__ = [
    "Difference",
    "Measured",
    "Pair",
    "System",
    "against_rows",
    "compare",
    "frames_note",
    "otherwise",
    "read_run",
]

LEVEL = 0.05  # of the test
FEW = 10  # clips below which the bootstrap and the normal distribution are no guide
_RULES = {
    "tie_rule": "the tie rule",
    "v2t_form": "what is ranked for a clip with several texts",
    "directions": "the directions",
    "limit": "data.limit_eval",
    "several": "whether a clip has several classes",
}


@dataclass
class Measured:
    """A run that was measured, its headline or one of its rows.

    Attributes:
        folder: of the run.
        report: its report.json.
        counted: what its predictions give.
        row: label of the row; None is the headline.
    """

    folder: Path
    report: dict[str, Any]
    counted: Recount
    row: str | None = None

    @property
    def name(self) -> str:
        return str(self.folder) if self.row is None else f"{self.folder}#{self.row}"

    @property
    def items(self) -> dict[str, Items]:
        """Metric -> its values per query."""
        return self.counted.items if self.row is None else self.counted.row_items[self.row]

    @property
    def metrics(self) -> dict[str, Any]:
        """As reported."""
        found: dict[str, Any] = self.report["metrics"] if self.row is None else self.report["rows"][self.row]
        return found

    @property
    def scored_by(self) -> str:
        return str(self.report["facts"].get("score_row")) if self.row is None else self.row

    def metric(self, name: str) -> float:
        """As reported; NaN where it was no number."""
        value = self.metrics.get(name)
        return float(value) if isinstance(value, (int, float)) else math.nan

    def interval(self, name: str) -> tuple[float, float] | None:
        """As reported; None where it is not."""
        told = self.report.get("intervals" if self.row is None else "row_intervals", {})
        told = (told if self.row is None else told.get(self.row, {})).get(name)
        if not isinstance(told, list):
            return None
        return (math.nan, math.nan) if None in told else (float(told[0]), float(told[1]))

    def rows(self) -> list[Measured]:
        """Its rows that have values per query, in the order of the report."""
        return [replace(self, row=label) for label in self.report.get("rows", {}) if label in self.counted.row_items]

    def find_row(self, wanted: str) -> Measured:
        """The row of that label, or of the only one that holds it as a part, in capitals or not.

        Raises:
            DataError: there is none, or there are several, or it has no values per query.
        """
        labels = list(self.report.get("rows", {}))
        found = [one for one in labels if one == wanted] or [one for one in labels if wanted.lower() in one.lower()]
        if len(found) != 1:
            many = f"{len(found)} rows with {wanted!r} in their name" if found else f"no row {wanted!r}"
            has = "; ".join(found or labels) or "none; task.subsets=all adds one for each set of modalities"
            raise DataError(f"{self.folder}: there {'are' if found else 'is'} {many}. Its rows: {has}.")
        if found[0] not in self.counted.row_items:
            raise DataError(
                f"{self.folder}: the row {found[0]!r} has no value per item, so it cannot be compared item by item. "
                "Where an older vtp wrote the run, evaluate again with mode=eval."
            )
        return replace(self, row=found[0])


def read_run(folder: Path) -> Measured:
    """A run that can be compared.

    Raises:
        DataError: it has no report, it or its predictions were changed, or its task cannot count from them.
    """
    report = read_report(folder)
    if SEAL in report and (changed := next(changed_keys(report), None)):
        raise DataError(
            f"{folder}: report.json is not what was written ({changed}). `vtp verify {folder}` says everything; "
            "evaluate again with mode=eval."
        )
    predictions = read_predictions(folder)
    if predictions.problems:
        raise DataError(
            f"{folder}: predictions.jsonl is not what was written ({predictions.problems[0]}). `vtp verify {folder}` "
            "says everything; evaluate again with mode=eval."
        )
    counted = recounted(report, predictions.lines)
    if counted is None or not counted.items:
        task = report["config"].get("task", {}).get("name")
        raise DataError(f"{folder}: task={task} has no value per item, so its runs cannot be compared item by item.")
    return Measured(folder, report, counted)


@dataclass
class System:
    """Runs of one system, which differ in their seeds.

    Attributes:
        label: ``A``, ``B``, ...
        runs: at least one.
    """

    label: str
    runs: list[Measured]

    @cached_property
    def clips(self) -> int:
        """Number of different clips that queries are about."""
        return len({clip for items in self.runs[0].items.values() for clip in items.clips})

    def metric(self, name: str) -> float:
        """Mean over its runs."""
        return float(np.mean([run.metric(name) for run in self.runs]))

    def spread(self, name: str) -> tuple[float, float, float] | None:
        """Standard deviation over its runs, least and largest value; None of a single run."""
        values = [run.metric(name) for run in self.runs]
        return None if len(values) < 2 else (float(np.std(values, ddof=1)), min(values), max(values))

    def interval(self, name: str) -> tuple[float, float] | None:
        """95 % interval over clips of the mean over its runs, of one run as reported; None of a metric without a value
        per query."""
        items = self.items(name)
        if len(self.runs) == 1 and (told := self.runs[0].interval(name)) is not None:
            return told
        return None if items is None else items.interval(0)

    def items(self, name: str) -> Items | None:
        """Values per query, each the mean over the runs, in the order of the first one; None where there are none."""
        found = [run.items.get(name) for run in self.runs]
        first = found[0]
        if first is None or any(one is None for one in found):
            return None
        values = [_in_order(one, first.ids) for one in found if one is not None]
        return replace(first, values=np.mean(values, axis=0))


def _in_order(items: Items, ids: Sequence[str]) -> npt.NDArray[Any]:
    place = {name: i for i, name in enumerate(items.ids)}
    return np.asarray(items.values, np.float64)[[place[name] for name in ids]]


def otherwise(one: Measured, other: Measured) -> Iterator[str]:
    """In which way two runs are different benchmarks, in words; nothing where they are the same."""
    a, b = one.report, other.report
    tasks = [report["config"].get("task", {}).get("name") for report in (a, b)]
    if tasks[0] != tasks[1]:
        yield f"the task is {tasks[0]} and {tasks[1]}"
        return
    protocols = a["protocol"], b["protocol"]
    if a.get("split") != b.get("split"):
        yield f"the split is {a.get('split')} and {b.get('split')}"
    if protocols[0].get("official_name") != protocols[1].get("official_name"):
        names = [protocol.get("official_name") or "own data" for protocol in protocols]
        yield f"the protocol is {names[0]} and {names[1]}"
    elif protocols[0].get("name") != protocols[1].get("name"):
        for run, protocol in zip((one, other), protocols, strict=True):
            wrong = "; ".join(protocol.get("differences", ())) or "it is the official one"
            yield f"{run.name} is {protocol.get('name')} ({wrong})"
    for what in dict.fromkeys([*protocols[0].get("counts", {}), *protocols[1].get("counts", {})]):
        counts = [protocol.get("counts", {}).get(what) for protocol in protocols]
        hashes = [protocol.get("sha256", {}).get(what) for protocol in protocols]
        if counts[0] != counts[1]:
            yield f"{_count(counts[0])} {what} and {_count(counts[1])}"
        elif hashes[0] != hashes[1]:
            yield f"the {what} are as many ({_count(counts[0])}) and not the same ones{_first_other(one, other)}"
    for key, meaning in _RULES.items():
        rules = [report["facts"].get(key) for report in (a, b)]
        if rules[0] != rules[1] and (key != "limit" or any(report["facts"].get("limited") for report in (a, b))):
            yield f"{meaning} is {rules[0]} and {rules[1]}"
    common = [name for name in one.items if name in other.items]
    if not common:
        yield "they have no metric in common"
    mine, theirs = ({query for name in common for query in run.items[name].ids} for run in (one, other))
    if mine != theirs:
        yield f"{len(mine ^ theirs):,} ids are in one of them alone (first: {min(mine ^ theirs)})"
    for name in common:
        among = one.items[name].among, other.items[name].among
        if among[0] != among[1]:
            yield f"{name} ranks {among[0]:,} candidates and {among[1]:,}"
            break


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "unknown"


def _first_other(one: Measured, other: Measured) -> str:
    texts = [{(sample.id, *sample.texts) for sample in run.counted.samples} for run in (one, other)]
    different = sorted(texts[0] ^ texts[1])
    return f" (first: {different[0][0]})" if different else ""


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two systems.

    Attributes:
        metric: its name.
        a, b: its values.
        interval: 95 % interval of ``b - a`` over clips; None where there is no value per query.
        p_value: of the sign-flip test over clips.
        visible: the smallest difference that would be found 8 times in 10.
        falls: whether small values are good.
        queries, clips: how many there are.
    """

    metric: str
    a: float
    b: float
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    visible: float | None = None
    falls: bool = False
    queries: int = 0
    clips: int = 0

    @property
    def difference(self) -> float:
        return self.b - self.a

    @property
    def told_apart(self) -> bool:
        return self.p_value is not None and self.p_value < LEVEL

    def verdict(self) -> str:
        """``better`` or ``worse`` (B against A), ``same`` where no query differs, ``-`` where chance may do it."""
        if self.p_value is None:
            return ""
        if self.interval == (0.0, 0.0) and self.difference == 0:
            return "same"
        return ("better" if (self.difference > 0) != self.falls else "worse") if self.told_apart else "-"


@dataclass(slots=True)
class Pair:
    """Two systems."""

    a: System
    b: System
    rows: list[Difference]
    notes: list[str] = field(default_factory=list)

    @property
    def headline(self) -> Difference:
        """The first metric that can be tested."""
        return next(row for row in self.rows if row.p_value is not None)

    def sentence(self) -> str:
        """What the headline shows, in words."""
        row, a, b = self.headline, self.a.label, self.b.label
        unit = "ranks" if row.falls else "points"
        if row.verdict() == "same":
            return f"{a} and {b} do equally well on every one of {row.queries:,} queries ({row.metric})."
        assert row.interval is not None and row.visible is not None and row.p_value is not None
        size = f"{row.difference:+.2f} {unit} (95 % interval {row.interval[0]:+.2f} to {row.interval[1]:+.2f})"
        of = f"{row.queries:,} queries about {row.clips:,} clips"
        if row.told_apart:
            return f"{b} is {row.verdict()} than {a} in {row.metric}: {size}, p {_p(row.p_value)}, {of}."
        if row.clips < FEW:
            few = f"{row.clips:,} clips are too few for an interval or a test to say much"
            return f"{a} and {b} cannot be told apart by {row.metric}: {size}, p {_p(row.p_value)}; {few}."
        seen = f"differences under {row.visible:.2f} {unit} are not visible with {row.clips:,} clips (power 80 %)"
        return f"{a} and {b} cannot be told apart by {row.metric}: {size}, p {_p(row.p_value)}; {seen}."


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def compare(groups: Sequence[Sequence[Measured]]) -> tuple[list[System], list[Pair]]:
    """Every system against the first one.

    Args:
        groups: of each system its runs.

    Raises:
        DataError: two runs are different benchmarks; says how.
    """
    first = groups[0][0]
    for run in (run for group in groups for run in group if run is not first):
        if differences := list(otherwise(first, run)):
            raise DataError(
                f"{first.name} and {run.name} were not measured by the same protocol: {'; '.join(differences)}. Their "
                "numbers cannot be compared; measure one of them as the other was."
            )
    systems = [System(_label(number), list(group)) for number, group in enumerate(groups)]
    return systems, [_pair(systems[0], other) for other in systems[1:]]


def against_rows(groups: Sequence[Sequence[Measured]]) -> tuple[list[list[Measured]], list[str]]:
    """Of one system, given by its runs, the headline and every row that can be compared with it.

    Returns:
        for each its runs; and which rows cannot be compared, and why.

    Raises:
        DataError: there is no row that can.
    """
    (runs,) = groups
    systems, left = [list(runs)], []
    for row in runs[0].rows():
        of_runs = [one for run in runs for one in run.rows() if one.row == row.row]
        why = [difference for one in of_runs for difference in otherwise(runs[0], one)]
        if len(of_runs) < len(runs):
            why = ["not every run has it"]
        if why:
            left.append(f"{row.row}: {why[0]}")
        else:
            systems.append(of_runs)
    if len(systems) < 2:
        raise DataError(
            f"{runs[0].name} has no row that could be compared with its headline"
            f"{f' ({left[0]})' if left else ''}. Give two runs, RUN_A RUN_B; or evaluate again with rows, for example "
            "task.subsets=all."
        )
    return systems, left


def _label(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"S{number + 1}"


def _pair(a: System, b: System) -> Pair:
    names = [name for name in a.runs[0].metrics if all(name in run.metrics for run in (*a.runs, *b.runs))]
    same = a.runs[0].folder == b.runs[0].folder
    notes = [] if same else [note for note in (frames_note(a.runs[0], b.runs[0], a.label, b.label),) if note]
    rows = a.runs[0].scored_by, b.runs[0].scored_by
    if rows[0] != rows[1]:
        notes.append(f"{a.label} is scored by {rows[0]}, {b.label} by {rows[1]}")
    missing = [set(run.counted.missing) for run in (a.runs[0], b.runs[0])]
    if missing[0] != missing[1]:
        counts = " and ".join(f"{len(one):,} items in {label}" for one, label in zip(missing, (a.label, b.label)))  # noqa: B905
        notes.append(f"not the same items are missing: {counts}")
    return Pair(a, b, [_difference(a, b, name) for name in names], notes)


def _difference(a: System, b: System, name: str) -> Difference:
    one, other = a.items(name), b.items(name)
    values = name, a.metric(name), b.metric(name)
    if one is None or other is None or one.median:
        return Difference(*values, falls=one.falls if one is not None else False)
    mine, theirs = one.scale * np.asarray(one.values, np.float64), one.scale * _in_order(other, one.ids)
    test = paired_test(mine, theirs, clusters=one.clips)
    return Difference(
        *values, test.interval, test.p_value, test.visible, one.falls, len(one.ids), len(dict.fromkeys(one.clips))
    )


def frames_note(a: Measured, b: Measured, first: str = "A", second: str = "B") -> str:
    """Whether two runs were shown the same frames of the clips that both hashed; "" where that is not known."""
    sides = []
    for report in (a.report, b.report):
        frames = report.get("frames")
        if not isinstance(frames, Mapping) or not frames:
            return ""
        backend, found = next(iter(frames.items()))
        if not isinstance(found, Mapping) or not isinstance(found.get("items"), Mapping):
            return ""
        sides.append((backend, found))
    (one, mine), (other, theirs) = sides
    hashes = [
        {
            name: item["sha256"]
            for name, item in found["items"].items()
            if isinstance(item, Mapping) and "sha256" in item
        }
        for found in (mine, theirs)
    ]
    common = [name for name in hashes[0] if name in hashes[1]]
    different = [name for name in common if hashes[0][name] != hashes[1][name]]
    if not common:
        return ""
    if not different:
        return f"{first} and {second} were shown the same frames (all {len(common)} clips that were hashed)"
    shown = [f"{found.get('frames')} frames of {found.get('size')} pixels" for found in (mine, theirs)]
    if shown[0] != shown[1]:
        return f"{first} was shown {shown[0]} of a clip, {second} {shown[1]}"
    decoders = [f"{name} {found.get('version')}" for name, found in sides]
    return (
        f"{first} and {second} were shown different frames of {len(different)} of {len(common)} clips (first: "
        f"{different[0]}; decoded by {decoders[0]} and {decoders[1]}): not the weights alone differ"
    )
