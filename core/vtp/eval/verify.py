"""Whether a report says what its predictions say: every number that follows from predictions.jsonl is computed again,
to the last bit, without the model, the media or the data set, and the items are held against the protocol."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtp.contracts import Task, member
from vtp.errors import DataError, PluginError, VtpError
from vtp.eval.forms import Form, sha256_lines
from vtp.eval.protocol import Protocol
from vtp.eval.recount import Recount
from vtp.eval.report import PREDICTIONS, finite
from vtp.eval.seal import changed_keys, unchecked

__all__ = ["Predictions", "Verdict", "read_predictions", "read_report", "recounted", "verify"]

_NOT_TOLD = (
    "not computed again, but sealed, as no prediction can tell: the similarities and scores behind ranks, what files "
    "held (coverage of modalities, frames), what was trained on, published references"
)
_WRONG = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError)  # of lines that are not ours


@dataclass(slots=True)
class Verdict:
    """What was found.

    Attributes:
        problems: what does not fit, in words.
        counted: how many numbers were computed again and are equal.
        notes: what could not be computed again, and what the items were recognised as.
    """

    problems: list[str] = field(default_factory=list)
    counted: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Predictions:
    """The lines of a file that could be read, and what is wrong with it, in words."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_report(folder: Path) -> dict[str, Any]:
    """report.json of a run folder.

    Raises:
        DataError: there is none, or it is not one.
    """
    path = folder / "report.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} holds no report.json. Give the folder of a run that evaluated (outputs/DATE/TIME)."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key), dict) for key in ("metrics", "facts", "config", "protocol", "ledger")
    ):
        raise DataError(f"{path} is not the report of an evaluation.")
    if odd := list(_odd(found)):
        raise DataError(f"{path} is not what vtp writes: {', '.join(odd)}.")
    return found


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON in which no key hides another one of the same name."""
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, count), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} stands there {count} times in one place")
    return found


def _odd(report: Mapping[str, Any]) -> Iterator[str]:
    """Parts of a report that have not the form of one: everybody who reads it relies on that."""
    protocol = report["protocol"]
    parts = {key: report.get(key) for key in ("intervals", "bounds", "rows", "row_intervals")}
    parts = {key: part for key, part in {**parts, "protocol.cuts": protocol.get("cuts")}.items() if part is not None}
    parts |= {f"protocol.{key}": protocol[key] for key in ("counts", "sha256") if key in protocol}
    yield from (f"{key} is no table" for key, part in parts.items() if not isinstance(part, dict))
    tables = {key: part for key, part in parts.items() if isinstance(part, dict)}
    for key in ("rows", "row_intervals", "protocol.cuts"):
        for name, row in tables.get(key, {}).items():
            if not isinstance(row, dict):
                yield f"{key}.{name} is no table"
            elif key == "row_intervals":
                tables[f"{key}.{name}"] = row
    for key, table in tables.items():
        if key == "intervals" or key.startswith("row_intervals."):
            yield from (f"{key}.{name} is no interval" for name, one in table.items() if not _is_interval(one))
    seed = report.get("seed")
    if seed is not None and (not isinstance(seed, int) or seed < 0):
        yield f"seed is {_short(seed)}"


def _is_interval(value: Any) -> bool:
    numbers = isinstance(value, list) and all(one is None or isinstance(one, (int, float)) for one in value)
    return numbers and len(value) == 2


def read_predictions(folder: Path) -> Predictions:
    """The lines of predictions.jsonl, each held against its mark.

    Raises:
        DataError: there is no such file, or it is not text.
    """
    path = folder / PREDICTIONS
    try:
        texts = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    found = Predictions()
    before, name = -1, "the beginning"
    unmarked = 0
    for number, text in enumerate(texts, start=1):
        if not text and number == len(texts):
            break  # what follows the last line's end
        content, place, good = unchecked(text)
        try:
            line = json.loads(content)
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict) or not isinstance(line.get("id"), str):
            found.problems.append(f"line {number} is no line of predictions")
            before += 1
            continue
        who = f"line {number} ({line['id']})"
        found.lines.append(line)
        if place is None:
            unmarked += 1
            before += 1
        else:
            if not good:
                found.problems.append(f"{who} was changed since it was written")
            if place != before + 1:
                found.problems.append(_gap(place - before - 1, name, who))
            before = place
        name = who
    if unmarked:
        found.problems.append(f"{unmarked:,} lines have no mark: an older vtp wrote them, or they were changed")
    for name, count in Counter(line["id"] for line in found.lines).items():
        if count > 1:
            found.problems.append(f"{name} stands there {count} times")
    return found


def _gap(missing: int, before: str, after: str) -> str:
    if missing > 0:
        return f"{missing:,} line{'s are' if missing > 1 else ' is'} missing between {before} and {after}"
    return f"{after} does not belong behind {before}"


def recounted(report: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Recount | None:
    """What the report's task counts from lines; None if the task cannot.

    Raises:
        PluginError: the task is not installed, or what it offers is no such function.
        DataError: the lines are not such as the task writes.
    """
    task = _task(report)
    recount = member(task, Task, "recount")
    if recount is None:
        return None
    try:
        found = recount(lines, report["facts"])
    except _WRONG as error:
        raise DataError(f"its lines cannot be counted ({type(error).__name__}: {error})") from error
    if not isinstance(found, Recount):
        raise PluginError(f"recount of {task.__name__} returned {type(found).__name__}, expected a Recount.")
    return found


def _task(report: Mapping[str, Any]) -> Any:
    from vtp.plugins import host

    node = report["config"].get("task")
    name = node.get("name") if isinstance(node, Mapping) else None
    if not isinstance(name, str):
        raise DataError("its config does not say which task it is of")
    return host().registry.get("task", name).load()


def verify(folder: Path) -> Verdict:
    """Compute a run's report again from its predictions.

    Raises:
        DataError: there is no report.
    """
    try:
        report = read_report(folder)
    except DataError as error:
        if not (folder / "report.json").exists():
            raise
        return Verdict([str(error)])
    found = Verdict([f"report.json: {problem}" for problem in changed_keys(report)])
    try:
        predictions = read_predictions(folder)
    except DataError as error:
        found.problems.append(str(error))
        return found
    found.problems += [f"{PREDICTIONS}: {problem}" for problem in predictions.problems]
    wanted = report.get("files", {}).get("lines") if isinstance(report.get("files"), dict) else None
    if isinstance(wanted, int) and wanted != len(predictions.lines):
        found.problems.append(f"{PREDICTIONS}: {len(predictions.lines):,} lines, and report.json says {wanted:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy; what is no number any more is named below
            counted = recounted(report, predictions.lines)
            compared = [] if counted is None else list(_compared(report, counted))
    except VtpError as error:
        found.problems.append(f"{PREDICTIONS}: {error}")
        return found
    except _WRONG as error:
        found.problems.append(f"{PREDICTIONS}: its lines cannot be counted ({type(error).__name__}: {error})")
        return found
    if counted is None:
        found.notes.append("the task cannot count its numbers from predictions.jsonl: only the seals were looked at")
        return found
    found.problems += _wrong_lines(predictions.lines, counted)
    for problem, equal in compared:
        found.problems += [problem] if problem else []
        found.counted += equal
    _hold_against_protocol(report, counted, found)
    if others := list(_not_counted(report, counted)):
        found.notes.append(f"not in {PREDICTIONS}, so only sealed: {', '.join(others)}")
    found.notes.append(_NOT_TOLD)
    return found


def _not_counted(report: Mapping[str, Any], counted: Recount) -> Iterator[str]:
    """Numbers of the report that lines cannot tell."""
    yield from (name for name in report["metrics"] if name not in counted.metrics)
    yield from (f"intervals.{name}" for name in report.get("intervals") or {} if name not in counted.items)
    yield from (f"bounds.{name}" for name in report.get("bounds") or {} if name not in counted.bounds)
    for label, row in (report.get("rows") or {}).items():
        known = counted.rows.get(label)
        yield from [label] if known is None else (f"rows.{label}.{name}" for name in row if name not in known)
    for label, row in (report.get("row_intervals") or {}).items():
        of_row = counted.row_items.get(label, {})
        yield from (f"row_intervals.{label}.{name}" for name in row if name not in of_row)
    for name, cut in (report["protocol"].get("cuts") or {}).items():
        if name not in counted.cuts and "not_computed" not in cut:
            yield f"protocol.cuts.{name}"


def _wrong_lines(lines: Sequence[Mapping[str, Any]], counted: Recount) -> Iterator[str]:
    """Fields of lines that do not follow from the others."""
    for line, derived in zip(lines, finite(counted.derived), strict=False):
        for key, value in derived.items():
            if line.get(key) != value:
                yield f"{PREDICTIONS}: {line['id']}: {key} is {line.get(key)}, and what the line says gives {value}"


def _compared(report: Mapping[str, Any], counted: Recount) -> Iterator[tuple[str, int]]:
    """What differs, or "", and how many numbers were equal."""
    ledger = {
        "expected": counted.expected,
        "evaluated": counted.expected - len(counted.missing),
        "missing": len(counted.missing),
        "missing_items": counted.missing,
    }
    seed = int(report.get("seed") or 0)
    parts: dict[tuple[str, ...], Mapping[str, Any]] = {
        ("metrics",): counted.metrics,
        ("intervals",): counted.intervals(seed),
        ("bounds",): counted.bounds,
        ("ledger",): ledger,
        **{("rows", label): row for label, row in counted.rows.items()},
    }
    if "row_intervals" in report:  # older reports have none
        parts |= {("row_intervals", label): row for label, row in counted.row_intervals(seed).items()}
    for name, cut in counted.cuts.items():
        parts |= {("protocol", "cuts", name, part): values for part, values in cut.items()}
    for path, values in parts.items():
        written: Any = report
        for key in path:
            written = written.get(key) if isinstance(written, Mapping) else None
        written = written if isinstance(written, Mapping) else {}
        for name, value in finite(values).items():
            where = f"report.json: {'.'.join((*path, name))}"
            if name not in written:
                yield f"{where} is not there, and the predictions give {_short(value)}", 0
            elif written[name] != value:
                yield f"{where} is {_short(written[name])}, the predictions give {_short(value)}", 0
            else:
                yield "", _numbers(value)


def _numbers(value: Any) -> int:
    """How many values a part of the report holds."""
    if isinstance(value, (list, dict)):
        return sum(map(_numbers, value.values() if isinstance(value, dict) else value))
    return 1


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 120 else f"{text[:117]}..."


def _hold_against_protocol(report: Mapping[str, Any], counted: Recount, found: Verdict) -> None:
    """Whether the items are those that the report names, and the official ones where it says so."""
    record = report["protocol"]
    try:
        lines = Form.find(member(_task(report), Task, "kind")).lines(counted.samples)
        hashes = {what: sha256_lines(items) for what, items in lines.items()}
    except (VtpError, *_WRONG) as error:
        found.problems.append(f"{PREDICTIONS}: its items have no canonical lines ({error})")
        return
    official = None
    if record.get("official"):
        try:
            official = Protocol.find(str(record.get("official_name")))
        except VtpError as error:
            found.notes.append(f"the protocol is not installed here ({error})")
    for what, items in lines.items():
        count, digest = len(items), hashes[what]
        said = record.get("counts", {}).get(what), record.get("sha256", {}).get(what)
        if what == "videos" and isinstance(said[0], int) and count < said[0] and what != "items":
            found.notes.append(f"{said[0] - count:,} videos have no line of their own: their hash was not computed")
            continue
        if said != (count, digest):
            found.problems.append(
                f"{PREDICTIONS}: its {what} are not those of the report ({count:,}, sha256 {digest[:12]}; report.json "
                f"says {said[0]}, {str(said[1])[:12]}): an id, a text or an answer was changed"
            )
        elif official is not None:
            known = official.counts.get(what, count) == count and official.sha256.get(what, digest) == digest
            if not known:
                found.problems.append(f"the {what} are not the official ones of {official.name}")
            elif what in official.sha256:
                found.notes.append(f"the {count:,} {what} are the official ones of {official.name}")
        found.counted += 2
