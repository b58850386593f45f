"""DiDeMo: 10,464 Flickr clips of up to 30 seconds, with descriptions that are joined to one paragraph per clip.

Lists          ``train_list.txt`` (val, test): 8,392, 1,065 and 1,004 file names. They define the splits: the
               descriptions cover more clips (1,094 for validation, 1,037 for testing)
Descriptions   ``train_data.json`` (val, test): [{"description", "video": "26292851@N04_4253489686_265c3c8051.m4v",
               "times": [[4, 4], ...], "annotation_id", "num_segments"}]
Clips          ``<stem>.mp4`` or with any other extension; some names end in a bare dot

Longer videos were cut to 30 seconds for the people who described them, so that is where clips end here, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vtp.catalogue import (
    ROW_ERRORS,
    AnnotationFile,
    Catalogue,
    ClipFolders,
    Plan,
    Row,
    clip_list,
    reason,
    stem_of,
    text_of,
)
from vtp.errors import ConfigError
from vtp.ranges import Positive

__all__ = ["DiDeMo"]

VIDEOS = ("videos", "videos/all", "didemo_videos", "train", "test", "val", "")
ABOUT = """Where DiDeMo comes from:
  descriptions: train_data.json, val_data.json and test_data.json of Localizing Moments in Video with Natural Language \
(Hendricks et al., ICCV 2017)
  lists: train_list.txt, val_list.txt and test_list.txt as Collaborative Experts and later retrieval code share them
  clips: Flickr videos of YFCC100M, 13 of which are on the authors' page only"""


class DiDeMo(Catalogue):
    """DiDeMo: one clip each; its text is all its descriptions joined by a space, in the order of the file.

    Args:
        root: folder with annotations and clips; None = ``$VTP_DATA/didemo``, or ``data/didemo`` without that variable.
        videos: folder of the clips, absolute or relative to ``root``; None = the usual ones.
        seconds: where clips are cut; None = never. Recorded, because published numbers differ in it.
    """

    name = "didemo"
    kinds = ("caption", "retrieval")
    folders = ("", "annotations", "data", "didemo", "annotations/didemo")
    about = ABOUT
    clips = "26292851@N04_4253489686_265c3c8051.m4v ... (any extension)"

    def __init__(
        self, *, root: str | Path | None = None, videos: str | Path | None = None, seconds: Positive | None = 30.0
    ) -> None:
        if seconds is not None and seconds <= 0:
            raise ConfigError(f"dataset.seconds={seconds} must be more than 0, or null for whole clips.")
        super().__init__(root, clip_window_seconds=seconds)
        self.seconds = seconds
        self._videos = videos

    def plan(self, kind: str, split: str) -> Plan:
        return Plan(
            ((f"{split}_list.txt",), (f"{split}_data.json",)),
            partial(_rows, seconds=self.seconds),
            lambda: ClipFolders(self.root, self._videos, VIDEOS),
            options={"seconds": self.seconds},
        )


def _rows(listed: AnnotationFile, described: AnnotationFile, *, seconds: float | None) -> Iterator[Row]:
    texts: dict[str, list[str]] = {}
    for position, _, row in described.items():
        try:
            texts.setdefault(stem_of(text_of(row, "video")), []).append(text_of(row, "description"))
            described.rows += 1
        except ROW_ERRORS as error:
            described.reject(f"item {position}", reason(error))
    used = 0
    for line, name in clip_list(listed):
        clip = stem_of(name)
        if clip not in texts:
            listed.reject(f"line {line}", f"{name} has no description")
            continue
        listed.rows += 1
        used += len(texts[clip])
        start = None if seconds is None else 0.0
        yield Row(clip, [" ".join(texts[clip])], start=start, end=seconds, place=line, extra={"file_name": name})
    described.notes["rows_of_clips_that_are_not_listed"] = described.rows - used
