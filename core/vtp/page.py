"""Pages that ``vtp`` writes: one HTML file each that needs nothing else, with pictures inside, tables that sort by a
click, and every text from elsewhere escaped.

    document(title, [heading("Files"), table(("file", "bytes"), [(text("<a>"), number(12))], numbers=(1,))])

What these functions return is HTML; a text becomes HTML by :func:`text` alone.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["bar", "document", "heading", "jpeg", "number", "paragraph", "picture", "table", "text"]

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
.headline { font-size: 1.4em; font-weight: 600; margin: .2em 0; }
.ok { color: #1a7f37; } .bad, .missing { color: #cf222e; font-weight: 600; } .note { color: #59636e; }
.bar { background: #54aeff; height: .8em; display: inline-block; vertical-align: middle; border-radius: 2px; }
.pale { background: #afb8c1; }
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


def document(title: str, parts: Iterable[str], style: str = "", script: str = "") -> str:
    """The whole page; ``title`` is a text, ``parts`` are HTML, ``style`` and ``script`` are added to the page's own."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}{style}</style></head>\n'
        f"<body>\n{chr(10).join(parts)}\n<script>{_SCRIPT}{script}</script></body></html>\n"
    )


def text(value: Any) -> str:
    """Escaped; bytes of names that are no UTF-8 are shown as escapes."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode())


def heading(title: str, level: int = 2) -> str:
    """A heading, of a text."""
    return f"<h{level}>{text(title)}</h{level}>"


def paragraph(value: Any, kind: str = "") -> str:
    """A paragraph of a text; ``kind``: ``ok`` green, ``bad`` red, ``note`` grey."""
    return f"<p{_class(kind)}>{text(value)}</p>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table that a click on a heading sorts.

    Args:
        columns: headings, as texts.
        rows: cells that are HTML already, ``<td>`` around them or not.
        numbers: columns that are set to the right.
    """
    aligned = ["number" if i in numbers else "" for i in range(len(columns))]
    head = "".join(f"<th{_class(kind)}>{text(column)}</th>" for column, kind in zip(columns, aligned, strict=True))
    body = "\n".join(
        f"<tr>{''.join(c if c.startswith('<td') else f'<td{_class(k)}>{c}</td>' for c, k in zip(row, aligned))}</tr>"  # noqa: B905 (a row may end early)
        for row in rows
    )
    return f'<div><table class="sortable"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def number(value: float, shown: str | None = None) -> str:
    """A cell that sorts as a number; ``shown`` stands in it, by default the number itself."""
    return f'<td class="number" data-value="{value}">{text(f"{value:,}" if shown is None else shown)}</td>'


def bar(share: float, kind: str = "") -> str:
    """A bar as long as ``share`` (in [0, 1]) of what there is room for; ``kind``: ``pale`` for what stands beside."""
    share = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    names = f"bar {kind}".strip()
    return f'<span class="{text(names)}" style="width: calc({share:.4f} * min(400px, 36vw))"></span>'


def picture(data: str) -> str:
    """A picture from :func:`jpeg`, or nothing where that is empty."""
    return f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{text(data)}">' if data else ""


def jpeg(frame: npt.NDArray[np.uint8], longest: int = 140) -> str:
    """A frame, uint8 (H, W, 3), as a small JPEG in base64, its longer side at most so many pixels."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(frame))
    image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return base64.b64encode(buffer.getvalue()).decode()


def _class(kind: str) -> str:
    return f' class="{text(kind)}"' if kind else ""
