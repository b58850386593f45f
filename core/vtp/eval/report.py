"""What a run leaves behind: ``report.json`` with everything a number needs to be believed, ``predictions.jsonl`` with
one line per query, and tables.

The keys of report.json: ``task``, ``split``, ``metrics``, ``intervals``, ``incomplete``, ``bounds``, ``rows``,
``row_intervals``, ``references``, ``ledger``, ``ledgers``, ``protocol``, ``train``, ``leaks``, ``selection``,
``facts``, ``checkpoint``, ``frames`` (:mod:`vtp.eval.looking`), ``near_duplicates``, ``dataset``, ``model``,
``config``, ``environment``, ``warnings``, ``files``, ``seal`` (:mod:`vtp.eval.seal`). Numbers that are not finite are
written as null.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from vtp import __version__
from vtp.eval.leaks import LeakReport
from vtp.eval.seal import checked_line, write_sealed
from vtp.eval.task import ReportTable, TaskResult
from vtp.numbers import number
from vtp.shown import one_line
from vtp.storage import MANIFEST, write_text_atomic

__all__ = [
    "cell",
    "checkpoint_hash",
    "environment",
    "finite",
    "git_state",
    "headed",
    "incomplete_line",
    "print_result",
    "print_tables",
    "render",
    "write_predictions",
    "write_report",
]

SCHEMA = 2  # of report.json; raised when a key changes its meaning
PREDICTIONS = "predictions.jsonl"
INCOMPLETE = "INCOMPLETE"  # stands before every headline of a result that lacks items
BOUNDED = 14  # metrics whose bounds are printed; report.json has all
LIBRARIES = (
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "timm",
    "tokenizers",
    "numpy",
    "av",
    "safetensors",
    "hydra-core",
)


def write_report(
    folder: Path | str,
    result: TaskResult,
    *,
    selection: str,
    seed: int,
    train: Sequence[Mapping[str, Any]] = (),
    leaks: LeakReport | None = None,
    checkpoint: Path | str | None = None,
    config: Mapping[str, Any] | None = None,
    plugins: Sequence[Mapping[str, Any]] = (),
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write ``report.json`` and ``predictions.jsonl`` into ``folder``; call it on one process.

    Args:
        folder: the run folder, which exists.
        result: of :meth:`vtp.contracts.Task.evaluate`.
        selection: rule by which the evaluated weights were chosen.
        seed: of the run.
        train: records of all training stages, see :func:`vtp.eval.leaks.train_record`; the clip lists themselves stay
            in the checkpoint.
        leaks: outcome of :func:`vtp.eval.leaks.check_leaks`.
        checkpoint: folder of the evaluated weights.
        config: the resolved configuration.
        plugins: name, distribution and version of what was loaded.
        extra: further keys: what the data set and the parts of the model were made of.

    Returns:
        the record that was written.
    """
    folder = Path(folder)
    doubts = (note for note in _doubts(result, selection, leaks) if note not in result.warnings)
    weights = None if checkpoint is None else {"path": str(checkpoint), "sha256": checkpoint_hash(checkpoint)}
    record = {
        "schema": SCHEMA,
        **result.record(),
        "train": [{key: value for key, value in stage.items() if key not in ("media", "files")} for stage in train],
        "leaks": leaks.record() if leaks is not None else None,
        "selection": selection,
        "seed": seed,
        "checkpoint": weights,
        "warnings": [*result.warnings, *doubts],
        "files": {"predictions": PREDICTIONS, "lines": len(result.predictions)},
        "environment": environment(plugins),
        "config": config,
        **(extra or {}),
    }
    write_predictions(folder, result)
    written: dict[str, Any] = finite(record)
    write_sealed(folder / "report.json", written)  # last: where it is, everything it names is
    return written


def write_predictions(folder: Path, result: TaskResult) -> None:
    """Write ``predictions.jsonl``, one line per query, each with a mark of its own (:mod:`vtp.eval.seal`)."""
    lines = (checked_line(finite(line), place) + "\n" for place, line in enumerate(result.predictions))
    write_text_atomic(folder / PREDICTIONS, "".join(lines))


def _doubts(result: TaskResult, selection: str, leaks: LeakReport | None) -> Iterable[str]:
    """What the reader of a number must know first."""
    if leaks is not None and leaks.found:
        yield leaks.line()
    if leaks is not None and leaks.copies:
        yield leaks.copies_line()
    if leaks is not None and leaks.unknown:
        yield f"nothing is known about the training clips of: {', '.join(leaks.unknown)}"
    if selection == "test(!)":
        yield "the checkpoint was selected on the test set"
    if not result.ledger.complete:
        yield result.ledger.line()
    if result.facts.get("limited"):
        yield f"only a part of the split was evaluated (data.limit_eval={result.facts.get('limit')})"


