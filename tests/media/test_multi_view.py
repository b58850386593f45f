"""Windows times crops of one video: which frames and pixels each view holds."""

from __future__ import annotations

import numpy as np
import pytest

from vtp.errors import PluginError
from vtp.media.info import VideoInfo
from vtp.media.multi_view import InWindows, View, Windows
from vtp.media.sampling import crop_offsets, dense, every, multi_clip, random_segment
from vtp.media.transforms import TrainTransform


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


def test_windows_of_a_sampler():
    """One that knows windows chooses them; the frames of another are cut into windows in their order."""
    info = VideoInfo(0, "h264", 48, 32, 10.0, np.arange(40) / 10, 4.0)
    dense_picks = Windows(3, dense)(info, frames=4, stride=2, generator=np.random.default_rng(1))
    want = dense(info, frames=4, stride=2, generator=np.random.default_rng(1), clips=3)
    assert np.array_equal(dense_picks, want) and (np.diff(dense_picks.reshape(3, 4)) == 2).all()
    moments = Windows(3, random_segment)(info, frames=4, generator=np.random.default_rng(1))
    assert np.array_equal(moments, random_segment(info, frames=12, generator=np.random.default_rng(1)))
    with pytest.raises(PluginError, match=r"every gave 40 frames for 3 windows of 4, expected 12\. Choose another"):
        Windows(3, every)(info, frames=4)


def test_windows_in_training_are_cropped_alike():
    video = np.random.default_rng(0).integers(0, 256, (8, 32, 48, 3), dtype=np.uint8)
    crop = TrainTransform(16, flip=0.5)
    windows = InWindows(crop, 2)
    assert windows.decode_size == crop.decode_size
    for seed in range(5):
        assert np.array_equal(windows(video, seed).reshape(8, 16, 16, 3), crop(video, seed))
        assert windows(video, seed).shape == (2, 4, 16, 16, 3)
