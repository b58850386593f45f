"""The picture of a run: its numbers as bars, such as accuracy by question type against baselines or R@K in both
directions, and a few clips with what was asked and answered."""

from __future__ import annotations

import logging
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.storage import replacing

__all__ = ["Strip", "draw_figure"]

log = logging.getLogger("vtp")

_FONT = "DejaVu Sans"  # comes with matplotlib
# Fonts for what that one lacks, the first that is installed and has a character is used
_MORE_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "Microsoft YaHei", "SimHei", "PingFang SC",
               "Hiragino Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Malgun Gothic",
               "Noto Sans Thai", "Noto Sans Devanagari", "Arial Unicode MS", "Unifont")  # fmt: skip

# Okabe and Ito's palette: told apart by colour-blind readers as well
_COLOURS = ("#0072B2", "#999999", "#D5D5D5", "#E69F00", "#CC79A7", "#009E73", "#F0E442", "#56B4E9")
_FRAMES = 6  # of each clip in its strip
_COLUMNS = 2  # strips side by side


@dataclass(frozen=True, slots=True)
class Strip:
    """One clip of the figure.

    Attributes:
        frames: uint8 (T, H, W, 3).
        question: what was asked.
        answer: the right answer, None where it is not known.
        prediction: the model's answer.
        correct: whether it is right; shown as a green or red title.
    """

    frames: npt.NDArray[np.uint8]
    question: str
    answer: str | None
    prediction: str
    correct: bool


def draw_figure(
    path: Path | str,
    chart: Mapping[str, Mapping[str, float]],
    strips: Sequence[Strip] = (),
    *,
    title: str = "",
    note: str = "",
) -> None:
    """Draw one PNG: bars on top, strips of frames below.

    Args:
        path: where to write it; replaced in one step.
        chart: series -> group -> percent, the model first. Groups are those of the first series; a value that is
            missing leaves a gap.
        strips: clips to show.
        title: above the bars.
        note: second line of the title: coverage and protocol.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import; Agg needs no display
    from matplotlib.figure import Figure

    shown = [title, note, *(key for values in chart.values() for key in values)]
    shown += [text for strip in strips for text in (strip.question, strip.answer or "", strip.prediction)]
    families, lacking = _fonts({*"".join(shown)})
    if lacking:
        log.warning(
            "report.png: no installed font has %s; they are drawn as \u2026 (a package such as fonts-noto-cjk helps)",
            f"{len(lacking)} characters of the texts, such as {ascii(max(lacking))}",
        )
    rows = -(-len(strips) // _COLUMNS)
    heights = [3.2, *[1.35] * rows]
    with rc_context({"font.family": families}):
        figure = Figure(figsize=(11, sum(heights) + 0.9), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(len(heights), _COLUMNS, height_ratios=heights)
        clean = partial(_without, lacking)
        _bars(figure.add_subplot(grid[0, :]), chart, title, note, clean)
        for i, strip in enumerate(strips):
            _strip(figure.add_subplot(grid[1 + i // _COLUMNS, i % _COLUMNS]), strip, clean)
        with replacing(path) as file:
            figure.savefig(file, format="png", dpi=110)


def _fonts(characters: set[str]) -> tuple[list[str], set[str]]:
    """Families to draw these characters with, and the characters that no installed font has."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    installed = {font.name: font.fname for font in font_manager.fontManager.ttflist}
    families, lacking = [], {one for one in characters if one not in "\n\t "}
    for name in (_FONT, *_MORE_FONTS):
        if not lacking:
            break
        if name in installed:
            has = FT2Font(installed[name]).get_charmap()
            if found := {one for one in lacking if ord(one) in has}:
                families.append(name)
                lacking -= found
    return families or [_FONT], lacking


def _without(lacking: set[str], text: str) -> str:
    """The text with an ellipsis for every run of characters that cannot be drawn."""
    if not lacking:
        return text
    return re.sub(f"[{re.escape(''.join(sorted(lacking)))}]+", "\u2026", text)


def _bars(
    axes: Any, chart: Mapping[str, Mapping[str, float]], title: str, note: str, clean: Callable[[str], str]
) -> None:
    groups = list(next(iter(chart.values()), {}))
    width = 0.84 / max(len(chart), 1)
    for i, (label, values) in enumerate(chart.items()):
        x = np.arange(len(groups)) - 0.42 + (i + 0.5) * width
        axes.bar(
            x, [values.get(group, np.nan) for group in groups], width, label=label, color=_COLOURS[i % len(_COLOURS)]
        )
    axes.set_xticks(
        np.arange(len(groups)), list(map(clean, groups)), parse_math=False
    )  # a dollar sign is no mathematical notation
    axes.set_ylim(0, 105)
    axes.set_ylabel("percent")
    axes.set_title(clean(title if not note else f"{title}\n{note}"), fontsize=10, parse_math=False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if chart:
        axes.legend(
            ncols=min(len(chart), 6), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False
        )


def _strip(axes: Any, strip: Strip, clean: Callable[[str], str]) -> None:
    """Frames side by side with a thin white gap, question and answers above."""
    last = len(strip.frames) - 1
    chosen = sorted({round(last * i / (_FRAMES - 1)) for i in range(_FRAMES)}) if last >= 0 else []
    axes.axis("off")
    if chosen:
        gap = np.full((strip.frames.shape[1], max(1, strip.frames.shape[2] // 24), 3), 255, np.uint8)
        parts = [part for position in chosen for part in (strip.frames[position], gap)]
        axes.imshow(np.concatenate(parts[:-1], axis=1), interpolation="nearest")
    truth = "" if strip.answer is None else f"answer: {strip.answer}   "
    text = f"{textwrap.shorten(strip.question, 78)}\n{truth}model: {strip.prediction}"
    # a dollar sign in a question would start mathematical notation
    axes.set_title(
        clean(text), loc="left", fontsize=8.5, color="#00704F" if strip.correct else "#B03000", parse_math=False
    )
