"""The default decoder: PyAV, one thread, frames chosen from a packet index and decoded from the nearest key frame.

One pass over the packets, without decoding the picture, gives the time of every frame (and decodes the sound on the
way). Then the decoder is started at the last key frame before each wanted frame. Where that cannot be trusted (packets
without a time, two frames of one time, or a wanted frame that does not come out, as after stream copies into MPEG-TS)
the stream is decoded from its start and frames are counted.
"""

from __future__ import annotations

import io
import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from vtp.media.info import AudioInfo, MediaInfo, VideoError, VideoInfo
from vtp.types import Clip, MediaRef

__all__ = ["PyavDecoder", "check_source"]

Times = Callable[[VideoInfo], npt.NDArray[Any]]
Frames = npt.NDArray[np.uint8]

_WIDEST = 8  # long side over short side at most; a longer picture is squeezed, or 10,000 x 16 would need gigabytes
_PREROLL_S = 1.0  # sound is decoded from this much before a span, so that the codec has settled


class PyavDecoder:
    """Backend ``pyav``."""

    name = "pyav"

    def probe(self, ref: MediaRef) -> MediaInfo:
        """Streams, frame times and rotation. Raises VideoError when there is neither picture nor sound."""
        return _guard(lambda: _probe(ref))

    def read(
        self,
        ref: MediaRef,
        *,
        times: Times | None = None,
        size: int | tuple[int, int] | None = None,
        audio: int | None = None,
        video: bool = True,
    ) -> Clip:
        """See :func:`vtp.media.read_clip`."""
        return _guard(lambda: _read(ref, times, size, audio, video))


def check_source(path: str) -> None:
    """Refuse what must not even be opened: a FIFO would block for ever, a device may do anything.

    Raises: VideoError that names the cause.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise VideoError("no such file", "missing") from None
    except PermissionError:
        raise VideoError("no permission to reach the file", "permission") from None
    except OSError as error:  # a symlink loop, a name that is too long
        raise VideoError(f"cannot be reached: {error.strerror}", "missing") from None
    except ValueError as error:  # a null byte in the name
        raise VideoError(f"not a valid path: {error}", "missing") from None
    if stat.S_ISDIR(mode):
        raise VideoError("is a directory", "not_a_file")
    if not stat.S_ISREG(mode):
        raise VideoError("is not a regular file (a pipe, socket or device)", "not_a_file")
    if not os.access(path, os.R_OK):
        raise VideoError("no permission to read the file", "permission")
    if os.path.getsize(path) == 0:
        raise VideoError("the file is empty", "empty")


def _guard(work: Callable[[], Any]) -> Any:
    """Corrupt headers make PyAV raise nearly anything (UnicodeDecodeError, EOFError, AttributeError, ...): all of it
    becomes a VideoError."""
    try:
        return work()
    except VideoError as error:
        error.backend = error.backend or "pyav"
        raise
    except MemoryError:
        raise VideoError("needs more memory than a file is allowed to use", "memory", "pyav") from None
    except av.error.InvalidDataError:
        raise VideoError("not a media file, or damaged: no decoder understands it", "invalid", "pyav") from None
    except av.error.FFmpegError as error:
        if error.errno == 12:  # ENOMEM
            raise VideoError("needs more memory than a file is allowed to use", "memory", "pyav") from None
        raise VideoError(f"{type(error).__name__}: {error.strerror}", "invalid", "pyav") from None
    except Exception as error:
        raise VideoError(f"damaged: {type(error).__name__}: {error}", "invalid", "pyav") from None


# Opening


def _open(ref: MediaRef) -> Any:
    if isinstance(ref.path, bytes):
        if not ref.path:
            raise VideoError("the file is empty", "empty")
        source: Any = io.BytesIO(ref.path)
    else:
        check_source(ref.path)
        # "file:" keeps names such as "a:b.mp4" from being taken for a protocol. FFmpeg's image reader would take a %
        # for a sequence of files.
        source = open(ref.path, "rb") if "%" in ref.path else "file:" + ref.path  # noqa: SIM115  # closed with the container
    # A hostile playlist must not make us open anything else than itself.
    return av.open(source, options={"protocol_whitelist": "file"})


def _pictures(container: Any) -> list[Any]:
    """Video streams that are videos: cover art is one too for FFmpeg."""
    return [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]


def _one_thread(stream: Any) -> None:
    stream.codec_context.thread_type = "NONE"  # frame and slice threads deadlock under load (PyAV-Org/PyAV#1962)
    stream.codec_context.thread_count = 1


# The packet index


@dataclass(slots=True)
class _Index:
    """The video packets of a span, in decoding order.

    Attributes:
        info: with the times of all frames.
        pts: of each frame of ``info.timestamps``, in units of the stream; None when frames have to be counted.
        keys: ascending pts of key frames, and the dts to seek to for each.
        position: pts -> place in decoding order.
        key_position: place in decoding order of each key.
    """

    info: VideoInfo
    pts: npt.NDArray[np.int64] | None
    keys: npt.NDArray[np.int64]
    key_dts: list[int]
    position: dict[int, int]
    key_position: npt.NDArray[np.int64]


def _scan(container: Any, video: Any, sound: _Sound | None) -> list[tuple[int | None, int | None, int, bool]]:
    """Read all packets once: (pts, dts, duration, is key) of the video's, and the sound decoded."""
    streams = [s for s in (video, sound and sound.stream) if s is not None]
    packets = []
    try:
        for packet in container.demux(*streams):
            if packet.size == 0:
                if sound is not None and packet.stream_index == sound.stream.index:
                    sound.feed(packet)  # the flush packet
                continue
            if video is not None and packet.stream_index == video.index:
                if not packet.is_discard:  # before the start of an edit list: decoded, never shown
                    packets.append((packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe))
            elif sound is not None:
                sound.feed(packet)
    except av.error.FFmpegError:
        pass  # a truncated file: what came before the cut counts
    return packets


