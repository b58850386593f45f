"""Windows times crops of one video: which frames and pixels each view holds."""

from __future__ import annotations

import numpy as np
import pytest

from vtp.media.info import VideoInfo
from vtp.media.multi_view import View, Windows
from vtp.media.sampling import crop_offsets, multi_clip


@pytest.mark.parametrize("clips, crops", [(1, 3), (2, 1), (3, 3)])
def test_every_view_is_its_window_and_its_crop(clips, crops):
    info = VideoInfo(0, "h264", 48, 32, 10.0, np.arange(40) / 10, 4.0)
    picks = Windows(clips)(info, frames=4, stride=2)
    video = np.random.default_rng(0).integers(0, 256, (40, 32, 48, 3), dtype=np.uint8)
    views = View(32, clips, crops)(video[picks])
    assert views.shape == (clips * crops, 4, 32, 32, 3)
    windows = multi_clip(info, frames=4, stride=2, clips=clips)
    places = crop_offsets(32, 48, 32, crops)
    for i in range(clips):
        for j, (top, left) in enumerate(places):
            want = video[windows[i], top : top + 32, left : left + 32]
            assert np.array_equal(views[i * crops + j], want)
