"""A cached clip against the decoded original: frames, times, sound; and what happens when the cache is not what it
was."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from vtp.errors import ConfigError, DataError, RunError
from vtp.media import MediaError, MediaReader, VideoInfo, Wanted
from vtp.media import cache_file as cache_file_module
from vtp.media.cache import CachedReader, ClipCache, Settings
from vtp.media.cache_file import CacheDamage, Entry
from vtp.media.sampling import dense, every, uniform
from vtp.prepare.cache import FAILURES, build
from vtp.types import Clip, MediaRef

RATE = 16000
KINDS = ("raw", "jpeg", "transcode")
# Mean absolute difference of pixels: none for raw; a smooth moving picture loses little in JPEG and H.264.
TOLERANCE = {"raw": 0.0, "jpeg": 2.0, "transcode": 4.0}
BEHIND = MediaReader(isolate=False)


def film(path: Path, frames: int = 40, rate: int = 20, sound: bool = True, seed: int = 0) -> Path:
    """A 96x64 clip of a bright box that moves over a gradient, with two tones of sound."""
    rows, columns = np.mgrid[0:64, 0:96]
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=rate, options={"g": "25", "crf": "20", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.codec_context.thread_count = 1
        audio = out.add_stream("aac", rate=44100, layout="stereo") if sound else None
        for number in range(frames):
            picture = np.stack([rows * 3, columns * 2, np.full((64, 96), (number * 5 + seed * 40) % 256)], -1)
            picture[10:30, number : number + 20] = 230
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
        out.mux(video.encode(None))
        if audio is not None:
            seconds = np.arange(44100 * frames // rate) / 44100
            left, right = 0.5 * np.sin(2770 * seconds), 0.3 * np.sin(5000 * seconds * (1 + seconds / 9))
            wave = np.stack([left, right]).astype(np.float32)
            for at in range(0, wave.shape[1], 1024):
                piece = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(wave[:, at : at + 1024]), format="fltp", layout="stereo"
                )
                piece.sample_rate, piece.pts = 44100, at
                out.mux(audio.encode(piece))
            out.mux(audio.encode(None))
    return path


@pytest.fixture(autouse=True, scope="module")
def in_process():
    """Starting a decoder process per build would be most of the time of these tests; one test does it anyway."""
    patch = pytest.MonkeyPatch()
    patch.setattr("vtp.prepare.cache.MediaReader", partial(MediaReader, isolate=False))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("films")
    return [str(film(folder / "a.mp4")), str(film(folder / "silent.mkv", sound=False, seed=1))]


@pytest.fixture(scope="module")
def caches(films, tmp_path_factory) -> dict[str, ClipCache]:
    """One cache per kind with all films at 48 pixels; copy one before changing it."""
    folder = tmp_path_factory.mktemp("caches")
    made = {kind: ClipCache.create(folder / kind, Settings(kind, 48)) for kind in KINDS}
    for cache in made.values():
        assert build(cache, films).made == len(films)
    return made


@pytest.fixture
def own(caches, tmp_path):
    """A copy of a cache that the test may damage."""
    return lambda kind: ClipCache(shutil.copytree(caches[kind].folder, tmp_path / kind))


def difference(one: Clip, other: Clip) -> float:
    return float(np.abs(one.frames.astype(int) - other.frames.astype(int)).mean())


SPANS = [(None, None), (0.31, 1.17), (None, 0.5), (1.2, None)]
CHOICES = [partial(uniform, frames=7), partial(dense, frames=5, stride=3), every]


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("kind", KINDS)
def test_frames_and_times_are_those_of_the_original(films, caches, kind, span):
    for path in films:
        for choice in CHOICES:
            wanted = Wanted(choice, 48)
            want = BEHIND.read(MediaRef(path, *span), wanted)
            reader = CachedReader(BEHIND, caches[kind])
            got = reader.read(MediaRef(path, *span), wanted)
            assert reader.counts["cached"] == 1
            np.testing.assert_array_equal(got.timestamps, want.timestamps)
            assert got.frames.shape == want.frames.shape and got.frames.dtype == np.uint8
            assert difference(got, want) <= TOLERANCE[kind]
            assert got.missing == want.missing


@pytest.mark.parametrize("kind", KINDS)
def test_a_smaller_size_is_scaled_down_to_exactly_what_was_asked_for(films, caches, kind):
    for size in (32, (20, 30)):
        wanted = Wanted(partial(uniform, frames=4), size)
        want = BEHIND.read(MediaRef(films[0]), wanted)
        got = CachedReader(BEHIND, caches[kind]).read(MediaRef(films[0]), wanted)
        assert got.frames.shape == want.frames.shape
        assert difference(got, want) < 5


def test_what_the_cache_is_too_small_for_comes_from_the_original(films, caches):
    for size in (None, 60):
        for kind in ("raw", "jpeg"):
            reader = CachedReader(BEHIND, caches[kind])
            got = reader.read(MediaRef(films[0]), Wanted(times=partial(uniform, frames=3), size=size))
            want = BEHIND.read(MediaRef(films[0]), Wanted(times=partial(uniform, frames=3), size=size))
            np.testing.assert_array_equal(got.frames, want.frames)
            assert reader.counts["insufficient"] == 1
    assert "1 insufficient" in reader.line()


def test_a_transcode_that_was_not_made_smaller_serves_every_size(films, tmp_path):
    cache = ClipCache.create(tmp_path / "cache", Settings("transcode", 256))
    build(cache, films[:1])
    reader = CachedReader(BEHIND, cache)
    got = reader.read(MediaRef(films[0]), Wanted(times=partial(uniform, frames=3)))
    want = BEHIND.read(MediaRef(films[0]), Wanted(times=partial(uniform, frames=3)))
    assert got.frames.shape == want.frames.shape == (3, 64, 96, 3)
    assert difference(got, want) < TOLERANCE["transcode"]
    assert reader.counts["cached"] == 1


@pytest.mark.parametrize("span", SPANS)
def test_the_sound_is_that_of_the_original(films, caches, span):
    jpeg = CachedReader(BEHIND, caches["jpeg"])
    for rate, tolerance in ((RATE, 1e-4), (8000, 5e-3)):
        want = BEHIND.read(MediaRef(films[0], *span), Wanted(sample_rate=rate, video=False))
        got = jpeg.read(MediaRef(films[0], *span), Wanted(sample_rate=rate, video=False))
        assert got.sample_rate == want.sample_rate == rate
        assert abs(got.sound_start - want.sound_start) < 1e-3
        length = min(got.waveform.shape[1], want.waveform.shape[1])
        assert abs(got.waveform.shape[1] - want.waveform.shape[1]) <= 2
        # The resampler sees silence before a span where the original has sound: its ends differ for a few milliseconds.
        edge = 0 if span == (None, None) and rate == RATE else rate // 200
        inside = slice(edge, length - edge)
        np.testing.assert_allclose(
            got.waveform[0, inside], want.waveform[0, inside], atol=tolerance + 0.02 * (edge > 0)
        )


def test_a_file_without_sound_says_so_and_one_without_pictures_too(films, caches, tmp_path):
    for reader in (BEHIND, CachedReader(BEHIND, caches["raw"])):
        clip = reader.read(MediaRef(films[1]), Wanted(times=partial(uniform, frames=2), size=48, sample_rate=RATE))
        assert clip.waveform is None and clip.missing == {"audio": "no audio stream"}
        with pytest.raises(MediaError) as caught:
            reader.read(MediaRef(films[1]), Wanted(sample_rate=RATE, video=False))
        assert caught.value.kind == "no_audio"
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        tone = (8000 * np.sin(np.arange(12000) / 9)).astype(np.int16)
        piece = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        piece.sample_rate = 8000
        out.mux(stream.encode(piece))
    cache = ClipCache.create(tmp_path / "cache", Settings("raw", 48, audio=8000))
    assert build(cache, [str(sound)]).made == 1
    cached = CachedReader(BEHIND, cache)
    got = cached.read(MediaRef(str(sound)), Wanted(times=partial(uniform, frames=2), sample_rate=8000))
    np.testing.assert_allclose(got.waveform[0], tone / 32768, atol=5e-5)
    assert got.frames is None and got.missing == {"video": "no video stream"} and cached.counts["cached"] == 1
    with pytest.raises(MediaError) as caught:
        cached.read(MediaRef(str(sound)), Wanted(times=partial(uniform, frames=2)))
    assert caught.value.kind == "no_video"


def test_a_span_outside_the_file_is_the_same_error(films, caches):
    errors = []
    for reader in (BEHIND, CachedReader(BEHIND, caches["raw"])):
        with pytest.raises(MediaError) as caught:
            reader.read(MediaRef(films[0], 50.0, 60.0), Wanted(times=partial(uniform, frames=2), size=48))
        errors.append((caught.value.reason, caught.value.kind))
    assert errors[0] == errors[1] and errors[0][1] == "span"


def test_thinned_frames_are_exact_for_uniform_sampling_and_nearest_otherwise(films, tmp_path):
    cache = ClipCache.create(tmp_path / "few", Settings("raw", 48, frames=5))
    build(cache, films[:1])
    want = BEHIND.read(MediaRef(films[0]), Wanted(times=partial(uniform, frames=5), size=48))
    got = CachedReader(BEHIND, cache).read(MediaRef(films[0]), Wanted(times=partial(uniform, frames=5), size=48))
    np.testing.assert_array_equal(got.frames, want.frames)
    cache = ClipCache.create(tmp_path / "third", Settings("raw", 48, every=3))
    build(cache, films[:1])
    infos: list[VideoInfo] = []

    def four_frames(info: VideoInfo) -> np.ndarray:
        infos.append(info)
        return np.array([0, 4, 5, 39])

    got = CachedReader(BEHIND, cache).read(MediaRef(films[0]), Wanted(times=four_frames, size=48))
    assert infos[0].count == 40  # samplers see the timeline of the original
    np.testing.assert_allclose(got.timestamps, np.array([0, 3, 6, 39]) / 20, atol=1e-3)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_entries_are_noticed_logged_and_passed_over(films, own, kind, caplog):
    cache = own(kind)
    entry = cache.path(films[0])
    movie = entry.with_suffix(".mp4")
    whole = entry.read_bytes()
    wanted = Wanted(partial(uniform, frames=40), 48, RATE)
    want = BEHIND.read(MediaRef(films[0]), wanted)

    def damage() -> None:
        with caplog.at_level(logging.WARNING, "vtp"):
            reader = CachedReader(BEHIND, cache)
            for _ in range(2):
                got = reader.read(MediaRef(films[0]), wanted)
                np.testing.assert_array_equal(got.frames, want.frames)
                np.testing.assert_array_equal(got.waveform, want.waveform)
        assert reader.counts["damaged"] == 2 and reader.counts["cached"] == 0
        assert sum(films[0] in record.getMessage() for record in caplog.records) == 1
        caplog.clear()
        assert build(cache, films[:1], check=True).made == 1  # and it is made again
        assert CachedReader(BEHIND, cache).read(MediaRef(films[0]), wanted).frames.shape == want.frames.shape
        entry.write_bytes(whole)

    places = [len(whole) - 40, len(whole) - 400, len(whole) // 2]  # record, tables, sound
    for place in places if kind == "transcode" else [*places, 50]:  # and the first frame
        flip(entry, place)
        damage()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        entry.write_bytes(whole[:size])
        damage()
    if kind == "transcode":
        data = movie.read_bytes()
        flip(movie, len(data) // 2)
        damage()
        movie.write_bytes(data[: len(data) // 2])
        damage()
        movie.unlink()
        damage()


def test_a_changed_source_is_read_and_made_again(tmp_path):
    path = str(film(tmp_path / "a.mp4", seed=0))
    cache = ClipCache.create(tmp_path / "cache", Settings("raw", 48))
    assert build(cache, [path]).made == 1
    assert build(cache, [path]).kept == 1
    film(Path(path), seed=2)
    reader = CachedReader(BEHIND, cache)
    want = BEHIND.read(MediaRef(path), Wanted(size=48))
    np.testing.assert_array_equal(reader.read(MediaRef(path), Wanted(size=48)).frames, want.frames)
    assert reader.counts["changed"] == 1
    assert build(cache, [path]).made == 1
    np.testing.assert_array_equal(reader.read(MediaRef(path), Wanted(size=48)).frames, want.frames)
    assert reader.counts["cached"] == 1
    os.utime(path, ns=(1, 1))
    assert reader.cache.find(path) == (None, "changed")
    os.unlink(path)  # the cache alone was copied to another machine
    np.testing.assert_array_equal(reader.read(MediaRef(path), Wanted(size=48)).frames, want.frames)


def test_failures_are_noted_once_with_their_reason_and_retried_when_the_file_changes(films, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    cache = ClipCache.create(tmp_path / "cache", Settings("jpeg", 48))
    sources = [str(bad), films[0], str(tmp_path / "none.mp4")]
    for made in (1, 0):
        outcome = build(cache, sources)
        assert outcome.made == made
        assert outcome.failed == {
            str(bad): "not a media file, or too damaged to read",
            str(tmp_path / "none.mp4"): "cannot be reached: No such file or directory",
        }
    lines = (cache.folder / FAILURES).read_text().splitlines()
    assert sorted(json.loads(line)["path"] for line in lines) == sorted([str(bad), str(tmp_path / "none.mp4")])
    film(bad)
    assert build(cache, sources).made == 1
    with open(cache.folder / FAILURES, "a") as file:
        file.write('{"path": "half a li')
    assert len(build(cache, sources).failed) == 1  # a torn line is passed over


def test_a_full_disk_keeps_what_is_done(films, tmp_path, monkeypatch):
    third = str(film(tmp_path / "c.mp4", seed=3))
    cache = ClipCache.create(tmp_path / "cache", Settings("raw", 48))
    put, calls = cache_file_module.EntryWriter._put, []

    def full(self, data):
        calls.append(len(data))
        if len(calls) > 60:  # in the middle of the second file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(self, data)

    monkeypatch.setattr(cache_file_module.EntryWriter, "_put", full)
    with pytest.raises(RunError, match="disk is full.*same command again") as caught:
        build(cache, [*films, third], workers=1)
    assert caught.value.exit_code == 1
    entries = list(cache.folder.glob("clips/*/*"))
    assert [e.name for e in entries] == [cache.path(films[0]).name]  # no half clip, no leftover
    Entry.open(entries[0]).check()
    monkeypatch.undo()
    outcome = build(cache, [*films, third])
    assert (outcome.made, outcome.kept) == (2, 1)


def test_one_folder_is_one_kind_and_nothing_else(films, caches, tmp_path):
    with pytest.raises(ConfigError, match="other settings.*raw, 48 pixels.*jpeg, 48 pixels"):
        ClipCache.create(caches["raw"].folder, Settings("jpeg", 48))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no cache"):
        ClipCache.create(tmp_path / "x", Settings())
    with pytest.raises(DataError, match="vtp data cache TARGET"):
        ClipCache(tmp_path / "x")
    for wrong in ({"kind": "png"}, {"size": 3}, {"frames": 2, "every": 2}, {"kind": "transcode", "every": 2}):
        with pytest.raises(ConfigError):
            Settings(**wrong)


def test_entries_that_are_too_short_or_foreign_are_damage(tmp_path):
    for number, data in enumerate((b"", b"VTPCLIP1", b"x" * 100)):
        path = tmp_path / str(number)
        path.write_bytes(data)
        with pytest.raises(CacheDamage):
            Entry.open(path)


@pytest.mark.data
def test_real_clips_with_sound_high_bit_depth_and_variable_rate(shared_data, tmp_path):
    names = ("msrvtt/video9770.mp4", "decoder/var_fps_video.mp4", "decoder/h264_10bits.mp4")
    sources = [str(path) for name in names if (path := shared_data / "videos" / name).exists()]
    cache = ClipCache.create(tmp_path / "cache", Settings("raw", 112))
    assert build(cache, sources).made == len(sources) >= 2
    for source in sources:
        wanted = Wanted(partial(uniform, frames=8), 112, RATE)
        want, got = (reader.read(MediaRef(source), wanted) for reader in (BEHIND, CachedReader(BEHIND, cache)))
        np.testing.assert_array_equal(got.frames, want.frames)
        np.testing.assert_array_equal(got.timestamps, want.timestamps)
        assert (got.waveform is None) == (want.waveform is None)
        if want.waveform is not None:
            np.testing.assert_allclose(got.waveform, want.waveform, atol=1e-4)
