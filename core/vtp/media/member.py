"""Media inside tar files, named by a path such as ``shards/00003.tar!51200+24576/000030017.mp4``: the tar file, where
in it the bytes begin and how many there are, and the member's name. A sample stays a few words long this way, and the
bytes are read by the process that decodes them.

A name that ends in ``.npy`` means decoded frames: the bytes are then all members of one sample, headers included, with
``.npy`` uint8 (T, H, W, 3), ``.json`` whose ``frames`` and ``sound`` hold times and scales, and where there is sound
``.wav`` with 16 bits and one channel.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.media.frames import resample, resize
from vtp.media.info import MediaError, VideoInfo
from vtp.media.request import Wanted, cut, target_size
from vtp.media.source import fill
from vtp.types import Clip, MediaRef

__all__ = ["FramesInfo", "fetch", "member_path", "read_frames", "split_member", "tar_members"]

_PATH = re.compile(r"(.*\.tar)!(\d+)\+(\d+)/(.+)", re.DOTALL)
_BLOCK = 512

FramesInfo = dict[str, Any]  # what ``.json`` holds under ``frames``


@dataclass(frozen=True, slots=True)
class _Member:
    tar: str
    offset: int
    size: int
    name: str

    @property
    def is_frames(self) -> bool:
        return self.name.endswith(".npy")


def member_path(tar: str, offset: int, size: int, name: str) -> str:
    """The path of a member, or of all members of a sample with decoded frames."""
    return f"{tar}!{offset}+{size}/{name}"


def split_member(path: str | bytes) -> _Member | None:
    """The parts of such a path; None if it is another one."""
    if isinstance(path, bytes) or ".tar!" not in path:
        return None
    match = _PATH.fullmatch(path)
    return None if match is None else _Member(match[1], int(match[2]), int(match[3]), match[4])


def fetch(ref: MediaRef) -> MediaRef:
    """The same media as bytes if it is a member of a tar file, else ``ref`` itself.

    Raises:
        MediaError: if the tar file is not there or too short.
    """
    member = split_member(ref.path)
    return ref if member is None else MediaRef(_bytes(member).tobytes(), ref.start, ref.end)


def read_frames(member: _Member, ref: MediaRef, wanted: Wanted) -> Clip:
    """Decoded frames as :func:`vtp.media.read_clip` gives a video. The sampler sees the stored frames and no others; a
    size that is not theirs is scaled to.

    Raises:
        MediaError: if the sample is damaged, or has nothing of what was asked for.
    """
    block = _bytes(member)
    parts = {name.rpartition(".")[2]: (at, length) for name, at, length in tar_members(block)}
    try:
        at, length = parts.get("json", (0, 2))
        record = json.loads(block[at : at + length].tobytes() or b"{}")
        clip = Clip()
        if wanted.video and "npy" in parts:
            _take_frames(clip, ref, _array(block, *parts["npy"]), record, wanted)
        elif wanted.video:
            clip.missing["video"] = "no video stream"
        if wanted.sample_rate is not None:
            _take_sound(clip, ref, block, parts, record, wanted.sample_rate)
    except (ValueError, KeyError, TypeError, EOFError, wave.Error, tarfile.TarError) as error:
        raise MediaError(f"the sample in the shard is damaged: {error}", "invalid", "shard") from None
    if clip.frames is None and clip.waveform is None:
        raise MediaError("; ".join(clip.missing.values()) or "nothing was asked for", "no_audio", "shard")
    return clip


def tar_members(block: npt.NDArray[np.uint8]) -> Iterator[tuple[str, int, int]]:
    """(name, place of the content, its length) of the members in a piece of a tar file that begins with a header."""
    at = 0
    while at + _BLOCK <= len(block):
        info = tarfile.TarInfo.frombuf(block[at : at + _BLOCK].tobytes(), "utf-8", "surrogateescape")
        yield info.name, at + _BLOCK, info.size
        at += _BLOCK + -(-info.size // _BLOCK) * _BLOCK


def _bytes(member: _Member) -> npt.NDArray[np.uint8]:
    block = np.empty(member.size, np.uint8)
    try:
        with open(member.tar, "rb", buffering=0) as file:
            if not fill(block, file.fileno(), member.offset):
                raise MediaError("the shard is cut off before this sample", "invalid", "shard")
    except FileNotFoundError:
        raise MediaError("no such shard", "missing", "shard") from None
    except OSError as error:
        raise MediaError(f"the shard cannot be read: {error.strerror}", "missing", "shard") from None
    return block


def _array(block: npt.NDArray[np.uint8], at: int, length: int) -> npt.NDArray[np.uint8]:
    """The array in a ``.npy`` member, without copying it."""
    head = io.BytesIO(block[at : at + min(length, 4096)].tobytes())
    npy: Any = np.lib.format
    read = npy.read_array_header_1_0 if npy.read_magic(head) == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(head)
    if fortran or dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or not shape[0]:
        raise ValueError(f"frames are {dtype} {shape}, expected uint8 (T, H, W, 3)")
    begin, count = at + head.tell(), int(np.prod(shape))
    if count > length - head.tell():
        raise ValueError("the frames are cut off")
    return block[begin : begin + count].reshape(shape)


def _take_frames(
    clip: Clip, ref: MediaRef, frames: npt.NDArray[np.uint8], record: dict[str, Any], wanted: Wanted
) -> None:
    info, first = _info(record.get("frames") or {}, frames), 0
    if ref.start is not None or ref.end is not None:
        info, first = cut(info, ref)
    places = wanted.positions(info)
    clip.timestamps = info.timestamps[places]
    rows = places + first
    if not np.array_equal(rows, np.arange(len(frames))):
        frames = frames[rows]
    clip.frames = resize(frames, target_size(frames.shape[1], frames.shape[2], wanted.size))


def _info(facts: FramesInfo, frames: npt.NDArray[np.uint8]) -> VideoInfo:
    """The timeline of stored frames; frames of others, which have no times, are taken as one a second."""
    timestamps = np.array(facts.get("timestamps") or np.arange(len(frames)), np.float64)
    if len(timestamps) != len(frames):
        raise ValueError(f"{len(frames)} frames and {len(timestamps)} times")
    return VideoInfo(
        stream=0,
        codec="raw",
        width=frames.shape[2],
        height=frames.shape[1],
        fps=float(facts.get("fps", 1.0)),
        timestamps=timestamps,
        end=float(facts.get("end", timestamps[-1] + 1.0)),
    )


def _take_sound(
    clip: Clip,
    ref: MediaRef,
    block: npt.NDArray[np.uint8],
    parts: dict[str, tuple[int, int]],
    record: dict[str, Any],
    rate: int,
) -> None:
    if "wav" not in parts:
        clip.missing["audio"] = (record.get("missing") or {}).get("audio", "no audio stream")
        return
    facts = record.get("sound") or {}
    at, length = parts["wav"]
    with wave.open(io.BytesIO(block[at : at + length].tobytes())) as file:
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
