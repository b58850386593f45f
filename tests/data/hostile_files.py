"""A seeded fuzzer: a folder of files that a data set scraped from the internet may hold, made from real clips."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np

__all__ = ["make_hostile_files", "small_clip"]

# Boxes of an MP4 file whose numbers decoders believe: name -> offsets (from the end of the name) of 32-bit fields
# (ISO/IEC 14496-12, version 0 of each box).
FIELDS = {
    b"mvhd": {"timescale": 12, "duration": 16},
    b"mdhd": {"timescale": 12, "duration": 16},
    b"tkhd": {"duration": 20, "width": 76, "height": 80},
    b"stts": {"entries": 4, "count": 8, "delta": 12},
    b"ctts": {"entries": 4, "offset": 12},
    b"stsz": {"size": 4, "samples": 8, "first": 12},
    b"stsc": {"entries": 4, "chunk": 8},
    b"stco": {"entries": 4, "first": 8},
    b"elst": {"entries": 4, "length": 8, "start": 12},
    b"stsd": {"entries": 4},
}
VALUES = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF)


def small_clip(path: Path, frames: int = 24, size: tuple[int, int] = (64, 48), sound: bool = True) -> Path:
    """A valid clip with a moving bar and a tone, a few kB."""
    width, height = size
    with av.open(str(path), "w", format="mp4") as out:
        video = out.add_stream("libx264", rate=12, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = out.add_stream("aac", rate=16000, layout="mono") if sound else None
        for k in range(frames):
            picture = np.full((height, width, 3), 40, np.uint8)
            picture[k % height] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = k
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            wave = np.sin(np.arange(16000 * frames // 12) * 0.2).astype(np.float32)[None]
            block = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            block.sample_rate, block.pts = 16000, 0
            out.mux(audio.encode(block))
            out.mux(audio.encode(None))
    return path


def make_hostile_files(folder: Path, sources: Sequence[Path], flips: int, seed: int = 0) -> dict[str, str]:
    """Fill ``folder``; returns file name -> what must come of it.

    ``"fine"``: has to decode. ``"any"``: has to decode or to fail with a reason. Everything else is a regular
    expression for the reason of a failure.

    Args:
        sources: clips to damage.
        flips: files with flipped bytes per source.
    """
    generator = np.random.default_rng(seed)
    expected: dict[str, str] = {}

    def write(name: str, data: bytes, outcome: str = "any") -> None:
        (folder / name).write_bytes(data)
        expected[name] = outcome

    for number, source in enumerate(sources):
        data = source.read_bytes()
        stem = f"{number:02d}"
        for tenth in range(1, 10):
            write(f"{stem}_cut_at_{tenth}0_percent.mp4", data[: len(data) * tenth // 10])
        for flip in range(flips):
            # one byte, a few, or many; near the beginning, where headers are, in half of the cases
            places = generator.integers(len(data) if flip % 2 else min(len(data), 4096), size=(1, 8, 64, 512)[flip % 4])
            broken = np.frombuffer(data, np.uint8).copy()
            broken[places] = generator.integers(256, size=len(places), dtype=np.uint8)
            write(f"{stem}_flipped_{flip}.mp4", broken.tobytes())
        for box, fields in FIELDS.items():
            for field, offset in fields.items():
                value = VALUES[int(generator.integers(len(VALUES)))]
                if (broken_header := _with_field(data, box, offset, value)) is not None:
                    write(f"{stem}_{box.decode()}_{field}_is_{value}.mp4", broken_header)
        write(f"{stem}_is_no_picture.jpg", data, "fine")
        write(f"{stem}_has_no_extension", data, "fine")
        third = len(data) // 3
        write(f"{stem}_zeros_in_the_middle.mp4", data[:third] + bytes(third) + data[-third:])
        write(f"{stem}_twice.mp4", data + data)
        write(f"{stem}_without_beginning.mp4", data[len(data) // 2 :])
        for rate, field in (("0_fps", b"mdhd"), ("huge_duration", b"mvhd")):
            wrong = _with_field(data, field, 12 if rate == "0_fps" else 16, 0 if rate == "0_fps" else 0xFFFFFFF0)
            if wrong is not None:
                write(f"{stem}_{rate}.mp4", wrong)
    data = sources[0].read_bytes()
    write("-leading dash and ünïcödé 视频.mp4", data, "fine")
    write("line\nbreak.mp4", data, "fine")
    write("empty.mp4", b"", "empty")
    write("text.mp4", b"these are not the frames you are looking for\n" * 50, ".")
    write("page.mp4", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", ".")
    write("pointer.mp4", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", ".")
    write("zeros.mp4", bytes(100_000), ".")
    write("noise.mp4", generator.integers(256, size=100_000, dtype=np.uint8).tobytes(), "any")
    header = struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 512)
    write("only_a_header.mp4", header, ".")
    write("huge_box.mp4", header + struct.pack(">I4sQ", 1, b"moov", 2**62), ".")
    write("playlist.mp4", b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/clip.ts\n", ".")
    write("list_of_files.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n", ".")
    write("riff.avi", b"RIFF\xff\xff\xff\x7fAVI LIST\xff\xff\xff\x7fhdrlavih", ".")
    for name, make in _SPECIAL.items():
        expected[name] = make(folder / name)
    return expected


def _with_field(data: bytes, box: bytes, offset: int, value: int) -> bytes | None:
    """``data`` with a 32-bit big-endian field of its first ``box`` replaced; None where it has no such box."""
    place = data.find(box)
    if place < 0 or place + 4 + offset + 4 > len(data):
        return None
    at = place + 4 + offset
    return data[:at] + struct.pack(">I", value) + data[at + 4 :]


def _audio_only(path: Path) -> str:
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        block.sample_rate, block.pts = 16000, 0
        out.mux(stream.encode(block))
        out.mux(stream.encode(None))
    return "no video"


def _one_frame(path: Path) -> str:
    small_clip(path, frames=1, sound=False)
    return "fine"


def _long_and_flat(path: Path) -> str:
    small_clip(path, frames=2, size=(10_000, 16), sound=False)
    return "fine"


def _fifo(path: Path) -> str:
    os.mkfifo(path)
    return "pipe"


def _loop(path: Path) -> str:
    path.symlink_to(path.name)
    return "[Ss]ymbolic|loop"


def _dangling(path: Path) -> str:
    path.symlink_to("nowhere.mp4")
    return "no such file"


def _forbidden(path: Path) -> str:
    small_clip(path).chmod(0)
    return "fine" if os.geteuid() == 0 else "permission"  # root may read everything


def _directory(path: Path) -> str:
    path.mkdir()
    return "directory"


def _device(path: Path) -> str:
    path.symlink_to("/dev/zero")
    return "device"


_SPECIAL: dict[str, Callable[[Path], str]] = {
    "sound only.mp4": _audio_only,
    "one frame.mp4": _one_frame,
    "10000x16.mp4": _long_and_flat,
    "fifo.mp4": _fifo,
    "loop.mp4": _loop,
    "dangling.mp4": _dangling,
    "forbidden.mp4": _forbidden,
    "directory.mp4": _directory,
    "endless.mp4": _device,
}
