"""One decoded clip in one file: frames, their times, and the sound, with a checksum for each piece that is read.

    frames     raw: uint8 (H, W, 3) each, padded to 8 bytes; jpeg: one JPEG each; transcode: none, they are in NAME.mp4
    sound      int16 mono in blocks of one second
    tables     float64 timestamps of all frames of the source, int64 places of the stored ones, uint64 offsets, uint64
               checksums of the frames, uint64 checksums of the sound blocks
    record     JSON: everything else
    tail       where the tables begin, the length of the record, the CRC-32 of tables and record, the magic word

What says where things are stands at the end, so that a file is written in one pass; one read of the last kilobytes
opens it. Files are read with ``pread`` into fresh memory: it is faster than touching a new memory map, uses the same
page cache, and a file that shrinks meanwhile is an error instead of a SIGBUS that kills the process.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from vtp.media.info import VideoInfo
from vtp.media.source import fill

__all__ = ["KINDS", "CacheDamage", "Entry", "EntryWriter"]

KINDS = ("transcode", "jpeg", "raw")

_MAGIC = b"VTPCLIP1"
_TAIL = struct.Struct("<QII8s")
_QUALITY = 90  # of JPEGs
_FIRST_LOOK = 1 << 14  # bytes from the end that usually hold all tables
_TABLES: dict[str, Any] = {
    "timestamps": np.float64,
    "places": np.int64,
    "offsets": np.uint64,
    "sums": np.uint64,
    "sound_sums": np.uint64,
}

Frames = npt.NDArray[np.uint8]


class CacheDamage(Exception):
    """An entry that cannot be trusted: cut off, or changed since it was written. Never leaves the cache: its reader
    goes to the original."""


class EntryWriter:
    """Writes an entry front to back: frames and sound as they come, then :meth:`finish`.

    Args:
        file: open for writing, empty.
        kind: one of :data:`KINDS`.
    """

    def __init__(self, file: IO[bytes], kind: str) -> None:
        self.file = file
        self.kind = kind
        self._offsets = [0]
        self._sums: list[int] = []
        self._at = 0
        self._shape: tuple[int, ...] = (0, 0, 3)
        self._sound: dict[str, Any] | None = None
        self._sound_sums: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)

    def add_frames(self, frames: Frames) -> None:
        """Append uint8 (n, H, W, 3); for a transcode only its size is noted."""
        self._shape = frames.shape[1:]
        if self.kind == "jpeg":
            for frame in frames:
                data = _to_jpeg(frame)
                self._put(data)
                self._offsets.append(self._at)
                self._sums.append(zlib.crc32(data))
        elif self.kind == "raw":
            for frame in frames:
                flat = np.zeros(-(-frame.size // 8) * 8, np.uint8)
                flat[: frame.size] = frame.reshape(-1)
                self._put(flat.data)
                self._offsets.append(self._at)
                self._sums.append(int(np.add.reduce(flat.view(np.uint64))))

    def add_sound(self, waveform: npt.NDArray[np.float32], rate: int, start: float) -> None:
        """Append one channel (S,), which begins at second ``start`` of the source. Louder than 1 is scaled, not cut."""
        self._put(bytes(-self._at % 8))
        scale = max(1.0, float(np.abs(waveform).max(initial=0.0))) / 32767
        stride = -(-rate // 4) * 4
        blocks = np.zeros((-(-len(waveform) // rate), stride), np.int16)
        whole = np.zeros(len(blocks) * rate, np.int16)
        whole[: len(waveform)] = np.rint(waveform / np.float32(scale))
        blocks[:, :rate] = whole.reshape(-1, rate)
        self._sound = {"rate": rate, "start": start, "scale": scale, "samples": len(waveform), "offset": self._at}
        self._sound_sums = np.add.reduce(blocks.view(np.uint64), axis=1)
        self._put(blocks.data)

    def finish(self, info: VideoInfo | None, places: npt.NDArray[np.int64], record: dict[str, Any]) -> None:
        """Append tables, record and tail.

        Args:
            info: the whole stream of the source, None if it has no picture.
            places: frames of the source that are stored, ascending.
            record: of the source and how it was read; JSON-able.
        """
        tables = {
            "timestamps": np.zeros(0) if info is None else info.timestamps,
            "places": places,
            "offsets": np.array(self._offsets, np.uint64),
            "sums": np.array(self._sums, np.uint64),
            "sound_sums": self._sound_sums,
        }
        stream = None
        if info is not None:
            names = ("stream", "codec", "width", "height", "fps", "end", "others")
            stream = {name: getattr(info, name) for name in names}
        data = b"".join(np.ascontiguousarray(tables[name], dtype).tobytes() for name, dtype in _TABLES.items())
        text = json.dumps(
            {
                **record,
                "kind": self.kind,
                "stream": stream,
                "shape": list(self._shape),
                "sound": self._sound,
                "tables": {name: len(table) for name, table in tables.items()},
            }
        ).encode()
        self._put(bytes(-self._at % 8))
        begin = self._at
        self._put(data + text)
        self._put(_TAIL.pack(begin, len(text), zlib.crc32(data + text), _MAGIC))

    def _put(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self._at += len(data) if isinstance(data, bytes) else data.nbytes


@dataclass(slots=True)
class Entry:
    """An entry that was opened: its small parts are in memory, frames and sound are read when they are asked for.

    Attributes:
        path: of the entry.
        record: as it was written.
        info: the picture stream of the source, with the times of all its frames; None if it has no picture.
        places: frames of the source that are stored.
    """

    path: str
    record: dict[str, Any]
    info: VideoInfo | None
    places: npt.NDArray[np.int64]
    tables: dict[str, npt.NDArray[Any]] = field(repr=False)

    @classmethod
    def open(cls, path: str | Path) -> Entry:
        """Read the small parts of the entry at ``path``.

        Raises:
            FileNotFoundError: there is none.
            CacheDamage: it cannot be trusted.
        """
        with _reading(path) as file:
            size = os.fstat(file).st_size
            look = min(size, _FIRST_LOOK)
            data = os.pread(file, look, size - look)
            if len(data) < _TAIL.size or data[-len(_MAGIC) :] != _MAGIC:
                raise CacheDamage("is cut off")
            begin, length, crc, _ = _TAIL.unpack(data[-_TAIL.size :])
            whole = size - begin
            if not _TAIL.size + length <= whole:
                raise CacheDamage("has changed")
            if whole > look:
                data = os.pread(file, whole, begin)
        data = data[len(data) - whole : -_TAIL.size]
        if zlib.crc32(data) != crc:
            raise CacheDamage("has changed: its tables differ from their checksum")
        record = json.loads(data[len(data) - length :])
        tables, at = {}, 0
        for name, dtype in _TABLES.items():
            tables[name] = np.frombuffer(data, dtype, record["tables"][name], at)
            at += tables[name].nbytes
        info = None
        if record["stream"] is not None:
            stream = {**record["stream"], "others": tuple(record["stream"]["others"])}
            info = VideoInfo(timestamps=tables["timestamps"], **stream)
        return cls(str(path), record, info, tables["places"], tables)

    @property
    def kind(self) -> str:
        return str(self.record["kind"])

    def frames(self, rows: npt.NDArray[np.int64]) -> Frames:
        """Stored frames by their number in the entry, uint8 (len(rows), H, W, 3); a raw or JPEG entry.

        Raises:
            CacheDamage: if a piece differs from its checksum.
        """
        ascending = len(rows) < 2 or bool((rows[1:] > rows[:-1]).all())
        order, back = (rows, None) if ascending else np.unique(rows, return_inverse=True)
        with _reading(self.path) as file:
            frames = (self._jpeg if self.kind == "jpeg" else self._raw)(file, order, tuple(self.record["shape"]))
        return frames if back is None else frames[back]

    def _raw(self, file: int, rows: npt.NDArray[np.int64], shape: tuple[int, ...]) -> Frames:
        row, size = -(-int(np.prod(shape)) // 8) * 8, shape[1] * shape[2]
        block, sums = np.empty((len(rows), row), np.uint8), self.tables["sums"]
        words = block.view(np.uint64)
        for number, place in enumerate(rows.tolist()):
            _fill(file, block[number], place * row)
            if np.add.reduce(words[number]) != sums[place]:  # now, while it is in the processor's cache
                raise CacheDamage("has changed: a frame differs from its checksum")
        return np.ndarray((len(rows), *shape), np.uint8, block.data, strides=(row, size, shape[2], 1))

    def _jpeg(self, file: int, rows: npt.NDArray[np.int64], shape: tuple[int, ...]) -> Frames:
        offsets, sums = self.tables["offsets"], self.tables["sums"]
        pictures = []
        for row in rows.tolist():
            data = np.empty(int(offsets[row + 1] - offsets[row]), np.uint8)
            _fill(file, data, int(offsets[row]))
            if zlib.crc32(data.data) != int(sums[row]):
                raise CacheDamage("has changed: a frame differs from its checksum")
            pictures.append(data)
        return _from_jpeg(pictures, (shape[0], shape[1]))

    def sound(self, start: float, end: float) -> npt.NDArray[np.float32]:
        """What is heard in [start, end) seconds of the source, (S,); empty where nothing is.

        Raises:
            CacheDamage: if a piece differs from its checksum.
        """
        facts = self.record["sound"]
        rate, samples = int(facts["rate"]), int(facts["samples"])
        first, last = (_sample(second - facts["start"], rate, samples) for second in (start, end))
        if first >= last:
            return np.zeros(0, np.float32)
        blocks = range(first // rate, -(-last // rate))
        stride = -(-rate // 4) * 4
        data = np.empty((len(blocks), stride), np.int16)
        with _reading(self.path) as file:
            _fill(file, data.reshape(-1).view(np.uint8), facts["offset"] + 2 * stride * blocks.start)
        wanted = self.tables["sound_sums"][blocks.start : blocks.stop]
        if not np.array_equal(np.add.reduce(data.view(np.uint64), axis=1), wanted):
            raise CacheDamage("has changed: the sound differs from its checksum")
        flat = data[:, :rate].reshape(-1)[first - blocks.start * rate : last - blocks.start * rate]
        heard: npt.NDArray[np.float32] = flat.astype(np.float32)
        heard *= np.float32(facts["scale"])
        return heard

    def digest(self) -> bytes:
        """A hash of what is stored, by the checksums of its pieces; where the source lay and how old it was is not part
        of it."""
        facts = {name: self.record.get(name) for name in ("kind", "shape", "upright", "missing", "sound", "transcode")}
        digest = blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
        for name in ("timestamps", "places", "sums", "sound_sums"):
            digest.update(self.tables[name].tobytes())
        return digest.digest()

    def check(self) -> None:
        """Read everything.

        Raises:
            CacheDamage: if a piece differs from its checksum.
        """
        if self.info is not None and self.kind != "transcode":
            for rows in _parts(range(len(self.places))):
                self.frames(np.array(rows, np.int64))
        if self.record["sound"] is not None:
            self.sound(float("-inf"), float("inf"))


@contextmanager
def _reading(path: str | Path) -> Iterator[int]:
    """A descriptor; file objects cost more than the small reads that they are for."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


