"""Marks by which a change to a run's files is found and named: of every line of predictions.jsonl, and of every key of
report.json. They are against accidents and hasty hands, not against forgers, who can compute them anew.

A line ends in ``"check": "PLACE:HASH"``: its place in the file from 0, and 8 digits of the sha256 of the line without
it. ``seal`` in report.json has 16 digits of the sha256 of the JSON text of every other key.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vtp.storage import write_json_atomic

__all__ = ["SEAL", "changed_keys", "checked_line", "unchecked", "write_sealed"]

SEAL = "seal"
_CHECK = re.compile(r'(?P<line>\{.*), "check": "(?P<place>[0-9]{1,12}):(?P<hash>[0-9a-f]{8})"\}')


def checked_line(line: Mapping[str, Any], place: int) -> str:
    """A line of predictions.jsonl without its end; ``line`` is JSON-able and not empty."""
    text = json.dumps(line, ensure_ascii=False)
    return f'{text[:-1]}, "check": "{place}:{_hash(text, 8)}"}}'


def unchecked(text: str) -> tuple[str, int | None, bool]:
    """A line without its mark, the place that it names (None without a mark), and whether it is what was written."""
    found = _CHECK.fullmatch(text)
    if found is None:
        return text, None, False
    line = found["line"] + "}"
    return line, int(found["place"]), _hash(line, 8) == found["hash"]


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


def _seals(record: Mapping[str, Any]) -> dict[str, str]:
    return {key: _hash(json.dumps(record[key], sort_keys=True), 16) for key in record if key != SEAL}


def write_sealed(path: Path, record: dict[str, Any]) -> None:
    """Seal a record, which JSON can hold as it is, and write it."""
    record[SEAL] = _seals(record)
    write_json_atomic(path, record)


def changed_keys(record: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the keys of a sealed record, in words."""
    sealed = record.get(SEAL)
    if not isinstance(sealed, Mapping):
        yield "it has no seal: it was written by an older vtp, or the seal was taken out"
        return
    now = _seals(record)
    yield from _told("was changed since it was written", (key for key in now if sealed.get(key, now[key]) != now[key]))
    yield from _told("was taken out", (key for key in sealed if key not in now))
    yield from _told("was put in", (key for key in now if key not in sealed))


def _told(what: str, keys: Iterable[str]) -> Iterator[str]:
    return (f"{key} {what}" for key in keys)
