"""What stands beside a checkpoint decides how pictures are shown to it."""

from __future__ import annotations

import pytest

from vtp.media.settings import as_trained, largest_square
from vtp.types import VideoSpec

SPEC = VideoSpec(frames=8, size=224)
CLIP = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.3, 0.4],
}


@pytest.mark.parametrize(
    ("settings", "squeeze", "resample", "mean"),
    [
        (CLIP, False, "bicubic", (0.4, 0.5, 0.6)),
        ({"size": {"height": 224, "width": 224}, "resample": 2, "image_mean": [0.5] * 3}, True, "bilinear", (0.5,) * 3),
        ({"size": {"height": 224, "width": 224}, "do_normalize": False}, True, "decoder", (0.0,) * 3),
        ({**CLIP, "size": {"height": 256, "width": 256}}, False, "bicubic", (0.4, 0.5, 0.6)),  # cut out afterwards
        ({**CLIP, "do_resize": False}, False, "decoder", (0.4, 0.5, 0.6)),
        ({"size": 224, "image_mean": None}, False, "decoder", SPEC.mean),  # an old file
    ],
)
def test_settings_are_read_once_for_all(settings, squeeze, resample, mean):
    found = as_trained(SPEC, settings)
    assert (found.squeeze, found.resample, found.mean) == (squeeze, resample, mean)
    assert (found.frames, found.size) == (8, 224)


def test_a_model_without_settings_keeps_what_it_has():
    assert as_trained(SPEC, None) is SPEC


def test_the_largest_square_holds_no_more_pixels_than_the_clip_and_tokens_than_the_frame_may_have():
    settings = {"size": {"shortest_edge": 4096, "longest_edge": 64 * 320 * 350}}
    assert largest_square(settings, 64, 32) == 320  # 350 would be no multiple, and 334 x 334 = 320 x 350
    assert largest_square(settings, 4, 32) == 27 * 32  # 27 * 27 <= 768 tokens < 28 * 28
    assert largest_square(settings | {"max_video_tokens": 100}, 4, 32) == 320
    assert largest_square(settings, 10**9, 32) == 32