def finite(value: Any) -> Any:
    """JSON has no NaN: what is not finite becomes null, and keys become strings."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    plain = number(value)  # of numpy or torch
    return str(value) if plain is None else finite(plain)  # paths and the like


def checkpoint_hash(folder: Path | str) -> str | None:
    """sha256 of the saved weights (model.safetensors, or adapters.safetensors), from the manifest where there is one;
    None without weights."""
    weights = Path(folder) / "model.safetensors"
    weights = weights if weights.is_file() else weights.with_name("adapters.safetensors")
    manifest = Path(folder) / MANIFEST
    if manifest.is_file():
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):  # without it, the file itself tells
            return str(json.loads(manifest.read_text(encoding="utf-8"))["files"][weights.name]["sha256"])
    if not weights.is_file():
        return None
    with open(weights, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def environment(plugins: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Versions of vtp, Python, the libraries that decide numbers, plugins, and the state of the source tree."""
    versions: dict[str, str | None] = {}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            versions[library] = None
    return {
        "vtp": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": versions,
        "plugins": [dict(plugin) for plugin in plugins],
        "git": git_state(Path(__file__).parent),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the source tree that ``folder`` belongs to, and which tracked files differ from it; None outside a
    repository or without git."""
    try:
        _git(folder, "ls-files", "--error-unmatch", ".")  # installed below somebody else's repository is not part of it
        commit = _git(folder, "rev-parse", "HEAD").strip()
        changed = [line[3:] for line in _git(folder, "status", "--porcelain", "--untracked-files=no").splitlines()]
        difference = _git(folder, "diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    digest = hashlib.sha256(difference.encode()).hexdigest() if changed else None
    return {"commit": commit, "dirty": bool(changed), "changed": changed[:50], "diff_sha256": digest}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, check=True, timeout=20, encoding="utf-8", errors="replace")
    return done.stdout


def render(table: ReportTable) -> Group:
    """A table for the terminal: first column left, numbers right with two decimals, the row ``all`` in bold.

    Title and notes stand on lines of their own, so that a narrow table does not squeeze them.
    """
    drawn = RichTable()
    for i, column in enumerate(table.columns):
        drawn.add_column(Text(one_line(column)), justify="left" if i == 0 else "right")
    for row in table.rows:
        drawn.add_row(*(Text(one_line(cell(value))) for value in row), style="bold" if row[0] == "all" else None)
    return Group(
        Text(one_line(table.title), style="bold"), drawn, *(Text(one_line(f"  {note}")) for note in table.notes)
    )


def cell(value: str | float | int | None) -> str:
    """A number as tables show it: two decimals, a dash for none."""
    value = value if value is None or isinstance(value, str) else number(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else value


def wide_console(console: Console | None = None) -> Console:
    """The console (None is standard output), with room for a table in files and pipes, which have no width to keep."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 132)
    return console


def print_tables(tables: Iterable[ReportTable], console: Console | None = None) -> None:
    """Print tables; ``console`` None is standard output."""
    console = wide_console(console)
    for table in tables:
        console.print(render(table))


def print_result(result: TaskResult, record: Mapping[str, Any] | None = None, console: Console | None = None) -> None:
    """Print the tables with their coverage, then every warning that they do not show already.

    Args:
        result: its tables.
        record: what :func:`write_report` returned, for its warnings; None prints those of ``result``.
        console: where to; None is standard output.
    """
    console = wide_console(console)
    tables = list(headed(result))
    print_tables(tables, console)
    shown = {note for table in tables for note in table.notes}
    for warning in (record or {}).get("warnings", result.warnings):
        if warning in shown:
            continue
        console.print(Text(one_line(f"note: {warning}"), style="bold red" if warning.startswith("LEAK") else "yellow"))


def incomplete_line(result: TaskResult) -> str:
    """``INCOMPLETE: 1 of 1,000 videos could not be evaluated (first: video7: no video stream)``; "" where none is
    missing."""
    ledgers = {ledger.what: ledger for ledger in (*result.ledgers.values(), result.ledger) if ledger.missing}
    found = []
    for what, ledger in ledgers.items():
        name, reason = next(iter(ledger.missing.items()))
        share = f"{len(ledger.missing):,} of {len(ledger.expected):,} {what}"
        found.append(f"{share} could not be evaluated (first: {name}: {reason})")
    return f"{INCOMPLETE}: {'; '.join(found)}" if found else ""


def headed(result: TaskResult) -> Iterator[ReportTable]:
    """The tables to print: of an incomplete result every title says so, and one with the bounds follows the first."""
    if not result.missing:
        yield from result.tables
        return
    lacking = " and ".join(f"{count:,} {what}" for what, count in result.missing.items())
    for place, table in enumerate(result.tables):
        yield replace(table, title=f"{INCOMPLETE} {table.title}")
        if place:
            continue
        open_ = {name: span for name, span in result.bounds.items() if span[0] < span[1]}
        rows = [(name, low, result.metrics[name], high) for name, (low, high) in open_.items()]
        notes = [f"{len(rows) - BOUNDED} more in report.json"] if len(rows) > BOUNDED else []
        if unknown := [name for name in result.metrics if name not in result.bounds]:
            notes.append(f"not bounded: {', '.join(unknown[:6])}{' and more' if len(unknown) > 6 else ''}")
        title = f"{INCOMPLETE}: what the missing {lacking} can have changed, whatever they would have scored"
        yield ReportTable(title, ("metric", "at least", "reported", "at most"), tuple(rows[:BOUNDED]), tuple(notes))
