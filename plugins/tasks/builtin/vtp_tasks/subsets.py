"""Rows of a report in which the model sees only some modalities (``task.subsets``); they never are the headline."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Literal

from vtp.errors import ConfigError
from vtp.types import MODALITIES, Modality

__all__ = ["Subsets", "check_subsets", "withheld"]

Subsets = Literal["all"] | list[list[str]] | None


def check_subsets(subsets: Subsets) -> None:
    """Refuse what no model could show.

    Raises:
        ConfigError: an unknown modality, or a subset of none.
    """
    for subset in [] if subsets is None or subsets == "all" else subsets:
        unknown = [m for m in subset if m not in MODALITIES]
        if unknown or not subset:
            wrong = f"unknown modality {unknown[0]!r}" if unknown else "a subset must name at least one modality"
            raise ConfigError(
                f"task.subsets: {wrong}; expected all, or lists of {', '.join(MODALITIES)}, for example "
                "[[video],[video,audio]]."
            )


def withheld(
    subsets: Subsets,
    seen: Collection[Modality],
    warnings: list[str],
    *,
    always: Collection[str] = (),
    names: Mapping[str, str] | None = None,
) -> dict[str, tuple[Modality, ...]]:
    """Label of a row -> the modalities to withhold for it.

    Args:
        subsets: of the task's options. ``all`` is every subset but the whole.
        seen: the modalities that the items have and that what scores looks at.
        warnings: gets a line for every subset that would show something else than its name says.
        always: those of ``seen`` that cannot be withheld, such as the text of a retrieval; they need not be named.
        names: what a modality is called in labels, for example ``{"text": "question"}``.
    """
    order: Sequence[Modality] = [m for m in MODALITIES if m in seen]
    free = [m for m in order if m not in always]
    if subsets is None:
        return {}
    if subsets == "all":
        asked: list[set[str]] = [set(some) for count in range(1, len(free)) for some in combinations(free, count)]
    else:
        asked = [set(subset) - set(always) for subset in subsets]
    rows: dict[str, tuple[Modality, ...]] = {}
    for subset in asked:
        if strange := sorted(subset - set(free)):
            warnings.append(
                f"task.subsets: no row for {'+'.join(sorted(subset))}: {' and '.join(strange)} is not in the items, or "
                f"not looked at (it is: {', '.join(order)})."
            )
        elif not subset:
            warnings.append(f"task.subsets: no row for {'+'.join(always)}: nothing else of an item would be left.")
        else:
            shown = [m for m in order if m in subset or m in always]
            label = "only " + "+".join((names or {}).get(m, m) for m in shown)
            rows[label] = tuple(m for m in free if m not in subset)
    return rows
