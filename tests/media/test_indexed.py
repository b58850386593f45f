"""Decoders that fetch frames by number: with a fetch that makes no mistake they give what PyAV gives."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vtp.media import Wanted, read_clip
from vtp.media.indexed import IndexedDecoder
from vtp.media.sampling import uniform
from vtp.types import MediaRef

pytestmark = pytest.mark.data


def fetch(source: str | bytes, form: str, index: Any, places: np.ndarray) -> np.ndarray:
    return read_clip(MediaRef(source), Wanted(lambda info: places)).frames


@pytest.fixture
def film(shared_data: Path) -> str:
    return str(shared_data / "videos/msrvtt/video9770.mp4")


@pytest.mark.parametrize("span", [(None, None), (2.0, 5.0)])
def test_frames_and_sound_are_those_of_the_span_that_were_asked_for(film: str, span: tuple[Any, Any]) -> None:
    decoder = IndexedDecoder("exact", fetch, chooses_stream=True)
    wanted = Wanted(partial(uniform, frames=4), sample_rate=16000)
    got, want = decoder.read(MediaRef(film, *span), wanted), read_clip(MediaRef(film, *span), wanted)
    np.testing.assert_array_equal(got.frames, want.frames)
    np.testing.assert_array_equal(got.timestamps, want.timestamps)
    assert (got.waveform is None) == (want.waveform is None) and got.missing == want.missing


def test_frames_are_scaled_and_sound_alone_needs_no_fetch(film: str) -> None:
    decoder = IndexedDecoder("exact", fetch, chooses_stream=True)
    wanted = Wanted(partial(uniform, frames=3), size=60)
    got, want = decoder.read(MediaRef(film), wanted), read_clip(MediaRef(film), wanted)
    assert got.frames.shape == want.frames.shape and min(got.frames.shape[1:3]) == 60
    assert np.abs(got.frames.astype(int) - want.frames).mean() < 4  # another scaler
    blind = IndexedDecoder("none", lambda *_: 1 / 0, chooses_stream=True)
    sound = Wanted(sample_rate=8000, video=False)
    np.testing.assert_array_equal(blind.read(MediaRef(film), sound).waveform, read_clip(MediaRef(film), sound).waveform)
