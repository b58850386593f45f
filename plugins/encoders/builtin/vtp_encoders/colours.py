"""What libraries say of colours, as a :class:`vtp.types.VideoSpec` takes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["triple"]


def triple(values: Iterable[Any]) -> tuple[float, float, float]:
    """A mean or standard deviation per colour, red first."""
    r, g, b = (float(v) for v in values)
    return r, g, b
