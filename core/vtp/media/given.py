"""Frames and sounds that are in memory already, in front of a reader of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.media.frames import resample
from vtp.media.info import MediaError
from vtp.media.member import take_frames
from vtp.media.request import EVERYTHING, Reader, Wanted
from vtp.types import Clip, MediaRef

__all__ = ["GivenReader"]


class GivenReader:
    """Reads what is given here, and everything else with ``reader``.

    Args:
        reader: of files.
        frames: path of a :class:`MediaRef` -> uint8 (T, H, W, 3) RGB, which count as one a second.
        sounds: path -> float32 (S,) or (channels, S) in [-1, 1], and its rate in Hz.
    """

    def __init__(
        self,
        reader: Reader,
        frames: Mapping[str, npt.NDArray[np.uint8]],
        sounds: Mapping[str, tuple[npt.NDArray[np.float32], int]],
    ) -> None:
        self.reader = reader
        self.frames = frames
        self.sounds = sounds

    def read(self, ref: MediaRef, wanted: Wanted = EVERYTHING) -> Clip:
        """As :func:`vtp.media.read_clip`."""
        path: Any = ref.path
        if isinstance(path, bytes) or not (path in self.frames or path in self.sounds):
            return self.reader.read(ref, wanted)
        clip = Clip()
        if wanted.video and path in self.frames:
            try:
                take_frames(clip, ref, self.frames[path], {}, wanted)
            except ValueError as error:  # no frames, or no pixels
                raise MediaError(f"these frames cannot be used: {error}", "invalid") from None
        elif wanted.video:
            clip.missing["video"] = "a sound is no picture"
        if wanted.sample_rate is not None and path in self.sounds:
            waveform, rate = self.sounds[path]
            mono = np.asarray(waveform if waveform.ndim == 1 else waveform.mean(0), np.float32)
            clip.waveform, clip.sample_rate = resample(mono, rate, wanted.sample_rate)[None], wanted.sample_rate
        elif wanted.sample_rate is not None:
            clip.missing["audio"] = "frames have no sound"
        if clip.frames is None and clip.waveform is None:
            raise MediaError("; ".join(clip.missing.values()) or "nothing was asked for", "no_video")
        return clip
