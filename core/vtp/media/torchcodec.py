"""Backend ``torchcodec``: exact seeking, one thread. Needs the package torchcodec and FFmpeg's shared libraries."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torchcodec.decoders import VideoDecoder

from vtp.media.indexed import IndexedDecoder
from vtp.media.info import MediaError
from vtp.media.packets import PacketIndex

__all__ = ["TorchcodecDecoder"]


class TorchcodecDecoder(IndexedDecoder):
    """See :class:`vtp.media.indexed.IndexedDecoder`."""

    def __init__(self) -> None:
        super().__init__("torchcodec", _fetch, chooses_stream=True)


def _fetch(source: str | bytes, form: str, index: PacketIndex, places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    # "approximate" seeking gives other frames at variable rates, and raises on edit lists
    decoder = VideoDecoder(
        source, stream_index=index.info.stream, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
    )
    if len(decoder) != index.info.count:
        raise MediaError(f"torchcodec counts {len(decoder)} frames where the packets say {index.info.count}")
    frames = decoder.get_frames_at(places.tolist()).data.numpy()
    return np.asarray(frames, np.uint8)
