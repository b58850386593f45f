"""Speech with times: HowTo100M and CNVid-3.5M. Every segment of a video is a sample with its span.

HowTo100M   a folder with ``<video id>.csv`` per video: start,end,text or end,start,text; or ``caption.json``
            (``raw_caption.json``): {"<video id>": {"start": [...], "end": [...], "text": [...]}}. For testing
            YouCook2's 3,350 segments: ``validation_youcook.csv`` with columns end,start,task,text,video_id
CNVid       ``caption.json`` of the same form, in Chinese
Clips       ``<video id>.mp4`` or another extension, in one folder, or in folders named by the first characters
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from vtp.catalogue import ROW_ERRORS, AnnotationFile, Catalogue, Layouts, Plan, Row, Seen, given_or, reason, text_of
from vtp.errors import ConfigError
from vtp.ranges import Natural, Range
from vtp.spans import span_name

__all__ = ["CNVid", "HowTo100M"]

PATTERNS = ("{name}.mp4", "{name}.webm", "{name}.mkv", "{first}/{name}.mp4", "{two}/{name}.mp4", "{name}/{name}.mp4")
CAPTION_FOLDERS = ("captions", "small_train_captions", "howto100m_captions", "annotations/howto100m", "howto100m",
                   "annotations", "")  # fmt: skip
JSON = ("caption.json", "captions.json", "raw_caption.json")
TEST = ("validation_youcook.csv", "youcook2_val.csv")
Span = tuple[int, float, float, str]  # number, start and end in seconds, text
NOT_VIDEOS = ("validation_", "small_", "msrvtt_", "lsmdc", "howto100m_videos", "task_ids", "HowTo100M_")


@dataclass(frozen=True)
class Least:
    """How long a segment must be.

    Attributes:
        seconds, characters: of its span and its text.
        between: what joins the texts of neighbours; None = it grows in time alone.
    """

    seconds: float = 0.0
    characters: int = 0
    between: str | None = None


class _Speech(Catalogue):
    """Videos with timed speech: one segment each, ``extra["video_id"]`` names video and span.

    Args:
        root: folder with speech and videos; None = ``$VTP_DATA/<name>``, or ``data/<name>`` without that variable.
        captions: the json file, absolute or relative to ``root``; None = ``caption.json``.
        videos: folder of the videos, absolute or relative to ``root``; None = the usual ones.
        min_seconds: segments shorter than this grow; 0 = none do.
        min_characters: so do those with a shorter text; needs ``grow=neighbours``.
        grow: ``time`` takes in time on both sides, to min_seconds exactly; ``neighbours`` takes in the segment before
            or behind with its text, whichever gives the shorter span, until it is long enough or the whole video.
    """

    kinds = ("caption", "retrieval")
    folders = ("", "annotations", "captions", "howto100m", "annotations/howto100m")
    clips = "<video id>.mp4 ..."
    between = " "  # what joins the texts of neighbours

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        captions: str | Path | None = None,
        videos: str | Path | None = None,
        min_seconds: Annotated[float, Range(least=0)] = 0.0,
        min_characters: Natural = 0,
        grow: Literal["time", "neighbours"] = "time",
    ) -> None:
        if min_seconds < 0:
            raise ConfigError(f"dataset.min_seconds={min_seconds} must not be negative; 0 leaves segments as they are.")
        if min_characters and grow != "neighbours":
            raise ConfigError(
                f"dataset.min_characters={min_characters}: texts grow by those of their neighbours alone. Set "
                "dataset.grow=neighbours, or min_characters=0."
            )
        own = {} if grow == "time" else {"min_characters": min_characters, "grow": grow}
        super().__init__(root, min_seconds=min_seconds, **own)
        self.min_seconds = min_seconds
        self._least = Least(min_seconds, min_characters, None if grow == "time" else self.between)
        self._captions = captions
        self._videos = videos

    def plan(self, kind: str, split: str) -> Plan | None:
        if split != "train":
            return None
        rows = partial(_json, least=self._least)
        return Plan((given_or(self._captions, JSON),), rows, self._media, options=self._options(split))

    def _options(self, split: str) -> dict[str, Any]:
        grown = {} if self._least.between is None else {"neighbours": asdict(self._least)}
        return {"split": split, "min_seconds": self.min_seconds} | grown

    def _media(self) -> Layouts:
        names = ("videos", "videos/all", "") if self._videos is None else (self._videos,)
        return Layouts((self.root / name for name in names), PATTERNS)


class CNVid(_Speech):
    """CNVid-3.5M: Chinese videos with timed speech, for training."""

    name = "cnvid"
    between = ""
    about = """Where CNVid-3.5M comes from:
  speech: caption.json of the release (Gan et al., CVPR 2023): {video: {"text": [...], "start": [...], "end": [...]}}
  clips: the videos that the release lists"""


class HowTo100M(_Speech):
    """Narrated instructional videos. ``captions`` may also be a folder with one csv per video; None = a
    ``caption.json``, or the usual folders. The test split is YouCook2's."""

    name = "howto100m"
    about = """Where HowTo100M comes from:
  speech: caption.json or raw_caption.json of the release (Miech et al., ICCV 2019), or one csv per video as MIL-NCE has
  test: validation_youcook.csv, YouCook2's validation segments in the same form
  clips: YouTube videos; many are gone from their site, and what is missing is replaced in training and counted"""

    def plan(self, kind: str, split: str) -> Plan | None:
        if split == "test":
            return Plan((TEST,), _one_csv, self._media, options=self._options(split))
        if split == "train" and (folder := self._folder()) is not None:
            rows = partial(_many_csv, least=self._least)
            return Plan((), rows, self._media, options=self._options(split), sources=(folder,))
        return super().plan(kind, split)

    def _folder(self) -> Path | None:
        """The folder with a csv per video; None where a json file is given or found."""
        if self._captions is None:
            if self.find(*JSON) is not None:
                return None
            names: Iterable[str | Path] = CAPTION_FOLDERS
        else:
            names = (Path(self._captions).expanduser(),)
        return next((self.root / name for name in names if next(_video_files(self.root / name), None)), None)


