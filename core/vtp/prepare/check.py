"""What of a data set is there: which files, whether they decode, and what the annotations say about them.

    survey_dataset(dataset)  -> Survey     tables, the files that they name, duplicates, overlaps of splits, protocols
    survey_folder(folder)    -> Survey     the same of a folder without annotations
    look_at(paths, ...)      -> findings   one record per file, decoded in processes that can be killed

Nothing here prints; ``vtp data check`` does.
"""

from __future__ import annotations

import base64
import io
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.contracts import Dataset, member
from vtp.data.table import evenly, media_id
from vtp.errors import DataError
from vtp.eval.protocol import Match, Protocol, protocol_files
from vtp.media import request
from vtp.media.extensions import MEDIA
from vtp.media.info import MediaError, VideoInfo
from vtp.media.member import split_member
from vtp.prepare.target import tables_of
from vtp.types import MediaRef, Sample

__all__ = [
    "Finding",
    "Known",
    "Overlap",
    "Survey",
    "TableFacts",
    "Wanted",
    "file_facts",
    "look_at",
    "survey_dataset",
    "survey_folder",
]

THUMBNAIL = 96  # short side in pixels of the frames that are decoded, and of the thumbnails
OK, MISSING, BAD, UNREAD = "ok", "missing", "bad", "not looked at"


@dataclass(slots=True)
class Wanted:
    """A file that samples name.

    Attributes:
        tables: numbers of the tables with such samples.
        samples: how many samples.
        clip: id of the first of its clips.
        video, audio: what samples want of it.
        last_start: the latest second at which a span begins; None without spans.
    """

    clip: str
    tables: set[int] = field(default_factory=set)
    samples: int = 0
    video: bool = False
    audio: bool = False
    last_start: float | None = None


@dataclass(slots=True)
class TableFacts:
    """One table of a data set.

    Attributes:
        kind, split: which one.
        samples: rows.
        clips: distinct clips.
        duplicates: ids that occur more than once.
        protocols: what it was compared with, as :meth:`vtp.eval.protocol.Match.record`, with the line for people.
        error: why it could not be read; None if it could.
    """

    kind: str
    split: str
    samples: int = 0
    clips: int = 0
    duplicates: list[str] = field(default_factory=list)
    protocols: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.split}"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Clips that two splits share; ``within`` the same kind of table is a fault, else a thing to know."""

    one: str
    other: str
    clips: int
    first: str
    within: bool


@dataclass(slots=True)
class Survey:
    """What is expected: tables, the files that they name, and what the annotations are like."""

    name: str
    tables: list[TableFacts] = field(default_factory=list)
    files: dict[str, Wanted] = field(default_factory=dict)
    overlaps: list[Overlap] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)  # in a folder: files that are no media, by extension
    in_memory: int = 0  # media that are no files

    def gaps(self) -> list[str]:
        """What a protocol needs and the annotations do not give, in words."""
        errors: dict[str, list[str]] = {}
        for table in self.tables:
            if table.error:
                errors.setdefault(table.error, []).append(table.name)
        found = [f"{', '.join(names)}: {error}" for error, names in errors.items()]
        for table in self.tables:
            if table.protocols and not any(record["official"] for record in table.protocols):
                found += [f"{table.name}: {record['line']}" for record in table.protocols]
        return found


def survey_dataset(
    dataset: Any,
    *,
    kinds: Sequence[str] = (),
    splits: Sequence[str] = (),
    progress: Callable[[str], None] = lambda text: None,
) -> Survey:
    """Read the tables of a data set.

    Args:
        dataset: with ``samples(kind, split)``.
        kinds, splits: which ones, as for :func:`vtp.prepare.target.tables_of`, and what it raises.
        progress: is told what is read.
    """
    name = member(dataset, Dataset, "name")
    protocols = [Protocol.load(path) for _, path in protocol_files().values()]
    survey = Survey(name)
    clips: list[set[str]] = []
    for kind, split in tables_of(dataset, kinds, splits):
        facts = TableFacts(kind, split)
        progress(facts.name)
        try:
            table = dataset.samples(kind, split)
        except DataError as error:
            facts.error = str(error)
            table = ()
        if not len(table) and facts.error is None:
            continue  # there is no such split
        clips.append(_read(survey, facts, table))
        facts.protocols = _compare(protocols, name, kind, split, table)
        survey.tables.append(facts)
    survey.overlaps = list(_overlaps(survey.tables, clips))
    survey.annotations = list(member(dataset, Dataset, "origin")().get("files", ()))
    return survey


