"""Media inside tar files, named by a path such as ``shards/00003.tar!51200+24576/000030017.mp4``: the tar file, where
in it the bytes begin and how many there are, and the member's name. A sample stays a few words long this way, and the
bytes are read by the process that decodes them.

Decoded frames are several members with one name, ``shards/00003.tar!512+75776.npy,76800+120.json/000030017.npy``:
``.npy`` uint8 (T, H, W, 3), ``.json`` whose ``frames`` and ``sound`` hold times and scales, and where there is sound
``.wav`` with 16 bits and one channel. Shards of others may lack ``.json``.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import stat
import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.media.frames import resample, resize
from vtp.media.info import MediaError, VideoInfo
from vtp.media.request import Wanted, cut, picture_may_lack, target_size
from vtp.media.source import fill
from vtp.types import Clip, MediaRef

__all__ = ["FramesInfo", "fetch", "frames_path", "member_path", "read_frames", "split_member", "take_frames"]

_PIECE = r"\d{1,19}\+\d{1,19}(?:\.\w+)?"
# The first tar file counts: names of members are what somebody else wrote.
_PATH = re.compile(rf"(.*?\.tar)!({_PIECE}(?:,{_PIECE})*)/(.+)", re.DOTALL)
_NEAR = 1 << 16  # bytes between members up to which they are read at once

FramesInfo = dict[str, Any]  # what ``.json`` holds under ``frames``


@dataclass(frozen=True, slots=True)
class _Member:
    """A member, or the members of decoded frames.

    Attributes:
        pieces: of each its extension (empty for a file), where its content begins and how many bytes it has.
    """

    tar: str
    pieces: tuple[tuple[str, int, int], ...]
    name: str

    @property
    def is_frames(self) -> bool:
        return self.name.endswith(".npy")

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(size for _, _, size in self.pieces)


def member_path(tar: str, offset: int, size: int, name: str) -> str:
    """The path of a member."""
    return f"{tar}!{offset}+{size}/{name}"


def frames_path(tar: str, pieces: Iterable[tuple[str, int, int]], name: str) -> str:
    """The path of decoded frames: extension (``npy``, ``json``, ``wav``), place and length of each member."""
    return f"{tar}!{','.join(f'{offset}+{size}.{extension}' for extension, offset, size in pieces)}/{name}.npy"


def split_member(path: str | bytes) -> _Member | None:
    """The parts of such a path; None if it is another one."""
    if isinstance(path, bytes) or ".tar!" not in path:
        return None
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    pieces = []
    for piece in match[2].split(","):
        place, _, extension = piece.partition(".")
        offset, _, size = place.partition("+")
        pieces.append((extension, int(offset), int(size)))
    return _Member(match[1], tuple(pieces), match[3])


def fetch(ref: MediaRef) -> MediaRef:
    """The same media as bytes if it is a member of a tar file, else ``ref`` itself.

    Raises:
        MediaError: if the tar file is not there or too short.
    """
    member = split_member(ref.path)
    return ref if member is None else MediaRef(_contents(member)[0].tobytes(), ref.start, ref.end)


def read_frames(member: _Member, ref: MediaRef, wanted: Wanted) -> Clip:
    """Decoded frames as :func:`vtp.media.read_clip` gives a video. The sampler sees the stored frames and no others; a
    size that is not theirs is scaled to.

    Raises:
        MediaError: if the sample is damaged, or has nothing of what was asked for.
    """
    names = [extension or "npy" for extension, _, _ in member.pieces]
    parts = dict(zip(names, _contents(member), strict=True))
    try:
        record = json.loads(parts["json"].tobytes() or b"{}") if "json" in parts else {}
        if not isinstance(record, dict):
            raise ValueError("its json is no object")
        clip = Clip()
        if wanted.sample_rate is not None:
            _take_sound(clip, ref, parts.get("wav"), record, wanted.sample_rate)
        if wanted.video and "npy" in parts:
            with picture_may_lack(clip):
                take_frames(clip, ref, _array(parts["npy"]), record, wanted)
        elif wanted.video:
            clip.missing["video"] = "no video stream"
    except MemoryError:
        raise MediaError("the sample in the shard does not fit into memory", "memory", "shard") from None
    except (
        ValueError, KeyError, TypeError, AttributeError, ArithmeticError, EOFError, RecursionError, wave.Error
    ) as error:  # what arrays, times and sounds of any shape and type make of the lines above  # fmt: skip
        raise MediaError(f"the sample in the shard is damaged: {error}", "invalid", "shard") from None
    if clip.frames is None and clip.waveform is None:
        raise MediaError("; ".join(clip.missing.values()) or "nothing was asked for", "no_audio", "shard")
    return clip


def _contents(member: _Member) -> list[npt.NDArray[np.uint8]]:
    """uint8 (bytes,) of each piece. Nothing is allocated for what the file cannot hold."""
    try:
        # A pipe would block for ever otherwise; for regular files the flag means nothing.
        file = os.open(member.tar, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise MediaError("the shard is no regular file", "not_a_file", "shard")
            return _read(file, status.st_size, [(offset, size) for _, offset, size in member.pieces])
        finally:
            os.close(file)
    except FileNotFoundError:
        raise MediaError("no such shard", "missing", "shard") from None
    except PermissionError:
        raise MediaError("no permission to read the shard", "permission", "shard") from None
    except OSError as error:
        raise MediaError(f"the shard cannot be read: {error.strerror}", "missing", "shard") from None
    except ValueError as error:  # a null byte in the name
        raise MediaError(f"not a valid path: {error}", "missing", "shard") from None
    except MemoryError:
        raise MediaError("the sample in the shard does not fit into memory", "memory", "shard") from None


def _read(file: int, length: int, pieces: Sequence[tuple[int, int]]) -> list[npt.NDArray[np.uint8]]:
    begin, end = min(offset for offset, _ in pieces), max(offset + size for offset, size in pieces)
    if end > length:
        raise MediaError("the shard is cut off before this sample", "invalid", "shard")
    if end - begin <= sum(size for _, size in pieces) + _NEAR:
        block = _filled(file, begin, end - begin)
        return [block[offset - begin : offset - begin + size] for offset, size in pieces]
    return [_filled(file, offset, size) for offset, size in pieces]


def _filled(file: int, offset: int, size: int) -> npt.NDArray[np.uint8]:
    block = np.empty(size, np.uint8)
    if not fill(block, file, offset):
        raise MediaError("the shard is cut off before this sample", "invalid", "shard")
    return block


def _array(content: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The array in a ``.npy`` member, without copying it."""
    head = io.BytesIO(content[:4096].tobytes())
    npy: Any = np.lib.format
    read = npy.read_array_header_1_0 if npy.read_magic(head) == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(head)
    if fortran or dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
        raise ValueError(f"frames are {dtype} {shape}, expected uint8 (T, H, W, 3)")
    begin, count = head.tell(), math.prod(shape)
    if count > len(content) - begin:
        raise ValueError("the frames are cut off")
    return content[begin : begin + count].reshape(shape)


