"""Decoders that fetch frames by number: with a fetch that makes no mistake they give what PyAV gives."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_files import numbers, painted, restarted_flv, tiled_avif, tone, write
from PIL import Image

from vtp.media import MediaError, Wanted, read_clip
from vtp.media.indexed import IndexedDecoder
from vtp.media.sampling import uniform
from vtp.types import MediaRef


def fetch(source: str | bytes, form: str, index: Any, places: np.ndarray) -> np.ndarray:
    return read_clip(MediaRef(source), Wanted(lambda info: places)).frames


@pytest.mark.parametrize("case", ["avi", "raw", "jump"])
def test_files_whose_times_are_no_help_are_refused(tmp_path: Path, case: str) -> None:
    pictures = [painted(k) for k in range(40)]
    if case == "avi":
        path = write(tmp_path / "b.avi", pictures, bf="3", preset="medium")
    elif case == "raw":
        path = write(tmp_path / "raw.264", pictures)
    else:
        path = restarted_flv(tmp_path / "jump.flv", pictures, 20)
    for chooses in (True, False):
        decoder = IndexedDecoder("exact", fetch, chooses_stream=chooses)
        with pytest.raises(MediaError, match="exact finds frames by times.*media.backend=pyav counts them"):
            decoder.read(MediaRef(str(path)), Wanted())
    plain = write(tmp_path / "plain.avi", pictures)
    decoder = IndexedDecoder("exact", fetch, chooses_stream=True)
    assert numbers(decoder.read(MediaRef(str(plain)), Wanted()).frames) == list(range(40))


def test_stills_and_streams_that_are_refused_are_those_of_pyav(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(painted(5)).save(tmp_path / "photo.jpg", exif=exif)
    blind = IndexedDecoder("none", lambda *_: 1 / 0, chooses_stream=True)
    assert blind.read(MediaRef(str(tmp_path / "photo.jpg")), Wanted()).frames.shape == (1, 64, 48, 3)
    tiles = tiled_avif(tmp_path / "grid.avif", [painted(k, 128, 128) for k in range(4)], 2)
    with pytest.raises(MediaError, match="a picture of 4 tiles"):
        blind.read(MediaRef(str(tiles)), Wanted())
    still = write(tmp_path / "still.mp4", [painted(7)], sounds=[[(0.0, tone(20.0))]])
    exact = IndexedDecoder("exact", fetch, chooses_stream=True)
    clip = exact.read(MediaRef(str(still), 5.0, 9.0), Wanted(partial(uniform, frames=2), None, 16000))
    assert numbers(clip.frames) == [7, 7] and clip.waveform.shape[1] == 4 * 16000
    late = write(tmp_path / "late.mkv", [painted(k) for k in range(10)], picture_start=5.0, sounds=[[(0.0, tone(8.0))]])
    clip = exact.read(MediaRef(str(late), 0.0, 4.0), Wanted(sample_rate=16000))
    assert clip.frames is None and "ends before the video" in clip.missing["video"]


@pytest.fixture
def film(shared_data: Path) -> str:
    return str(shared_data / "videos/msrvtt/video9770.mp4")


@pytest.mark.data
@pytest.mark.parametrize("span", [(None, None), (2.0, 5.0)])
def test_frames_and_sound_are_those_of_the_span_that_were_asked_for(film: str, span: tuple[Any, Any]) -> None:
    decoder = IndexedDecoder("exact", fetch, chooses_stream=True)
    wanted = Wanted(partial(uniform, frames=4), sample_rate=16000)
    got, want = decoder.read(MediaRef(film, *span), wanted), read_clip(MediaRef(film, *span), wanted)
    np.testing.assert_array_equal(got.frames, want.frames)
    np.testing.assert_array_equal(got.timestamps, want.timestamps)
    assert (got.waveform is None) == (want.waveform is None) and got.missing == want.missing


@pytest.mark.data
def test_frames_are_scaled_and_sound_alone_needs_no_fetch(film: str) -> None:
    decoder = IndexedDecoder("exact", fetch, chooses_stream=True)
    wanted = Wanted(partial(uniform, frames=3), size=60)
    got, want = decoder.read(MediaRef(film), wanted), read_clip(MediaRef(film), wanted)
    assert got.frames.shape == want.frames.shape and min(got.frames.shape[1:3]) == 60
    assert np.abs(got.frames.astype(int) - want.frames).mean() < 4  # another scaler
    blind = IndexedDecoder("none", lambda *_: 1 / 0, chooses_stream=True)
    sound = Wanted(sample_rate=8000, video=False)
    np.testing.assert_array_equal(blind.read(MediaRef(film), sound).waveform, read_clip(MediaRef(film), sound).waveform)
