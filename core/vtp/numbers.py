"""Numbers of any library as numbers of Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vtp.errors import RunError

__all__ = ["number", "plain"]


def number(value: Any) -> int | float | None:
    """A number as Python's int or float: of numpy, a tensor or an array with one element; None where it is none."""
    if not isinstance(value, (int, float)) and hasattr(value, "item"):
        try:
            value = value.item()
        except (ValueError, RuntimeError, TypeError):  # more than one element
            return None
    return value if isinstance(value, (int, float)) else None


def plain(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as numbers of Python, whatever library they come from.

    Raises:
        RunError: one of them is no number.
    """
    numbers = {name: number(value) for name, value in metrics.items()}
    if strange := [name for name, value in numbers.items() if value is None]:
        found = type(metrics[strange[0]]).__name__
        raise RunError(f"the evaluation gives the metric {strange[0]!r} as {found}, expected a number.")
    return {name: value for name, value in numbers.items() if value is not None}
