"""Tables of samples: which clip a sample is about, and some of the rows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from vtp.contracts import Table, member
from vtp.spans import span_name
from vtp.types import Sample

__all__ = ["clip_names", "evenly", "first_word", "media_id", "names_lacking", "select"]

T = TypeVar("T")
_AROUND_WORDS = "?,.!:;\"'()[]\u00bf\u00a1\u201c\u201d\u2018\u2019\u00ab\u00bb"
# Thai to Myanmar, Khmer, Japanese and Chinese, with their punctuation and full-width forms
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u2e80-\u312f\u31a0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


def media_id(sample: Sample) -> str:
    """Which clip a sample is about: ``extra["video_id"]``, else the absolute path of its file and its span, else its
    own id. Splits and leaks are compared by this, and rows with the same are no negatives of each other: a data set of
    moments names each moment (:func:`vtp.spans.span_name`)."""
    if "video_id" in sample.extra:
        return str(sample.extra["video_id"])
    media = sample.video or sample.audio
    if media is None or isinstance(media.path, bytes):
        return sample.id
    path = os.path.abspath(media.path.replace("\\", "/"))  # two folders may hold files of one name, which are two clips
    return span_name(path, media.start, media.end)


def first_word(question: str) -> str:
    """The type of a question where nothing else says it: ``what``, ``who``, ``how``, ``when``, ``where``; ``other``
    without a word, and in a script that does not put spaces between words, where it would be the whole question."""
    words = question.lower().split()
    word = words[0].strip(_AROUND_WORDS) if words else ""
    return word if word and (word.isascii() or not _WITHOUT_SPACES.search(word)) else "other"


def clip_names(samples: Iterable[Sample]) -> Iterator[str]:
    """:func:`media_id` of every sample. Tables of millions of rows have a method ``video_ids`` that makes none."""
    bulk = member(samples, Table, "video_ids")
    return map(media_id, samples) if bulk is None else iter(bulk())


def names_lacking(samples: Iterable[Sample], names: Iterable[str]) -> list[str]:
    """Those of ``names`` that no sample has in ``extra``, or as ``texts``; reads no further than it must."""
    left = set(names)
    for sample in samples:
        left -= {
            name for name in left if (sample.texts or None if name == "texts" else sample.extra.get(name)) is not None
        }
        if not left:
            break
    return sorted(left)


def select(table: Sequence[T], rows: npt.NDArray[np.integer[Any]]) -> Sequence[T]:
    """These rows of a table, in this order: a view of a table that can give one (``select``), else a list."""
    chosen: Sequence[T] = member(table, Table, "select")(rows)
    return chosen


def evenly(table: Sequence[T], count: int) -> Sequence[T]:
    """At most ``count`` rows, evenly spaced from the first on, so that every part of the table is represented."""
    if count >= len(table):
        return table
    return select(table, np.arange(count) * len(table) // max(1, count))
