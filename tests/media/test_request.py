"""What a request means for a file: which frames, which span of them, which size."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from vtp.media import MediaError, VideoInfo, Wanted
from vtp.media.request import cut, target_size
from vtp.types import MediaRef

INFO = VideoInfo(0, "fake", 64, 48, 10.0, np.arange(20) / 10, 2.0)


def test_frames_are_wanted_by_seconds_by_position_or_all() -> None:
    assert Wanted(lambda info: np.array([0.0, 0.55, 9.0])).positions(INFO).tolist() == [0, 5, 19]
    assert Wanted(lambda info: np.array([3, 25, -1])).positions(INFO).tolist() == [3, 19, 0]
    assert Wanted().positions(INFO).tolist() == list(range(20))


@pytest.mark.parametrize("start, end", [(None, None), (0.5, 1.0), (0.55, 0.75), (None, 0.31), (1.85, 9.0), (0.2, 0.21)])
def test_a_span_holds_the_frames_that_are_on_screen_during_it(start: float | None, end: float | None) -> None:
    part, first = cut(INFO, MediaRef("x", start, end))
    low, high = 0.0 if start is None else start, 2.0 if end is None else min(end, 2.0)
    # frame k is on screen during [k / 10, (k + 1) / 10)
    shown = [k for k in range(20) if round(k / 10, 9) < high and round((k + 1) / 10, 9) > low]
    assert (first, part.count) == (shown[0], len(shown))
    assert part.timestamps.tolist() == INFO.timestamps[shown].tolist() and part.end == high


@pytest.mark.parametrize("start, end", [(2.0, None), (1.0, 1.0), (1.5, 0.5)])
def test_an_empty_span_is_an_error_that_says_how_long_the_video_is(start: float, end: float | None) -> None:
    with pytest.raises(MediaError, match=r"lies outside the 2.00 s of video") as error:
        cut(INFO, MediaRef("x", start, end))
    assert error.value.kind == "span"


@pytest.mark.parametrize(
    "size, expected",
    [(None, (48, 64)), (24, (24, 32)), (96, (96, 128)), ((10, 20), (10, 20))],
)
def test_a_size_is_the_short_side_or_both_sides(size: int | tuple[int, int] | None, expected: tuple[int, int]) -> None:
    assert target_size(48, 64, size) == expected
    if not isinstance(size, tuple):
        assert target_size(64, 48, size) == expected[::-1]


def test_a_very_long_picture_is_squeezed_to_eight_to_one() -> None:
    assert target_size(16, 10_000, 32) == (32, 256) and target_size(10_000, 16, 32) == (256, 32)


def test_requests_caches_and_shards_need_no_decoder() -> None:
    code = "import sys, vtp.media.request, vtp.media.cache, vtp.media.member; print({'av', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
