"""What the data set and the task of a run give, held against their contracts.

Results are looked at when they come. Tables are only read through when a run fails with an exception that is none of
vtp's own, to tell whose fault it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vtp.contracts import Dataset, Task, member, offers
from vtp.errors import PluginError, UserError
from vtp.numbers import number
from vtp.types import MediaRef, Sample

__all__ = ["check_result", "problem_with"]

ROWS = 10_000  # of each table that are read through after a failure


def check_result(who: str, result: Any, method: str) -> Any:
    """A TaskResult with metrics as plain numbers; those that are not finite become warnings of the report.

    Args:
        who: the task.
        result: of ``evaluate`` or ``predict``.
        method: which of the two.

    Raises:
        PluginError: it is something else.
    """
    from vtp.eval.ledger import Ledger
    from vtp.eval.task import TaskResult

    if not isinstance(result, TaskResult):
        raise PluginError(f"{who} returned {type(result).__name__} from {method}, expected vtp.eval.task.TaskResult.")
    if not isinstance(result.metrics, Mapping):
        found = type(result.metrics).__name__
        raise PluginError(f"{who} returned TaskResult.metrics as {found}, expected a dict of name to number.")
    if not isinstance(result.ledger, Ledger):
        found = type(result.ledger).__name__
        raise PluginError(
            f"{who} returned TaskResult.ledger as {found}, expected the ledger of what evaluator.run gave."
        )
    plain = {str(name): number(value) for name, value in result.metrics.items()}
    for name, value in plain.items():
        if value is None:
            found = type(result.metrics[name]).__name__
            raise PluginError(f"{who} returned the metric {name!r} as {found}, expected a number.")
        if not math.isfinite(value):
            result.warnings.append(f"the metric {name} is {value}, no finite number")
    result.metrics = {name: value for name, value in plain.items() if value is not None}
    return result


def problem_with(dataset: Any, task: Any, dataset_title: str, task_title: str) -> str | None:
    """What is wrong with the tables of a data set or a task, in one line; None if nothing is found."""
    found = None
    if dataset is not None:
        kinds = dict.fromkeys([*member(dataset, Dataset, "kinds"), *([task.kind] if task is not None else [])])
        asked = ((f"samples({k!r}, {s!r})", (k, s)) for k in kinds for s in member(dataset, Dataset, "splits")(k))
        found = next(_tables(dataset_title, dataset.samples, asked), None)
    if found is None and task is not None:
        found = next(_tables(task_title, task.train_samples, [("train_samples()", ())]), None)
        splits = [(f"samples({split!r})", (split,)) for split in ("val", "test")]
        found = found or next(_tables(task_title, task.samples, splits), None)
        found = found or _label_problem(task, task_title)
    return found


def _tables(who: str, method: Callable[..., Any], calls: Any) -> Iterator[str]:
    for name, arguments in calls:
        try:
            table = method(*arguments)
        except UserError:  # files that are not there
            continue
        if problem := _table_problem(table):
            yield f"{who} returned {problem[0]} from {name}, expected {problem[1]}."


def _table_problem(table: Any) -> tuple[str, str] | None:
    if not (offers(table, "__len__") and offers(table, "__getitem__")) or isinstance(table, (str, Mapping)):
        return type(
            table
        ).__name__, "a sequence of vtp.types.Sample, such as a list; an empty one where there is no split"
    for row in range(min(len(table), ROWS)):
        if problem := _row_problem(table[row]):
            return f"{problem[0]} in row {row}", problem[1]
    return None


def _row_problem(sample: Any) -> tuple[str, str] | None:
    if not isinstance(sample, Sample):
        return type(sample).__name__, "vtp.types.Sample"
    if not isinstance(sample.id, str):
        return f"Sample.id={sample.id!r}", "a string"
    if isinstance(sample.texts, str) or not isinstance(sample.texts, Sequence):
        return f"Sample.texts={sample.texts!r}", "a tuple of strings"
    if odd := [text for text in sample.texts if not isinstance(text, str)]:
        return f"Sample.texts with {odd[0]!r}", "a tuple of strings"
    for name in ("video", "audio"):
        ref = getattr(sample, name)
        if ref is not None and not (isinstance(ref, MediaRef) and isinstance(ref.path, (str, bytes))):
            return f"Sample.{name}={ref!r}", "a MediaRef whose path is a string or bytes, or None"
    return None


def _label_problem(task: Any, who: str) -> str | None:
    samples = task.train_samples()
    labels = member(task, Task, "labels")(samples[0]) if len(samples) else {}
    if not isinstance(labels, Mapping):
        return f"{who} returned {type(labels).__name__} from labels(sample), expected a dict of name to number."
    for name, value in labels.items():
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if any(number(one) is None for one in numbers):
            return f"{who} returned the label {name!r} as {type(value).__name__}, expected a number, -100 for none."
    return None
