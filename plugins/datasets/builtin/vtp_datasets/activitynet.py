"""ActivityNet Captions: long videos, each with sentences that tell what happens when.

Sentences   ``train.json``, ``val_1.json``: {"v_QOlSCBRmfWY": {"duration": 82.73, "timestamps": [[0.83, 19.86], ...],
            "sentences": [...]}}; 10,009 and 4,917 clips
Lists       ``train_list.txt``, ``val_1_list.txt``: the second lacks v_0dkIbKXXFzI
Clips       ``v_QOlSCBRmfWY.mp4`` or ``QOlSCBRmfWY.mp4``

What papers call the test set is val_1. There is no validation split: val_2 describes the same clips again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from vtp.catalogue import (
    ROW_ERRORS,
    Aliases,
    AnnotationFile,
    Catalogue,
    ClipFolders,
    Plan,
    Row,
    Seen,
    clip_list,
    is_empty,
    plain_text,
    reason,
)
from vtp.spans import span_name

__all__ = ["ActivityNet"]

VIDEOS = ("videos", "videos/all", "Activity_Videos", "activitynet", "")
NAMES = {"train": "train", "test": "val_1"}
ABOUT = """Where ActivityNet Captions comes from:
  sentences: train.json and val_1.json of Dense-Captioning Events in Videos (Krishna et al., ICCV 2017)
  lists: train_list.txt and val_1_list.txt as retrieval code shares them (only with dataset.lists=true)
  clips: the videos of ActivityNet 1.3"""


class ActivityNet(Catalogue):
    """ActivityNet Captions: one clip each, its text all its sentences joined by a space; or one sentence and its span
    each.

    Args:
        root: folder with annotations and clips; None = ``$VTP_DATA/activitynet``, or ``data/activitynet`` without that
            variable.
        videos: folder of the clips, absolute or relative to ``root``; None = the usual ones.
        moments: one sample per sentence, with its span, in place of one per clip with the whole paragraph.
        lists: only the clips of ``train_list.txt`` and ``val_1_list.txt`` (4,916 for testing in place of 4,917).
    """

    name = "activitynet"
    kinds = ("caption", "retrieval")
    folders = ("", "annotations", "captions", "activitynet", "ActivityNet", "annotations/activitynet")
    about = ABOUT
    clips = "v_QOlSCBRmfWY.mp4 ..."

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        videos: str | Path | None = None,
        moments: bool = False,
        lists: bool = False,
    ) -> None:
        super().__init__(root, moments=moments, lists=lists)
        self.moments = moments
        self.lists = lists
        self._videos = videos

    def plan(self, kind: str, split: str) -> Plan | None:
        if split not in NAMES:
            return None
        files: tuple[tuple[str, ...], ...] = ((f"{NAMES[split]}.json",),)
        if self.lists:
            files += ((f"{NAMES[split]}_list.txt",),)
        return Plan(
            files,
            partial(_rows, moments=self.moments),
            self._media,
            options={"moments": self.moments},
        )

    def _media(self) -> Aliases:
        names = ("{name}", "{youtube}")  # both are whole videos, of which a moment is a span
        return Aliases(ClipFolders(self.root, self._videos, VIDEOS), names, _parts, whole=names)


def _parts(clip: str) -> dict[str, str]:
    return {"youtube": clip.removeprefix("v_")}


def _rows(file: AnnotationFile, listed: AnnotationFile | None = None, *, moments: bool) -> Iterator[Row]:
    """``file.rows`` counts sentences."""
    wanted = {} if listed is None else {clip: line for line, clip in clip_list(listed)}
    seen = Seen()
    for position, clip, value in file.items():
        if listed is not None:
            if clip not in wanted:
                continue
            del wanted[clip]
            listed.rows += 1
        try:
            if not seen.add(clip):
                raise ValueError("the clip is there already")
            sentences, times = value["sentences"], value["timestamps"]
            if not isinstance(sentences, list) or len(sentences) != len(times) or not sentences:
                raise ValueError(f"{len(sentences)} sentences with {len(times)} time stamps")
            texts = [plain_text(text, "sentence") if _is_there(text) else "" for text in sentences]
        except ROW_ERRORS as error:
            file.reject(f"clip {clip}", reason(error))
            continue
        if moments:
            yield from _moments(file, clip, texts, times)
        else:
            file.rows += len(texts)
            yield Row(clip, [" ".join(filter(None, texts))], place=position, extra={"sentences": len(texts)})
    for clip, line in wanted.items():
        assert listed is not None
        listed.reject(f"line {line}", f"{clip} has no sentence")


def _is_there(text: Any) -> bool:
    return not is_empty(text) and bool(str(text).strip())


def _moments(file: AnnotationFile, clip: str, texts: list[str], times: list[Any]) -> Iterator[Row]:
    for number, (text, span) in enumerate(zip(texts, times, strict=True)):
        try:
            start, end = (float(second) for second in span)
            if not 0 <= start < end or not text:
                raise ValueError(f"{span} is no span with a start before its end" if text else "no sentence")
        except ROW_ERRORS as error:
            file.reject(f"clip {clip}, sentence {number}", reason(error))
            continue
        file.rows += 1
        name = f"{clip}#{number}"
        yield Row(name, [text], video_id=span_name(clip, start, end), video=clip, start=start, end=end, place=clip)
