"""The default decoder: PyAV, one thread, frames chosen from a packet index and decoded from the nearest key frame.

One pass over the packets gives the time of every frame, and decodes the sound. Then decoding starts at the last key
frame before each wanted frame, and H.264 pictures that are neither wanted nor referred to are skipped (which changes no
pixel and saves a quarter of the time). Where this cannot be trusted (packets without times, two frames at one time, or
a wanted frame that does not come out, as after stream copies into MPEG-TS) the stream is decoded from its start and
frames are counted.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

import av
import numpy as np
import numpy.typing as npt

from vtp.media.info import AudioInfo, MediaError, MediaInfo, VideoInfo
from vtp.media.packets import (
    PacketIndex,
    StartOver,
    build_index,
    frame_rate,
    one_thread,
    pictures,
    scan,
    second_zero,
    sounds,
    video_info,
)
from vtp.media.request import Size, Wanted, cut, picture_may_lack
from vtp.media.sound import SoundTrack
from vtp.media.source import CONTAINERS, check_source
from vtp.media.upright import Converter, pixel_aspect
from vtp.types import Clip, MediaRef

__all__ = ["PyavDecoder", "guarded", "open_media", "picture_stream", "sound_track", "take_sound"]

Frames = npt.NDArray[np.uint8]
_Result = TypeVar("_Result")


class PyavDecoder:
    """Backend ``pyav``, the one behind ``auto``."""

    name = "pyav"

    def probe(self, ref: MediaRef) -> MediaInfo:
        """See :func:`vtp.media.probe`."""
        return guarded(self.name, lambda: _probe(ref))

    def read(self, ref: MediaRef, wanted: Wanted) -> Clip:
        """See :func:`vtp.media.read_clip`."""
        return guarded(self.name, lambda: _read(ref, wanted))


def guarded(backend: str, work: Callable[[], _Result]) -> _Result:
    """Damaged headers make decoders raise nearly anything (UnicodeDecodeError, EOFError, AttributeError): all of it
    becomes a MediaError."""
    try:
        return work()
    except MediaError as error:
        error.backend = error.backend or backend
        raise
    except (MemoryError, av.error.MemoryError):
        reason, kind = "needs more memory than a file is allowed to use", "memory"
    except av.error.InvalidDataError:
        reason, kind = "not a media file, or too damaged to read", "invalid"
    except av.error.FFmpegError as error:
        reason, kind = f"{type(error).__name__}: {error.strerror}", "invalid"
    except Exception as error:
        said = str(error).strip().splitlines()
        reason, kind = f"damaged: {type(error).__name__}: {said[0][:200] if said else 'no message'}", "invalid"
    raise MediaError(reason, kind, backend)


@contextlib.contextmanager
def open_media(ref: MediaRef) -> Iterator[Any]:
    """An open ``av`` container, closed at the end.

    Raises:
        MediaError: for what must not be opened. Else whatever av raises.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(ref.path, bytes):
            if not ref.path:
                raise MediaError("the file is empty", "empty")
            source: Any = io.BytesIO(ref.path)
        else:
            check_source(ref.path)
            # FFmpeg's image reader takes a % for a numbered sequence; "file:" keeps "a:b.mp4" from being a protocol.
            source = stack.enter_context(open(ref.path, "rb")) if "%" in ref.path else "file:" + ref.path
        # A playlist with the name of a video must not make us open addresses on the network, nor other files.
        options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
        try:
            container = av.open(source, options=options)
        except av.error.ArgumentError:
            reason = "damaged, or no container that is read: playlists and the like name other files"
            raise MediaError(reason, "invalid") from None
        yield stack.enter_context(container)


def _read(ref: MediaRef, wanted: Wanted) -> Clip:
    try:
        return _read_once(ref, wanted, seek=True)
    except StartOver:
        return _read_once(ref, wanted, seek=False)