def _index(
    container: Any, stream: Any, packets: list[tuple[int | None, int | None, int, bool]], ref: MediaRef
) -> _Index:
    base = float(stream.time_base)
    zero = _zero(container, stream)
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    all_pts = [pts for pts, _, _, _ in packets if pts is not None]
    counted = len(all_pts) < len(packets) or len(set(all_pts)) < len(packets)
    if counted:
        timestamps = np.arange(len(packets)) / (rate or 25.0)
        end = len(packets) / (rate or 25.0)
        pts = None
    else:
        pts = np.sort(np.array(all_pts, np.int64))
        timestamps = pts * base - zero
        end = float(timestamps[-1]) + _last_duration(packets, pts, base, rate)
    info = _cut(_info(container, stream, timestamps, end, rate), ref)
    if pts is None:
        return _Index(info, None, np.zeros(0, np.int64), [], {}, np.zeros(0, np.int64))
    first = int(np.searchsorted(timestamps, info.start))
    pts = pts[first : first + info.count]
    keys = sorted(
        (p, d if d is not None else p, i) for i, (p, d, _, key) in enumerate(packets) if key and p is not None
    )
    return _Index(
        info,
        pts,
        np.array([k[0] for k in keys], np.int64),
        [k[1] for k in keys],
        {p: i for i, (p, _, _, _) in enumerate(packets) if p is not None},
        np.array([k[2] for k in keys], np.int64),
    )


def _zero(container: Any, stream: Any) -> float:
    """The moment that counts as second 0: where the file starts, in seconds of its own clock."""
    if container.start_time is not None:
        return float(container.start_time / av.time_base)
    return float((stream.start_time or 0) * stream.time_base)


def _last_duration(
    packets: list[tuple[int | None, int | None, int, bool]], pts: npt.NDArray[np.int64], base: float, rate: float
) -> float:
    last = next(duration for p, _, duration, _ in packets if p == pts[-1])
    if last:
        return last * base
    if len(pts) > 1:
        return float(pts[-1] - pts[0]) * base / (len(pts) - 1)
    return 1 / rate if rate else 0.04


