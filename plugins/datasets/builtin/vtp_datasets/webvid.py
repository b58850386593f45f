"""WebVid: 2.5 or 10 million stock videos with one caption each, from the results csv.

Captions   ``results_2M_train.csv`` and ``results_2M_val.csv`` (10M), with columns videoid,name,page_idx,page_dir,
           duration,contentUrl in any order; ``duration`` is ISO 8601: PT00H00M17S
Clips      ``videos/<page_dir>/<videoid>.mp4``, as the authors' downloader lays them; ``<videoid less its last four
           characters>/<videoid>.mp4``, as SimVTP has them; or all in one folder. Under ``videos/``, with or without a
           folder ``train`` or ``val``, or under ``root`` itself
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from vtp.catalogue import ROW_ERRORS, AnnotationFile, Catalogue, Layouts, Plan, Row, Seen, check_choice, reason, text_of

__all__ = ["WebVid", "iso_seconds"]

PATTERNS = ("{name}.mp4", "{short}/{stem}.mp4", "{stem}.mp4")
ABOUT = """Where WebVid comes from:
  captions: results_2M_train.csv and results_2M_val.csv (or 10M) of the release (Bain et al., "Frozen in Time", ICCV \
2021), which was withdrawn in February 2024
  clips: what was downloaded while it could be; what is missing is replaced in training and counted"""
_DURATION = re.compile(r"P(?:(\d+)D)?T?(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?", re.IGNORECASE)


@lru_cache(maxsize=4096)  # clips last a few lengths
def iso_seconds(text: str) -> float:
    """``PT00H01M17S`` -> 77.0.

    Raises:
        ValueError: it is no ISO 8601 duration of days, hours, minutes and seconds.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is no duration like PT00H00M17S")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 86_400 * days + 3600 * hours + 60 * minutes + seconds


class WebVid(Catalogue):
    """WebVid for pre-training: one clip and its caption each. There is no test split.

    Args:
        root: folder with the csv files and the clips; None = ``$VTP_DATA/webvid``, or ``data/webvid`` without that
            variable.
        videos: folder of the clips, absolute or relative to ``root``; None = the usual ones.
        size: ``2M`` or ``10M``, which csv files are read.
    """

    name = "webvid"
    kinds = ("caption", "retrieval")
    folders = ("", "annotations", "metadata", "webvid")
    about = ABOUT
    clips = "videos/<page_dir>/<videoid>.mp4 ..."

    def __init__(
        self, *, root: str | Path | None = None, videos: str | Path | None = None, size: Literal["2M", "10M"] = "2M"
    ) -> None:
        check_choice("size", size, ("2M", "10M"))
        super().__init__(root, size=size)
        self.size = size
        self._videos = videos

    def plan(self, kind: str, split: str) -> Plan | None:
        if split == "test":
            return None
        names = (f"results_{self.size}_{split}.csv", f"webvid_{self.size}_{split}.csv", f"{split}.csv")
        return Plan((names,), _rows, partial(self._media, split), options={"split": split})

    def _media(self, split: str) -> Layouts:
        bases = [self.root / self._videos] if self._videos is not None else [self.root / "videos", self.root]
        return Layouts([folder for base in bases for folder in (base, base / split)], PATTERNS)


def _rows(file: AnnotationFile) -> Iterator[Row]:
    seen = Seen()
    without_duration = 0
    for line, row in file.csv(lambda cells: "videoid" in cells):
        try:
            clip, caption = text_of(row, "videoid"), text_of(row, "name")
            if not seen.add(clip):
                raise ValueError(f"the clip {clip} is there already")
        except ROW_ERRORS as error:
            file.reject(f"line {line}", reason(error))
            continue
        try:
            duration = iso_seconds(row["duration"])
        except (KeyError, ValueError):  # nothing depends on it
            duration = None
            without_duration += 1
        file.rows += 1
        page = row.get("page_dir", "").strip()
        yield Row(clip, [caption], video=f"{page}/{clip}" if page else clip, place=line, duration=duration)
    if without_duration:
        file.notes["rows_without_a_duration"] = without_duration
