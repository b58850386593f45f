"""``vtp compare RUN_A RUN_B ...``, ``vtp compare RUN#ROW ...``: is one better, and could the difference be seen?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vtp import page
from vtp.cli.arguments import Parser, place
from vtp.errors import ConfigError
from vtp.eval.compare import Difference, Measured, Pair, System, against_rows, compare, read_run
from vtp.eval.report import cell, print_tables
from vtp.eval.task import ReportTable
from vtp.run.asked import changes
from vtp.shown import one_line
from vtp.storage import write_text_atomic

__all__ = ["main"]

ROWS = 16  # metrics in a terminal; the page and --json have all
CHANGES = 12  # options that differ, of each pair
WIDE = 5  # systems up to which the terminal shows every interval
ABOUT = """Compare runs on the same items. Several seeds of one system are joined by commas: vtp compare a1,a2 b1,b2.
RUN#ROW is a row of a run in place of its headline, such as the model without its sound: vtp compare RUN "RUN#only
video" (a part of the label is enough); `vtp compare RUN` alone compares the headline with all rows of its run. Every
system is compared with the first one: differences with 95 % intervals over clips (all sentences about a clip are one
witness), a sign-flip test over clips, and the smallest difference that could have been seen. Runs of different
protocols, and rows of other items, are refused, with the difference in words."""


def main(arguments: list[str]) -> int:
    """Compare runs and print, or write a page."""
    parser = Parser(prog="vtp compare", description=ABOUT)
    parser.add_argument(
        "run", nargs="+", type=place, metavar="RUN[#ROW]", help="a run that evaluated, or several joined by commas"
    )
    parser.add_argument("--html", metavar="FILE", type=place, help="also write a page, one file without network")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    asked = [[_place(one) for one in _split(group)] for group in options.run]
    _refuse_twice([one for group in asked for one in group])
    groups = [_read(*both) for both in zip(options.run, asked, strict=True)]
    _refuse_twice([(one.folder, one.row) for group in groups for one in group])
    if len(groups) == 1 and groups[0][0].row is not None:
        raise ConfigError(f"there is nothing to compare with {options.run[0]}: give a run or a row more, RUN RUN#ROW.")
    groups, left = (groups, []) if len(groups) > 1 else against_rows(groups)
    systems, pairs = compare(groups)
    for pair in pairs:
        pair.notes += _changed(pair)
    if options.html is not None:
        file = Path(options.html).expanduser()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(file, _page(systems, pairs, left))
    if options.json:
        print(json.dumps(_record(systems, pairs, left), indent=2))
        return 0
    for line in _legend(systems):
        print(one_line(line))
    print_tables([_values(systems, ROWS), *(_differences(pair, ROWS) for pair in pairs)])
    for pair in pairs:
        print("\n" + one_line(pair.sentence()))
        for note in pair.notes:
            print(one_line(f"  note: {note}"))
    for row in left:
        print("\n" + one_line(f"not compared: {row}"))
    if options.html is not None:
        print("\n" + one_line(f"written to {options.html}"))
    return 0


def _place(one: str) -> tuple[Path, str]:
    """A run and what is asked of its rows; a folder with a # in its name is one run."""
    folder, _, row = (one, "", "") if Path(one).expanduser().exists() else one.partition("#")
    return Path(folder).expanduser().resolve(), row.strip()


def _refuse_twice(runs: Sequence[tuple[Path, str | None]]) -> None:
    if len(set(runs)) < len(runs):
        raise ConfigError("a run is named twice; give different ones, or rows of it (RUN#ROW).")


def _read(group: str, asked: Sequence[tuple[Path, str]]) -> list[Measured]:
    """The runs of a system, or their rows."""
    runs = [(read_run(folder), row) for folder, row in asked]
    found = [run.find_row(row) if row else run for run, row in runs]
    if len(rows := {one.row or "the headline" for one in found}) > 1:
        raise ConfigError(
            f"{group!r}: what is joined by commas are seeds of one system, and not {' and '.join(sorted(rows))}. Put a "
            "space between them."
        )
    return found


def _split(group: str) -> list[str]:
    """Runs joined by commas; a folder with a comma in its name is one run, and so is a row with one in its label."""
    parts: list[str] = []
    for part in [group] if Path(group).expanduser().exists() else group.split(","):
        if parts and "#" in parts[-1] and not Path(part.partition("#")[0].strip() or "?").expanduser().exists():
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    if not all(part.strip() for part in parts):
        raise ConfigError(f"{group!r}: a run between two commas has no name.")
    return parts


def _legend(systems: Sequence[System]) -> Iterator[str]:
    for system in systems:
        many = f" ({len(system.runs)} runs: mean and spread)" if len(system.runs) > 1 else ""
        lacking = " INCOMPLETE" if any(run.report.get("incomplete") for run in system.runs) else ""
        yield f"{system.label}{lacking}  {', '.join(run.name for run in system.runs)}{many}"


