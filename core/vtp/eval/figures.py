"""The picture of a question-answering run: accuracy by question type against its baselines, and a few clips with
question and answer."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Strip", "draw_figure"]

# Okabe and Ito's palette: told apart by colour-blind readers as well
_COLOURS = ("#0072B2", "#999999", "#D5D5D5", "#E69F00", "#CC79A7", "#009E73", "#F0E442", "#56B4E9")
_FRAMES = 4  # of each clip in the strip


@dataclass(frozen=True, slots=True)
class Strip:
    """One clip of the strip.

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
    """Draw one PNG: bars on top, one row of frames per clip below.

    Args:
        path: where to write it; replaced in one step.
        chart: series -> group -> percent, the model first. Groups are those of the first series; a value that is
            missing leaves a gap.
        strips: clips to show.
        title: above the bars.
        note: below the bars: coverage and protocol.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import; Agg needs no display
    from matplotlib.figure import Figure

    heights = [3.2, *[1.5] * len(strips)]
    figure = Figure(figsize=(10, sum(heights) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(heights), _FRAMES, height_ratios=heights)
    _bars(figure.add_subplot(grid[0, :]), chart, title, note)
    for row, strip in enumerate(strips, start=1):
        _strip([figure.add_subplot(grid[row, column]) for column in range(_FRAMES)], strip)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", dpi=110)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _bars(axes: Any, chart: Mapping[str, Mapping[str, float]], title: str, note: str) -> None:
    groups = list(next(iter(chart.values()), {}))
    width = 0.84 / max(len(chart), 1)
    for i, (label, values) in enumerate(chart.items()):
        x = np.arange(len(groups)) - 0.42 + (i + 0.5) * width
        axes.bar(
            x, [values.get(group, np.nan) for group in groups], width, label=label, color=_COLOURS[i % len(_COLOURS)]
        )
    axes.set_xticks(np.arange(len(groups)), groups)
    axes.set_ylim(0, 105)
    axes.set_ylabel("percent")
    axes.set_xlabel(note, fontsize=8)
    axes.set_title(title)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if chart:
        axes.legend(
            ncols=min(len(chart), 4), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False
        )


def _strip(axes: Sequence[Any], strip: Strip) -> None:
    last = len(strip.frames) - 1
    chosen = [round(last * i / (len(axes) - 1)) for i in range(len(axes))] if last >= 0 else []
    for position, cell in enumerate(axes):
        cell.axis("off")
        if position < len(chosen):
            cell.imshow(strip.frames[chosen[position]])
    truth = "" if strip.answer is None else f"   answer: {strip.answer}"
    text = f"{textwrap.shorten(strip.question, 90)}{truth}   model: {strip.prediction}"
    # a dollar sign in a question would start mathematical notation
    axes[0].set_title(text, loc="left", fontsize=9, color="#00704F" if strip.correct else "#B03000", parse_math=False)