def survey_folder(folder: Path) -> Survey:
    """All media below a folder, found by their extensions; links to folders are not followed."""
    survey = Survey(str(folder))
    others: Counter[str] = Counter()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            extension = os.path.splitext(name)[1].lower()
            if extension in MEDIA:
                path = os.path.join(parent, name)
                survey.files[path] = Wanted(os.path.relpath(path, folder), samples=1)
            else:
                others[extension or "without extension"] += 1
    survey.others = dict(others.most_common())
    return survey


def _read(survey: Survey, facts: TableFacts, table: Sequence[Sample]) -> set[str]:
    """Take the rows of one table into the survey; returns its clips."""
    ids: set[str] = set()
    twice: dict[str, None] = {}
    clips: set[str] = set()
    number = len(survey.tables)
    for row in range(len(table)):
        sample = table[row]
        if sample.id in ids:
            twice[sample.id] = None
        ids.add(sample.id)
        clip = media_id(sample)
        clips.add(clip)
        for modality, ref in (("video", sample.video), ("audio", sample.audio)):
            if ref is not None:
                _want(survey, ref, clip, number, modality, once=modality == "audio" and ref == sample.video)
    facts.samples, facts.clips, facts.duplicates = len(table), len(clips), list(twice)
    return clips


def _want(survey: Survey, ref: MediaRef, clip: str, table: int, modality: str, *, once: bool) -> None:
    if isinstance(ref.path, bytes):
        survey.in_memory += not once
        return
    wanted = survey.files.setdefault(ref.path, Wanted(clip))
    wanted.tables.add(table)
    wanted.samples += not once
    wanted.video |= modality == "video"
    wanted.audio |= modality == "audio"
    if ref.start is not None:
        wanted.last_start = max(ref.start, wanted.last_start or 0.0)


def _compare(
    protocols: Iterable[Protocol], dataset: str, kind: str, split: str, table: Sequence[Sample]
) -> list[dict[str, Any]]:
    """The official protocol that the table is; else all those that it could be, with what differs."""
    places = [p for p in protocols if (p.dataset, p.kind, p.split) == (dataset, kind, split)]
    if not places or not len(table):
        return []
    samples = list(table)
    matches: list[Match] = [protocol.match(samples, dataset, split) for protocol in places]
    official = [match for match in matches if match.official]
    return [match.record() | {"line": match.line()} for match in official or matches]


def _overlaps(tables: Sequence[TableFacts], clips: Sequence[set[str]]) -> Iterator[Overlap]:
    for i, one in enumerate(tables):
        for j in range(i + 1, len(tables)):
            other = tables[j]
            shared = clips[i] & clips[j] if one.split != other.split else set()
            if shared:
                yield Overlap(one.name, other.name, len(shared), min(shared), one.kind == other.kind)


# -- files -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Finding:
    """What one file is like.

    Attributes:
        path: of the file.
        status: ``ok``, ``missing``, ``bad``, or ``not looked at``.
        kind, reason: of a bad or missing one, see :class:`vtp.media.MediaError`.
        bytes, mtime_ns: of the file when it was looked at.
        seconds, format, notes: of the whole; ``notes`` are what is unusual.
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


class Known:
    """Findings of earlier calls, one JSON line each; a file that has changed since is looked at again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
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
        line = json.dumps(asdict(finding)) + "\n"  # ASCII: names may hold bytes that are no UTF-8
        with self._lock, open(self.path, "a+b") as file:
            if file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                file.write(b"\n")
            file.write(line.encode())