def _changed(pair: Pair) -> list[str]:
    """Which options differ: what was changed is what a difference is put down to."""
    a, b = (system.runs[0].report["config"] for system in (pair.a, pair.b))
    if pair.a.runs[0].folder == pair.b.runs[0].folder:
        return []
    found = [line for line in changes(a, b) if not line.partition(" was ")[0].endswith("seed")]
    seeds = [run.report.get("seed") for run in (pair.a.runs[0], pair.b.runs[0])]
    if not found and seeds[0] != seeds[1]:
        return [f"{pair.a.label} and {pair.b.label} differ in the seed alone: joined by a comma they are one system"]
    more = [f"and {len(found) - CHANGES} more options"] if len(found) > CHANGES else []
    return [f"from {pair.a.label} to {pair.b.label}: {line.removesuffix(' now')}" for line in found[:CHANGES]] + more


def _title(run: Measured) -> str:
    lacking = "INCOMPLETE " if run.report.get("incomplete") else ""
    return f"{lacking}{run.report['protocol'].get('name') or run.report.get('task')} ({run.report.get('split')})"


def _values(systems: Sequence[System], most: int | None = None) -> ReportTable:
    """Every metric of every system, with its interval or the spread over its runs."""
    first = systems[0].runs[0]
    names = list(first.metrics)[:most]
    brief = most is not None and len(systems) > WIDE
    rows = [(n, *(cell(one.metric(n)) if brief else _value(one, n) for one in systems)) for n in names]
    more = len(first.metrics) - len(names)
    notes = [f"{more} more metrics: --html or --json"] if more else []
    told = "95 % intervals over clips; of several runs the standard deviation and the range over them"
    notes += ["intervals and spreads: --html or --json"] if brief else [told]
    return ReportTable(_title(first), ("metric", *(system.label for system in systems)), tuple(rows), tuple(notes))


def _value(system: System, name: str) -> str:
    value, spread = cell(system.metric(name)), system.spread(name)
    if spread is not None:
        return f"{value} \u00b1 {spread[0]:.2f} ({spread[1]:.2f} to {spread[2]:.2f})"
    interval = system.interval(name)
    return value if interval is None or any(map(math.isnan, interval)) else f"{value} ({_span(interval)})"


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}"


_COLUMNS = ("metric", "difference", "95 % interval", "p", "visible from", "")


def _differences(pair: Pair, most: int | None = None) -> ReportTable:
    rows = tuple((row.metric, *_cells(row)) for row in pair.rows[:most])
    return ReportTable(f"{pair.b.label} - {pair.a.label}", _COLUMNS, rows)


def _cells(row: Difference) -> tuple[str, ...]:
    difference = "-" if math.isnan(row.difference) else f"{row.difference:+.2f}"
    if row.interval is None or row.p_value is None or row.visible is None:
        return difference, "", "", "", ""
    low, high = row.interval
    p = "< 0.001" if row.p_value < 0.001 else f"{row.p_value:.3f}"
    return difference, f"{low:+.2f} to {high:+.2f}", p, f"{row.visible:.2f}", row.verdict()


def _record(systems: Sequence[System], pairs: Sequence[Pair], left: Sequence[str]) -> dict[str, Any]:
    from vtp.eval.report import finite

    found = {
        "protocol": systems[0].runs[0].report["protocol"].get("name"),
        "systems": {
            system.label: {
                "runs": [run.name for run in system.runs],
                "metrics": {
                    name: {
                        "value": system.metric(name),
                        "interval": system.interval(name),
                        "spread": system.spread(name),
                    }
                    for name in systems[0].runs[0].metrics
                },
            }
            for system in systems
        },
        "pairs": [
            {
                "a": pair.a.label,
                "b": pair.b.label,
                "sentence": pair.sentence(),
                "notes": pair.notes,
                "metrics": {
                    row.metric: {
                        "difference": row.difference,
                        "interval": row.interval,
                        "p_value": row.p_value,
                        "visible": row.visible,
                        "verdict": row.verdict(),
                        "queries": row.queries,
                        "clips": row.clips,
                    }
                    for row in pair.rows
                },
            }
            for pair in pairs
        ],
        "not_compared": list(left),
    }
    return dict(finite(found))


def _page(systems: Sequence[System], pairs: Sequence[Pair], left: Sequence[str]) -> str:
    parts = [page.heading(f"vtp compare: {_title(systems[0].runs[0])}", 1)]
    parts += [page.paragraph(pair.sentence(), "ok" if pair.headline.told_apart else "note") for pair in pairs]
    parts += [page.paragraph(line) for line in _legend(systems)]
    for table in (_values(systems), *map(_differences, pairs)):
        parts.append(page.heading(table.title))
        rows = [[page.text(value) for value in row] for row in table.rows]
        parts.append(page.table(table.columns, rows, numbers=range(1, len(table.columns))))
        parts += [page.paragraph(note, "note") for note in table.notes]
    for pair in pairs:
        parts += [page.paragraph(note, "note") for note in pair.notes]
    parts += [page.paragraph(f"not compared: {row}", "note") for row in left]
    return page.document(f"vtp compare: {_title(systems[0].runs[0])}", parts)