def _info(container: Any, stream: Any, timestamps: npt.NDArray[np.float64], end: float, rate: float) -> VideoInfo:
    if len(timestamps) > 1 and end > timestamps[0]:
        rate = len(timestamps) / (end - float(timestamps[0]))
    return VideoInfo(
        stream=stream.index,
        codec=stream.codec_context.name,
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        fps=rate if len(timestamps) > 1 else 0.0,
        timestamps=timestamps,
        end=end,
        others=tuple(s.index for s in _pictures(container) if s.index != stream.index),
    )


def _cut(info: VideoInfo, ref: MediaRef) -> VideoInfo:
    """Keep the frames that are shown during [start, end): the one on screen at ``start`` belongs to it."""
    if ref.start is None and ref.end is None:
        return info
    start = -math.inf if ref.start is None else ref.start
    end = math.inf if ref.end is None else ref.end
    if start >= info.end or end <= start:
        raise VideoError(f"the span [{ref.start}, {ref.end}) lies outside the {info.end:.2f} s of video", "span")
    first = max(int(np.searchsorted(info.timestamps, start + 1e-6, side="right")) - 1, 0)
    last = max(int(np.searchsorted(info.timestamps, end - 1e-6, side="left")), first + 1)
    kept = info.timestamps[first:last]
    return VideoInfo(info.stream, info.codec, info.width, info.height, info.fps, kept, min(end, info.end), info.others)


# Reading


def _read(
    ref: MediaRef, times: Times | None, size: int | tuple[int, int] | None, audio: int | None, video: bool
) -> Clip:
    clip = Clip()
    with _open(ref) as container:
        pictures = _pictures(container) if video else []
        stream = pictures[0] if pictures else None
        sound = None
        if audio is not None:
            if container.streams.audio:
                sound = _Sound(container, container.streams.audio[0], audio, ref)
            else:
                clip.missing["audio"] = "no audio stream"
        if video and stream is None:
            covers = " (only cover art)" if container.streams.video else ""
            clip.missing["video"] = f"no video stream{covers}"
        if stream is None and sound is None:
            raise VideoError("; ".join(clip.missing.values()), "no_video" if video else "no_audio")
        if stream is not None:
            _one_thread(stream)
        packets = _scan(container, stream, sound)
        if sound is not None:
            waveform = sound.finish()
            if waveform is None:
                clip.missing["audio"] = "no sound could be decoded"
            else:
                clip.waveform, clip.sample_rate = waveform[None], sound.rate
        if stream is not None:
            if not packets:
                raise VideoError("the video stream holds no frames", "no_frames")
            index = _index(container, stream, packets, ref)
            wanted = index.info.positions(np.arange(index.info.count) if times is None else times(index.info))
            frames = None if index.pts is None else _seek_and_decode(container, stream, index, wanted, size)
            if frames is None:
                return _count_and_decode(ref, index.pts is not None, times, size, clip)
            clip.frames, clip.timestamps = frames, index.info.timestamps[wanted]
    if clip.frames is None and clip.waveform is None:
        raise VideoError("; ".join(clip.missing.values()), "no_audio")
    return clip


def _seek_and_decode(
    container: Any, stream: Any, index: _Index, wanted: npt.NDArray[np.int64], size: int | tuple[int, int] | None
) -> Frames | None:
    """The wanted frames, by seeking; None when one of them does not come out, and the caller has to count instead."""
    assert index.pts is not None
    pending = [int(p) for p in np.unique(index.pts[wanted])]
    pictures: dict[int, Frames] = {}
    try:
        while pending:
            key = int(np.searchsorted(index.keys, pending[0], side="right")) - 1
            if key < 0:
                return None
            container.seek(index.key_dts[key], stream=stream, backward=True)
            before = len(pending)
            if not _decode_from(container, stream, index, pending, pictures, int(index.key_position[key]), size):
                return None
            if len(pending) == before:
                return None
    except av.error.FFmpegError:
        return None
    return np.stack([pictures[int(p)] for p in index.pts[wanted]])


