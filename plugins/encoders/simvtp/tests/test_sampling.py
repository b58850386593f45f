"""SimVTP's samplers against a transcription of their description."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vtp.data import keyed_generator
from vtp.media import VideoInfo
from vtp.media.sampling import find_sampler
from vtp_simvtp import sampling


def draw(sampler: Callable[..., Any], count: int, seed: int | None = 0) -> list[int]:
    """16 positions, 4 apart, in a clip of ``count`` frames."""
    generator = None if seed is None else keyed_generator(seed)
    info = VideoInfo(0, "h264", 64, 48, 30.0, np.arange(count) / 30, count / 30)
    return info.positions(sampler(info, frames=16, stride=4, generator=generator)).tolist()


@pytest.mark.parametrize("name", sampling.__all__)
@pytest.mark.parametrize("count", [1, 2, 17, 300])
def test_every_sampler_is_found_by_name_gives_existing_frames_and_repeats_itself(name: str, count: int) -> None:
    sampler = find_sampler(name)
    for seed in (None, 1):
        places = draw(sampler, count, seed)
        assert len(places) == 16 and min(places) >= 0 and max(places) < count
        assert places == draw(sampler, count, seed)


def pretrain_by_the_book(count: int, released: bool) -> list[int]:
    """Short clips: start at 0, advance by 4 while the next frame is < D - 1 (released) or exists, repeat the last."""
    places, here = [], 0
    for _ in range(16):
        places.append(here)
        if here + 4 < count - 1 or (not released and here + 4 <= count - 1):
            here += 4
    return places


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 30, 57, 60, 61, 62, 63])
@pytest.mark.parametrize("released", [True, False])
def test_simvtp_pretraining_of_short_clips(count: int, released: bool) -> None:
    sampler = sampling.simvtp_pretrain_released if released else sampling.simvtp_pretrain
    assert draw(sampler, count) == pretrain_by_the_book(count, released)


def test_the_released_off_by_one_is_the_one_that_is_documented() -> None:
    assert 60 not in draw(sampling.simvtp_pretrain_released, 61) and 60 in draw(sampling.simvtp_pretrain, 61)


@pytest.mark.parametrize("name", ["simvtp_pretrain", "simvtp_pretrain_released"])
def test_simvtp_pretraining_of_long_clips(name: str) -> None:
    offsets = set()
    for seed in range(400):
        places = draw(getattr(sampling, name), 70, seed)
        offsets.add(places[0])
        assert places == [places[0] + 4 * k for k in range(16)]
    assert offsets == set(range(7))
    assert draw(getattr(sampling, name), 64) == list(range(0, 64, 4))


def finetune_by_the_book(count: int, end: int) -> list[int]:
    if count > 64:
        points = np.linspace(end - 64, end, 16)
        return [min(int(p), end - 1) for p in points]
    points = [int(p) for p in np.linspace(0, count, count // 4)] + [count] * (16 - count // 4)
    return [min(p, count - 1) for p in points]


@pytest.mark.parametrize("count", [1, 3, 4, 7, 30, 63, 64])
def test_released_simvtp_finetuning_of_short_clips(count: int) -> None:
    assert draw(sampling.simvtp_finetune_released, count) == finetune_by_the_book(count, 0)


def test_released_simvtp_finetuning_of_long_clips() -> None:
    possible = {tuple(finetune_by_the_book(80, end)): end for end in range(64, 80)}
    ends = {possible[tuple(draw(sampling.simvtp_finetune_released, 80, seed))] for seed in range(300)}
    assert ends == set(range(64, 80))
    assert all(max(places) < 79 for places in possible)  # the last frame is never used


def test_simvtp_finetuning_reaches_every_frame() -> None:
    for count in (1, 5, 16, 63, 64, 80):
        seen = set()
        for seed in range(300):
            places = draw(sampling.simvtp_finetune, count, seed)
            assert len(places) == 16 and sorted(places) == places
            assert places[-1] - places[0] == min(count, 64) - 1
            seen |= set(places)
        assert {0, count - 1} <= seen and (count > 16 or seen == set(range(count)))
