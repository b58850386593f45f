"""What of the expected files is there: one finding per file, which is decoded in a process that can be killed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.data.table import evenly
from vtp.media.info import MediaError, VideoInfo
from vtp.media.isolation import MediaReader
from vtp.media.member import split_member
from vtp.media.request import Wanted
from vtp.media.source import check_source
from vtp.page import jpeg
from vtp.prepare.survey import NamedFile, Survey
from vtp.prepare.threads import results
from vtp.storage import append_line
from vtp.types import MediaRef

__all__ = ["BAD", "MISSING", "OK", "UNREAD", "Finding", "Known", "look_at"]

THUMBNAIL = 96  # short side in pixels of the frames that are decoded, and of the thumbnails
OK, MISSING, BAD, UNREAD = "ok", "missing", "bad", "not looked at"


@dataclass(slots=True)
class Finding:
    """What one file is like.

    Attributes:
        path: of the file.
        status: ``ok``, ``missing``, ``bad``, or ``not looked at``.
        kind, reason: of a bad or missing one, see :class:`vtp.media.MediaError`.
        bytes, mtime_ns: of the file when it was looked at.
        seconds, format, notes: of the whole; ``notes`` are what is unusual.
        end: second at which the picture ends, which may begin late, or the sound where there is no picture.
        video: codec, width, height (upright), fps, frames, rotation; None without pictures.
        audio: codec, sample_rate, channels, seconds; None without sound.
        silent: why there is no sound, if it was looked for.
        thumbnail: JPEG, base64; empty where none was asked for.
        settings: how it was looked at; another way is another finding.
    """

    path: str
    status: str
    kind: str = ""
    reason: str = ""
    bytes: int = 0
    mtime_ns: int = 0
    seconds: float = 0.0
    format: str = ""
    notes: list[str] = field(default_factory=list)
    video: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    silent: str = ""
    thumbnail: str = ""
    settings: str = ""
    end: float = 0.0


class Known:
    """Findings of earlier calls, one JSON line each; a file that has changed since is looked at again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, Finding] = {}
        names = set(Finding.__dataclass_fields__)
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            lines = []
        for line in lines:
            try:
                record = json.loads(line)
                finding = Finding(**{key: value for key, value in record.items() if key in names})
            except (ValueError, TypeError):
                continue  # half a line of a process that was killed
            self._found[finding.path] = finding

    def get(self, path: str, stamp: tuple[int, int, str], thumbnail: bool) -> Finding | None:
        """The finding of this file as it is now (bytes, mtime_ns) and looked at this way (settings), or None."""
        found = self._found.get(path)
        if found is None or (found.bytes, found.mtime_ns, found.settings) != stamp:
            return None
        return None if thumbnail and found.status == OK and found.video and not found.thumbnail else found

    def add(self, finding: Finding) -> None:
        """Keep a finding, on the disk at once."""
        append_line(self.path, json.dumps(asdict(finding)))  # ASCII: names may hold bytes that are no UTF-8


def look_at(
    survey: Survey,
    *,
    reader: Callable[[], MediaReader],
    settings: str,
    workers: int,
    frames: int,
    decode: bool = True,
    limit: int | None = None,
    thumbnails: int = 200,
    known: Known | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Finding]:
    """Look at the files of a survey.

    Args:
        reader: makes one; each worker has its own, whose decoder process can be killed.
        settings: of the readers, in words; findings are kept for these.
        workers: files at a time.
        frames: decoded per file, spread over it; the whole sound track is decoded too.
        decode: False only asks the file system.
        limit: decode at most so many files, spread over the list.
        thumbnails: at most so many, spread over the files.
        known: findings that are reused and added to.
        progress: is told how many of how many files are done.

    Returns:
        path -> finding, in the order of the survey.
    """
    found = {path: _ask_the_file_system(path) for path in survey.files}
    if not decode:
        return found
    chosen = _spread([path for path, one in found.items() if one.status == UNREAD], limit)
    shown = set(_spread(chosen, thumbnails))
    if known is not None:
        stamps = {path: (found[path].bytes, found[path].mtime_ns, settings) for path in chosen}
        found |= {path: again for path in chosen if (again := known.get(path, stamps[path], path in shown)) is not None}
    todo = [path for path in chosen if found[path].status == UNREAD]
    done = len(chosen) - len(todo)
    progress(done, len(chosen))

    def examine(reader: MediaReader, path: str) -> Finding:
        return _examine(reader, found[path], frames, path in shown, settings)

    with results(examine, todo, reader, workers) as findings:
        for finding in findings:
            found[finding.path] = finding
            if known is not None:
                known.add(finding)
            done += 1
            progress(done, len(chosen))
    for path in chosen:
        _judge(found[path], survey.files[path])
    return found


