"""Making the entries of a cache, one file after the other in several threads.

Originals are decoded by the isolated reader, part by part, so that an hour of video needs no more memory than a few
seconds. An entry is written beside its place, flushed, and renamed: a killed program leaves a hidden file that the next
one removes, never half a clip. What cannot be decoded is noted once, with its reason, in ``failures.jsonl``.
"""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from vtp.media.cache import CONTENT, ClipCache, Settings
from vtp.media.cache_file import CacheDamage, EntryWriter
from vtp.media.info import MediaError, VideoInfo
from vtp.media.isolation import MediaReader
from vtp.media.request import Wanted
from vtp.media.sampling import uniform
from vtp.prepare import GO_ON
from vtp.prepare.threads import results
from vtp.storage import alone, append_line, clean_leftovers, replacing
from vtp.types import Clip, MediaRef

__all__ = ["FAILURES", "Outcome", "build", "make_entry"]

FAILURES = "failures.jsonl"
_PART_BYTES = 48 << 20  # of decoded frames in memory at a time
_GOP = "8"  # frames between key frames of a transcode
# Nothing refers to three of four pictures, so the decoder skips those that are not wanted; no loop filter to run.
_X264 = {
    "g": _GOP,
    "crf": "20",
    "preset": "veryfast",
    "tune": "fastdecode",
    "x264-params": "bframes=3:b-adapt=0:b-pyramid=none:scenecut=0:ref=1",
}
_CLOCK = 90000  # ticks per second of a transcode


@dataclass
class Outcome:
    """What a call of :func:`build` did.

    Attributes:
        made, kept: clips that were written, and that were there already.
        failed: reason by path, of this and earlier calls.
        bytes: of the entries that were written, and ``source_bytes`` of their originals.
        seconds: of wall-clock time.
    """

    made: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    source_bytes: int = 0
    seconds: float = 0.0


