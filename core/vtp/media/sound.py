"""The sound of a file as one channel of float32 at the wanted rate, decoded packet by packet with PyAV."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import av
import numpy as np
import numpy.typing as npt

__all__ = ["SoundTrack", "mix_to_mono"]

_PREROLL_S = 1.0  # sound is decoded from this much before a span, so that the codec has settled
_CHUNK = 1 << 16  # samples that are mixed and resampled at once
_HOLE_S = 0.1  # sound that is away from its place by less than this is joined: containers round their times
_LONG_HOLE_S = 10.0  # silence that is longer than this has to lie within the file
_BACK_S = 1.0  # sound that lies further back than this does not overlap: its clock was set back

# Gain of each loudspeaker in a mono mix before normalising, as ITU-R BS.775 folds them: a centre is heard from both
# sides, surrounds are attenuated by 3 dB, the LFE is left out. FFmpeg's `-ac 1` does the same.
_SURROUND = math.sqrt(0.5)
_GAIN = {"FC": math.sqrt(2), "LFE": 0.0, "LFE2": 0.0} | dict.fromkeys(("BL", "BR", "BC", "SL", "SR"), _SURROUND)


class SoundTrack:
    """Takes the packets of one audio stream, keeps what is heard in [start, end) seconds, and gives the waveform. Where
    nothing is heard for a while the waveform is silent, so that what follows keeps its place.

    Args:
        stream: of an open container.
        rate: samples per second of the result.
        zero: second of the stream's clock that counts as 0.
        start, end: the span.
        seconds: length of the file as it says itself, 0 if it does not: no silence reaches beyond it.
        exact: whether the stream says exactly how long it is: codec frames are longer than what was put into the last
            one.
    """

    def __init__(
        self,
        stream: Any,
        rate: int,
        zero: float,
        start: float,
        end: float,
        seconds: float = 0.0,
        exact: bool = False,
    ) -> None:
        self.stream = stream
        self.rate = rate
        self._base = float(stream.time_base)
        self._zero = zero
        self._start = start
        self._end = end
        self._seconds = seconds
        self._exact = exact
        self.reset()

    def reset(self) -> None:
        """Forget what was fed, because reading starts over from another place."""
        self.first_second: float | None = None  # time of the first packet that was fed
        self.began: float | None = None  # time of the first sample that is kept
        self._clock = 0.0  # where the last decoded frame ended, for frames without a time
        self._shift = 0.0  # between the file's clock and ours
        self._slip = 0.0  # the same, where sound alone jumps
        self._place = 0.0  # where the next sample that is kept belongs
        self._waiting: list[npt.NDArray[Any]] = []  # decoded, neither mixed nor resampled
        self._waiting_length = 0
        self._shape: tuple[int, str, str] = (0, "", "")  # rate, sample format and layout of what waits
        self._speakers: list[str] = []
        self._planar = True
        self._done: list[npt.NDArray[np.float32]] = []
        self._resampler: Any = None

    def feed(self, packet: Any, shift: float = 0.0) -> None:
        """Decode one packet. A damaged one is skipped: what comes before and after it is kept.

        Args:
            shift: seconds by which the packet is moved, see :class:`vtp.media.clock.Clock`.
        """
        self._shift = shift
        if packet.pts is not None:
            second = packet.pts * self._base - self._zero + shift
            if self.first_second is None:
                self.first_second = second
            if not self._start - _PREROLL_S <= second <= self._end:
                return
        self._decode(packet)

    def finish(self) -> npt.NDArray[np.float32] | None:
        """The whole waveform (S,), or None if nothing could be decoded."""
        self._decode(None)  # what the decoder holds back, if the end of the stream has not been reached
        self._flush()
        if self._resampler is not None:
            self._done.extend(out.to_ndarray()[0] for out in self._resampler.resample(None))
        if not self._done:
            return None
        waveform = np.concatenate(self._done)
        if self._exact and self.stream.duration:  # asked now: fragments tell it as they are read
            stop = float(((self.stream.start_time or 0) + self.stream.duration) * self.stream.time_base) - self._zero
            over = round((self._place - stop) * self.rate)
            if 0 < over < min(len(waveform), _HOLE_S * self.rate):
                return waveform[:-over]
        return waveform

    def _decode(self, packet: Any) -> None:
        with contextlib.suppress(av.error.FFmpegError, EOFError):
            for frame in self.stream.codec_context.decode(packet):
                self._take(frame)

    def _take(self, frame: Any) -> None:
        rate, length = int(frame.sample_rate), int(frame.samples)
        begin = self._clock if frame.pts is None else frame.pts * self._base - self._zero + self._shift + self._slip
        end = begin + length / rate
        off = 0.0 if self.began is None else begin - self._place
        if off < -_BACK_S or (off > _LONG_HOLE_S and begin > self._seconds + 1):
            self._slip -= off
            begin, end, off = begin - off, end - off, 0.0
        self._clock = end
        skip = max(self._start - begin, -off if off < -_HOLE_S else 0.0)
        first = 0 if skip <= 0 else _sample_at(skip, rate, length)
        last = length if end <= self._end else _sample_at(self._end - begin, rate, length)
        if first >= last:
            return
        if self.began is None:
            self.began = self._place = begin + first / rate
        shape = (rate, frame.format.name, frame.layout.name)
        if shape != self._shape:  # hardly ever: a stream may change its rate or layout on the way
            self._flush()
            self._shape, self._speakers = shape, [channel.name for channel in frame.layout.channels]
            self._planar = frame.format.is_planar
        if off > _HOLE_S:
            self._be_silent(round(off * rate))
            self._place += round(off * rate) / rate
        self._place += (last - first) / rate
        samples = frame.to_ndarray()
        if not self._planar:
            samples = samples.reshape(-1, len(self._speakers)).T
        self._waiting.append(samples[:, first:last])
        self._waiting_length += last - first
        if self._waiting_length >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        """Mix and resample what has gathered: once per codec frame of 1024 samples would cost more than the
        arithmetic."""
        if not self._waiting:
            return
        mono = mix_to_mono(np.concatenate(self._waiting, axis=1), self._speakers)
        self._waiting, self._waiting_length = [], 0
        self._resample(mono)

    def _be_silent(self, samples: int) -> None:
        self._flush()
        for begin in range(0, samples, _CHUNK):
            self._resample(np.zeros(min(_CHUNK, samples - begin), np.float32))

    def _resample(self, mono: npt.NDArray[np.float32]) -> None:
        if self._shape[0] == self.rate and self._resampler is None:
            self._done.append(mono)
            return
        if self._resampler is None:
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=self.rate)
        piece = av.AudioFrame.from_ndarray(mono[None], format="fltp", layout="mono")
        piece.sample_rate = self._shape[0]
        self._done.extend(out.to_ndarray()[0] for out in self._resampler.resample(piece))


def _sample_at(second: float, rate: int, length: int) -> int:
    """The first of ``length`` samples at or after ``second`` from their start."""
    return min(max(math.ceil(second * rate - 1e-3), 0), length)


def mix_to_mono(samples: npt.NDArray[Any], speakers: list[str]) -> npt.NDArray[np.float32]:
    """One channel (S,), float32 in [-1, 1], from (channels, S) of any sample type and the names of their
    loudspeakers."""
    if samples.dtype.kind == "u":  # 8 bit: 128 is silence
        samples = samples.astype(np.float32) / np.float32(128) - np.float32(1)
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / np.float32(2 ** (8 * samples.dtype.itemsize - 1))
    samples = samples.astype(np.float32, copy=False)
    if len(samples) == 1:
        return np.ascontiguousarray(samples[0])
    gains = np.array([_GAIN.get(name, 1.0) for name in speakers], np.float32)
    if not gains.any():
        gains[:] = 1.0
    return np.ascontiguousarray((gains / gains.sum()) @ samples, np.float32)
