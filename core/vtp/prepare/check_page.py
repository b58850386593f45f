"""The page of ``vtp data check``: one HTML file that needs nothing else, with thumbnails inside, tables that sort by a
click, and every text from the files escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vtp.page import bar, document, number, picture, table, text
from vtp.prepare.check import BAD, MISSING, OK, Finding

__all__ = ["page"]

ROWS = 1000  # files that are listed, what is wrong first, but good ones too


def page(report: Mapping[str, Any], findings: Sequence[Finding], clips: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        report: what ``report.json`` holds.
        findings: of every file.
        clips: path -> clip.
    """
    title = f"{report['target']}: {report['verdict']}"
    parts = [
        f"<h1>{text(report['target'])}</h1>",
        f'<p class="{"ok" if report["ok"] else "bad"}">{text(report["verdict"])}</p>',
        f'<p class="note">{text(report["how"])}</p>',
        *_gaps(report),
        *_tables(report),
        *_summary(report),
        *_overlaps(report),
        *_annotations(report),
        *_files(findings, clips),
    ]
    return document(title, parts)


def _gaps(report: Mapping[str, Any]) -> Iterable[str]:
    if report["gaps"]:
        yield "<h2>What the annotations lack</h2>"
        yield "".join(f'<p class="bad" style="white-space: pre-wrap">{text(gap)}</p>' for gap in report["gaps"])


def _tables(report: Mapping[str, Any]) -> Iterable[str]:
    if not report["tables"]:
        return
    yield "<h2>Tables</h2>"
    columns = ("table", "samples", "clips", "files", "there", "missing", "decodable", "undecodable", "with sound")
    keys = ("files", "there", "missing", "decodable", "undecodable", "with_sound")
    rows = []
    for one in report["tables"]:
        lines = "; ".join(match["line"] for match in one["protocols"])
        media = one["media"]
        unread = media["not_looked_at"] == media["there"] > 0
        counts = [number(one[key]) for key in ("samples", "clips")]
        counts += ["-" if unread and key in keys[3:] else number(media[key]) for key in keys]
        rows.append((text(f"{one['kind']}/{one['split']}"), *counts, text(lines)))
    yield table((*columns, "protocol"), rows, range(1, len(columns)))
    for one in report["tables"]:
        if one["duplicates"]:
            names = ", ".join(one["duplicates"])
            total = one["duplicate_ids"]
            yield f'<p class="bad">{text(one["kind"])}/{text(one["split"])}: {total:,} ids twice: {text(names)}</p>'


def _summary(report: Mapping[str, Any]) -> Iterable[str]:
    yield "<h2>Files</h2>"
    yield table(("", ""), [(text(name), text(said)) for name, said in report["summary"].items()])
    for name, counts in report["distributions"].items():
        if not counts:
            continue
        yield f"<h2>{text(name)}</h2>"
        most = max(counts.values())
        rows = [(text(label), number(count), bar(count / most)) for label, count in counts.items()]
        yield table((name, "files", ""), rows, (1,))


def _overlaps(report: Mapping[str, Any]) -> Iterable[str]:
    if report["overlaps"]:
        yield "<h2>Clips in two splits</h2>"
        rows = [
            (text(o["one"]), text(o["other"]), number(o["clips"]), text(o["first"]),
             '<span class="bad">same kind of table</span>' if o["within"] else "between kinds of tables")
            for o in report["overlaps"]
        ]  # fmt: skip
        yield table(("one", "other", "clips", "first", ""), rows, (2,))


def _annotations(report: Mapping[str, Any]) -> Iterable[str]:
    if report["annotations"]:
        yield "<h2>Annotation files</h2>"
        rows = []
        for one in report["annotations"]:
            notes = [*one.get("malformed_first", ()), *(f"{k}: {v}" for k, v in (one.get("notes") or {}).items())]
            rows.append(
                (f'<td class="path">{text(one["path"])}</td>', number(one.get("rows", 0)),
                 number(one.get("malformed", 0)), "<br>".join(map(text, notes)))
            )  # fmt: skip
        yield table(("file", "rows", "malformed", "first ones, notes"), rows, (1, 2))


def _files(findings: Sequence[Finding], clips: Mapping[str, str]) -> Iterable[str]:
    wrong = sorted((one for one in findings if one.status in (BAD, MISSING)), key=lambda one: one.status == MISSING)
    good = sorted((one for one in findings if one.status not in (BAD, MISSING)), key=lambda one: not one.thumbnail)
    first = wrong[: max(ROWS - len(good), ROWS // 2)]
    first += good[: ROWS - len(first)]
    if not first:
        return
    rest = f" ({len(first):,} of {len(findings):,}; all: report.json)" if len(first) < len(findings) else ""
    yield f"<h2>Every file{text(rest)}</h2>"
    yield '<p class="note">A click on a heading sorts.</p>'
    columns = ("", "clip", "state", "seconds", "size", "fps", "picture", "sound", "bytes", "path")
    yield table(columns, (_file(one, clips.get(one.path, "")) for one in first), (3, 5, 8))


def _file(one: Finding, clip: str) -> Sequence[str]:
    state = text(one.status if one.status == OK else f"{one.status}: {one.reason}" if one.reason else one.status)
    video, audio = one.video or {}, one.audio or {}
    size = f"{video['width']}x{video['height']}" if video else ""
    rotated = f", turned by {video['rotation']}" if video.get("rotation") else ""
    shown = f"{video['codec']}, {video['frames']:,} frames{rotated}" if video else ""
    sound = f"{audio['codec']}, {audio['sample_rate']:,} Hz, {audio['channels']} ch" if audio else one.silent
    notes = f'<br><span class="note">{text("; ".join(one.notes))}</span>' if one.notes else ""
    return (
        picture(one.thumbnail),
        text(clip),
        f'<span class="{one.status if one.status in (OK, BAD, MISSING) else "note"}">{state}</span>{notes}',
        number(one.seconds, f"{one.seconds:.2f}") if one.seconds else "",
        f'<td data-value="{video["width"] * video["height"]}">{text(size)}</td>' if video else "",
        number(video["fps"], f"{video['fps']:.2f}") if video else "",
        text(shown),
        text(sound),
        number(one.bytes) if one.bytes else "",
        f'<td class="path">{text(one.path)}</td>',
    )