def _read_once(ref: MediaRef, wanted: Wanted, seek: bool) -> Clip:
    clip = Clip()
    index = None
    with open_media(ref) as container:
        stream = picture_stream(container, clip) if wanted.video else None
        sound = None if wanted.sample_rate is None else sound_track(container, wanted.sample_rate, ref, clip)
        if stream is None and sound is None:
            kind = "no_video" if wanted.video else "no_audio"
            raise MediaError("; ".join(clip.missing.values()) or "nothing was asked for", kind)
        scanned = scan(container, stream, sound, ref, seek)
        if sound is not None:
            take_sound(sound, clip)
        if stream is not None:
            if not scanned:
                raise MediaError("the video stream holds no frames", "no_frames")
            with picture_may_lack(clip):
                index = build_index(container, stream, scanned, ref)
        if index is not None:
            places = wanted.positions(index.info)
            frames = _Sought(container, stream, index, _converter(container, stream, wanted.size, ref)).take(places)
            clip.frames, clip.timestamps = frames, index.info.timestamps[places]
    if index is not None and frames is None:
        clip.frames, clip.timestamps = _count(ref, index, places, wanted)
    if clip.frames is None and clip.waveform is None:
        raise MediaError("; ".join(clip.missing.values()), "no_audio")
    return clip


def picture_stream(container: Any, clip: Clip) -> Any:
    """The video stream that is meant and no cover art, ready to decode; None, with the reason in ``clip``, if there is
    none."""
    streams = pictures(container)
    if not streams:
        clip.missing["video"] = "no video stream" + (", only cover art" if container.streams.video else "")
        return None
    one_thread(streams[0])
    return streams[0]


def sound_track(container: Any, rate: int, ref: MediaRef, clip: Clip) -> SoundTrack | None:
    """The audio stream that is meant, ready to be fed; None, with the reason in ``clip``, if there is none."""
    streams = sounds(container)
    if not streams:
        clip.missing["audio"] = "no audio stream"
        return None
    stream = streams[0]
    one_thread(stream)
    zero = second_zero(container, stream)
    return SoundTrack(
        stream,
        rate,
        zero,
        -math.inf if ref.start is None else ref.start,
        math.inf if ref.end is None else ref.end,
        (container.duration or 0) / av.time_base,
        exact=container.format.name.startswith("mov,"),  # others round it, or estimate it
    )


def take_sound(sound: SoundTrack, clip: Clip) -> None:
    """Put what was heard into ``clip``."""
    waveform = sound.finish()
    if waveform is None:
        clip.missing["audio"] = "no sound could be decoded"
    else:
        clip.waveform, clip.sample_rate, clip.sound_start = waveform[None], sound.rate, sound.began or 0.0


class _Sought:
    """Decodes wanted frames from the key frames before them."""

    def __init__(self, container: Any, stream: Any, index: PacketIndex, convert: Converter) -> None:
        self.container = container
        self.stream = stream
        self.index = index
        self.convert = convert
        # In other codecs "not referred to" is decided too late (AV1) or per layer (HEVC).
        self.skips = stream.codec_context.name == "h264"

    def take(self, places: npt.NDArray[np.int64]) -> Frames | None:
        """The frames at ``places``, uint8 (len(places), H, W, 3); None if one does not come out: then count."""
        if self.index.counted or self.index.pts is None or self.index.moved is not None:
            return None
        pending = [int(p) for p in np.unique(self.index.pts[places])]
        pictures: dict[int, Frames] = {}
        try:
            while pending:
                key = self.index.key_before(pending[0])
                if key < 0:
                    return None
                before = len(pending)
                self.container.seek(self.index.keys[key], stream=self.stream, backward=True)
                if not self._decode(pending, pictures, self.index.key_places[key]) or len(pending) == before:
                    return None
        except av.error.FFmpegError:
            return None
        if not len(places):
            return np.zeros((0, 0, 0, 3), np.uint8)
        return np.stack([pictures[int(p)] for p in self.index.pts[places]])

    def _decode(self, pending: list[int], pictures: dict[int, Frames], start: int) -> bool:
        """Decode from here until ``pending`` is empty, or a later key frame is nearer to the next one. False if a
        wanted frame was passed."""
        waiting, context = set(pending), self.stream.codec_context
        place, skipping = -1, None
        for packet in self.container.demux(self.stream):
            if (pts := packet.pts) is not None:
                place, first = self.index.places.get(pts, place), place < 0
                if first and place > start:
                    return False  # the seek went too far
            if self.skips:
                skip = packet.size > 0 and pts not in waiting
                if skip is not skipping:  # setting it costs more than asking
                    context.skip_frame, skipping = "NONREF" if skip else "DEFAULT", skip
            for frame in _frames(packet):
                if frame.pts is None or (pending and frame.pts > pending[0]):
                    return False
                if pending and frame.pts == pending[0]:
                    pictures[pending.pop(0)] = self.convert(frame)
            if not pending or self.index.key_places[self.index.key_before(pending[0])] > max(place, start):
                return True
        return False


