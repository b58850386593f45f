"""Several tasks on one checkpoint: each is measured as if it were alone, and a table names what all of them found."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vtp import distributed
from vtp.errors import VtpError
from vtp.faults import fault_of
from vtp.run.folder import RunFolder

__all__ = ["measure"]

log = logging.getLogger("vtp")

RESULTS = "tasks.json"


def measure(configs: Mapping[str, dict[str, Any]], folder: Path, run: Callable[[dict[str, Any], Path], int]) -> int:
    """Run every configuration in ``folder/task``, then write ``tasks.json`` and print the table.

    A task that fails is told, and the others are measured all the same.

    Returns:
        0, or the exit code of the first task that failed.

    Raises:
        Exception: on several processes, what is no VtpError: they may have come to different places.
    """
    codes: dict[str, int] = {}
    errors: dict[str, str] = {}
    for task, config in configs.items():
        log.info("task %s", task)
        try:
            if code := run(config, folder / task):
                codes[task] = code
        except Exception as error:
            if distributed.world_size() > 1 and not isinstance(error, VtpError):
                raise
            codes[task] = getattr(error, "exit_code", 1)
            found = None if isinstance(error, VtpError) else fault_of(error)
            told = isinstance(error, VtpError) or found is not None
            errors[task] = str(found or error) if told else f"{type(error).__name__}: {error}"
            if distributed.is_main():
                where = RunFolder(folder / task)
                where.path.mkdir(parents=True, exist_ok=True)
                where.keep_traceback(error)
                print(f"vtp run: {task}: {errors[task]}", file=sys.stderr)
    if distributed.is_main():
        _tell(configs, folder, errors)
    return next(iter(codes.values()), 0)


def _tell(configs: Mapping[str, dict[str, Any]], folder: Path, errors: Mapping[str, str]) -> None:
    from vtp.eval.report import print_tables
    from vtp.eval.task import ReportTable
    from vtp.storage import write_json_atomic

    found: dict[str, dict[str, Any]] = {}
    rows: list[tuple[str | float | None, ...]] = []
    for task in configs:
        file = folder / task / "report.json"
        if task in errors:
            found[task] = {"error": errors[task]}
            rows.append((task, "failed", None))
        elif file.exists():
            report = json.loads(file.read_text(encoding="utf-8"))
            found[task] = {
                "report": f"{task}/report.json",
                **{key: report[key] for key in ("task", "split", "metrics")},
            }
            found[task]["coverage"] = report["ledger"]["coverage"]
            found[task]["incomplete"] = bool(report.get("incomplete"))
            shown = f"INCOMPLETE {task}" if report.get("incomplete") else task
            rows += [(shown, name, value) for name, value in report["metrics"].items()]
        else:
            found[task] = {"predictions": f"{task}/predictions.jsonl"}
            rows.append((task, "predictions", None))
    checkpoint = next(iter(configs.values()))["checkpoint"]
    write_json_atomic(folder / RESULTS, {"checkpoint": str(checkpoint), "tasks": found})
    notes = tuple(f"{task}: {error.splitlines()[0]}" for task, error in errors.items())
    print_tables([ReportTable(f"all tasks on {checkpoint}", ("task", "metric", "value"), tuple(rows), notes)])
    print(f"\nin {folder}:\n  {RESULTS:<18} the same; a folder per task has its report")
