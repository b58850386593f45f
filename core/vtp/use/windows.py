"""Cutting files into windows of time, each of which gets an embedding of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from vtp.errors import ConfigError
from vtp.media.info import MediaInfo
from vtp.media.member import split_member
from vtp.spans import span_name
from vtp.types import MediaRef, Modality, Sample

__all__ = ["Source", "Window", "sources", "spans", "windows"]

_SLIVER = 0.5  # seconds: what is left at the end and shorter than this is no window of its own


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a span of it, that is to be embedded.

    Attributes:
        key: its path, with the span: what is done is remembered by it.
        ref: where it lies.
        bytes, mtime_ns: of the file; -1 where it is not there. A file that has changed is embedded again.
    """

    key: str
    ref: MediaRef
    bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a source: what is read, and the seconds that are told."""

    source: Source
    modality: Modality
    ref: MediaRef
    start: float
    end: float


def sources(samples: Iterable[Sample]) -> list[Source]:
    """The files of samples by their whole paths, each once, in their order: the table may be gone on with, searched and
    served from elsewhere. Bytes in memory are left out: nobody could find them again."""
    found: dict[str, Source] = {}
    for sample in samples:
        for ref in (sample.video, sample.audio):
            if ref is None or not isinstance(ref.path, str):
                continue
            member = split_member(ref.path)
            tar = ref.path if member is None else member.tar
            ref = replace(ref, path=os.path.abspath(tar) + ref.path[len(tar) :]) if tar else ref
            key = span_name(str(ref.path), ref.start, ref.end)
            if key not in found:
                try:
                    status = os.stat(os.path.abspath(tar) if tar else tar)
                    found[key] = Source(key, ref, status.st_size, status.st_mtime_ns)
                except (OSError, ValueError):
                    found[key] = Source(key, ref, -1, -1)
    return list(found.values())


def spans(begin: float, end: float, window: float, stride: float) -> Iterator[tuple[float, float]]:
    """Windows of ``window`` seconds, ``stride`` apart, from ``begin`` on, until nothing of [begin, end) is left over.
    The last one is shorter; one of less than half a second is left out, unless it is the only one. 0 is one window."""
    if not window:
        yield begin, end
        return
    if stride > window:
        raise ConfigError(f"--stride {stride:g} is longer than --window {window:g}: what lies between would be lost.")
    number, covered = 0, begin
    while number == 0 or end - covered >= _SLIVER:
        start = begin + number * stride
        yield start, min(start + window, end)
        covered, number = start + window, number + 1


def windows(
    source: Source, info: MediaInfo, modalities: Sequence[Modality], window: float, stride: float
) -> Iterator[Window]:
    """The windows of a source, of those of ``modalities`` that it has.

    Args:
        info: of its file.
        window, stride: seconds; a window of 0 is the whole file.
    """
    ends = {"video": 0.0 if info.video is None else info.video.end, "audio": info.audio.seconds if info.audio else 0.0}
    streams = {"video": info.video, "audio": info.audio}
    for modality in modalities:
        if streams[modality] is None:
            continue
        begin, end = source.ref.start or 0.0, ends[modality] or info.seconds
        end = end if source.ref.end is None else min(end, source.ref.end)
        # A damaged file may claim to last for days: no more windows than it can fill, else it is one.
        most = info.video.count if modality == "video" and info.video is not None else 10 + source.bytes // 20
        cuts = list(islice(spans(begin, max(begin, end), window, stride), max(1, most) + 1))
        if len(cuts) > max(1, most):
            cuts = [(begin, max(begin, end))]
        for first, last in cuts:
            ref = source.ref if len(cuts) == 1 else MediaRef(source.ref.path, first, last)
            yield Window(source, modality, ref, first, last)
