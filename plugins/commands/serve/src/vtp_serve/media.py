"""The bytes of indexed files, whole or a range of them, and pictures of windows."""

from __future__ import annotations

import base64
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vtp.media.extensions import IMAGES, SOUNDS
from vtp.media.info import MediaError, VideoInfo
from vtp.media.member import split_member
from vtp.media.request import Wanted
from vtp.page import jpeg
from vtp.types import MediaRef

__all__ = ["Bytes", "Pictures", "Unsatisfiable", "is_as_embedded", "media_type", "span_of"]

# Endings whose type is not `video/ending` and so on, or that browsers know by another one.
_TYPES = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".mkv": "video/webm", ".webm": "video/webm",
    ".ogv": "video/ogg", ".avi": "video/x-msvideo", ".mpg": "video/mpeg", ".mpeg": "video/mpeg", ".gif": "image/gif",
    ".wav": "audio/wav", ".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".flac": "audio/flac", ".ogg": "audio/ogg",
    ".opus": "audio/ogg", ".aac": "audio/aac", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png",
    ".bmp": "image/bmp", ".webp": "image/webp", ".avif": "image/avif",
}  # fmt: skip
_PIECE = 1 << 18  # bytes that are read at once
_KEPT = 1024  # pictures that are remembered, of a few kB each
_PIXELS = 320  # longer side of a picture


class Unsatisfiable(ValueError):
    """A range that begins behind the end."""


def media_type(path: str) -> str:
    """What a browser is told a file is. Never a type that it would run."""
    return _TYPES.get(_ending(path), "application/octet-stream")


def tag(path: str) -> str:
    """The element that shows a file: ``video``, ``audio`` or ``img``."""
    ending = _ending(path)
    if ending in IMAGES or ending == ".gif":
        return "img"
    return "audio" if ending in SOUNDS else "video"


def _ending(path: str) -> str:
    return Path(path).suffix.lower()


def span_of(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes [first, last] that a ``Range`` asks for; None = all of them: also where it asks for several ranges or
    cannot be understood, as RFC 9110 (14.2) allows.

    Raises:
        Unsatisfiable: it begins behind the end.
    """
    match = re.fullmatch(r"\s*bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", header or "", re.ASCII | re.IGNORECASE)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last so many bytes
        count = int(match[2])
        if not count or not size:
            raise Unsatisfiable
        return max(0, size - count), size - 1
    first, last = int(match[1]), int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return None
    if first >= size:
        raise Unsatisfiable
    return first, min(last, size - 1)


def is_as_embedded(row: Mapping[str, Any]) -> bool:
    """Whether the file of a row has the size that it had when it was embedded: a name may lead to another file by now,
    or be a link to one that is not for everybody."""
    member = split_member(row["file"])
    try:
        return row["bytes"] in (None, os.stat(row["file"] if member is None else member.tar).st_size)
    except (OSError, ValueError):
        return False


class Bytes:
    """An open file, or a member of a tar file.

    Attributes:
        size: bytes.
    """

    def __init__(self, path: str) -> None:
        """
        Raises:
            OSError, ValueError: it cannot be read, or is no regular file.
        """
        self._file = -1
        member = split_member(path)
        if member is not None and (member.is_frames or len(member.pieces) != 1):
            raise ValueError("decoded frames are no file that can be played")
        # A pipe would block for ever otherwise; for regular files the flag means nothing.
        self._file = os.open(path if member is None else member.tar, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(self._file)
        self._begin, self.size = 0, status.st_size
        if member is not None:
            _, self._begin, self.size = member.pieces[0]
        if not stat.S_ISREG(status.st_mode) or self._begin + self.size > status.st_size:
            self.close()
            raise ValueError("no regular file, or one that is cut off")
        self.tag = f'"{status.st_mtime_ns:x}-{self._begin:x}-{self.size:x}"'

    def close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def __del__(self) -> None:  # of an answer that nobody waited for, no piece is asked for
        self.close()

    def pieces(self, first: int, last: int) -> Iterator[bytes]:
        """The bytes [first, last], and close the file."""
        try:
            place = first
            while place <= last:
                piece = os.pread(self._file, min(_PIECE, last + 1 - place), self._begin + place)
                if not piece:  # it has become shorter: the answer is, too, and the browser sees that
                    return
                place += len(piece)
                yield piece
        finally:
            self.close()


class Pictures:
    """A picture from the middle of a window, as JPEG."""

    def __init__(self, reader: Any) -> None:
        """
        Args:
            reader: a :class:`vtp.media.MediaReader`.
        """
        self._reader = reader
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, bytes] = OrderedDict()

    def of(self, key: Any, row: Mapping[str, Any]) -> bytes:
        """The picture of a row of the table; empty where nothing can be seen."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            try:
                ref = MediaRef(row["file"], row["start"], row["end"])
                clip = self._reader.read(ref, Wanted(times=_middle))
                made = b"" if clip.frames is None else base64.b64decode(jpeg(clip.frames[0], _PIXELS))
            except MediaError:
                made = b""
            self._kept[key] = made
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return made

    def close(self) -> None:
        self._reader.close()


def _middle(info: VideoInfo) -> Any:
    return np.array([(info.start + info.end) / 2])
