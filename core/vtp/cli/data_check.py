"""``vtp data check TARGET``: what a protocol needs, what is there, and what is wrong with the rest."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtp.cli.arguments import Seconds, a, place, refuse_file
from vtp.cli.data import ArgumentParser, decoder, point_at, split_options
from vtp.errors import ConfigError, DataError
from vtp.machine import cores
from vtp.progress import bar
from vtp.ranges import Count, Natural, Processes
from vtp.shown import one_line

if TYPE_CHECKING:
    from vtp.media import MediaReader
    from vtp.prepare.survey import Survey

__all__ = ["main"]

# of every file, and of every shard; the rest are notes
RECORDED = {"path", "bytes", "sha256", "rows", "malformed", "malformed_first", "parts", "not_read"}

ABOUT = """Count what the protocols of a data set expect and what is on the disk, decode a part of every file, and write
a table, OUT/report.json and OUT/report.html. Files that hang or crash a decoder do no harm. An interrupted check goes
on where it stopped: what was found is kept in OUT/files.jsonl and used again while size and date of a file stay.

exit code: 0 everything is there, 1 something that a protocol needs is missing or does not decode, 2 a mistake."""


def main(arguments: list[str]) -> int:
    """Check, print, write, and return 1 where something is missing."""
    parser = _parser()
    rest, options = split_options(arguments, parser)
    parsed = parser.parse_args(rest)
    from vtp.media import MediaReader
    from vtp.storage import alone

    reader = partial(MediaReader, parsed.backend, parsed.timeout)
    settings = f"{reader().backend_name}, {parsed.frames} frames"  # before a folder is made: it may be refused
    out = Path(parsed.out) if parsed.out else Path("outputs") / "check" / _file_name(parsed.target)
    refuse_file(out)
    survey = _survey(parsed, options)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        return _check(parsed, survey, out, reader, settings)


def _check(
    parsed: argparse.Namespace, survey: Survey, out: Path, reader: Callable[[], MediaReader], settings: str
) -> int:
    from vtp.prepare.check import Known, look_at
    from vtp.prepare.check_page import page
    from vtp.prepare.check_report import report
    from vtp.storage import write_json_atomic, write_text_atomic

    known = Known(out / "files.jsonl")
    try:
        with bar("files") as progress:
            found = look_at(
                survey,
                reader=reader,
                settings=settings,
                workers=parsed.workers or cores(),
                frames=parsed.frames,
                decode=not parsed.no_decode,
                limit=parsed.limit,
                thumbnails=parsed.thumbnails,
                known=known,
                progress=progress,
            )
    except KeyboardInterrupt:
        print(f"vtp data check: what was found is kept in {known.path}; the same command goes on", file=sys.stderr)
        raise
    how = "only looked whether files are there" if parsed.no_decode else f"decoded by {settings} and all sound"
    made = report(survey, found, how, "" if parsed.no_decode else f"--limit {parsed.limit}")
    write_json_atomic(out / "report.json", _printable(made))
    text = page(made, list(found.values()), {path: file.clip for path, file in survey.files.items()})
    write_text_atomic(out / "report.html", text)
    _print(made, out)
    return 0 if made["ok"] else 1


def _parser() -> ArgumentParser:
    parser = ArgumentParser("check", ABOUT)
    several: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--kind", **several, help="only tables such as retrieval or qa (repeatable)")
    parser.add_argument("--split", **several, help="only these splits: train, val, test (repeatable)")
    parser.add_argument("--no-decode", action="store_true", help="only look whether files are there")
    parser.add_argument("--limit", type=a(Count), help="decode so many files, spread over all")
    parser.add_argument("--frames", type=a(Count), default=8, help="frames decoded of each file (default %(default)s)")
    parser.add_argument("--thumbnails", type=a(Natural), default=200, help="pictures on the page (default %(default)s)")
    parser.add_argument("--workers", type=a(Processes), default=0, help="files at a time (default: one per core)")
    parser.add_argument("--timeout", type=a(Seconds), default=30.0, help="seconds per file (default %(default)g)")
    parser.add_argument(
        "--backend", type=decoder, default="auto", help="decoder, as media.backend (default %(default)s)"
    )
    parser.add_argument("--out", type=place, help="folder of the report (default outputs/check/TARGET)")
    return parser


# -- what is checked ---------------------------------------------------------------------------------------------------


def _survey(parsed: argparse.Namespace, options: dict[str, Any]) -> Survey:
    from vtp.prepare.survey import survey_dataset, survey_folder

    with _status() as progress, _quiet():
        target = point_at(parsed.target, options, hold_out=True)
        if not isinstance(target.source, Path):
            kinds, splits = [*target.kinds, *parsed.kind], [*target.splits, *parsed.split]
            return survey_dataset(target.source, kinds=kinds, splits=splits, progress=progress)
        if parsed.kind or parsed.split:
            given = "--kind" if parsed.kind else "--split"
            raise ConfigError(f"{parsed.target} is a folder, and {given} is for data sets.")
        survey = survey_folder(target.source)
    if not survey.files:
        others = ", ".join(f"{count:,} {kind}" for kind, count in list(survey.others.items())[:5]) or "nothing"
        raise DataError(f"there are no media files in {target.source} (found: {others}).")
    return survey


# -- what is told ------------------------------------------------------------------------------------------------------


def _print(report: Mapping[str, Any], out: Path) -> None:
    from rich.text import Text

    from vtp.eval.report import render, wide_console
    from vtp.eval.task import ReportTable

    console = wide_console()
    if report["tables"]:
        keys = ("files", "missing", "decodable", "undecodable", "with_sound")
        columns = ("table", "samples", "clips", *(key.replace("_", " ") for key in keys))
        rows = tuple(_row(one, keys) for one in report["tables"])
        notes = tuple(match["line"] for one in report["tables"] for match in one["protocols"])
        notes += tuple(
            f"{one['kind']}/{one['split']}: {one['duplicate_ids']:,} ids occur twice (first: {one['duplicates'][0]})"
            for one in report["tables"]
            if one["duplicates"]
        )
        console.print(render(ReportTable(f"{report['target']}", columns, rows, notes)))
    facts = {**report["summary"], **{name.lower(): _short(c) for name, c in report["distributions"].items() if c}}
    for name, text in facts.items():
        console.print(Text(one_line(f"  {name:<20}{text}")))
    for overlap in report["overlaps"]:
        note = "" if overlap["within"] else " (between kinds of tables: matters only where both are used)"
        console.print(
            Text(one_line(f"{overlap['clips']:,} clips are in {overlap['one']} and in {overlap['other']}{note}"))
        )
    for one in report["annotations"]:
        for note in (name for name in one if name not in RECORDED):
            console.print(Text(one_line(f"{Path(one['path']).name}: {note.replace('_', ' ')}: {one[note]}")))
        if one.get("malformed"):
            first = "; ".join(one["malformed_first"][:3])
            console.print(Text(one_line(f"{one['path']}: {one['malformed']:,} malformed rows (first: {first})")))
    if report["others"]:
        others = ", ".join(f"{count:,} {kind}" for kind, count in list(report["others"].items())[:8])
        console.print(Text(one_line(f"no media, not looked at: {others}")))
    for reason, count in list(report["reasons"].items())[:20]:
        first = next(p["path"] for p in report["problems"] if f"{p['state']}: {p['reason']}" == reason)
        console.print(Text(one_line(f"{count:6,}  {reason}  (first: {_shown(first)})"), style="red"))
    for gap in report["gaps"]:
        console.print(Text(one_line(gap), style="red"))
    console.print(Text("\n" + one_line(report["verdict"]), style="bold green" if report["ok"] else "bold red"))
    console.print(Text(one_line(f"{report['how']}; {out / 'report.html'}, report.json, files.jsonl")))


def _row(table: Mapping[str, Any], keys: Sequence[str]) -> tuple[str | int | None, ...]:
    """A table of the data set; a dash for what was not looked at."""
    name, media = f"{table['kind']}/{table['split']}", table["media"]
    if table["error"]:
        return (name, *[None] * (2 + len(keys)))
    unread = media["not_looked_at"] == media["there"] > 0
    counts = (None if unread and key not in ("files", "missing") else media[key] for key in keys)
    return (name, table["samples"], table["clips"], *counts)


def _short(counts: Mapping[str, int]) -> str:
    shown = [f"{name} ({count:,})" for name, count in list(counts.items())[:4]]
    return ", ".join(shown) + (", ..." if len(counts) > 4 else "")


def _shown(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def _printable(value: Any) -> Any:
    """The same with texts that can be written as UTF-8: names of files may hold any bytes."""
    if isinstance(value, Mapping):
        return {_shown(str(key)): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return _shown(value) if isinstance(value, str) else value


def _file_name(target: str) -> str:
    """``/data/my clips/`` -> ``data_my_clips``."""
    return re.sub(r"[^\w.-]+", "_", target).strip("_.") or "here"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what readers say on the log: the report says it."""
    log = logging.getLogger("vtp")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """What is being read, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading annotations") as status:
        yield lambda text: status.update(f"reading {text}")
