"""YouCook2: cooking videos, each cut into the steps of its recipe with a sentence each.

Steps        ``youcookii_annotations_trainval.json``: {"database": {"GLd3aX16zBg": {"subset": "training", "duration":
             241.62, "recipe_type": "113", "annotations": [{"segment": [90, 102], "id": 0, "sentence": "spread margarine
             on two slices of white bread"}]}}}; 1,333 and 457 videos with 10,337 and 3,492 steps
Transcripts  optional, in the form of HowTo100M: {"GLd3aX16zBg": {"start": [...], "end": [...], "text": [...]}}; what is
             said during a step is its ``extra["transcript"]``
Videos       ``GLd3aX16zBg.mp4``, whole videos, of which a step is a span

What papers call the test set is the validation subset; the annotations of the test subset are not public.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from vtp.catalogue import (
    ROW_ERRORS,
    AnnotationFile,
    Catalogue,
    ClipFolders,
    Plan,
    Row,
    Seen,
    given_or,
    is_empty,
    plain_text,
    reason,
)
from vtp.errors import DataError
from vtp.spans import span_name

__all__ = ["YouCook2"]

VIDEOS = ("videos", "videos/all", "raw_videos", "youcook2", "")
STEPS = ("youcookii_annotations_trainval.json", "youcook2_annotations_trainval.json")
SUBSETS = {"train": "training", "test": "validation"}
ABOUT = """Where YouCook2 comes from:
  steps: youcookii_annotations_trainval.json of the release (Zhou, Xu and Corso, AAAI 2018)
  transcripts: speech recognition of your own, as one json file in the form of HowTo100M's caption.json
  videos: YouTube; many are gone from their site, and what is missing scores 0"""


class YouCook2(Catalogue):
    """YouCook2: one step each with its span and its sentence.

    Args:
        root: folder with annotations and videos; None = ``$VTP_DATA/youcook2``, or ``data/youcook2`` without that
            variable.
        videos: folder of the videos, absolute or relative to ``root``; None = the usual ones.
        transcripts: json file with timed speech, absolute or relative to ``root``; None = no transcripts.
    """

    name = "youcook2"
    kinds = ("caption", "retrieval")
    folders = ("", "annotations", "youcook2", "YouCook2", "annotations/youcook2")
    about = ABOUT
    clips = "GLd3aX16zBg.mp4 ..."

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        videos: str | Path | None = None,
        transcripts: str | Path | None = None,
    ) -> None:
        super().__init__(root, transcripts=transcripts)
        self._transcripts = transcripts
        self._videos = videos

    def plan(self, kind: str, split: str) -> Plan | None:
        if split not in SUBSETS:
            return None
        files: tuple[tuple[str, ...], ...] = (STEPS,)
        if self._transcripts is not None:
            files += (given_or(self._transcripts, ()),)
        rows = partial(_rows, subset=SUBSETS[split])
        return Plan(files, rows, self._media, options={"subset": SUBSETS[split], "transcripts": len(files) > 1})

    def _media(self) -> ClipFolders:
        return ClipFolders(self.root, self._videos, VIDEOS)


def _rows(file: AnnotationFile, speech: AnnotationFile | None = None, *, subset: str) -> Iterator[Row]:
    """``file.rows`` counts steps."""
    said = {} if speech is None else _speech(speech)
    content = file.json()
    if not isinstance(content, dict) or not isinstance(content.get("database"), dict):
        raise DataError(f"{file.path}: expected an object with an object `database` from videos to their steps.")
    for video, value in content["database"].items():
        try:
            steps = value["annotations"] if value["subset"] == subset else ()
            if not isinstance(steps, (list, tuple)):
                raise ValueError("annotations are no list")
        except ROW_ERRORS as error:
            file.reject(f"video {video}", reason(error))
            continue
        for number, step in enumerate(steps):
            try:
                row = _step(video, number, step)
            except ROW_ERRORS as error:
                file.reject(f"video {video}, step {number}", reason(error))
                continue
            file.rows += 1
            if said:
                row.extra = {"transcript": _during(said.get(video, ()), row.start, row.end)}
            yield row


def _step(video: str, number: int, step: Any) -> Row:
    """One step.

    Raises:
        KeyError, TypeError, ValueError: what is wrong with it.
    """
    start, end = (float(second) for second in step["segment"])
    if not 0 <= start < end < float("inf"):
        raise ValueError(f"{step['segment']} is no span with a start before its end")
    if is_empty(step["sentence"]) or not str(step["sentence"]).strip():
        raise ValueError("no sentence")
    texts = [plain_text(step["sentence"], "sentence")]
    clip = span_name(video, start, end)
    return Row(f"{video}#{number}", texts, video_id=clip, video=video, start=start, end=end, place=f"{video}:{number}")


def _speech(file: AnnotationFile) -> dict[str, list[tuple[float, float, str]]]:
    """Video -> (start, end, text) of what is said; ``file.rows`` counts videos."""
    found: dict[str, list[tuple[float, float, str]]] = {}
    seen = Seen()
    for _, video, value in file.items():
        try:
            if not seen.add(str(video)):
                raise ValueError("the video is there already")
            columns = zip(value["start"], value["end"], value["text"], strict=True)
            found[str(video)] = [(float(start), float(end), str(text).strip()) for start, end, text in columns]
            file.rows += 1
        except ROW_ERRORS as error:
            file.reject(f"video {video}", reason(error))
    return found


def _during(said: Any, start: float | None, end: float | None) -> str:
    """What is said between two seconds, joined by spaces; also what is only begun or ended there."""
    assert start is not None and end is not None
    return " ".join(text for first, last, text in said if first < end and last > start and text)