def _spread(items: Sequence[str], count: int | None) -> Sequence[str]:
    return items if count is None else evenly(items, count)


def _ask_the_file_system(path: str) -> Finding:
    member = split_member(path)
    place = path if member is None else member.tar
    try:
        check_source(place)
        status = os.stat(place)
    except MediaError as error:
        return Finding(path, MISSING if error.kind == "missing" else BAD, error.kind, error.reason)
    except OSError as error:
        return Finding(path, BAD, "decode", str(error.strerror))
    return Finding(path, UNREAD, bytes=status.st_size if member is None else member.size, mtime_ns=status.st_mtime_ns)


def _examine(reader: MediaReader, before: Finding, frames: int, thumbnail: bool, settings: str) -> Finding:
    """Probe and decode one file. A failure of any kind is a finding."""
    finding = Finding(before.path, OK, bytes=before.bytes, mtime_ns=before.mtime_ns, settings=settings)
    ref = MediaRef(before.path)

    def spread(info: VideoInfo) -> npt.NDArray[Any]:
        return np.unique(np.linspace(0, info.count - 1, max(frames, 1)).round().astype(np.int64))

    try:
        info = reader.probe(ref)
        finding.format, finding.seconds, finding.notes = info.format, round(float(info.seconds), 3), list(info.notes)
        finding.end = round(float(info.seconds if info.video is None else info.video.end), 3)
        if info.video is not None:
            finding.video = _video_facts(info)
        if info.audio is not None:
            finding.audio = {
                "codec": info.audio.codec,
                "sample_rate": info.audio.sample_rate,
                "channels": info.audio.channels,
                "seconds": round(float(info.audio.seconds), 3),
            }
        else:
            finding.silent = "no audio stream"
        rate = None if info.audio is None else 16000
        clip = reader.read(ref, Wanted(spread, THUMBNAIL, rate, video=info.video is not None))
    except MediaError as error:
        finding.status, finding.kind, finding.reason = BAD, error.kind, error.reason
        return finding
    if finding.video is not None and clip.frames is None:
        finding.status, finding.kind = BAD, "no_video"
        finding.reason = clip.missing.get("video", "no frame could be decoded")
    if finding.audio is not None and clip.waveform is None:
        finding.audio, finding.silent = None, clip.missing.get("audio", "the sound cannot be decoded")
    if thumbnail and clip.frames is not None and len(clip.frames):
        finding.thumbnail = jpeg(clip.frames[len(clip.frames) // 2], 2 * THUMBNAIL)
    return finding


def _video_facts(info: Any) -> dict[str, Any]:
    video = info.video
    width, height = (video.height, video.width) if info.rotation % 180 else (video.width, video.height)
    return {
        "codec": video.codec,
        "width": width,
        "height": height,
        "fps": round(float(video.fps), 3),
        "frames": video.count,
        "rotation": info.rotation,
    }


def _judge(finding: Finding, wanted: NamedFile) -> None:
    """A file that decodes and still is not what its samples need."""
    if finding.status != OK:
        return
    end = finding.end or finding.seconds
    if wanted.audio and finding.audio is not None:  # the picture of a span that has sound alone is missing, not bad
        end = max(end, finding.audio["seconds"])
    if wanted.video and finding.video is None:
        finding.status, finding.kind, finding.reason = BAD, "no_video", "no video stream"
    elif wanted.audio and not wanted.video and finding.audio is None:
        finding.status, finding.kind, finding.reason = BAD, "no_audio", finding.silent or "no audio stream"
    elif wanted.last_start is not None and wanted.last_start >= end > 0:
        finding.status, finding.kind = BAD, "span"
        finding.reason = f"a span begins at {wanted.last_start:g} s, but the file ends at {end:g} s"