def build(
    cache: ClipCache,
    sources: Sequence[str],
    *,
    workers: int = 2,
    timeout_s: float = 120.0,
    check: bool = False,
    retry: bool = False,
    progress: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """Bring ``cache`` up to date with ``sources``.

    Args:
        workers: files that are worked on at a time.
        timeout_s: for each part of a file; what takes longer is a failure.
        check: read every entry that is there already, and make damaged ones again.
        retry: try files again that failed before.
        progress: called after every file.

    Raises:
        ConfigError: another program is at work here.
        RunError: the disk is full; what is done stays.
    """
    outcome = Outcome()
    start = time.monotonic()
    with alone(cache.folder):
        for folder in (cache.folder / "clips").glob("*"):
            clean_leftovers(folder)
        failures = _Failures(cache.folder / FAILURES)
        stale = cache.content_hash() is None

        def work(reader: MediaReader, source: str) -> tuple[str, str | None, int]:
            try:
                if _is_there(cache, source, check):
                    return source, "kept", 0
                (cache.folder / CONTENT).unlink(missing_ok=True)
                if not retry and (reason := failures.find(source)) is not None:
                    return source, reason, -1
                return source, None, make_entry(cache, source, reader)
            except MediaError as error:
                failures.add(source, error)
                return source, error.reason, -1

        def reader() -> MediaReader:
            return MediaReader(cache.settings.backend, timeout_s=timeout_s)

        with results(work, sources, reader, workers) as verdicts:
            for source, verdict, size in verdicts:
                if verdict is None:
                    outcome.made += 1
                    outcome.bytes += size
                    outcome.source_bytes += os.stat(source).st_size
                elif size < 0:
                    outcome.failed[source] = verdict
                else:
                    outcome.kept += 1
                outcome.seconds = time.monotonic() - start
                if progress is not None:
                    progress(outcome)
        if outcome.made or outcome.failed or stale:
            cache.hash_content()
    outcome.seconds = time.monotonic() - start
    return outcome


def make_entry(cache: ClipCache, source: str, reader: MediaReader) -> int:
    """Decode ``source`` and write its entry; returns its size in bytes.

    Raises:
        MediaError: the file cannot be used.
        RunError: the disk is full.
    """
    final = cache.path(source)
    try:
        status = os.stat(source)
    except OSError as error:
        raise MediaError(f"cannot be reached: {error.strerror}", "missing") from None
    final.parent.mkdir(parents=True, exist_ok=True)
    made_from = {"path": os.path.abspath(source), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    # A reader looks for the entry, so the movie of a transcode gets its name before it.
    with replacing(final, then=GO_ON) as file, ExitStack() as before:
        movie = partial(before.enter_context, replacing(final.with_suffix(".mp4"), then=GO_ON))
        writer, info, places, record = _write(file, movie, source, reader, cache.settings)
        writer.finish(info, places, {**record, "source": made_from})
        return file.seek(0, os.SEEK_END) + int(record.get("transcode", {}).get("bytes", 0))


def _write(
    file: BinaryIO, movie: Callable[[], BinaryIO], source: str, reader: MediaReader, settings: Settings
) -> tuple[EntryWriter, VideoInfo | None, npt.NDArray[np.int64], dict[str, Any]]:
    writer = EntryWriter(file, settings.kind)
    info, first = _look(source, reader, settings)
    record: dict[str, Any] = {"missing": first.missing, "upright": [0, 0], "reduced": False}
    places = np.zeros(0, np.int64)
    if info is not None and first.frames is not None:
        upright = first.frames.shape[1:3]
        record["upright"] = [int(side) for side in upright]
        places = _places(info, settings)
        size: int | tuple[int, int] = settings.size
        if settings.kind == "transcode":
            record["reduced"] = min(upright) > settings.size
            size = _even(upright, settings.size)
        parts = _parts(source, reader, info, places, size, record)
        if settings.kind == "transcode":
            record["transcode"] = _transcode(movie(), parts, info, writer)
        else:
            for frames in parts:
                writer.add_frames(frames)
    if first.waveform is not None:
        writer.add_sound(first.waveform[0], settings.audio, first.sound_start)
    return writer, info, places, record


def _look(source: str, reader: MediaReader, settings: Settings) -> tuple[VideoInfo | None, Clip]:
    """The timeline, the first frame as it is stored, and all of the sound."""
    seen: list[VideoInfo] = []

    def times(info: VideoInfo) -> npt.NDArray[np.int64]:
        seen.append(info)
        return np.zeros(1, np.int64)

    clip = reader.read(MediaRef(source), Wanted(times, sample_rate=settings.audio or None))
    return (seen[-1] if clip.frames is not None else None), clip


def _places(info: VideoInfo, settings: Settings) -> npt.NDArray[np.int64]:
    """The frames that are kept: with ``frames`` those that uniform sampling chooses."""
    if settings.frames:
        return np.unique(info.positions(uniform(info, frames=settings.frames)))
    return np.arange(0, info.count, settings.every)


def _even(upright: tuple[int, ...], size: int) -> tuple[int, int]:
    """(height, width) of a transcode: the short side at most ``size``, both even, as halved colour planes need."""
    share = min(1.0, size / min(upright))
    height, width = (max(2, round(side * share / 2) * 2) for side in upright)
    return height, width


def _parts(
    source: str,
    reader: MediaReader,
    info: VideoInfo,
    places: npt.NDArray[np.int64],
    size: int | tuple[int, int],
    record: dict[str, Any],
) -> Iterator[npt.NDArray[np.uint8]]:
    """Decoded frames at ``places``, a part at a time."""
    height, width = record["upright"]
    large = max(height, width) * min(height, width) if isinstance(size, int) else size[0] * size[1]
    if isinstance(size, int):
        large = round(large * (size / min(height, width)) ** 2)
    step = max(1, _PART_BYTES // max(1, 3 * large))
    for begin in range(0, len(places), step):
        wanted = places[begin : begin + step]

        def times(now: VideoInfo, wanted: npt.NDArray[np.int64] = wanted) -> npt.NDArray[np.int64]:
            if now.count < info.count and now.count <= int(wanted[-1]):
                raise MediaError("gives other frames each time it is decoded")
            return wanted

        frames = reader.read(MediaRef(source), Wanted(times, size)).frames
        assert frames is not None
        yield frames


def _transcode(
    movie: BinaryIO, parts: Iterator[npt.NDArray[np.uint8]], info: VideoInfo, writer: EntryWriter
) -> dict[str, Any]:
    """Encode frames as H.264 in MP4 with a key frame every eight pictures. The sound is not in it but in the entry."""
    import av

    count, tick = 0, -1
    with av.open(movie, "w", format="mp4") as container:
        stream: Any = None
        for frames in parts:
            writer.add_frames(frames)
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(info.fps or 25).limit_denominator(1001))
                stream.options = dict(_X264)
                stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
                stream.codec_context.time_base = Fraction(1, _CLOCK)
                stream.codec_context.thread_count = 1
            for picture in frames:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                tick = max(tick + 1, round((info.timestamps[count] - info.start) * _CLOCK))
                frame.pts, frame.time_base = tick, Fraction(1, _CLOCK)
                container.mux(stream.encode(frame))
                count += 1
        container.mux(stream.encode(None))
    movie.seek(0)
    data = movie.read()
    return {"bytes": len(data), "crc32": zlib.crc32(data)}


def _is_there(cache: ClipCache, source: str, check: bool) -> bool:
    try:
        entry, _ = cache.find(source)
        if entry is None:
            return False
        if entry.kind == "transcode" and entry.info is not None:
            movie = Path(entry.path).with_suffix(".mp4")
            facts = entry.record["transcode"]
            if not movie.exists() or movie.stat().st_size != facts["bytes"]:
                return False
            if check and zlib.crc32(movie.read_bytes()) != facts["crc32"]:
                return False
        if check:
            entry.check()
    except CacheDamage:
        return False
    return True


class _Failures:
    """``failures.jsonl``: one line per file that could not be decoded, valid as long as the file stays as it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[tuple[Any, ...], str] = {}
        self._lock = threading.Lock()
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self._known[entry["path"], entry["bytes"], entry["mtime_ns"]] = entry["reason"]
                except (ValueError, KeyError, TypeError):
                    continue  # the torn line of a process that was killed while it wrote

    def find(self, source: str) -> str | None:
        """Why ``source`` as it now is failed before; None if it did not."""
        return self._known.get(self._key(source))

    def add(self, source: str, error: MediaError) -> None:
        key = self._key(source)
        with self._lock:
            if key not in self._known:
                names = ("path", "bytes", "mtime_ns")
                entry = {**dict(zip(names, key, strict=True)), "reason": error.reason, "kind": error.kind}
                append_line(self.path, json.dumps(entry))  # ASCII: names may hold bytes that are no UTF-8
            self._known[key] = error.reason

    @staticmethod
    def _key(source: str) -> tuple[Any, ...]:
        try:
            status = os.stat(source)
        except OSError:
            return os.path.abspath(source), -1, -1
        return os.path.abspath(source), status.st_size, status.st_mtime_ns
