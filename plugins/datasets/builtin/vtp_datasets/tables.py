"""Tables of samples that keep columns and make a :class:`vtp.types.Sample` when one is asked for: the 158,581 training
questions of MSRVTT-QA cost about 30 MB this way, and a worker that touches one row touches no other object.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

from vtp.types import MediaRef, Sample

__all__ = ["CaptionTable", "Clips", "QATable", "RelabelledTable"]


class Clips:
    """The distinct clips of a table and where their files lie, or should lie."""

    def __init__(self, path_of: Callable[[str], str]) -> None:
        self._path_of = path_of
        self._numbers: dict[str, int] = {}
        self.names: list[str] = []
        self.paths: list[str] = []

    def number(self, name: str) -> int:
        """Row of the clip ``name``; a new one is added."""
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
            self.paths.append(self._path_of(name))
        return self._numbers[name]

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:  # a table in a loader's worker only reads
        return {"_path_of": None, "_numbers": {}, "names": self.names, "paths": self.paths}


class _Table(Sequence[Sample]):
    """Indexing by integer or slice in terms of ``_row``."""

    def _row(self, index: int) -> Sample:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._row(i) for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"row {index} of a table with {len(self)} rows")
        return self._row(int(position))


class QATable(_Table):
    """Questions with one answer each."""

    def __init__(self, clips: Clips, file: str) -> None:
        self.clips = clips
        self.file = file
        self._ids: list[str] = []
        self._questions: list[str] = []
        self._answers: list[str] = []
        self._clip, self._category, self._line = array("i"), array("i"), array("i")

    def add(self, name: str, clip: str, question: str, answer: str, category: int | None, line: int) -> None:
        """Append one question; ``line`` is its line in a csv file, its position in a JSON list."""
        self._ids.append(name)
        self._questions.append(question)
        self._answers.append(sys.intern(answer))
        self._clip.append(self.clips.number(clip))
        self._category.append(-1 if category is None else category)
        self._line.append(line)

    def __len__(self) -> int:
        return len(self._ids)

    def _row(self, index: int) -> Sample:
        clip, question = self._clip[index], self._questions[index]
        media = MediaRef(self.clips.paths[clip])
        extra: dict[str, Any] = {
            "video_id": self.clips.names[clip],
            "question_type": first_word(question),
            "source": f"{self.file}:{self._line[index]}",
        }
        if self._category[index] >= 0:
            extra["category"] = self._category[index]
        return Sample(self._ids[index], media, media, (question,), {"answer": self._answers[index]}, extra)


class CaptionTable(_Table):
    """Clips with their captions: all of them, or the one that a retrieval list names."""

    def __init__(self, clips: Clips, file: str) -> None:
        self.clips = clips
        self.file = file
        self._ids: list[str] = []
        self._texts: list[tuple[str, ...]] = []
        self._clip, self._category = array("i"), array("i")

    def add(self, name: str, clip: str, texts: Iterable[str], category: int | None = None) -> None:
        """Append one clip with ``texts``."""
        self._ids.append(name)
        self._texts.append(tuple(texts))
        self._clip.append(self.clips.number(clip))
        self._category.append(-1 if category is None else category)

    def __len__(self) -> int:
        return len(self._ids)

    def _row(self, index: int) -> Sample:
        clip = self._clip[index]
        media = MediaRef(self.clips.paths[clip])
        extra: dict[str, Any] = {"video_id": self.clips.names[clip], "source": f"{self.file}:{self._ids[index]}"}
        if self._category[index] >= 0:
            extra["category"] = self._category[index]
        return Sample(self._ids[index], media, media, self._texts[index], {}, extra)


class RelabelledTable(_Table):
    """Another table whose question types are the names of its categories."""

    def __init__(self, table: Sequence[Sample], categories: Sequence[str]) -> None:
        self._table = table
        self._categories = tuple(categories)

    def __len__(self) -> int:
        return len(self._table)

    def _row(self, index: int) -> Sample:
        sample = self._table[index]
        extra = {**sample.extra, "question_type": self._categories[sample.extra["category"]]}
        return Sample(sample.id, sample.video, sample.audio, sample.texts, sample.labels, extra)


def first_word(question: str) -> str:
    """What MSRVTT-QA calls the type of a question: ``what``, ``who``, ``how``, ``when``, ``where``; ``other`` without a
    word."""
    words = question.lower().split()
    return words[0].strip("?,.!") or "other" if words else "other"
