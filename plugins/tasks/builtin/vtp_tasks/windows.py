"""Windows of a video as proposals for a moment, and how well one span fits another. All times are seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.errors import ConfigError

__all__ = ["check_windows", "iou", "sliding_windows", "suppressed"]

Array = npt.NDArray[Any]
DIGITS = 3  # of a second, in windows


def check_windows(windows: Sequence[float], overlap: float, nms: float) -> None:
    """Refuse what makes no windows.

    Raises:
        ConfigError: a length that is not positive, no length, or an overlap or threshold outside its range.
    """
    if not windows or any(not 0 < length < float("inf") for length in windows):
        raise ConfigError(f"task.windows={list(windows)}: expected lengths in seconds above 0, such as [5,10,20].")
    if not 0 <= overlap < 1:
        raise ConfigError(
            f"task.overlap={overlap}: expected the share of a window that the next one covers, 0 to below 1."
        )
    if not 0 < nms <= 1:
        raise ConfigError(f"task.nms={nms}: expected an IoU above 0 and at most 1 (1 = no window is left out).")


def sliding_windows(duration: float, lengths: Sequence[float], overlap: float) -> Array:
    """Windows of a video of ``duration`` seconds: float64 (W, 2), start and end, by start, then by length; each once.

    Of each length below ``duration`` one begins every ``length * (1 - overlap)`` seconds, and one more ends with the
    video. The whole video is one of them. Times are rounded to a millisecond.
    """
    end = round(float(duration), DIGITS)
    found = {(0.0, end)}
    for length in sorted({float(one) for one in lengths}):
        if length >= end:
            continue
        step = length * (1 - overlap)
        starts = step * np.arange(int((end - length) / step + 1e-9) + 1)
        found |= {(round(s, DIGITS), round(min(s + length, end), DIGITS)) for s in [*starts.tolist(), end - length]}
    return np.array(sorted(found), np.float64)


def iou(span: Sequence[float], others: Array) -> Array:
    """Intersection over union in time of one span (start, end) with others (W, 2): float64 (W,); 0 where both are
    empty."""
    others = np.asarray(others, np.float64).reshape(-1, 2)
    start, end = float(span[0]), float(span[1])
    both = np.maximum(np.minimum(others[:, 1], end) - np.maximum(others[:, 0], start), 0.0)
    either = (others[:, 1] - others[:, 0]) + (end - start) - both
    found: Array = np.divide(both, either, out=np.zeros(len(others)), where=either > 0)
    return found


def suppressed(spans: Array, scores: Array, threshold: float, keep: int) -> list[int]:
    """Non-maximum suppression: rows of ``spans`` (W, 2) by falling score, less those whose IoU with one that was taken
    before is above ``threshold``; at most ``keep``. Equal scores come in the order of the rows."""
    taken: list[int] = []
    for row in np.argsort(-np.asarray(scores), kind="stable").tolist():
        if len(taken) == keep:
            break
        if not taken or (iou(spans[row], spans[taken]) <= threshold).all():
            taken.append(row)
    return taken
