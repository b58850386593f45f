"""MUSIC-AVQA: questions about who plays what in musical performances, one word each from 42 answers.

Questions   ``avqa-train.json`` (val, test): [{"video_id": "00000093", "question_id": 12, "type": "[\\"Audio\\",
            \\"Counting\\"]", "question_content": "...", "templ_values": "[]", "question_deleted": 0, "anser": "one"}].
            ``type`` and ``templ_values`` are JSON inside a string; placeholders ``<Object>`` are filled in order
Clips       ``00000093.mp4``; names that begin with two letters (va, sa, ev, vv, es) are synthetic: real pictures with
            the sound of another clip
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from vtp.catalogue import (
    ROW_ERRORS,
    AnnotationFile,
    Catalogue,
    ClipFolders,
    Ids,
    Plan,
    Row,
    answer_text,
    check_choice,
    list_in,
    plain_text,
    reason,
    text_of,
)

__all__ = ["MusicAVQA", "fill_template"]

VIDEOS = ("videos", "MUSIC-AVQA-videos-Real", "MUSIC-AVQA-videos-Synthetic", "videos/real", "videos/synthetic", "")
ABOUT = """Where MUSIC-AVQA comes from:
  questions: avqa-train.json, avqa-val.json and avqa-test.json of the release (Li et al., CVPR 2022)
  clips: MUSIC-AVQA-videos-Real and MUSIC-AVQA-videos-Synthetic of the same"""
_PLACE = re.compile(r"<[^<>]*>")


class MusicAVQA(Catalogue):
    """MUSIC-AVQA: one question each. ``extra`` has for example the ``question_type`` ``Audio-Visual/Counting``, the
    ``question_group`` ``Audio-Visual`` and the ``category`` ``real`` or ``synthetic``.

    Args:
        root: folder with questions and clips; None = ``$VTP_DATA/music_avqa``, or ``data/music_avqa`` without that
            variable.
        videos: folder of the clips, absolute or relative to ``root``; None = the usual ones.
        clips: ``all``, or only questions about ``real`` or ``synthetic`` clips. Recorded, because published numbers
            differ in it.
    """

    name = "music_avqa"
    kinds = ("qa",)
    folders = ("", "annotations", "json", "data/json", "data", "music_avqa", "MUSIC-AVQA")
    about = ABOUT
    clips = "00000093.mp4 ..."

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        videos: str | Path | None = None,
        clips: Literal["all", "real", "synthetic"] = "all",
    ) -> None:
        check_choice("clips", clips, ("all", "real", "synthetic"))
        super().__init__(root, clips=clips)
        self._which = clips
        self._videos = videos

    def plan(self, kind: str, split: str) -> Plan:
        return Plan(
            ((f"avqa-{split}.json", f"avqa_{split}.json", f"{split}.json"),),
            partial(_rows, clips=self._which),
            lambda: ClipFolders(self.root, self._videos, VIDEOS),
            options={"clips": self._which},
        )


def fill_template(question: str, values: Sequence[str]) -> str:
    """``"Is the <Object> louder than the <Object>?"`` with its words put in, in order.

    Raises:
        ValueError: there are not as many words as places.
    """
    places = _PLACE.findall(question)
    if len(places) != len(values):
        raise ValueError(f"{len(places)} places and {len(values)} words in {question!r}")
    words = iter(values)
    return _PLACE.sub(lambda _: str(next(words)), question)


def _rows(file: AnnotationFile, *, clips: str) -> Iterator[Row]:
    ids = Ids()
    other = deleted = 0
    for position, _, row in file.items():
        try:
            name, clip = text_of(row, "question_id"), text_of(row, "video_id")
            values, kinds = (_list(row, key) for key in ("templ_values", "type"))
            question = fill_template(text_of(row, "question_content"), values)
            answer = answer_text(row["anser" if "anser" in row else "answer"])
            name = ids.unique(name, clip, position, question, answer)
        except ROW_ERRORS as error:
            file.reject(f"item {position}", reason(error))
            continue
        file.rows += 1
        deleted += bool(row.get("question_deleted"))
        category = "synthetic" if clip[:2].isalpha() else "real"
        if clips not in ("all", category):
            other += 1
            continue
        kind = "/".join(kinds)
        made = Row(name, [question], video_id=clip, answer=answer, question_type=kind, category=category)
        made.place, made.extra = position, {"question_group": kinds[0]} if kinds else None
        yield made
    file.note_repeated(ids)
    file.notes |= {"rows_of_other_clips": other} if other else {}
    file.notes |= {"rows_marked_as_deleted": deleted} if deleted else {}


def _list(row: dict[str, Any], key: str) -> list[str]:
    """A list, or JSON of one inside a string."""
    value = row[key]
    value = list_in(value, key) if isinstance(value, str) else value
    if not isinstance(value, list):
        raise ValueError(f"{key} is no list")
    return [plain_text(item, key) for item in value]
