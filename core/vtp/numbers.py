"""Numbers of any library as numbers of Python."""

from __future__ import annotations

from typing import Any

__all__ = ["number"]


def number(value: Any) -> int | float | None:
    """A number as Python's int or float: of numpy, a tensor or an array with one element; None where it is none."""
    if not isinstance(value, (int, float)) and hasattr(value, "item"):
        try:
            value = value.item()
        except (ValueError, RuntimeError, TypeError):  # more than one element
            return None
    return value if isinstance(value, (int, float)) else None
