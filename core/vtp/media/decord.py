"""Backend ``decord`` (decord, eva-decord or decord2), for comparison with published code: pictures only, one thread.

It cannot open AV1 or gif, knows nothing of edit lists, and has hung on damaged files: keep ``media.isolate=true``.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from decord import VideoReader

from vtp.media.indexed import IndexedDecoder
from vtp.media.info import MediaError
from vtp.media.packets import PacketIndex

__all__ = ["DecordDecoder"]


class DecordDecoder(IndexedDecoder):
    """See :class:`vtp.media.indexed.IndexedDecoder`."""

    def __init__(self) -> None:
        super().__init__("decord", _fetch, chooses_stream=False)


def _fetch(source: str | bytes, form: str, index: PacketIndex, places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    reader = VideoReader(io.BytesIO(source) if isinstance(source, bytes) else source, num_threads=1)
    count = index.info.count
    if len(reader) != count:
        raise MediaError(f"decord counts {len(reader)} frames where the packets say {count}: use media.backend=pyav")
    order, back = np.unique(places, return_inverse=True)
    if index.info.codec == "h264" and form.startswith(("mov,", "matroska,")):
        frames = reader.get_batch(order.tolist()).asnumpy()
    else:
        # Jumping, decord 0.6 gives other frames of AVI files and smeared ones of HEVC; reading on, it does not.
        wanted = set(order.tolist())
        shown = ((place, reader.next()) for place in range(int(order[-1]) + 1))
        frames = np.stack([frame.asnumpy() for place, frame in shown if place in wanted])
    return np.asarray(frames[back], np.uint8)
