"""Fingerprints of clips: the same picture in another file, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from vtp.eval.near import FRAMES, NEAR, fingerprint, pairs_alike


def clip(rng, frames=8, height=48, width=64):
    """Smooth colours that drift: what real pictures are to a grid of 16 x 16 cells."""
    coarse = rng.uniform(0, 255, (2, 4, 5, 3))
    y, x = np.linspace(0, 2.999, height), np.linspace(0, 3.999, width)
    rows = (
        coarse[:, np.floor(y).astype(int)] * (1 - y % 1)[:, None, None]
        + coarse[:, np.floor(y).astype(int) + 1] * (y % 1)[:, None, None]
    )
    still = (
        rows[:, :, np.floor(x).astype(int)] * (1 - x % 1)[:, None]
        + rows[:, :, np.floor(x).astype(int) + 1] * (x % 1)[:, None]
    )
    part = np.linspace(0, 1, frames)[:, None, None, None]
    return (still[0] * (1 - part) + still[1] * part).round().astype(np.uint8)


def again(rng, frames):
    """Half the size, noisy, darker and with less contrast, one frame in two."""
    small = frames[::2, ::2, ::2].astype(float)
    return (0.8 * small + 10 + rng.normal(0, 4, small.shape)).clip(0, 255).astype(np.uint8)


def test_of_a_thousand_different_clips_none_is_taken_for_another():
    rng = np.random.default_rng(0)
    marks = {f"c{i}": fingerprint(clip(rng, 8, 16, 20)) for i in range(1000)}
    assert pairs_alike(marks, marks) == []
    other = {f"t{i}": marks[f"c{i}"] for i in range(0, 1000, 7)}
    assert {(t, c) for t, c, _ in pairs_alike(other, marks)} == {(f"t{i}", f"c{i}") for i in range(0, 1000, 7)}


def test_a_clip_that_was_encoded_again_is_found(monkeypatch):
    monkeypatch.setattr("vtp.eval.near._BLOCK", 7)
    rng = np.random.default_rng(1)
    clips = {f"c{i}": clip(rng, frames=48) for i in range(30)}
    trains = {name: fingerprint(frames) for name, frames in clips.items()}
    tests = {f"t{i}": fingerprint(again(rng, clips[f"c{i}"])) for i in (3, 8, 21)}
    tests["new"] = fingerprint(clip(rng))
    found = pairs_alike(tests, trains)
    assert {(test, train) for test, train, _ in found} == {("t3", "c3"), ("t8", "c8"), ("t21", "c21")}
    values = [value for *_, value in found]
    assert min(values) >= NEAR and values == sorted(values, reverse=True)


def test_the_order_of_frames_is_seen():
    frames = clip(np.random.default_rng(2))
    one, back = fingerprint(frames), fingerprint(frames[::-1])
    assert float(one.astype(np.float32) @ back.astype(np.float32)) < NEAR
    assert one.shape == (FRAMES * 16 * 16 * 3,)
    assert np.linalg.norm(one.astype(np.float32)) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("frames", [np.zeros((0, 9, 9, 3)), np.full((8, 9, 9, 3), 77)])
def test_what_shows_nothing_has_no_fingerprint(frames):
    assert fingerprint(frames.astype(np.uint8)) is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 300), (2, 16, 16)])
def test_any_size_has_one(shape):
    frames = np.random.default_rng(3).integers(0, 255, (*shape, 3), dtype=np.uint8)
    assert fingerprint(frames) is None or fingerprint(frames).shape == (FRAMES * 16 * 16 * 3,)
