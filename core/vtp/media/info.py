"""What is known about a media file before its frames are converted, and the one error that every failure becomes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from vtp.errors import RunError

__all__ = ["AudioInfo", "MediaError", "MediaInfo", "VideoInfo"]


class MediaError(RunError):
    """A media file that cannot be used, whatever the cause: the only error that leaves :mod:`vtp.media`.

    Attributes:
        reason: one line, without the path.
        kind: short and stable, for counting: ``missing``, ``permission``, ``not_a_file``, ``empty``, ``invalid``,
            ``no_video``, ``no_audio``, ``no_frames``, ``span``, ``timeout``, ``crash``, ``memory``, ``decode``.
        backend: the decoder that gave up, if one was involved.
        known: True when this is an earlier failure of the file, repeated without opening it.
    """

    def __init__(self, reason: str, kind: str = "decode", backend: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.backend = backend
        self.known = False

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, str, str]]:
        return (MediaError, (self.reason, self.kind, self.backend))


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The chosen video stream, cut to the span that was asked for.

    Attributes:
        stream: its index in the file.
        codec: for example ``h264``.
        width, height: of a stored frame in pixels; a rotation is applied later, when frames are converted.
        fps: mean frames per second; 0 where one frame is all there is.
        timestamps: float64 (D,), ascending: when each frame is shown, in seconds from the start of the file.
        end: second at which the last frame stops being shown.
        others: indices of further video streams that were not chosen (cover art not counted).
    """

    stream: int
    codec: str
    width: int
    height: int
    fps: float
    timestamps: npt.NDArray[np.float64]
    end: float
    others: tuple[int, ...] = ()

    @property
    def start(self) -> float:
        """Second at which the first frame is shown."""
        return float(self.timestamps[0])

    @property
    def count(self) -> int:
        """Number of frames, D."""
        return len(self.timestamps)

    def cut(self, first: int, last: int, end: float) -> VideoInfo:
        """The same stream with only the frames [first, last), shown until ``end``."""
        return replace(self, timestamps=self.timestamps[first:last], end=end)

    def positions(self, times: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
        """Frames that ``times`` mean: integers are positions already, floats are seconds and mean the frame shown at
        that moment.

        Values before the first or after the last frame mean the first or the last.
        """
        values = np.asarray(times)
        if values.size == 0:
            return np.zeros(0, np.int64)
        if not np.issubdtype(values.dtype, np.integer):
            # A microsecond of grace: 10 / 30 and pts * time_base of the tenth frame may differ in the last bit.
            values = np.searchsorted(self.timestamps, values.astype(np.float64) + 1e-6, side="right") - 1
        return np.clip(values.astype(np.int64), 0, self.count - 1)


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The chosen audio stream: its index, codec, sample rate in Hz, number of channels and length in seconds (0 if the
    file does not say)."""

    stream: int
    codec: str
    sample_rate: int
    channels: int
    seconds: float


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """A media file as :func:`vtp.media.probe` sees it: nothing is decoded but the first frame.

    Attributes:
        format: container, for example ``mov,mp4,m4a,3gp,3g2,mj2``.
        seconds: from the first to the end of the last frame, or of the sound where there are no frames.
        video, audio: the chosen streams, or None.
        rotation: degrees, counter-clockwise, that stored frames are turned by for display: 0, 90, 180 or 270.
            ``read_clip`` does it.
        notes: what is unusual, in words, for ``vtp data check``.
    """

    format: str
    seconds: float
    video: VideoInfo | None
    audio: AudioInfo | None
    rotation: int = 0
    notes: tuple[str, ...] = field(default_factory=tuple)