def _frames(packet: Any) -> list[Any]:
    """Frames that come out with a packet. A damaged packet gives none, and the decoder goes on with the next."""
    try:
        return list(packet.decode())
    except (av.error.InvalidDataError, EOFError):
        return []


def _all_frames(container: Any, stream: Any) -> Iterator[Any]:
    """Frames from here to the end, or to where the file is cut off."""
    with contextlib.suppress(av.error.FFmpegError):
        for packet in container.demux(stream):
            yield from _frames(packet)


def _converter(container: Any, stream: Any, size: Size, ref: MediaRef) -> Converter:
    def first() -> tuple[int, int]:
        with open_media(MediaRef(ref.path)) as again:
            chosen = pictures(again)[0]
            one_thread(chosen)
            frame = next(_all_frames(again, chosen))
            return frame.width, frame.height

    context = stream.codec_context
    return Converter(size, (context.width, context.height), first)


def _count(
    ref: MediaRef, index: PacketIndex, places: npt.NDArray[np.int64], wanted: Wanted
) -> tuple[Frames, npt.NDArray[np.float64]]:
    """Frames and their times by reading on from the start of the stream.

    Where packets have no times, the n-th frame is taken to come from the n-th packet, which holds unless there are too
    few frames. Else the stream is decoded twice: to learn which frames there are, and to convert the ones that are then
    chosen.
    """
    if index.moved is not None and index.pts is not None:
        found = _take(ref, index.pts[places].tolist(), wanted.size, index.moved)
        if found is not None:
            return found, index.info.timestamps[places]
    elif index.pts is None:
        found = _take(ref, (places + index.first).tolist(), wanted.size)
        if found is not None:
            return found, index.info.timestamps[places]
    with open_media(ref) as container:
        stream = pictures(container)[0]
        one_thread(stream)
        frames = _all_frames(container, stream)
        shown = [f.pts for f in frames] if index.moved is None else [pts for pts, _ in _moved(frames, index.moved)]
        if not shown:
            raise MediaError(_why_nothing(container, ref), "no_frames")
        info, first = cut(_timeline(container, stream, shown, index.ordered), ref)
    places = wanted.positions(info)
    found = _take(ref, (places + first).tolist(), wanted.size)
    if found is None:
        raise MediaError("gives other frames each time it is decoded", "decode")
    return found, info.timestamps[places]


def _moved(frames: Iterator[Any], moved: dict[int, list[int]]) -> Iterator[tuple[int | None, Any]]:
    """Frames of a file whose clock jumps, in the order in which they are shown, each with its time on a clock that goes
    on. Of several packets with one time of the file's clock the next one is meant."""
    last = None
    for frame in frames:
        after = [pts for pts in moved.get(frame.pts, ()) if last is None or pts > last]
        last = after[0] if after else None if last is None else last + 1
        yield last, frame


def _timeline(container: Any, stream: Any, shown: list[int | None], ordered: bool) -> VideoInfo:
    step = 1 / frame_rate(container, stream)
    timestamps: npt.NDArray[np.float64]
    known = [pts for pts in shown if pts is not None]
    if len(known) < len(shown) or stream.time_base is None:
        timestamps = np.arange(len(shown), dtype=np.float64) * step
    else:
        seconds = np.array(known, np.float64) * float(stream.time_base) - second_zero(container, stream)
        timestamps = np.asarray(np.sort(seconds) if ordered else np.maximum.accumulate(seconds), np.float64)
    return video_info(container, stream, timestamps, float(timestamps[-1]) + step)


