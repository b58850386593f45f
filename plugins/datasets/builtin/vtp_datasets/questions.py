"""Rows of the files that questions come in: open questions with one answer, and multiple choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vtp.catalogue import (
    ROW_ERRORS,
    AnnotationFile,
    Ids,
    Row,
    answer_text,
    is_empty,
    plain_text,
    reason,
    stem_of,
    text_of,
)
from vtp.data.table import first_word
from vtp.errors import DataError
from vtp_datasets.own import answer_index

__all__ = ["choice_rows", "question_rows"]


def question_rows(file: AnnotationFile, *, split: str, clip_of: Callable[[Any], str]) -> Iterator[Row]:
    """Rows of a file of MSRVTT-QA or MSVD-QA: a JSON list [{"id", "video_id", "question", "answer", "category_id"}], or
    csv with qid, video, question, answer, type. The type of a question is its first word; what the csv calls type is
    the category.

    Args:
        file: the questions.
        split: questions without an id are called by it and their place.
        clip_of: makes the name of a clip out of what is in the file; KeyError or ValueError if it is none.
    """
    ids = Ids()
    for where, place, row in _questions(file):
        try:
            if not isinstance(row, dict):
                raise TypeError("not an object")
            clip = clip_of(row["video_id"] if "video_id" in row else row["video"])
            question, answer = text_of(row, "question"), answer_text(row["answer"])
            category = row.get("category_id", row.get("type"))
            extra = None if category in (None, "") else {"category": int(category)}
            given = row.get("id", row.get("qid", ""))
            name = f"{split}{place}" if is_empty(given) else plain_text(given, "id")
            name = ids.unique(name, clip, place, question, answer)
        except ROW_ERRORS as error:
            file.reject(where, reason(error))
            continue
        file.rows += 1
        kind = first_word(question)
        yield Row(name, [question], video_id=clip, answer=answer, question_type=kind, place=place, extra=extra)
    file.note_repeated(ids)


def _questions(file: AnnotationFile) -> Iterator[tuple[str, int, Any]]:
    if file.path.suffix != ".json":
        for line, row in file.csv(lambda cells: "question" in cells):
            yield f"line {line}", line, row
        return
    if not file.begins_with("["):
        raise DataError(f"{file.path}: expected a list of questions, found {type(file.json()).__name__}.")
    for position, _, row in file.items():
        yield f"item {position}", position, row


def choice_rows(file: AnnotationFile, clip_of: Callable[[str], str] = stem_of) -> Iterator[Row]:
    """Rows of a multiple-choice file: {"qid", "clip_name" or "video", "options" or "caption", "answer"}; ``clip_of``
    makes the name of a clip out of what is in the file."""
    ids = Ids()
    for line, row in file.jsonl():
        try:
            clip = clip_of(text_of(row, "clip_name" if "clip_name" in row else "video"))
            options = row["options"] if "options" in row else row["caption"]
            if not isinstance(options, list) or len(options) < 2:
                raise ValueError("no list of options with a text each")
            texts = [plain_text(option, f"option {number}") for number, option in enumerate(options)]
            made = Row("", texts, video_id=clip, answer_index=answer_index(row["answer"], texts), place=line)
            name = text_of(row, "qid") if "qid" in row else str(line)
            made.id = ids.unique(name, clip, line, *texts, made.answer_index)
        except ROW_ERRORS as error:
            file.reject(f"line {line}", reason(error))
            continue
        file.rows += 1
        yield made
    file.note_repeated(ids)
