"""``vtp verify RUN``: does the report follow from the predictions?"""

from __future__ import annotations

import json
from pathlib import Path

from vtp.cli.arguments import Parser, place
from vtp.errors import DataError, RunError
from vtp.eval.verify import Verdict, verify
from vtp.shown import one_line

__all__ = ["main"]

SHOWN = 20  # problems of a run
ABOUT = """Compute every number of report.json that follows from predictions.jsonl again, to the last bit: metrics,
intervals, bounds, the ledger, and the counts and hashes by which a protocol is recognised. Neither the model nor the
media nor the data set is needed. What was changed since the run, a line that is missing and an id that was swapped are
named. Exit code 1 if anything does not fit."""


def main(arguments: list[str]) -> int:
    """Verify runs, and print what was found."""
    parser = Parser(prog="vtp verify", description=ABOUT)
    parser.add_argument("run", nargs="+", type=place, help="folder of a run that evaluated")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    found = {str(folder): verify(folder) for run in options.run for folder in _folders(Path(run).expanduser())}
    if options.json:
        print(json.dumps({name: _record(one) for name, one in found.items()}, indent=2))
    else:
        for name, one in found.items():
            _tell(name, one)
    return RunError.exit_code if any(one.problems for one in found.values()) else 0


def _folders(run: Path) -> list[Path]:
    """The folder itself, or those of the tasks that a run has measured one after another."""
    if not (run / "report.json").exists() and (run / "tasks.json").exists():
        return _of_tasks(run) or [run]
    return [run]


def _of_tasks(run: Path) -> list[Path]:
    """Folders of the tasks that were measured: those that tasks.json names, and whatever else has a report."""
    try:
        tasks = json.loads((run / "tasks.json").read_text(encoding="utf-8"))["tasks"]
        named = [run / name for name, found in tasks.items() if "report" in found]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{run / 'tasks.json'} cannot be read ({error}); give the folders of its tasks.") from error
    return sorted({*named, *(path.parent for path in run.glob("*/report.json"))})


def _record(one: Verdict) -> dict[str, object]:
    return {"verified": not one.problems, "numbers": one.counted, "problems": one.problems, "notes": one.notes}


def _tell(name: str, one: Verdict) -> None:
    if one.problems:
        count = len(one.problems)
        print(one_line(f"{name}: NOT verified, {count} thing{'s do' if count > 1 else ' does'} not fit"))
        for problem in one.problems[:SHOWN]:
            print(one_line(f"  {problem}"))
        if len(one.problems) > SHOWN:
            print(f"  and {len(one.problems) - SHOWN} more (--json has all)")
    else:
        print(one_line(f"{name}: verified, {one.counted:,} numbers follow from the predictions bit by bit"))
    for note in one.notes:
        print(one_line(f"  note: {note}"))
