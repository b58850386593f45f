"""The packets of a file, read once without decoding the picture: when each frame is shown, and where decoding can
start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from vtp.media.info import VideoInfo
from vtp.media.request import cut
from vtp.media.sound import SoundTrack
from vtp.types import MediaRef

__all__ = ["PacketIndex", "build_index", "one_thread", "pictures", "scan", "second_zero", "video_info"]

_SEEK_S = 10.0  # a span that starts later than this is sought, not read up to
_MARGIN_S = 2.0  # read around a span: packets are not in the order in which frames are shown


class Packet(NamedTuple):
    """What is kept of a video packet; times in units of the stream."""

    pts: int | None
    dts: int | None
    duration: int
    key: bool


@dataclass(slots=True)
class PacketIndex:
    """The frames of a span and how to reach them.

    Attributes:
        info: with the times of the frames.
        pts: of each frame of ``info.timestamps``; None where packets do not tell, and frames have to be counted.
        first: place of the first frame of the span among the frames that were read, for counting.
        keys: pts of the key frames, ascending.
        key_places: for each key, its place in decoding order.
        places: pts -> place in decoding order.
    """

    info: VideoInfo
    pts: npt.NDArray[np.int64] | None
    first: int
    keys: npt.NDArray[np.int64]
    key_places: npt.NDArray[np.int64]
    places: dict[int, int]

    def key_before(self, pts: int) -> int:
        """Which key decoding has to start from to show ``pts``; -1 if there is none.

        By time, not by place: pictures that lead a key frame are shown before it and may need the one before.
        """
        return int(np.searchsorted(self.keys, pts, side="right")) - 1


def pictures(container: Any) -> list[Any]:
    """Video streams that are videos: for FFmpeg cover art is one too."""
    return [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]


def one_thread(stream: Any) -> None:
    """Frame and slice threads deadlock under load (PyAV-Org/PyAV#1962); loaders work in parallel by processes."""
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.thread_count = 1


def second_zero(container: Any, stream: Any) -> float:
    """The moment that counts as second 0, where the file starts, in seconds of its own clock."""
    if container.start_time is not None:
        return float(container.start_time / av.time_base)
    return float((stream.start_time or 0) * stream.time_base)


def scan(container: Any, video: Any, sound: SoundTrack | None, ref: MediaRef) -> list[Packet]:
    """The packets of ``video`` (or []) around the span of ``ref``; those of the sound are fed to ``sound`` on the way.

    A span far into the file is sought. If that does not land before it, on a key frame, everything is read.
    """
    if ref.start is not None and ref.start > _SEEK_S:
        packets = _scan_span(container, video, sound, ref)
        if packets is not None:
            return packets
        container.seek(0)
        if sound is not None:
            sound.reset()
    return _scan_from_here(container, video, sound, ref)


def _scan_span(container: Any, video: Any, sound: SoundTrack | None, ref: MediaRef) -> list[Packet] | None:
    """Packets from the key frame before the span on; None if they cannot be trusted to hold all of it."""
    assert ref.start is not None
    stream: Any = video if sound is None else video or sound.stream
    zero = second_zero(container, stream)
    try:
        container.seek(int((ref.start - _MARGIN_S + zero) / stream.time_base), stream=stream, backward=True)
    except av.error.FFmpegError:
        return None
    packets = _scan_from_here(container, video, sound, ref)
    if sound is not None and (sound.first_second is None or sound.first_second > ref.start):
        return None
    if video is None:
        return packets
    known = [p.pts for p in packets if p.pts is not None]
    if len(known) < len(packets) or not packets or not packets[0].key:
        return None
    return packets if float(min(known) * video.time_base) - zero <= ref.start else None


def _scan_from_here(container: Any, video: Any, sound: SoundTrack | None, ref: MediaRef) -> list[Packet]:
    streams: list[Any] = [s for s in (video, None if sound is None else sound.stream) if s is not None]
    bases = {s.index: float(s.time_base) for s in streams}
    end = None if ref.end is None else ref.end + _MARGIN_S + second_zero(container, streams[0])
    packets: list[Packet] = []
    past: set[int] = set()  # streams that are beyond the span
    heard = -1 if sound is None else sound.stream.index
    try:
        for packet in container.demux(*streams):
            if end is not None and packet.dts is not None:
                if packet.dts * bases[packet.stream_index] > end:
                    past.add(packet.stream_index)
                if len(past) == len(streams):
                    break
            if sound is not None and packet.stream_index == heard:
                sound.feed(packet)
            elif packet.size and not packet.is_discard:  # discarded: decoded but never shown, as an edit list says
                packets.append(Packet(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe))
    except av.error.FFmpegError:
        pass  # a truncated file: what came before the cut counts
    return packets


def build_index(container: Any, stream: Any, packets: list[Packet], ref: MediaRef) -> PacketIndex:
    """Sort packets by time, and cut to the span.

    Raises:
        MediaError: if the span holds no frame.
    """
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    pts = np.sort(np.array([p.pts for p in packets if p.pts is not None], np.int64))
    if len(pts) < len(packets) or (np.diff(pts) == 0).any():
        timestamps = np.arange(len(packets)) / (rate or 25.0)
        info, first = cut(video_info(container, stream, timestamps, len(packets) / (rate or 25.0)), ref)
        none = np.zeros(0, np.int64)
        return PacketIndex(info, None, first, none, none, {})
    timestamps = (pts * float(stream.time_base) - second_zero(container, stream)).astype(np.float64)
    last = next(p.duration for p in packets if p.pts == pts[-1]) * float(stream.time_base)
    if not last:
        last = (timestamps[-1] - timestamps[0]) / (len(pts) - 1) if len(pts) > 1 else 1 / (rate or 25.0)
    info, first = cut(video_info(container, stream, timestamps, float(timestamps[-1] + last)), ref)
    keys = sorted((p.pts, place) for place, p in enumerate(packets) if p.key and p.pts is not None)
    return PacketIndex(
        info,
        pts[first : first + info.count],
        first,
        np.array([key for key, _ in keys], np.int64),
        np.array([place for _, place in keys], np.int64),
        {p.pts: place for place, p in enumerate(packets) if p.pts is not None},
    )


def video_info(container: Any, stream: Any, timestamps: npt.NDArray[np.float64], end: float) -> VideoInfo:
    """What the samplers get to know about all frames of ``stream``."""
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