def look_at(
    survey: Survey,
    *,
    reader: Callable[[], Any],
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
        reader: makes a :class:`vtp.media.MediaReader`; each worker has its own, whose decoder process can be killed.
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
    paths = list(survey.files)
    found = {path: _ask_the_file_system(path) for path in paths}
    present = [path for path in paths if found[path].status == UNREAD]
    if not decode:
        return found
    chosen = _spread(present, limit)
    shown = set(_spread(chosen, thumbnails))
    todo = []
    for path in chosen:
        finding = found[path]
        stamp = finding.bytes, finding.mtime_ns, settings
        again = known.get(path, stamp, path in shown) if known is not None else None
        if again is None:
            todo.append(path)
        else:
            found[path] = again
    done = len(chosen) - len(todo)
    progress(done, len(chosen))
    own = threading.local()
    readers: list[Any] = []

    def examine(path: str) -> Finding:
        if not hasattr(own, "reader"):
            own.reader = reader()
            readers.append(own.reader)
        return _examine(own.reader, found[path], frames, path in shown, settings)

    pool = ThreadPoolExecutor(max_workers=max(1, workers))  # decoding happens in the readers' own processes
    try:
        for future in as_completed([pool.submit(examine, path) for path in todo]):
            finding = future.result()
            found[finding.path] = finding
            if known is not None:
                known.add(finding)
            done += 1
            progress(done, len(chosen))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for one in readers:
            one.close()
    for path in chosen:
        _judge(found[path], survey.files[path])
    return found


def _spread(items: Sequence[str], count: int | None) -> Sequence[str]:
    return items if count is None else evenly(items, count)


def _ask_the_file_system(path: str) -> Finding:
    from vtp.media.source import check_source

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


def _examine(reader: Any, before: Finding, frames: int, thumbnail: bool, settings: str) -> Finding:
    """Probe and decode one file. A failure of any kind is a finding."""
    finding = Finding(before.path, OK, bytes=before.bytes, mtime_ns=before.mtime_ns, settings=settings)
    ref = MediaRef(before.path)

    def spread(info: VideoInfo) -> npt.NDArray[Any]:
        return np.unique(np.linspace(0, info.count - 1, max(frames, 1)).round().astype(np.int64))

    try:
        info = reader.probe(ref)
        finding.format, finding.seconds, finding.notes = info.format, round(float(info.seconds), 3), list(info.notes)
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
        clip = reader.read(ref, request.Wanted(spread, THUMBNAIL, rate, video=info.video is not None))
    except MediaError as error:
        finding.status, finding.kind, finding.reason = BAD, error.kind, error.reason
        return finding
    if finding.video is not None and clip.frames is None:
        finding.status, finding.kind = BAD, "no_video"
        finding.reason = clip.missing.get("video", "no frame could be decoded")
    if finding.audio is not None and clip.waveform is None:
        finding.audio, finding.silent = None, clip.missing.get("audio", "the sound cannot be decoded")
    if thumbnail and clip.frames is not None and len(clip.frames):
        finding.thumbnail = _jpeg(clip.frames[len(clip.frames) // 2])
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


def _judge(finding: Finding, wanted: Wanted) -> None:
    """A file that decodes and still is not what its samples need."""
    if finding.status != OK:
        return
    if wanted.video and finding.video is None:
        finding.status, finding.kind, finding.reason = BAD, "no_video", "no video stream"
    elif wanted.audio and not wanted.video and finding.audio is None:
        finding.status, finding.kind, finding.reason = BAD, "no_audio", finding.silent or "no audio stream"
    elif wanted.last_start is not None and wanted.last_start >= finding.seconds > 0:
        finding.status, finding.kind = BAD, "span"
        finding.reason = f"a span begins at {wanted.last_start:g} s, but the file ends at {finding.seconds:g} s"


def _jpeg(frame: npt.NDArray[np.uint8]) -> str:
    """A frame (H, W, 3) as base64 JPEG, at most twice as long as wide."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(frame))
    image.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return base64.b64encode(buffer.getvalue()).decode()


def file_facts(survey: Survey, found: Mapping[str, Finding], tables: set[int] | None = None) -> dict[str, int]:
    """How many files of some tables (None = all) are there, missing, undecodable, silent."""
    chosen = [f for path, f in found.items() if tables is None or survey.files[path].tables & tables]
    counts = Counter(finding.status for finding in chosen)
    sound = sum(finding.status == OK and finding.audio is not None for finding in chosen)
    return {
        "files": len(chosen),
        "there": len(chosen) - counts[MISSING],
        "missing": counts[MISSING],
        "decodable": counts[OK],
        "undecodable": counts[BAD],
        "not_looked_at": counts[UNREAD],
        "with_sound": sound,
        "without_sound": counts[OK] - sound,
    }
