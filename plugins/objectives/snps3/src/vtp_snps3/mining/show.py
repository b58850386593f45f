"""What a table holds: its first words by part of speech, and how much of the captions the first k words cover."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

from vtp.errors import ConfigError
from vtp.eval.task import ReportTable
from vtp.storage import replacing
from vtp_snps3.words import Word, WordTable, ranked

__all__ = ["PARTS", "coverage", "draw", "first_words", "tables"]

PARTS = ("noun", "verb", "adj")
_NAMES = {"noun": "nouns", "verb": "verbs", "adj": "adjectives"}
_MARKS = (100, 1000, 3000, 10000)


def first_words(table: WordTable, part: str, count: int) -> list[Word]:
    """The words that are mostly this part of speech, by how often they are; of equally frequent parts verbs come before
    nouns, and nouns before adjectives."""
    own = [word for word in table.words if word.total and _mostly(word) == part]
    return sorted(own, key=lambda word: (-int(getattr(word, part)), word.ids))[:count]


def _mostly(word: Word) -> str:
    return max((("verb", word.verb), ("noun", word.noun), ("adj", word.adj)), key=lambda item: item[1])[0]


def coverage(table: WordTable) -> tuple[list[float], str]:
    """Percent of the words of all captions that are among the first 1, 2, 3, ... words as verbs, nouns or adjectives;
    and of what words: where the captions are not known, of the counted ones."""
    totals = [word.total for word in ranked(table.words)]
    words = int(table.counted.get("words") or 0)
    known = words > 0
    whole = words if known else sum(totals)
    what = "of all words of the captions" if known else "of the counted nouns, verbs and adjectives"
    return [100 * sum_ / max(whole, 1) for sum_ in accumulate(totals)], what


def tables(table: WordTable, count: int = 30) -> list[ReportTable]:
    """For people: the first words, and the coverage."""
    columns = [first_words(table, part, count) for part in PARTS]
    rows = []
    for place in range(max(map(len, columns), default=0)):
        cells: list[str | int | None] = [str(place + 1)]
        for part, words in zip(PARTS, columns, strict=True):
            word = words[place] if place < len(words) else None
            cells += [word.word, int(getattr(word, part))] if word is not None else [None, None]
        rows.append(tuple(cells))
    head = ("", *(name for part in PARTS for name in (_NAMES[part], "")))
    curve, what = coverage(table)
    marks = [k for k in _MARKS if k < len(curve)] + [len(curve)] * bool(curve)
    note = ", ".join(f"{k:,} words {curve[k - 1]:.1f} %" for k in marks)
    return [ReportTable(_title(table), head, tuple(rows), (f"coverage {what}: {note}",))]


def _title(table: WordTable) -> str:
    captions = table.counted.get("captions")
    of = f" of {captions:,} captions" if isinstance(captions, int) else ""
    return f"{len(table.words):,} words{of} for {table.tokenizer} ({table.tagger})"


def draw(table: WordTable, path: Path) -> None:
    """The coverage curve as a PNG.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # Agg needs no display
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "the picture is drawn by matplotlib, which is not installed. Get it with: pip install matplotlib"
        ) from None
    curve, what = coverage(table)
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(range(1, len(curve) + 1), curve, color="#0072B2")
    for k in _MARKS:
        if k < len(curve):
            _mark(axes, k, curve[k - 1])
    axes.set_xscale("log")
    axes.set_xlim(1, max(len(curve), 2))
    axes.set_ylim(0, 100)
    axes.set_xlabel("first k words by count")
    axes.set_ylabel(f"percent {what}", fontsize=8)
    axes.set_title(_title(table), fontsize=10, parse_math=False)
    axes.grid(alpha=0.3)
    with replacing(path, then="Free some space, or name another place.") as file:
        figure.savefig(file, format="png", dpi=110)


def _mark(axes: Any, k: int, percent: float) -> None:
    axes.plot([k], [percent], "o", color="#E69F00")
    axes.annotate(f"{k:,}: {percent:.0f} %", (k, percent), (-8, 8), textcoords="offset points", ha="right", fontsize=8)