def _parts(rows: range, size: int = 64) -> Sequence[range]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _sample(second: float, rate: int, samples: int) -> int:
    """The first of ``samples`` at or after ``second``."""
    if second * rate >= samples:
        return samples
    return 0 if second <= 0 else int(np.ceil(second * rate - 1e-3))


def _fill(file: int, block: npt.NDArray[np.uint8], offset: int) -> None:
    if not fill(block, file, offset):
        raise CacheDamage("is cut off")


def _to_jpeg(frame: Frames) -> bytes:
    """One picture (H, W, 3) as JPEG with halved colour resolution. By torchvision, which has libjpeg-turbo inside and
    lets other threads run meanwhile."""
    import torch
    from torchvision.io import encode_jpeg

    picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).contiguous()
    data: bytes = encode_jpeg(picture, _QUALITY).numpy().tobytes()
    return data


def _from_jpeg(pictures: Sequence[npt.NDArray[np.uint8]], shape: tuple[int, int]) -> Frames:
    """Pictures of one ``shape`` (H, W) as uint8 (n, H, W, 3).

    Raises:
        CacheDamage: if one cannot be decoded, or has another shape.
    """
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    frames = np.empty((len(pictures), *shape, 3), np.uint8)
    for frame, data in zip(frames, pictures, strict=True):
        try:
            picture = decode_jpeg(torch.from_numpy(data), ImageReadMode.RGB)  # (3, H, W)
        except RuntimeError as error:
            raise CacheDamage(f"holds a frame that is no picture: {error}") from None
        if tuple(picture.shape[1:]) != shape:
            raise CacheDamage(f"holds a frame of {tuple(picture.shape[1:])} pixels instead of {shape}")
        frame[...] = picture.permute(1, 2, 0).numpy()
    return frames