def take_frames(
    clip: Clip, ref: MediaRef, frames: npt.NDArray[np.uint8], record: dict[str, Any], wanted: Wanted
) -> None:
    """Put those of ``frames`` (T, H, W, 3) into ``clip`` that are wanted of the span of ``ref``, at the wanted size.

    Args:
        record: its ``frames`` may hold ``timestamps``, ``fps`` and ``end`` in seconds; without, it is one a second.

    Raises:
        MediaError: the span holds none of them.
        ValueError: the times do not fit the frames.
    """
    info, first = _info(_facts(record, "frames"), frames), 0
    if ref.start is not None or ref.end is not None:
        info, first = cut(info, ref)
    places = wanted.positions(info)
    clip.timestamps = info.timestamps[places]
    rows = places + first
    if not np.array_equal(rows, np.arange(len(frames))):
        frames = frames[rows]
    clip.frames = resize(frames, target_size(frames.shape[1], frames.shape[2], wanted.size))


def _facts(record: dict[str, Any], name: str) -> FramesInfo:
    """An object of ``json``; {} where that is somebody else's and means something else by this name."""
    facts = record.get(name)
    return facts if isinstance(facts, dict) else {}


def _info(facts: FramesInfo, frames: npt.NDArray[np.uint8]) -> VideoInfo:
    """The timeline of stored frames; frames of others, which have no times, are taken as one a second."""
    given = facts.get("timestamps")
    timestamps = np.array(np.arange(len(frames)) if given is None or given == [] else given, np.float64)
    if timestamps.shape != (len(frames),):
        raise ValueError(f"{len(frames)} frames and times of the shape {timestamps.shape}")
    fps, end = float(facts.get("fps", 1.0)), float(facts.get("end", timestamps[-1] + 1.0))
    if not np.isfinite([*timestamps, fps, end]).all() or (np.diff(timestamps) < 0).any():
        raise ValueError("the times of its frames are no rising numbers")
    return VideoInfo(
        stream=0,
        codec="raw",
        width=frames.shape[2],
        height=frames.shape[1],
        fps=fps,
        timestamps=timestamps,
        end=end,
    )


def _take_sound(
    clip: Clip, ref: MediaRef, content: npt.NDArray[np.uint8] | None, record: dict[str, Any], rate: int
) -> None:
    if content is None:
        clip.missing["audio"] = str(_facts(record, "missing").get("audio", "no audio stream"))
        return
    facts = _facts(record, "sound")
    with wave.open(io.BytesIO(content.tobytes())) as file:
        if file.getsampwidth() != 2 or file.getnchannels() != 1:
            raise ValueError("the sound is not 16 bits and one channel")
        own = file.getframerate()
        waveform = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    start = float(facts.get("start", 0.0))
    first = 0 if ref.start is None else max(0, round((ref.start - start) * own))
    last = len(waveform) if ref.end is None else max(0, round((ref.end - start) * own))
    heard = waveform[first:last].astype(np.float32) * np.float32(facts.get("scale", 1 / 32768))
    if not len(heard):
        clip.missing["audio"] = "no sound could be decoded"
        return
    clip.waveform, clip.sample_rate = resample(heard, own, rate)[None], rate
    clip.sound_start = start + first / own