def _decode_from(
    container: Any,
    stream: Any,
    index: _Index,
    pending: list[int],
    pictures: dict[int, Frames],
    start: int,
    size: int | tuple[int, int] | None,
) -> bool:
    """Decode until ``pending`` is empty or its next frame is better reached by another seek. False when a frame was
    passed without being met."""
    first = True
    for packet in container.demux(stream):
        place = start if packet.pts is None else index.position.get(packet.pts, start)
        if first and place > start:
            return False  # the seek went too far
        first = False
        for frame in _decode(packet):
            if frame.pts is None:
                return False
            if pending and frame.pts > pending[0]:
                return False
            if pending and frame.pts == pending[0]:
                pictures[pending.pop(0)] = _picture(frame, size)
        if not pending:
            return True
        key = int(np.searchsorted(index.keys, pending[0], side="right")) - 1
        if index.key_position[key] > place + 2:
            return True
    return False


def _decode(packet: Any) -> list[Any]:
    """Frames of a packet; a damaged packet gives none, and the decoder goes on with the next."""
    try:
        return list(packet.decode())
    except (av.error.InvalidDataError, av.error.EOFError):
        return []


def _sequential(container: Any, stream: Any) -> Iterator[Any]:
    try:
        for packet in container.demux(stream):
            yield from _decode(packet)
    except av.error.FFmpegError:
        return


def _count_and_decode(
    ref: MediaRef, has_pts: bool, times: Times | None, size: int | tuple[int, int] | None, clip: Clip
) -> Clip:
    """Decode from the start: once to learn which frames come out, once to convert the wanted ones."""
    with _open(ref) as container:
        stream = _pictures(container)[0]
        _one_thread(stream)
        base, zero = float(stream.time_base), _zero(container, stream)
        rate = float(stream.average_rate or stream.guessed_rate or 25.0)
        shown = [frame.pts for frame in _sequential(container, stream)]
        if not shown:
            raise VideoError("no frame could be decoded", "no_frames")
        if has_pts and None not in shown:
            timestamps = np.maximum.accumulate(np.array(shown, np.float64)) * base - zero
        else:
            timestamps = np.arange(len(shown)) / rate
        whole = _info(container, stream, timestamps, float(timestamps[-1]) + 1 / rate, rate)
    info = _cut(whole, ref)
    first = int(np.searchsorted(whole.timestamps, info.start))
    wanted = info.positions(np.arange(info.count) if times is None else times(info))
    places = set((wanted + first).tolist())
    pictures: dict[int, Frames] = {}
    with _open(ref) as container:
        stream = _pictures(container)[0]
        _one_thread(stream)
        for place, frame in enumerate(_sequential(container, stream)):
            if place in places:
                pictures[place] = _picture(frame, size)
                if len(pictures) == len(places):
                    break
    clip.frames = np.stack([pictures[place] for place in (wanted + first).tolist()])
    clip.timestamps = info.timestamps[wanted]
    return clip


# Pictures


def _picture(frame: Any, size: int | tuple[int, int] | None) -> Frames:
    """RGB at the wanted size, turned upright. The size is that of the displayed picture."""
    turns = round(frame.rotation / 90) % 4
    height, width = (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
    height, width = _target(height, width, size)
    if turns % 2:
        height, width = width, height
    picture: Frames = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR")
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _target(height: int, width: int, size: int | tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        return height, width
    if isinstance(size, tuple):
        return size
    short = min(height, width)
    long = min(round(max(height, width) * size / short), _WIDEST * size)
    return (size, long) if height <= width else (long, size)


# Sound


class _Sound:
    """Decodes, cuts to the span, mixes to one channel and resamples, packet by packet."""

    def __init__(self, container: Any, stream: Any, rate: int, ref: MediaRef) -> None:
        self.stream = stream
        self.rate = rate
        self.zero = _zero(container, stream)
        self.start = -math.inf if ref.start is None else ref.start
        self.end = math.inf if ref.end is None else ref.end
        self.pieces: list[npt.NDArray[np.float32]] = []
        self.resampler: Any = None
        self.clock: float | None = None
        _one_thread(stream)

    def feed(self, packet: Any) -> None:
        """Decode one packet; a damaged one is skipped, and what was decoded before it is kept."""
        if packet.pts is not None:
            second = float(packet.pts * packet.time_base) - self.zero
            if second < self.start - _PREROLL_S or second > self.end:
                return
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, av.error.EOFError):
            return
        for frame in frames:
            self._take(frame)

    def _take(self, frame: Any) -> None:
        begin = self.clock if frame.pts is None else float(frame.pts * frame.time_base) - self.zero
        begin = 0.0 if begin is None else begin
        self.clock = begin + frame.samples / frame.sample_rate
        first = max(math.ceil((self.start - begin) * frame.sample_rate - 1e-6), 0) if self.start > begin else 0
        last = (
            frame.samples
            if self.clock <= self.end
            else max(math.ceil((self.end - begin) * frame.sample_rate - 1e-6), 0)
        )
        if first >= last:
            return
        mono = _mono(frame)[first:last]
        self._resample(mono, frame.sample_rate)

    def _resample(self, mono: npt.NDArray[np.float32], rate: int) -> None:
        if rate == self.rate:
            self.pieces.append(mono)
            return
        if self.resampler is None:
            self.resampler = av.AudioResampler(format="fltp", layout="mono", rate=self.rate)
        piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono[None]), format="fltp", layout="mono")
        piece.sample_rate = rate
        self.pieces.extend(out.to_ndarray()[0] for out in self.resampler.resample(piece))

    def finish(self) -> npt.NDArray[np.float32] | None:
        """The whole waveform (S,), or None if nothing could be decoded."""
        if self.resampler is not None:
            self.pieces.extend(out.to_ndarray()[0] for out in self.resampler.resample(None))
        if not self.pieces:
            return None
        return np.concatenate(self.pieces)


