"""Decoders that fetch frames by number, behind PyAV's index of the file.

The index decides which frames there are, when they are shown and which stream is meant, so that a sampler chooses the
same frames whatever the backend; the sound is PyAV's as well. A decoder that counts other frames than the index
(decord, where an edit list hides some) is refused for that file: its n-th frame would be another picture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from vtp.media.frames import resize
from vtp.media.info import MediaError, MediaInfo
from vtp.media.packets import PacketIndex, build_index, scan
from vtp.media.pyav import PyavDecoder, guarded, open_media, picture_stream, sound_track, take_sound
from vtp.media.request import Wanted, cut, picture_may_lack, target_size
from vtp.media.upright import is_still
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

    def read(self, ref: MediaRef, wanted: Wanted) -> Clip:
        """See :func:`vtp.media.read_clip`."""
        return guarded(self.name, lambda: self._read(ref, wanted))

    def _read(self, ref: MediaRef, wanted: Wanted) -> Clip:
        if not wanted.video:
            return PyavDecoder().read(ref, wanted)
        clip = Clip()
        with open_media(ref) as container:
            if is_still(container):  # nothing to seek, and few decoders know about orientation and animation
                return PyavDecoder().read(ref, wanted)
            stream = picture_stream(container, clip)
            sound = None if wanted.sample_rate is None else sound_track(container, wanted.sample_rate, ref, clip)
            if stream is None and sound is None:
                raise MediaError("; ".join(clip.missing.values()), "no_video")
            scanned = scan(container, stream, sound, MediaRef(ref.path))
            if sound is not None:
                take_sound(sound, clip)
            if stream is None:
                return clip
            if not scanned:
                raise MediaError("the video stream holds no frames", "no_frames")
            container_format = container.format.name
            if container_format == "mpegts":  # wrong frames without an error (torchcodec), or a hang (decord)
                raise MediaError(f"{self.name} does not read transport streams reliably; media.backend=pyav does")
            index = build_index(container, stream, scanned, MediaRef(ref.path))
        if index.counted or index.moved is not None:  # torchcodec gives H.264 in AVI one or two pictures early
            raise MediaError(
                f"{self.name} finds frames by times, which this file lacks; media.backend=pyav counts them"
            )
        if index.info.others and not self.chooses_stream:
            raise MediaError(f"{self.name} cannot choose one of several video streams; media.backend=pyav can")
        with picture_may_lack(clip):
            info, first = cut(index.info, ref)
            places = wanted.positions(info)
            frames = self.fetch(ref.path, container_format, index, places + first)
            # Close to, but not the same as, what swscale does for PyAV: never mix backends in one experiment.
            shape = target_size(frames.shape[1], frames.shape[2], wanted.size)
            clip.frames, clip.timestamps = resize(frames, shape), info.timestamps[places]
        return clip
