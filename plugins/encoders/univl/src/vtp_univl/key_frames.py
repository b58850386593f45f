"""Decoder ``key_frames``: folders of key frames in the place of videos, as AntMMF reads them.

    <videos>/<video>/<anything><number>.jpg   (or .jpeg, .png), in the order of the numbers, one per second

Choose it with ``media.backend=key_frames``. Whatever is no folder is read as ``pyav`` reads it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from vtp.media.info import MediaError, MediaInfo, VideoInfo
from vtp.media.pyav import PyavDecoder, guarded
from vtp.media.request import Wanted, cut
from vtp.types import Clip, MediaRef
from vtp_univl.video_files import CODECS, place_of

__all__ = ["KeyFrameDecoder"]


class KeyFrameDecoder:
    """See :class:`vtp.contracts.Decoder`. A picture is opened when it is chosen; pictures of different sizes are
    refused unless ``wanted.size`` is (height, width)."""

    name = "key_frames"

    def __init__(self) -> None:
        self._files = PyavDecoder()

    def probe(self, ref: MediaRef) -> MediaInfo:
        """Streams of a file, or the one that the pictures of a folder are."""
        if not _is_folder(ref):
            return self._files.probe(ref)
        return guarded(self.name, lambda: self._probe(ref))

    def read(self, ref: MediaRef, wanted: Wanted) -> Clip:
        """Frames and sound of a file, frames of a folder."""
        return guarded(self.name, lambda: self._read(ref, wanted)) if _is_folder(ref) else self._files.read(ref, wanted)

    def _probe(self, ref: MediaRef) -> MediaInfo:
        video = self._timeline(_pictures(ref))
        return MediaInfo("key frames", video.end, video, None)

    def _read(self, ref: MediaRef, wanted: Wanted) -> Clip:
        if not wanted.video:
            raise MediaError("a folder of key frames has no sound", "no_audio")
        pictures = _pictures(ref)
        info, first = cut(self._timeline(pictures), ref)
        places = wanted.positions(info)
        clip = Clip(timestamps=info.timestamps[places])
        clip.missing |= {} if wanted.sample_rate is None else {"audio": "no audio stream"}
        one = Wanted(size=wanted.size)
        seen: dict[int, Any] = {}
        for place in np.unique(places).tolist():
            file = pictures[first + place]
            try:
                seen[place] = self._files.read(MediaRef(os.fspath(file)), one).frames
            except MediaError as error:
                raise MediaError(f"{file.name}: {error.reason}", error.kind) from None
        sizes = {frames.shape[1:3] for frames in seen.values()}
        if len(sizes) > 1:
            raise MediaError(f"its pictures have {len(sizes)} sizes", "invalid")
        clip.frames = np.concatenate([seen[place][:1] for place in places.tolist()])
        return clip

    def _timeline(self, pictures: list[Path]) -> VideoInfo:
        found = self._files.probe(MediaRef(os.fspath(pictures[0]))).video
        if found is None:
            raise MediaError(f"{pictures[0].name} holds no picture", "invalid")
        times = np.arange(len(pictures), dtype=np.float64)
        return VideoInfo(0, found.codec, found.width, found.height, 1.0, times, float(len(pictures)))


def _is_folder(ref: MediaRef) -> bool:
    return isinstance(ref.path, str) and os.path.isdir(ref.path)


def _pictures(ref: MediaRef) -> list[Path]:
    """The pictures of a folder in their order."""
    found = [file for file in Path(str(ref.path)).iterdir() if file.suffix.lower() in CODECS]
    if not found:
        raise MediaError("the folder holds no .jpg or .png", "empty")
    if unnumbered := [file.name for file in found if place_of(file) < 0]:
        raise MediaError(f"{min(unnumbered)} has no number at its end, which would say its place", "invalid")
    return sorted(found, key=lambda file: (place_of(file), file.name))