# Gain of each loudspeaker in a mono mix before normalising, as ITU-R BS.775 folds them: a centre is heard from both
# sides, the LFE is left out.
_GAIN = {
    "FC": math.sqrt(2),
    "LFE": 0.0,
    "LFE2": 0.0,
    "BL": math.sqrt(0.5),
    "BR": math.sqrt(0.5),
    "SL": math.sqrt(0.5),
    "SR": math.sqrt(0.5),
}
_GAIN["BC"] = _GAIN["BL"]


def _mono(frame: Any) -> npt.NDArray[np.float32]:
    """One channel (S,), float32 in [-1, 1]."""
    samples = frame.to_ndarray()
    channels = len(frame.layout.channels)
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    if samples.dtype.kind in "iu":
        bits = 8 * samples.dtype.itemsize
        samples = samples.astype(np.float32) / 2 ** (bits - 1) - (1.0 if samples.dtype.kind == "u" else 0.0)
    if channels == 1:
        return np.ascontiguousarray(samples[0], np.float32)
    gains = np.array([_GAIN.get(channel.name, 1.0) for channel in frame.layout.channels], np.float32)
    gains /= gains.sum() or 1.0
    return (gains @ samples.astype(np.float32, copy=False)).astype(np.float32, copy=False)


# Probing


def _probe(ref: MediaRef) -> MediaInfo:
    with _open(ref) as container:
        pictures = _pictures(container)
        stream = pictures[0] if pictures else None
        track = container.streams.audio[0] if container.streams.audio else None
        if stream is None and track is None:
            raise VideoError("neither a video nor an audio stream", "no_video")
        notes = []
        audio = None
        if track is not None:
            seconds = (
                float(track.duration * track.time_base) if track.duration else (container.duration or 0) / av.time_base
            )
            context = track.codec_context
            audio = AudioInfo(track.index, context.name, context.sample_rate, context.channels, seconds)
        if stream is None:
            assert audio is not None
            return MediaInfo(container.format.name, audio.seconds, None, audio)
        _one_thread(stream)
        packets = _scan(container, stream, None)
        if not packets:
            raise VideoError("the video stream holds no frames", "no_frames")
        index = _index(container, stream, packets, ref)
        if index.pts is None:
            notes.append("frames have no times of their own: they are counted")
        if index.info.others:
            notes.append(f"{len(index.info.others) + 1} video streams, the first one is used")
    with _open(ref) as container:
        stream = _pictures(container)[0]
        _one_thread(stream)
        frame = next(_sequential(container, stream), None)
        if frame is None:
            raise VideoError("no frame could be decoded", "no_frames")
        rotation = round(frame.rotation / 90) % 4 * 90
        name = container.format.name
    return MediaInfo(name, index.info.end - index.info.start, index.info, audio, rotation, tuple(notes))
