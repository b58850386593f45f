"""Names of clips that are spans of a longer one."""

from __future__ import annotations

import re

__all__ = ["span_name", "whole_clip"]

_SECONDS = r"[0-9.]+(?:e[+-][0-9]+)?"  # as format "g" writes them
_SPAN = re.compile(rf"\[{_SECONDS}-(?:{_SECONDS})?\]$")


def span_name(clip: str, start: float | None, end: float | None) -> str:
    """``a.mp4`` from 1 to 2.5 seconds is the clip ``a.mp4[1-2.5]``; without a span it is ``a.mp4``."""
    if start is None and end is None:
        return clip
    return f"{clip}[{start or 0:g}-{'' if end is None else format(end, 'g')}]"


def whole_clip(name: str) -> str:
    """The clip that a name is about: ``a.mp4[1-2.5]``, a span of it, is about ``a.mp4``."""
    return _SPAN.sub("", name)
