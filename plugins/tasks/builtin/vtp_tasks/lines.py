"""What lines of predictions.jsonl tell, read and written: ranks, credits, and the rows of further passes.

``higher`` and ``tied`` of a line are the wrong candidates that scored strictly higher than the right one and exactly
the same, ``positives`` the right ones that share the best score (1 where it is left out). A line without ``higher`` is
a miss; ``missing`` says why an item was not evaluated.

``rows`` of a line has under the label of every row of the report, which an item takes part in, what that row needs:
``[higher, tied]`` or ``[higher, tied, positives]`` of ranks (``[]`` of a miss), a credit, or a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.eval.metrics import Ranks
from vtp.eval.recount import Items, Recount

__all__ = [
    "Facts",
    "Lines",
    "add_row",
    "derived",
    "items_of",
    "labels_of",
    "lost",
    "note_row",
    "numbers",
    "of_credits",
    "percent",
    "ranks_of",
    "ranks_of_row",
    "reasons",
    "short_numbers",
]

Array = npt.NDArray[Any]
Lines = Sequence[Mapping[str, Any]]
Facts = Mapping[str, Any]


def percent(values: Any) -> float:
    """The mean of shares or truths in percent; NaN without any."""
    return 100.0 * float(np.mean(values)) if len(values) else float("nan")


def numbers(ranks: Ranks, place: int) -> dict[str, int]:
    """What a line tells of the rank in this place: nothing of a miss."""
    return dict(zip(("higher", "tied", "positives"), short_numbers(ranks, place), strict=False))


def short_numbers(ranks: Ranks, place: int) -> list[int]:
    """The same in a row of a line."""
    if ranks.miss[place]:
        return []
    several = int(ranks.positives[place])
    return [int(ranks.higher[place]), int(ranks.tied[place]), *([several] if several > 1 else [])]


def ranks_of(lines: Lines, gallery: int) -> Ranks:
    """Ranks of the headline among ``gallery`` candidates."""
    found = [[line["higher"], line["tied"], line.get("positives", 1)] if "higher" in line else [] for line in lines]
    return ranks_of_row(found, gallery)


def ranks_of_row(told: Sequence[Sequence[int]], gallery: int) -> Ranks:
    """Ranks of a row from what :func:`short_numbers` wrote."""
    table = np.array([(*one, 1)[:3] if one else (0, 0, 1) for one in told], np.int64).reshape(-1, 3)
    return Ranks(table[:, 0], table[:, 1], table[:, 2], np.array([not one for one in told], bool), gallery)


def lost(lines: Lines) -> npt.NDArray[np.bool_]:
    """bool (N,), what was not evaluated."""
    return np.array(["missing" in line for line in lines], bool)


def reasons(lines: Lines, direction: str = "") -> dict[str, str]:
    """id -> why it was not evaluated; of retrieval without the direction before it."""
    prefix = f"{direction}:" if direction else ""
    return {line["id"].removeprefix(prefix): line["missing"] for line in lines if "missing" in line}


def items_of(lines: Lines, values: Mapping[str, Array], rows: Array | None = None) -> dict[str, Items]:
    """One value per line and metric; with ``rows`` (an index or a bool array) of some lines alone."""
    places = np.arange(len(lines)) if rows is None else np.arange(len(lines))[rows]
    ids, clips = ([lines[place][key] for place in places] for key in ("id", "video"))
    return {name: Items(ids, clips, found if rows is None else found[rows]) for name, found in values.items()}


def of_credits(lines: Lines, credits: Mapping[str, Array]) -> Recount:
    """Metrics that are means of credits, in percent."""
    metrics = {name: percent(values) for name, values in credits.items()}
    return Recount(metrics, items_of(lines, credits), expected=len(lines), missing=reasons(lines))


def add_row(counted: Recount, label: str, items: Mapping[str, Items], **further: float) -> None:
    """A row of metrics that are means or medians of ``items``, and others."""
    counted.rows[label] = {name: one.metric() for name, one in items.items()} | further
    counted.row_items[label] = dict(items)


def derived(ranks: Ranks, ties: Any, credit: str) -> list[dict[str, Any]]:
    """Of every line the fields that follow from its ranks."""
    both = zip(ranks.hits(1, ties), ranks.values(ties), strict=True)
    return [{credit: float(hit), "rank": float(rank)} for hit, rank in both]


def labels_of(lines: Lines) -> list[str]:
    """The rows that lines tell of, in the order of the first line."""
    return list(dict.fromkeys(label for line in lines[:1] for label in line.get("rows", ())))


def note_row(lines: Iterable[dict[str, Any]], label: str, told: Iterable[Any]) -> None:
    """Write what each item has in a row into its line."""
    for line, one in zip(lines, told, strict=True):
        line.setdefault("rows", {})[label] = one
