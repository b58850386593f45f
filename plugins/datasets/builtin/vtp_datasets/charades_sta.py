"""Charades-STA: moments in the videos of Charades, with a sentence each.

Moments   ``charades_sta_train.txt``, ``charades_sta_test.txt``: ``VIDEO START END##sentence``, seconds. There is no
          validation split
Videos    ``VIDEO.mp4``, in ``Charades_v1_480/``, ``Charades_v1/`` or ``videos/``

A moment is a clip of its own, with a span: retrieval sees the span alone, ``task=moment_retrieval`` looks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vtp.catalogue import ROW_ERRORS, VIDEOS, AnnotationFile, Catalogue, ClipFolders, Ids, Plan, Row, reason, stem_of
from vtp.spans import span_name

__all__ = ["CharadesSTA"]

CLIPS = ("Charades_v1_480", "Charades_v1", "videos", "Charades_v1_480/Charades_v1_480", "Charades_v1/Charades_v1")
ABOUT = """Where Charades-STA comes from:
  moments: charades_sta_train.txt and charades_sta_test.txt of jiyanggao/TALL (Gao et al., ICCV 2017)
  videos: Charades_v1_480.zip of the Charades data set (Allen Institute for AI)"""


class CharadesSTA(Catalogue):
    """Charades-STA: one sample per line, its video cut to the moment.

    Args:
        root: folder with lists and videos; None = ``$VTP_DATA/charades_sta``, or ``data/charades_sta`` without that
            variable.
        videos: folder of the videos, absolute or relative to ``root``; None = the usual ones.
    """

    name = "charades_sta"
    kinds = ("caption", "retrieval")
    folders = ("", "annotations", "Charades_STA", "charades_sta")
    about = ABOUT
    clips = "the .mp4 files, in Charades_v1_480/"

    def __init__(self, *, root: str | Path | None = None, videos: str | Path | None = None) -> None:
        super().__init__(root)
        self._videos = videos

    def plan(self, kind: str, split: str) -> Plan | None:
        if split == "val":
            return None
        return Plan(
            ((f"charades_sta_{split}.txt", f"Charades_sta_{split}.txt"),),
            _rows,
            lambda: ClipFolders(self.root, self._videos, CLIPS, VIDEOS),
        )


def _rows(file: AnnotationFile) -> Iterator[Row]:
    ids = Ids()
    for line, text in file.lines():
        try:
            head, mark, sentence = text.partition("##")
            parts = head.split()
            if not mark or len(parts) != 3:
                raise ValueError("expected VIDEO START END##sentence")
            start, end = (float(part) for part in parts[1:])
            if not 0 <= start < end < float("inf"):
                raise ValueError(f"the moment {start:g} to {end:g} s has no length")
            video, texts = stem_of(parts[0]), file.texts(sentence, "sentence")
        except ROW_ERRORS as error:
            file.reject(f"line {line}", reason(error))
            continue
        file.rows += 1
        clip = span_name(video, start, end)
        yield Row(
            ids.unique(f"{video}_{line}", clip, line, *texts), texts, video_id=clip, video=video, start=start, end=end,
            place=line,
        )  # fmt: skip
    file.note_repeated(ids)