def _video_files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The csv files of a folder that are named after a video."""
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".csv") and not entry.name.startswith(NOT_VIDEOS):
                    yield entry


def _many_csv(folder: AnnotationFile, *, least: Least) -> Iterator[Row]:
    """Segments of a folder with a csv per video; ``folder`` collects what is told of all of them."""
    names = sorted(entry.name for entry in _video_files(folder.path))
    for name in names:
        file = AnnotationFile(folder.path / name)
        cells = ((line, row) for line, row in file.csv(lambda cells: "text" in cells))
        yield from _segments(file, name.removesuffix(".csv"), cells, least)
        folder.rows += file.rows
        for bad in file.malformed:
            folder.reject(f"{name}, {bad.partition(': ')[0]}", bad.partition(": ")[2])
        folder.malformed_count += file.malformed_count - len(file.malformed)
    folder.notes["files"] = len(names)


def _one_csv(file: AnnotationFile) -> Iterator[Row]:
    for line, row in file.csv(lambda cells: "text" in cells):
        yield from _segments(file, row.get("video_id", "").strip(), [(line, row)], Least(), name=str(line))


def _json(file: AnnotationFile, *, least: Least) -> Iterator[Row]:
    seen = Seen()
    for _, video, value in file.items():
        try:
            if not seen.add(str(video)):
                raise ValueError("the video is there already")
            columns = [value[key] for key in ("start", "end", "text")]
            if len({len(column) for column in columns}) != 1:
                raise ValueError(f"{' and '.join(str(len(c)) for c in columns)} starts, ends and texts")
        except ROW_ERRORS as error:
            file.reject(f"video {video}", reason(error))
            continue
        rows = (dict(zip(("start", "end", "text"), cells, strict=True)) for cells in zip(*columns, strict=True))
        yield from _segments(file, str(video), enumerate(rows), least)


def _segments(
    file: AnnotationFile, video: str, rows: Iterable[tuple[int, Any]], least: Least, name: str = ""
) -> Iterator[Row]:
    found = _spans(file, video, rows)
    for number, start, end, text in found if least.between is None else _with_neighbours(list(found), least):
        if least.between is None and end - start < least.seconds:
            middle = (start + end) / 2
            start = max(0.0, middle - least.seconds / 2)
            end = max(least.seconds, middle + least.seconds / 2)
        file.rows += 1
        yield Row(
            name or f"{video}#{number}",
            [text],
            video_id=span_name(video, start, end),
            video=video,
            start=start,
            end=end,
            place=f"{video}:{number}" if not name else number,
        )


def _spans(file: AnnotationFile, video: str, rows: Iterable[tuple[int, Any]]) -> Iterator[Span]:
    """Number, start, end and text of the segments that make sense."""
    for number, row in rows:
        try:
            start, end, text = float(row["start"]), float(row["end"]), text_of(row, "text")
            if not video:
                raise ValueError("no video_id")
            if not 0 <= start < end < float("inf"):
                raise ValueError(f"{start:g} to {end:g} s is no span with a start before its end")
        except ROW_ERRORS as error:
            file.reject(f"line {number}" if file.path.suffix == ".csv" else f"video {video}, {number}", reason(error))
            continue
        yield number, start, end, text


def _with_neighbours(spans: Sequence[Span], least: Least) -> Iterator[Span]:
    """Each segment, and of those before and behind it as many as it takes."""
    order = sorted(range(len(spans)), key=lambda i: spans[i][1:3])
    place = {i: at for at, i in enumerate(order)}
    for i, (number, start, end, text) in enumerate(spans):
        first = last = place[i]
        texts = [text]
        while end - start < least.seconds or len((least.between or "").join(texts)) < least.characters:
            before = spans[order[first - 1]] if first else None
            behind = spans[order[last + 1]] if last + 1 < len(order) else None
            if before and (not behind or end - before[1] <= max(end, behind[2]) - start):
                first, start, texts = first - 1, before[1], [before[3], *texts]
            elif behind:
                last, end, texts = last + 1, max(end, behind[2]), [*texts, behind[3]]
            else:
                break
        yield number, start, end, (least.between or "").join(texts)
