"""The report of ``vtp data check``: what is expected and what was found, with counts and distributions."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vtp import __version__
from vtp.prepare.check import BAD, MISSING, OK, UNREAD, Finding
from vtp.prepare.survey import Survey

__all__ = ["file_facts", "report"]

BYTES = ("B", "kB", "MB", "GB", "TB")


def report(survey: Survey, found: Mapping[str, Finding], how: str, left_out: str) -> dict[str, Any]:
    """Everything, JSON-able.

    Args:
        how: the files were looked at, in words.
        left_out: why some were not, in words.
    """
    media = file_facts(survey, found)
    if media["not_looked_at"] and left_out:
        how += f", {media['not_looked_at']:,} files left out by {left_out}"
    gaps = survey.gaps() + survey.left_out()
    problems = [
        {
            "path": path,
            "state": one.status,
            "kind": one.kind,
            "reason": one.reason,
            "clip": survey.files[path].clip,
            "samples": survey.files[path].samples,
        }
        for path, one in found.items()
        if one.status in (BAD, MISSING)
    ]
    return {
        "schema": 1,
        "vtp": __version__,
        "target": survey.name,
        "ok": not problems and not gaps,
        "verdict": _verdict(media, gaps),
        "how": how,
        "media": media,
        "in_memory": survey.in_memory,
        "tables": [
            asdict(table)
            | {
                "duplicates": table.duplicates[:20],
                "duplicate_ids": len(table.duplicates),
                "media": file_facts(survey, found, {number}),
            }
            for number, table in enumerate(survey.tables)
        ],
        "gaps": gaps,
        "overlaps": [asdict(overlap) for overlap in survey.overlaps],
        "annotations": survey.annotations,
        "problems": problems,
        "reasons": dict(Counter(f"{one['state']}: {one['reason']}" for one in problems).most_common()),
        "others": survey.others,
        **_statistics(found),
    }


def file_facts(survey: Survey, found: Mapping[str, Finding], tables: set[int] | None = None) -> dict[str, int]:
    """How many files of some tables (None = all) are there, missing, undecodable, silent."""
    chosen = [f for path, f in found.items() if tables is None or survey.files[path].tables & tables]
    counts = Counter(finding.status for finding in chosen)
    sound = sum(finding.status == OK and finding.audio is not None for finding in chosen)
    return {
        "files": len(chosen),
        "there": len(chosen) - counts[MISSING],
        "missing": counts[MISSING],
        "decodable": counts[OK],
        "undecodable": counts[BAD],
        "not_looked_at": counts[UNREAD],
        "with_sound": sound,
        "without_sound": counts[OK] - sound,
    }


def _verdict(media: Mapping[str, int], gaps: Sequence[str]) -> str:
    text = f"{media['there']:,} of {media['files']:,} files are there"
    if media["missing"]:
        text += f", {media['missing']:,} missing"
    if looked := media["decodable"] + media["undecodable"]:
        text += f"; {media['decodable']:,} of {looked:,} that were looked at can be used"
        text += f", {media['with_sound']:,} of them with sound"
    if gaps:
        text += f"; annotations: {len(gaps)} gap{'s' if len(gaps) > 1 else ''}"
    return text


def _statistics(found: Mapping[str, Finding]) -> dict[str, Any]:
    good = [one for one in found.values() if one.status == OK]
    videos = [one.video for one in good if one.video is not None]
    summary: dict[str, str] = {}
    if found:
        summary["bytes"] = _spread([one.bytes for one in found.values() if one.bytes], _bytes)
    if good:
        summary["seconds"] = _spread([one.seconds for one in good], lambda value: f"{value:.1f}")
        hours = sum(one.seconds for one in good) / 3600
        summary["hours in all"] = f"{hours:,.2f}"
    if videos:
        summary["frames per second"] = _spread([v["fps"] for v in videos], lambda value: f"{value:.2f}")
        summary["frames"] = _spread([v["frames"] for v in videos], lambda value: f"{value:,.0f}")
    if turned := sum(v["rotation"] != 0 for v in videos):
        summary["turned on display"] = f"{turned:,}"
    if noted := sum(bool(one.notes) for one in good):
        summary["with something unusual"] = f"{noted:,}"
    sounds = [one.audio for one in good if one.audio is not None]
    return {
        "summary": summary,
        "distributions": {
            "Codec": _counts(v["codec"] for v in videos),
            "Size": _counts(f"{v['width']}x{v['height']}" for v in videos),
            "Container": _counts(one.format for one in good),
            "Sound": _counts(f"{a['codec']}, {a['sample_rate']:,} Hz, {a['channels']} ch" for a in sounds),
            "Length": _histogram([one.seconds for one in good]),
        },
    }


def _counts(values: Iterable[str]) -> dict[str, int]:
    """The most frequent ones, the others together."""
    counted = Counter(values).most_common()
    found = dict(counted[:12])
    if rest := sum(count for _, count in counted[12:]):
        found[f"{len(counted) - 12} others"] = rest
    return found


def _histogram(seconds: Sequence[float]) -> dict[str, int]:
    edges = (0, 1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 3600)
    counts = Counter(max(i for i, edge in enumerate(edges) if value >= edge) for value in seconds if value >= 0)
    names = [*(f"{low} to {high} s" for low, high in zip(edges, edges[1:], strict=False)), "an hour and more"]
    return {names[i]: counts[i] for i in range(len(edges)) if counts[i]}


def _spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    if not values:
        return "-"
    return f"{show(min(values))} to {show(max(values))}, median {show(statistics.median(values))}"


def _bytes(value: float) -> str:
    power = 0
    while value >= 1000 and power < len(BYTES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.0f} {BYTES[power]}" if power == 0 else f"{value:.1f} {BYTES[power]}"
