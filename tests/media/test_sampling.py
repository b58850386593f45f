"""Samplers against the rules they are described by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vtp.data import keyed_generator
from vtp.errors import ConfigError
from vtp.media import VideoInfo, sampling
from vtp.plugins import RESERVED


def stream(count: int, fps: float = 30.0, start: float = 0.0) -> VideoInfo:
    return VideoInfo(0, "h264", 64, 48, fps, start + np.arange(count) / fps, start + count / fps)


def draw(sampler: Callable[..., Any], count: int, seed: int | None = 0, **options: Any) -> list[int]:
    generator = None if seed is None else keyed_generator(seed)
    info = stream(count)
    return info.positions(sampler(info, generator=generator, **{"frames": 16, "stride": 4, **options})).tolist()


@pytest.mark.parametrize("count, frames", [(330, 8), (330, 16), (10, 16), (1, 4), (29, 7)])
def test_uniform_takes_the_middle_of_equal_parts(count: int, frames: int) -> None:
    expected = [int((k + 0.5) * count / frames + 1e-6) for k in range(frames)]
    assert draw(sampling.uniform, count, frames=frames) == expected


def test_uniform_is_even_in_time_where_the_frame_rate_is_not() -> None:
    times = np.concatenate(
        [np.arange(100) / 100, 1 + np.arange(9)]
    )  # 100 frames in the first second, 1 per second after
    info = VideoInfo(0, "h264", 64, 48, 10.9, times, 10.0)
    assert info.positions(sampling.uniform(info, frames=5)).tolist() == [100, 102, 104, 106, 108]


@pytest.mark.parametrize("count", [330, 40, 16, 5])
def test_random_segments_stay_in_their_parts(count: int) -> None:
    seen = set()
    for seed in range(200):
        for part, place in enumerate(draw(sampling.random_segment, count, seed, frames=8)):
            assert int(part * count / 8) <= place <= int(np.ceil((part + 1) * count / 8)) - 1
            seen.add(place)
    assert seen == set(range(count)) or count > 200
    assert draw(sampling.random_segment, count, None, frames=8) == draw(sampling.uniform, count, frames=8)


def test_dense_windows() -> None:
    starts = set()
    for seed in range(300):
        places = draw(sampling.dense, 70, seed, frames=16, stride=4)
        assert np.diff(places).tolist() == [4] * 15
        starts.add(places[0])
    assert starts == set(range(7))  # 70 - 64 = 6 is reachable
    assert draw(sampling.dense, 70, None)[0] == 3
    assert draw(sampling.dense, 10, 0, frames=4, stride=4) == [0, 4, 8, 9]
    assert draw(sampling.dense, 1, 0, frames=3, stride=None) == [0, 0, 0]


def test_several_dense_windows_begin_each_in_its_own_part() -> None:
    """70 frames, windows of 4 x 2: 63 places to begin at, 21 for each of three."""
    starts: list[set[int]] = [set(), set(), set()]
    for seed in range(400):
        windows = np.reshape(draw(sampling.dense, 70, seed, frames=4, stride=2, clips=3), (3, 4))
        assert (np.diff(windows) == 2).all()
        for seen, first in zip(starts, windows[:, 0].tolist(), strict=True):
            seen.add(first)
    assert starts == [set(range(21)), set(range(21, 42)), set(range(42, 63))]
    for count, clips in ((70, 1), (70, 3), (9, 4), (3, 2), (1, 5)):
        middle = draw(sampling.dense, count, None, frames=4, stride=2, clips=clips)
        assert middle == sampling.multi_clip(stream(count), frames=4, stride=2, clips=clips).ravel().tolist()
        assert len(draw(sampling.dense, count, 1, frames=4, stride=2, clips=clips)) == 4 * clips
    assert draw(sampling.dense, 3, 0, frames=4, stride=1, clips=2) == [0, 1, 2, 2] * 2
    assert draw(sampling.dense, 10, 5, frames=4, stride=None, clips=1) == draw(
        sampling.dense, 10, 5, frames=4, stride=1
    )


@pytest.mark.parametrize("name", sorted(sampling.SAMPLERS))
@pytest.mark.parametrize("count", [1, 2, 17, 300])
def test_every_sampler_gives_existing_frames_and_repeats_itself(name: str, count: int) -> None:
    sampler = sampling.SAMPLERS[name]
    for seed in (None, 1):
        places = draw(sampler, count, seed)
        assert len(places) == (count if name == "every" else 16)
        assert min(places) >= 0 and max(places) < count
        assert places == draw(sampler, count, seed)


def test_a_span_is_sampled_inside_itself() -> None:
    info = stream(300).cut(100, 130, 130 / 30)
    times = sampling.uniform(info, frames=3)
    np.testing.assert_allclose(times, [100 / 30 + d for d in (1 / 6, 0.5, 5 / 6)])
    assert info.positions(times).tolist() == [5, 15, 25]


def test_multi_clip_views() -> None:
    info = stream(100)
    assert sampling.multi_clip(info, frames=4, stride=5, clips=3).tolist() == [
        [0, 5, 10, 15],
        [40, 45, 50, 55],
        [80, 85, 90, 95],
    ]
    assert sampling.multi_clip(info, frames=4, stride=5, clips=1).tolist() == [[40, 45, 50, 55]]
    spread = sampling.multi_clip(info, frames=5, clips=2)
    assert spread.tolist() == [[5, 25, 45, 65, 85], [15, 35, 55, 75, 95]]
    assert sampling.multi_clip(stream(3), frames=4, stride=5, clips=2).tolist() == [[0, 2, 2, 2]] * 2


def test_crops_spread_over_the_longer_side() -> None:
    assert sampling.crop_offsets(224, 320, 224, 3) == [(0, 0), (0, 48), (0, 96)]
    assert sampling.crop_offsets(320, 224, 224, 3) == [(0, 0), (48, 0), (96, 0)]
    assert sampling.crop_offsets(256, 340, 224, 1) == [(16, 58)]
    with pytest.raises(ValueError, match="does not fit into 100x300"):
        sampling.crop_offsets(300, 100, 224, 1)


def test_names() -> None:
    assert sampling.find_sampler("auto") is None and sampling.find_sampler("dense") is sampling.dense
    with pytest.raises(ConfigError, match=r"sampler=denze: .* Did you mean 'dense'\? Known: auto, uniform, segment"):
        sampling.find_sampler("denze")
    assert set(RESERVED["sampler"]) == {"auto", *sampling.SAMPLERS}