def _take(
    ref: MediaRef, wanted: Collection[int], size: Size, moved: dict[int, list[int]] | None = None
) -> Frames | None:
    """The frames at these places of the whole stream, or with these times on the clock that goes on where ``moved`` is
    given; None if it ends before."""
    found: dict[int | None, Frames] = {}
    waiting: set[int | None] = set(wanted)
    with open_media(ref) as container:
        stream = pictures(container)[0]
        one_thread(stream)
        convert = _converter(container, stream, size, ref)
        frames = _all_frames(container, stream)
        for place, frame in enumerate(frames) if moved is None else _moved(frames, moved):
            if place in waiting:
                found[place] = convert(frame)
                waiting.remove(place)
            if not waiting:
                return np.stack([found[p] for p in wanted]) if found else np.zeros((0, 0, 0, 3), np.uint8)
    return None


def _why_nothing(container: Any, ref: MediaRef) -> str:
    """Why no frame of an open container can be decoded."""
    if container.format.name == "webp_pipe" and _head(ref)[12:16] == b"VP8X" and _head(ref)[20] & 2:
        return "an animated WebP, which this version of FFmpeg does not decode: convert it to GIF or MP4"
    return "no frame could be decoded"


def _head(ref: MediaRef) -> bytes:
    if isinstance(ref.path, bytes):
        return ref.path[:32].ljust(32, b"\0")
    with open(ref.path, "rb") as file:
        return file.read(32).ljust(32, b"\0")


def _probe(ref: MediaRef) -> MediaInfo:
    try:
        return _probe_once(ref, seek=True)
    except StartOver:
        return _probe_once(ref, seek=False)


def _probe_once(ref: MediaRef, seek: bool) -> MediaInfo:
    with open_media(ref) as container:
        name = container.format.name
        stream = picture_stream(container, Clip())
        audio = _audio_info(container)
        if stream is None:
            if audio is None:
                raise MediaError("neither a video nor an audio stream", "no_video")
            return MediaInfo(name, audio.seconds, None, audio)
        scanned = scan(container, stream, None, ref, seek)
        if not scanned:
            raise MediaError("the video stream holds no frames", "no_frames")
        index = build_index(container, stream, scanned, ref)
        aspect = pixel_aspect(container, stream)
        heard = [s.index for s in sounds(container)]
    with open_media(ref) as container:
        frame = next(_all_frames(container, picture_stream(container, Clip())), None)
        if frame is None:
            raise MediaError(_why_nothing(container, ref), "no_frames")
    notes = []
    if index.counted:
        notes.append("frames have no times of their own: they are counted")
    if index.moved is not None:
        notes.append("the clock of the file jumps: its times are counted on")
    if aspect != 1.0:
        width, height = index.info.width, index.info.height
        notes.append(
            f"pixels are not square: {width}x{height} as stored and read, {round(width * aspect)}x{height} shown"
        )
    if index.info.others:
        notes.append(_chosen("video", index.info.stream, 1 + len(index.info.others), index.info.others))
    if audio is not None and len(heard) > 1:
        notes.append(_chosen("audio", audio.stream, len(heard), heard[1:]))
    seconds = index.info.end - index.info.start
    return MediaInfo(name, seconds, index.info, audio, round(frame.rotation / 90) % 4 * 90, tuple(notes))


def _chosen(what: str, stream: int, count: int, others: Sequence[int]) -> str:
    which = "first" if stream < min(others) else "default one"
    return f"{count} {what} streams: stream {stream}, the {which}, is used"


def _audio_info(container: Any) -> AudioInfo | None:
    streams = sounds(container)
    if not streams:
        return None
    stream = streams[0]
    seconds = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / av.time_base
    context = stream.codec_context
    return AudioInfo(stream.index, context.name, context.sample_rate, context.channels, seconds)
