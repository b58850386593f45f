"""The page of ``vtp data check``: one HTML file that needs nothing else, with thumbnails inside, tables that sort by a
click, and every text from the files escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vtp.prepare.check import BAD, MISSING, OK, Finding

__all__ = ["page"]

ROWS = 1000  # files that are listed, what is wrong first, but good ones too

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; color: #1b1f24; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: .3em .6em; border-bottom: 1px solid #d8dee4; vertical-align: top; }
div { overflow-x: auto; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th { cursor: pointer; background: #f6f8fa; }
td.path { word-break: break-all; font-family: ui-monospace, monospace; font-size: 13px; }
img { display: block; max-width: 140px; max-height: 80px; border-radius: 3px; }
.ok { color: #1a7f37; } .bad, .missing { color: #cf222e; font-weight: 600; } .note { color: #59636e; }
.bar { background: #54aeff; height: .8em; display: inline-block; vertical-align: middle; border-radius: 2px; }
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3; } th { background: #161b22; } th, td { border-color: #30363d; }
  .ok { color: #3fb950; } .bad, .missing { color: #f85149; } .note { color: #9198a1; }
}
"""

_SCRIPT = """
for (const head of document.querySelectorAll("table.sortable th")) head.onclick = () => {
  const body = head.closest("table").tBodies[0], column = head.cellIndex;
  const down = head.dataset.down !== "1"; head.dataset.down = down ? "1" : "0";
  const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  [...body.rows].sort((a, b) => {
    const x = key(a), y = key(b), n = Number(x) - Number(y);
    return (down ? 1 : -1) * (Number.isNaN(n) || x === "" || y === "" ? x.localeCompare(y) : n);
  }).forEach(row => body.append(row));
};
"""


