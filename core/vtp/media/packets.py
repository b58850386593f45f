"""The packets of a file, read once without decoding the picture: when each frame is shown, and where decoding can
start."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from vtp.media.clock import Clock, may_jump
from vtp.media.info import MediaError, VideoInfo
from vtp.media.request import cut
from vtp.media.sound import SoundTrack
from vtp.types import MediaRef

__all__ = [
    "PacketIndex",
    "Packets",
    "StartOver",
    "build_index",
    "frame_rate",
    "one_thread",
    "pictures",
    "scan",
    "second_zero",
    "sounds",
    "video_info",
]

_Disposition = av.stream.Disposition
_SEEK_S = 10.0  # a span that starts later than this is sought, not read up to
_MARGIN_S = 2.0  # read around a span: packets are not in the order in which frames are shown
_NOTIMESTAMPS = 0x0080  # FFmpeg's flag of raw streams
_JUMPY_BYTES = 32 << 20  # a file whose clock may jump is read up to a span where it is smaller than this


class StartOver(Exception):
    """The container was sought and cannot go back, as raw streams cannot: open it again, and do not seek."""


class Packet(NamedTuple):
    """What is kept of a video packet; times in units of the stream."""

    pts: int | None
    dts: int | None
    duration: int
    key: bool


@dataclass(slots=True)
class Packets:
    """What :func:`scan` found.

    Attributes:
        video: packets of the picture, in the order of the file.
        moved: where the clock of the file jumped: pts as stored -> pts that ``video`` has instead, in order. None where
            it did not.
    """

    video: list[Packet] = field(default_factory=list)
    moved: dict[int, list[int]] | None = None

    def __len__(self) -> int:
        return len(self.video)


@dataclass(slots=True)
class PacketIndex:
    """The frames of a span and how to reach them.

    Attributes:
        info: with the times of the frames.
        pts: of each frame of ``info.timestamps``; None where packets do not tell, and frames have to be counted. Empty
            where not even their number is known.
        first: place of the first frame of the span among the frames that were read, for counting.
        keys: pts of the key frames, ascending.
        key_places: for each key, its place in decoding order.
        places: pts -> place in decoding order.
        moved: see :class:`Packets`; frames can then not be sought.
        ordered: whether times of frames that are counted are those of storage, in no relation to single frames.
    """

    info: VideoInfo
    pts: npt.NDArray[np.int64] | None
    first: int
    keys: list[int]
    key_places: list[int]
    places: dict[int, int]
    moved: dict[int, list[int]] | None = None
    ordered: bool = False

    @property
    def counted(self) -> bool:
        """Whether frames cannot be found by their times."""
        return self.pts is None or self.ordered

    def key_before(self, pts: int) -> int:
        """Which key decoding has to start from to show ``pts``; -1 if there is none.

        By time, not by place: pictures that lead a key frame are shown before it and may need the one before.
        """
        return bisect_right(self.keys, pts) - 1


def pictures(container: Any) -> list[Any]:
    """Video streams that are videos (for FFmpeg cover art is one too), the one that is meant first. Of a still and the
    sequence beside it, as in animated AVIF, that is the sequence.

    Raises:
        MediaError: where streams are tiles of a picture.
    """
    streams = [s for s in container.streams.video if not s.disposition & _Disposition.attached_pic]
    if len(streams) < 2:
        return streams
    tiles = sum(bool(s.disposition & _Disposition.dependent) and s.frames == 1 for s in streams)
    if tiles > 1:
        reason = f"a picture of {tiles} tiles, as HEIC and AVIF may be, which are not put together: convert it to JPEG"
        raise MediaError(reason, "invalid")
    return sorted(streams, key=lambda s: (not s.disposition & _Disposition.default, s.frames == 1))


def sounds(container: Any) -> list[Any]:
    """Audio streams, the one that is meant first: the one that the file marks as its default, else the first."""
    streams: list[Any] = list(container.streams.audio)
    return sorted(streams, key=lambda s: not s.disposition & _Disposition.default) if len(streams) > 1 else streams


def one_thread(stream: Any) -> None:
    """Frame and slice threads deadlock under load (PyAV-Org/PyAV#1962); loaders work in parallel by processes."""
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.thread_count = 1


def second_zero(container: Any, stream: Any) -> float:
    """The moment that counts as second 0, where the file starts, in seconds of its own clock."""
    if _untimed(container):
        return 0.0
    if container.start_time is not None:
        return float(container.start_time / av.time_base)
    return float((stream.start_time or 0) * stream.time_base)


def _untimed(container: Any) -> bool:
    """Whether this is a raw stream, whose times FFmpeg makes up as it reads."""
    return bool(int(container.format.flags) & _NOTIMESTAMPS)


def frame_rate(container: Any, stream: Any) -> float:
    """Frames per second of ``stream``; 25 where nothing is known."""
    # For raw streams the average is FFmpeg's assumption (25), the guess is what the codec's headers say.
    known = stream.guessed_rate if _untimed(container) else stream.average_rate
    return float(known or stream.guessed_rate or 25)


def scan(container: Any, video: Any, sound: SoundTrack | None, ref: MediaRef, seek: bool = True) -> Packets:
    """The packets of ``video`` (or none) around the span of ``ref``; on the way those of the sound are fed to
    ``sound``.

    A span far into the file is sought unless ``seek`` is False. If that does not land before it, on a key frame,
    everything is read.

    Raises:
        StartOver: if that fails because the file cannot be rewound.
    """
    jumpy = may_jump(container)
    far = seek and ref.start is not None and ref.start > _SEEK_S
    if far and not _untimed(container) and not (jumpy and container.size < _JUMPY_BYTES):
        packets = _scan_span(container, video, sound, ref)
        if packets is not None:
            return packets
        try:
            container.seek(0)
        except av.error.FFmpegError:
            raise StartOver from None
        if sound is not None:
            sound.reset()
    return _scan_from_here(container, video, sound, ref, Clock() if jumpy else None)


def _scan_span(container: Any, video: Any, sound: SoundTrack | None, ref: MediaRef) -> Packets | None:
    """Packets from the key frame before the span on; None if they cannot be trusted to hold all of it."""
    assert ref.start is not None
    stream: Any = video if sound is None else video or sound.stream
    zero = second_zero(container, stream)
    try:
        container.seek(int((ref.start - _MARGIN_S + zero) / stream.time_base), stream=stream, backward=True)
    except av.error.FFmpegError:
        return None
    scanned = _scan_from_here(container, video, sound, ref, None)
    packets = scanned.video
    if sound is not None and (sound.first_second is None or sound.first_second > ref.start):
        return None
    if video is None:
        return scanned
    known = {p.pts for p in packets if p.pts is not None}
    # Frames that have to be counted are counted from the start; one frame alone may be a still, or the last of many.
    if len(known) < len(packets) or len(packets) < 2 or not packets[0].key or _as_stored(container, video, packets):
        return None
    return scanned if float(min(known) * video.time_base) - zero <= ref.start else None


def _scan_from_here(
    container: Any, video: Any, sound: SoundTrack | None, ref: MediaRef, clock: Clock | None
) -> Packets:
    streams: list[Any] = [s for s in (video, None if sound is None else sound.stream) if s is not None]
    if clock is not None:  # whatever is asked for, both streams move the clock, so that times do not depend on it
        streams = [*pictures(container)[:1], *sounds(container)[:1]]
    bases = {s.index: float(s.time_base) for s in streams}
    end = None if ref.end is None else ref.end + _MARGIN_S + second_zero(container, streams[0])
    packets: list[Packet] = []  # without those that are decoded but never shown, as an edit list says
    moved: defaultdict[int, list[int]] = defaultdict(list)
    past: set[int] = set()  # streams that are beyond the span
    heard = -1 if sound is None else sound.stream.index
    seen = -1 if video is None else video.index
    shift = 0.0
    try:
        for packet in container.demux(*streams):
            if clock is not None and packet.size:
                stream, base = packet.stream_index, bases[packet.stream_index]
                moment = None if packet.dts is None else packet.dts * base
                shift = clock.see(stream, moment, (packet.duration or 0) * base, packet.stream.type == "video")
            if end is not None and packet.dts is not None:
                if packet.dts * bases[packet.stream_index] + shift > end:
                    past.add(packet.stream_index)
                if len(past) == len(streams):
                    break
            if sound is not None and packet.stream_index == heard:
                sound.feed(packet, shift)
            elif packet.stream_index == seen and packet.size and not packet.is_discard:
                pts, dts = packet.pts, packet.dts
                if clock is not None and pts is not None:
                    ticks = round(shift / bases[packet.stream_index])
                    moved[pts].append(pts + ticks)
                    pts, dts = pts + ticks, None if dts is None else dts + ticks
                packets.append(Packet(pts, dts, packet.duration or 0, packet.is_keyframe))
    except av.error.FFmpegError:
        pass  # a truncated file: what came before the cut counts
    return Packets(packets, dict(moved) if clock is not None and clock.jumped else None)


def _as_stored(container: Any, stream: Any, packets: list[Packet]) -> bool:
    """Whether the times of packets are places in the file instead of moments at which pictures are shown: AVI, ASF and
    what was copied from them into Matroska store none of these, and the pictures of H.264 and its successors do not
    tell either. Where pictures are shown in another order than they are stored in, such times belong to no picture."""
    context, form = stream.codec_context, container.format.name
    if not context.has_b_frames or context.name not in ("h264", "hevc"):
        return False
    if form not in ("avi", "asf") and not (form.startswith("matroska") and context.codec_tag.strip("\0")):
        return False
    pts = [p.pts for p in packets if p.pts is not None]
    return all(after > before for before, after in pairwise(pts))


def build_index(container: Any, stream: Any, scanned: Packets, ref: MediaRef) -> PacketIndex:
    """Sort packets by time, and cut to the span.

    Raises:
        MediaError: if the span holds no frame.
    """
    packets = scanned.video
    rate = frame_rate(container, stream)
    pts = np.sort(np.array([p.pts for p in packets if p.pts is not None], np.int64))
    if len(pts) < len(packets) or (np.diff(pts) == 0).any():
        timestamps = np.arange(len(packets)) / rate
        info, first = cut(video_info(container, stream, timestamps, len(packets) / rate), ref)
        return PacketIndex(info, None, first, [], [], {})
    zero = float(pts[0] * stream.time_base) if _untimed(container) else second_zero(container, stream)
    timestamps = (pts * float(stream.time_base) - zero).astype(np.float64)
    last = next(p.duration for p in packets if p.pts == pts[-1]) * float(stream.time_base)
    if not last:
        last = (timestamps[-1] - timestamps[0]) / (len(pts) - 1) if len(pts) > 1 else 1 / rate
    info, first = cut(video_info(container, stream, timestamps, float(timestamps[-1] + last)), ref)
    if _as_stored(container, stream, packets):
        # Packets before the first key frame give no pictures: then these have to be decoded to be counted.
        unknown = None if packets[0].key else np.zeros(0, np.int64)
        return PacketIndex(info, unknown, first, [], [], {}, ordered=True)
    keys = sorted((p.pts, place) for place, p in enumerate(packets) if p.key and p.pts is not None)
    return PacketIndex(
        info,
        pts[first : first + info.count],
        first,
        [key for key, _ in keys],
        [place for _, place in keys],
        {p.pts: place for place, p in enumerate(packets) if p.pts is not None},
        scanned.moved,
    )


def video_info(container: Any, stream: Any, timestamps: npt.NDArray[np.float64], end: float) -> VideoInfo:
    """What the samplers get to know about all frames of ``stream``, the last of which is shown until ``end``."""
    if len(timestamps) == 1 and container.duration:  # a still under a sound is seen as long as it is heard
        end = max(end, container.duration / av.time_base)
    seconds = end - float(timestamps[0])
    return VideoInfo(
        stream=stream.index,
        codec=stream.codec_context.name,
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        fps=len(timestamps) / seconds if len(timestamps) > 1 and seconds > 0 else 0.0,
        timestamps=timestamps,
        end=end,
        others=tuple(s.index for s in pictures(container) if s.index != stream.index),
    )
