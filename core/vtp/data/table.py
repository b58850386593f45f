"""Tables of samples: which clip a sample is about, and some of the rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from vtp.contracts import Table, member
from vtp.types import Sample

__all__ = ["clip_names", "evenly", "first_word", "media_id", "select", "span_name", "whole_clip"]

T = TypeVar("T")
_SECONDS = r"[0-9.]+(?:e[+-][0-9]+)?"  # as format "g" writes them
_SPAN = re.compile(rf"\[{_SECONDS}-(?:{_SECONDS})?\]$")


def media_id(sample: Sample) -> str:
    """Which clip a sample is about: ``extra["video_id"]``, else the file name, else its own id. Splits and leaks are
    compared by this."""
    if "video_id" in sample.extra:
        return str(sample.extra["video_id"])
    media = sample.video or sample.audio
    if media is None or isinstance(media.path, bytes):
        return sample.id
    return span_name(media.path.replace("\\", "/").rsplit("/", 1)[-1], media.start, media.end)


def span_name(clip: str, start: float | None, end: float | None) -> str:
    """``a.mp4`` from 1 to 2.5 seconds is the clip ``a.mp4[1-2.5]``; without a span it is ``a.mp4``."""
    if start is None and end is None:
        return clip
    return f"{clip}[{start or 0:g}-{'' if end is None else format(end, 'g')}]"


def whole_clip(name: str) -> str:
    """The clip that a name is about: ``a.mp4[1-2.5]``, a span of it, is about ``a.mp4``."""
    return _SPAN.sub("", name)


def first_word(question: str) -> str:
    """The type of a question where nothing else says it: ``what``, ``who``, ``how``, ``when``, ``where``; ``other``
    without a word."""
    words = question.lower().split()
    return words[0].strip("?,.!") or "other" if words else "other"


def clip_names(samples: Iterable[Sample]) -> Iterator[str]:
    """:func:`media_id` of every sample. Tables of millions of rows have a method ``video_ids`` that makes none."""
    bulk = member(samples, Table, "video_ids")
    return map(media_id, samples) if bulk is None else iter(bulk())


def select(table: Sequence[T], rows: npt.NDArray[np.integer[Any]]) -> Sequence[T]:
    """These rows of a table, in this order: a view of a table that can give one (``select``), else a list."""
    chosen: Sequence[T] = member(table, Table, "select")(rows)
    return chosen


def evenly(table: Sequence[T], count: int) -> Sequence[T]:
    """At most ``count`` rows, evenly spaced from the first on, so that every part of the table is represented."""
    if count >= len(table):
        return table
    return select(table, np.arange(count) * len(table) // max(1, count))
