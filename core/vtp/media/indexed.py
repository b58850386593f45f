"""Decoders that fetch frames by number, behind PyAV's index of the file.

The index decides which frames there are, when they are shown and which stream is meant, so that a sampler chooses the
same frames whatever the backend; the sound is PyAV's as well. A decoder that counts other frames than the index
(decord, where an edit list hides some) is refused for that file: its n-th frame would be another picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.media.backends import Times
from vtp.media.info import MediaError, MediaInfo
from vtp.media.packets import PacketIndex, build_index, cut, scan
from vtp.media.pyav import (
    PyavDecoder,
    choose,
    guarded,
    open_media,
    picture_stream,
    sound_track,
    take_sound,
    target_size,
)
from vtp.types import Clip, MediaRef

__all__ = ["Fetch", "IndexedDecoder"]

# (source, container format, index of the whole stream, places in it) -> uint8 (n, H, W, 3), upright, at stored size
Fetch = Callable[[str | bytes, str, PacketIndex, npt.NDArray[np.int64]], npt.NDArray[np.uint8]]


class IndexedDecoder:
    """A backend made of a ``fetch`` function.

    Args:
        name: of the backend, for reports.
        fetch: decodes frames by their places in the whole stream.
        chooses_stream: whether ``fetch`` can read a stream that is not the decoder's own choice.
    """

    def __init__(self, name: str, fetch: Fetch, chooses_stream: bool) -> None:
        import torchvision.transforms.v2.functional  # noqa: F401  (seconds, which must not count as those of a file)

        self.name = name
        self.fetch = fetch
        self.chooses_stream = chooses_stream

    def probe(self, ref: MediaRef) -> MediaInfo:
        """See :func:`vtp.media.probe`; answered by PyAV."""
        return PyavDecoder().probe(ref)

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
        return guarded(self.name, lambda: self._read(ref, times, size, audio, video))

    def _read(
        self, ref: MediaRef, times: Times | None, size: int | tuple[int, int] | None, audio: int | None, video: bool
    ) -> Clip:
        if not video:
            return PyavDecoder().read(ref, audio=audio, video=False)
        clip = Clip()
        with open_media(ref) as container:
            stream = picture_stream(container, clip)
            sound = None if audio is None else sound_track(container, audio, ref, clip)
            if stream is None and sound is None:
                raise MediaError("; ".join(clip.missing.values()), "no_video")
            packets = scan(container, stream, sound, MediaRef(ref.path))
            if sound is not None:
                take_sound(sound, clip)
            if stream is None:
                return clip
            if not packets:
                raise MediaError("the video stream holds no frames", "no_frames")
            container_format = container.format.name
            if container_format == "mpegts":  # wrong frames without an error (torchcodec), or a hang (decord)
                raise MediaError(f"{self.name} does not read transport streams reliably; media.backend=pyav does")
            index = build_index(container, stream, packets, MediaRef(ref.path))
        if index.info.others and not self.chooses_stream:
            raise MediaError(f"{self.name} cannot choose one of several video streams; media.backend=pyav can")
        info, first = cut(index.info, ref)
        wanted = choose(info, times)
        frames = self.fetch(ref.path, container_format, index, wanted + first)
        clip.frames, clip.timestamps = _resize(frames, size), info.timestamps[wanted]
        return clip


def _resize(frames: npt.NDArray[np.uint8], size: int | tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """Bilinear with antialiasing; close to, but not the same as, what swscale does for PyAV: never mix backends in one
    experiment."""
    stored = frames.shape[1], frames.shape[2]
    height, width = target_size(stored[0], stored[1], size)
    if (height, width) == stored or not len(frames):
        return frames
    import torch
    from torchvision.transforms.v2 import functional

    clip = functional.resize(torch.from_numpy(frames).permute(0, 3, 1, 2), [height, width], antialias=True)
    resized: Any = clip.permute(0, 2, 3, 1).contiguous().numpy()
    return np.asarray(resized, np.uint8)