def page(report: Mapping[str, Any], findings: Sequence[Finding], clips: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        report: what ``report.json`` holds.
        findings: of every file.
        clips: path -> clip.
    """
    title = f"{report['target']}: {report['verdict']}"
    parts = [
        f"<h1>{_text(report['target'])}</h1>",
        f'<p class="{"ok" if report["ok"] else "bad"}">{_text(report["verdict"])}</p>',
        f'<p class="note">{_text(report["how"])}</p>',
        *_gaps(report),
        *_tables(report),
        *_summary(report),
        *_overlaps(report),
        *_annotations(report),
        *_files(findings, clips),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f"<body>\n{chr(10).join(parts)}\n<script>{_SCRIPT}</script></body></html>\n"
    )


def _text(value: Any) -> str:
    """Escaped; bytes of names that are no UTF-8 are shown as escapes."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode())


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """``rows`` are cells that are HTML already."""
    head = "".join(f"<th{_class(i in numbers)}>{_text(column)}</th>" for i, column in enumerate(columns))
    body = "\n".join(
        f"<tr>{''.join(c if c.startswith('<td') else f'<td{_class(i in numbers)}>{c}</td>' for i, c in enumerate(row))}"
        "</tr>"
        for row in rows
    )
    return f'<div><table class="sortable"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _class(number: bool) -> str:
    return ' class="number"' if number else ""


def _number(value: float, shown: str | None = None) -> str:
    return f'<td class="number" data-value="{value}">{_text(f"{value:,}" if shown is None else shown)}</td>'


def _gaps(report: Mapping[str, Any]) -> Iterable[str]:
    if report["gaps"]:
        yield "<h2>What the annotations lack</h2>"
        yield "".join(f'<p class="bad" style="white-space: pre-wrap">{_text(gap)}</p>' for gap in report["gaps"])


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
        counts = [_number(one[key]) for key in ("samples", "clips")]
        counts += ["-" if unread and key in keys[3:] else _number(media[key]) for key in keys]
        rows.append((_text(f"{one['kind']}/{one['split']}"), *counts, _text(lines)))
    yield _table((*columns, "protocol"), rows, range(1, len(columns)))
    for one in report["tables"]:
        if one["duplicates"]:
            names = ", ".join(one["duplicates"])
            total = one["duplicate_ids"]
            yield f'<p class="bad">{_text(one["kind"])}/{_text(one["split"])}: {total:,} ids twice: {_text(names)}</p>'


def _summary(report: Mapping[str, Any]) -> Iterable[str]:
    yield "<h2>Files</h2>"
    yield _table(("", ""), [(_text(name), _text(text)) for name, text in report["summary"].items()])
    for name, counts in report["distributions"].items():
        if not counts:
            continue
        yield f"<h2>{_text(name)}</h2>"
        most = max(counts.values())
        rows = [
            (_text(label), _number(count), f'<span class="bar" style="width: {400 * count / most:.0f}px"></span>')
            for label, count in counts.items()
        ]
        yield _table((name, "files", ""), rows, (1,))


def _overlaps(report: Mapping[str, Any]) -> Iterable[str]:
    if report["overlaps"]:
        yield "<h2>Clips in two splits</h2>"
        rows = [
            (_text(o["one"]), _text(o["other"]), _number(o["clips"]), _text(o["first"]),
             '<span class="bad">same kind of table</span>' if o["within"] else "between kinds of tables")
            for o in report["overlaps"]
        ]  # fmt: skip
        yield _table(("one", "other", "clips", "first", ""), rows, (2,))


def _annotations(report: Mapping[str, Any]) -> Iterable[str]:
    if report["annotations"]:
        yield "<h2>Annotation files</h2>"
        rows = []
        for one in report["annotations"]:
            notes = [*one.get("malformed_first", ()), *(f"{k}: {v}" for k, v in (one.get("notes") or {}).items())]
            rows.append(
                (f'<td class="path">{_text(one["path"])}</td>', _number(one.get("rows", 0)),
                 _number(one.get("malformed", 0)), "<br>".join(map(_text, notes)))
            )  # fmt: skip
        yield _table(("file", "rows", "malformed", "first ones, notes"), rows, (1, 2))


def _files(findings: Sequence[Finding], clips: Mapping[str, str]) -> Iterable[str]:
    wrong = sorted((one for one in findings if one.status in (BAD, MISSING)), key=lambda one: one.status == MISSING)
    good = sorted((one for one in findings if one.status not in (BAD, MISSING)), key=lambda one: not one.thumbnail)
    first = wrong[: max(ROWS - len(good), ROWS // 2)]
    first += good[: ROWS - len(first)]
    if not first:
        return
    rest = f" ({len(first):,} of {len(findings):,}; all: report.json)" if len(first) < len(findings) else ""
    yield f"<h2>Every file{_text(rest)}</h2>"
    yield '<p class="note">A click on a heading sorts.</p>'
    columns = ("", "clip", "state", "seconds", "size", "fps", "picture", "sound", "bytes", "path")
    yield _table(columns, (_file(one, clips.get(one.path, "")) for one in first), (3, 5, 8))


def _file(one: Finding, clip: str) -> Sequence[str]:
    state = _text(one.status if one.status == OK else f"{one.status}: {one.reason}" if one.reason else one.status)
    video, audio = one.video or {}, one.audio or {}
    size = f"{video['width']}x{video['height']}" if video else ""
    rotated = f", turned by {video['rotation']}" if video.get("rotation") else ""
    picture = f"{video['codec']}, {video['frames']:,} frames{rotated}" if video else ""
    sound = f"{audio['codec']}, {audio['sample_rate']:,} Hz, {audio['channels']} ch" if audio else one.silent
    notes = f'<br><span class="note">{_text("; ".join(one.notes))}</span>' if one.notes else ""
    image = f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{_text(one.thumbnail)}">' if one.thumbnail else ""
    return (
        image,
        _text(clip),
        f'<span class="{one.status if one.status in (OK, BAD, MISSING) else "note"}">{state}</span>{notes}',
        _number(one.seconds, f"{one.seconds:.2f}") if one.seconds else "",
        f'<td data-value="{video["width"] * video["height"]}">{_text(size)}</td>' if video else "",
        _number(video["fps"], f"{video['fps']:.2f}") if video else "",
        _text(picture),
        _text(sound),
        _number(one.bytes) if one.bytes else "",
        f'<td class="path">{_text(one.path)}</td>',
    )
