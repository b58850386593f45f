"""Valid files as people have them: clocks that jump, holes in the sound, photos that are turned. What is right follows
from how each file was made: the number of every picture is painted into it, and sounds begin at known seconds."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import odd_files
import pytest
from odd_files import RATE, loud_from, numbers, painted, tone, write
from PIL import Image, ImageOps

from vtp.media import MediaError, MediaReader, Wanted, probe, read_clip
from vtp.media.cache import CachedReader, ClipCache, Settings
from vtp.media.sampling import uniform
from vtp.prepare.cache import build
from vtp.types import Clip, MediaRef

TEN_SECONDS = [painted(number) for number in range(100)]


def read(path: Path, *span: float, **wanted: object) -> Clip:
    return read_clip(MediaRef(str(path), *span), Wanted(**wanted))


def all_readers(path: Path, folder: Path, **settings: object) -> dict[str, object]:
    """The decoder, and a raw cache that holds ``path`` at the size of its frames."""
    reader = MediaReader(isolate=False)
    short = min(read(path, times=lambda info: np.zeros(1, np.int64)).frames.shape[1:3])
    cache = ClipCache.create(folder / "cache", Settings("raw", size=short, **settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vtp.prepare.cache.MediaReader", partial(MediaReader, isolate=False))
        assert build(cache, [str(path)]).made == 1
    return {"file": reader, "cache": CachedReader(reader, cache)}


def mirrored(orientation: int, picture: np.ndarray) -> np.ndarray:
    """What Pillow shows of a stored picture with this orientation tag."""
    image = Image.fromarray(picture)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
def test_photos_are_turned_as_their_orientation_says(tmp_path: Path, ending: str, orientation: int) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32], picture[:24, 32:], picture[24:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{ending}"
    Image.fromarray(picture).save(path, exif=exif, **({"quality": 95} if ending in ("jpg", "webp") else {}))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(expected > 127, mirrored(orientation, picture) > 127)  # the oracle against itself
    clip = read(path)
    assert clip.frames.shape == (1, *expected.shape)
    inside = np.ix_(*(np.r_[2 : side // 2 - 2, side // 2 + 2 : side - 2] for side in expected.shape[:2]))
    np.testing.assert_array_equal(clip.frames[0][inside] > 127, expected[inside] > 127)
    assert read(path, size=24).frames.shape == (1, *((24, 32) if orientation < 5 else (32, 24)), 3)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_avi_with_pictures_in_another_order_than_they_are_shown(tmp_path: Path, codec: str) -> None:
    """AVI has no times. FFmpeg's are those of storage for H.264, which a decoder of wanted frames must not believe."""
    options = {"preset": "medium", "bf": "3"} if codec == "libx264" else {"bf": "2"}
    path = write(tmp_path / "b.avi", TEN_SECONDS[:40], codec=codec, **options)
    cut = write(tmp_path / "long.avi", [painted(k % 256) for k in range(160)], codec=codec, **options)
    for reader in all_readers(path, tmp_path).values():
        assert numbers(reader.read(MediaRef(str(path)), Wanted()).frames) == list(range(40))
        for place in range(40):
            clip = reader.read(MediaRef(str(path)), Wanted(lambda info, place=place: np.array([place])))
            assert numbers(clip.frames) == [place]
    span = read(cut, 12.0, 14.0)  # far enough to be sought
    assert numbers(span.frames) == list(range(span.frames.shape[0] + (first := numbers(span.frames)[0])))[first:]
    assert 119 <= first <= 120 and 20 <= len(span.frames) <= 21


def test_avi_that_begins_between_key_frames_gives_what_decodes(tmp_path: Path) -> None:
    """Packets before the first key frame show nothing: the n-th picture is not that of the n-th packet."""
    whole = write(tmp_path / "whole.avi", TEN_SECONDS[:60], bf="2", preset="medium", g="20", sc_threshold="0")
    packets = iter(range(1000))
    path = odd_files.remuxed(whole, tmp_path / "cut.avi", lambda packet: next(packets) >= 5)
    for reader in all_readers(path, tmp_path).values():
        assert numbers(reader.read(MediaRef(str(path)), Wanted()).frames) == list(range(20, 60))
        one = reader.read(MediaRef(str(path)), Wanted(lambda info: np.array([7])))
        assert numbers(one.frames) == [27]


@pytest.mark.data
def test_a_published_avi_with_reordered_pictures(tmp_path: Path, shared_data: Path) -> None:
    import av

    path = shared_data / "videos/msvd/j2Dhf-xFUxU_13_20.avi"
    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == 106
    for place in (70, 71, 72):
        clip = read(path, times=lambda info, place=place: np.array([place]))
        np.testing.assert_array_equal(clip.frames[0], shown[place])
    readers = all_readers(path, tmp_path, audio=0)
    frames = [reader.read(MediaRef(str(path)), Wanted()).frames for reader in readers.values()]
    np.testing.assert_array_equal(frames[0], np.stack(shown))
    np.testing.assert_array_equal(frames[1], frames[0])


def test_a_change_of_size_keeps_the_size_of_the_first_picture(tmp_path: Path) -> None:
    first = write(tmp_path / "1.ts", [painted(k, 320, 240) for k in range(20)])
    second = write(tmp_path / "2.ts", [painted(k, 320, 180) for k in range(20, 40)], shift=2)
    path = odd_files.joined(tmp_path / "mixed.ts", first, second)
    for reader in all_readers(path, tmp_path).values():
        clip = reader.read(MediaRef(str(path)), Wanted())
        assert clip.frames.shape == (40, 240, 320, 3) and numbers(clip.frames) == list(range(40))
        later = reader.read(MediaRef(str(path), 3.0, 3.5), Wanted(size=60))
        assert later.frames.shape == (5, 60, 80, 3) and numbers(later.frames) == list(range(30, 35))


def test_a_clock_that_jumps_without_sound_is_exact(tmp_path: Path) -> None:
    """The recipe of the ffmpeg program: three parts of four seconds at 25 frames per second, one colour each."""
    parts = [
        write(tmp_path / f"{part}.ts", [np.full((48, 64, 3), 100 * part, np.uint8)] * 100, rate=25, shift=start)
        for part, start in enumerate((5, 1000, 1004))
    ]
    path = odd_files.joined(tmp_path / "disc.ts", *parts)
    info = probe(MediaRef(str(path)))
    assert info.seconds == pytest.approx(12.0, abs=1e-6) and info.video.count == 300
    clip = read(path, times=partial(uniform, frames=12))
    np.testing.assert_allclose(clip.frames.mean((1, 2, 3)), np.repeat([0, 100, 200], 4), atol=3)


@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_a_clock_that_jumps_is_counted_on(tmp_path: Path, b_frames: str) -> None:
    preset = "ultrafast" if b_frames == "0" else "medium"
    parts = [
        write(
            tmp_path / f"{start}.ts",
            [painted(k) for k in range(40 * part, 40 * part + 40)],
            sounds=[[(0.0, tone(4.0, loud=0.2 + 0.2 * part))]],
            shift=start,
            bf=b_frames,
            preset=preset,
        )
        for part, start in enumerate((5, 1000, 1004))
    ]
    path = odd_files.joined(tmp_path / "disc.ts", *parts)
    info = probe(MediaRef(str(path)))
    assert info.seconds == pytest.approx(12.0, abs=0.3)  # AAC is up to 0.1 s longer than was put in
    assert any("clock of the file jumps" in note for note in info.notes)
    for reader in all_readers(path, tmp_path).values():
        clip = reader.read(MediaRef(str(path)), Wanted(partial(uniform, frames=12), sample_rate=RATE))
        assert [number // 40 for number in numbers(clip.frames)] == [0] * 4 + [1] * 4 + [2] * 4
        assert clip.waveform.shape[1] / RATE == pytest.approx(12.0, abs=0.3)
        loud = [np.abs(clip.waveform[0, int((4 * part + 1) * RATE) : (4 * part + 3) * RATE]).max() for part in range(3)]
        np.testing.assert_allclose(loud, [0.2, 0.4, 0.6], atol=0.05)
        assert numbers(reader.read(MediaRef(str(path)), Wanted()).frames) == list(range(120))
        times = reader.read(MediaRef(str(path)), Wanted()).timestamps
        np.testing.assert_array_equal(
            times[::10], reader.read(MediaRef(str(path)), Wanted(sample_rate=RATE)).timestamps[::10]
        )
        span = reader.read(MediaRef(str(path), 10.5, 11.0), Wanted())
        assert all(102 <= number <= 110 for number in numbers(span.frames)) and 5 <= len(span.frames) <= 6


@pytest.mark.parametrize("ending, second", [("ts", 0.03), ("ts", 3.96), ("ts", 4.0), ("ts", 3.0), ("flv", 0.0)])
def test_parts_that_overlap_follow_each_other(tmp_path: Path, ending: str, second: float) -> None:
    starts = (0.0, second)
    if ending == "flv":  # its header cannot be repeated: write the times as a live recorder does that starts again
        path = odd_files.restarted_flv(tmp_path / "joined.flv", [painted(k) for k in range(80)], 40)
    else:
        pictures = [[painted(k) for k in range(40 * part, 40 * part + 40)] for part in range(2)]
        parts = [write(tmp_path / f"{k}.ts", p, shift=s) for k, (p, s) in enumerate(zip(pictures, starts, strict=True))]
        path = odd_files.joined(tmp_path / "joined.ts", *parts)
    assert probe(MediaRef(str(path))).seconds == pytest.approx(8.0, abs=0.02)
    for reader in all_readers(path, tmp_path).values():
        clip = reader.read(MediaRef(str(path)), Wanted())
        assert numbers(clip.frames) == list(range(80))
        assert np.diff(clip.timestamps) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("ending", ["264", "hevc", "m2v"])
def test_raw_streams_have_spans(tmp_path: Path, ending: str) -> None:
    codec = {"264": "libx264", "hevc": "libx265", "m2v": "mpeg2video"}[ending]
    path = write(tmp_path / f"raw.{ending}", [painted(k) for k in range(200)], codec=codec)
    for reader in all_readers(path, tmp_path).values():
        for start, end in ((12.0, 16.0), (3.0, 4.0)):
            clip = reader.read(MediaRef(str(path), start, end), Wanted())
            assert numbers(clip.frames) == list(range(int(start * 10), int(end * 10)))


@pytest.mark.parametrize("ending, codec", [("mkv", "pcm_s16le"), ("mkv", "aac"), ("mp4", "aac"), ("ts", "aac")])
def test_a_hole_in_the_sound_is_silent(tmp_path: Path, ending: str, codec: str) -> None:
    pieces = [(0.0, tone(3.072, loud=0.2)), (5.12, np.concatenate([np.zeros(2048), tone(4.752, loud=0.8)]))]
    path = write(tmp_path / f"gap.{ending}", TEN_SECONDS, sounds=[pieces], audio_codec=codec)
    for reader in all_readers(path, tmp_path).values():
        clip = reader.read(MediaRef(str(path)), Wanted(sample_rate=RATE, video=False))
        assert clip.waveform.shape[1] / RATE == pytest.approx(10.0, abs=0.15)
        assert loud_from(clip.waveform, RATE, 0.4) == pytest.approx(5.248, abs=0.08)
        assert np.abs(clip.waveform[0, int(3.3 * RATE) : 5 * RATE]).max() < 0.01
        part = reader.read(MediaRef(str(path), 1.0, 9.0), Wanted(sample_rate=RATE, video=False))
        assert part.waveform.shape[1] == 8 * RATE
        assert loud_from(part.waveform, RATE, 0.4) == pytest.approx(4.248, abs=0.08)


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
def test_sound_that_begins_late_says_when(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"late.{ending}", TEN_SECONDS, sounds=[[(3.0, tone(5.0))]])
    for reader in all_readers(path, tmp_path).values():
        clip = reader.read(MediaRef(str(path)), Wanted(sample_rate=RATE, video=False))
        assert clip.sound_start == pytest.approx(3.0, abs=0.07)
        assert reader.read(MediaRef(str(path), 4.0, 6.0), Wanted(sample_rate=RATE, video=False)).sound_start == 4.0


def test_a_still_is_seen_as_long_as_it_is_heard(tmp_path: Path) -> None:
    path = write(tmp_path / "still.mp4", [painted(77)], sounds=[[(0.0, tone(30.0))]])
    for reader in all_readers(path, tmp_path).values():
        for start in (0.0, 5.0, 15.0, 25.0):
            clip = reader.read(MediaRef(str(path), start, start + 5), Wanted(partial(uniform, frames=3), None, RATE))
            assert numbers(clip.frames) == [77] * 3 and clip.waveform.shape[1] == 5 * RATE


@pytest.mark.parametrize("span, why", [((0.0, 4.0), "ends before the video"), ((8.0, 9.0), "outside the 7.00 s")])
def test_a_span_without_pictures_is_an_error_or_sound_alone(
    tmp_path: Path, span: tuple[float, float], why: str
) -> None:
    path = write(tmp_path / "late.mkv", TEN_SECONDS[:20], picture_start=5.0, sounds=[[(0.0, tone(10.0))]])
    for reader in all_readers(path, tmp_path).values():
        with pytest.raises(MediaError, match=why) as caught:
            reader.read(MediaRef(str(path), *span), Wanted())
        assert caught.value.kind == "span"
        clip = reader.read(MediaRef(str(path), *span), Wanted(sample_rate=RATE))
        assert clip.frames is None and why in clip.missing["video"]
        assert clip.waveform.shape[1] == pytest.approx(RATE * (span[1] - span[0]), abs=2)
        both = reader.read(MediaRef(str(path), 0.0, 6.0), Wanted())
        assert numbers(both.frames) == list(range(10)) and both.timestamps[0] == pytest.approx(5.0, abs=0.01)


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_the_default_sound_is_heard(tmp_path: Path, ending: str) -> None:
    sounds = [[(0.0, np.zeros(RATE))], [(0.0, tone(1.0))]]
    path = write(tmp_path / f"two.{ending}", TEN_SECONDS[:10], sounds=sounds, default_sound=1)
    assert np.abs(read(path, sample_rate=RATE).waveform).max() > 0.3
    info = probe(MediaRef(str(path)))
    assert info.audio.stream == 2 and info.notes == ("2 audio streams: stream 2, the default one, is used",)
    first = write(tmp_path / f"first.{ending}", TEN_SECONDS[:10], sounds=sounds, default_sound=0)
    assert np.abs(read(first, sample_rate=RATE).waveform).max() < 0.01
    assert probe(MediaRef(str(first))).notes == ("2 audio streams: stream 1, the first, is used",)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_pixels_that_are_not_square_are_read_as_they_are_stored_and_noted(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"wide.{ending}", [painted(k, 720, 480) for k in range(3)], sar=Fraction(32, 27))
    for reader in all_readers(path, tmp_path, audio=0).values():
        assert reader.read(MediaRef(str(path)), Wanted(size=120)).frames.shape == (3, 120, 180, 3)
        assert reader.read(MediaRef(str(path)), Wanted()).frames.shape == (3, 480, 720, 3)
    note = "pixels are not square: 720x480 as stored and read, 853x480 shown"
    assert probe(MediaRef(str(path))).notes[-1] == note
    nearly = write(tmp_path / f"nearly.{ending}", [painted(0, 720, 480)], sar=Fraction(641, 640))
    assert not any("square" in note for note in probe(MediaRef(str(nearly))).notes)


def test_the_resolution_in_print_of_a_photo_means_nothing(tmp_path: Path) -> None:
    Image.fromarray(painted(5)).save(tmp_path / "scan.jpg", dpi=(300, 600))
    assert read(tmp_path / "scan.jpg").frames.shape == (1, 48, 64, 3)
    assert probe(MediaRef(str(tmp_path / "scan.jpg"))).notes == ()


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.3])
def test_sound_ends_where_its_file_says(tmp_path: Path, seconds: float) -> None:
    """An AAC frame has 1024 samples, the last one is filled up: 45,056 for one second of 44,100."""
    path = write(tmp_path / "one.m4a", sounds=[[(0.0, tone(seconds, rate=44100))]], sound_rate=44100)
    assert read(path, sample_rate=44100, video=False).waveform.shape[1] == round(seconds * 44100)


def test_sound_in_fragments_has_no_hole_where_the_first_one_ends(tmp_path: Path) -> None:
    flags = {"movflags": "frag_keyframe+empty_moov"}
    path = write(tmp_path / "f.mp4", TEN_SECONDS, sounds=[[(0.0, tone(10.0))]], container_options=flags)
    sound = read(path, sample_rate=RATE, video=False).waveform[0]
    assert len(sound) == pytest.approx(10 * RATE, abs=1200)
    assert np.abs(sound[1600:158400].reshape(-1, 160)).max(1).min() > 0.4


def test_an_animated_webp_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    pictures = [Image.fromarray(painted(k)) for k in (1, 2, 3)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    for ask in (lambda: read(path), lambda: probe(MediaRef(str(path))), lambda: read_clip(MediaRef(path.read_bytes()))):
        with pytest.raises(MediaError, match="animated WebP.*convert it to GIF or MP4") as caught:
            ask()
        assert caught.value.kind == "no_frames"


def test_tiles_of_a_picture_are_refused_and_its_other_streams_are_not(tmp_path: Path) -> None:
    shades = (40, 90, 140, 200)
    tiles = [np.full((128, 128, 3), shade, np.uint8) for shade in shades]
    path = odd_files.tiled_avif(tmp_path / "grid.avif", tiles, 2)
    with Image.open(path) as whole:  # the oracle puts them together
        assert whole.size == (256, 256) and np.asarray(whole)[::128, ::128, 0].ravel() == pytest.approx(shades, abs=2)
    for ask in (lambda: read(path), lambda: probe(MediaRef(str(path))), lambda: read_clip(MediaRef(path.read_bytes()))):
        with pytest.raises(MediaError, match="a picture of 4 tiles.*convert it to JPEG"):
            ask()
    with_alpha = np.dstack([painted(9), np.full((48, 64), 128, np.uint8)])
    Image.fromarray(with_alpha).save(tmp_path / "alpha.avif", quality=95)
    assert numbers(read(tmp_path / "alpha.avif").frames) == [9]
    Image.fromarray(painted(9)).save(tmp_path / "plain.avif", quality=95)
    assert numbers(read(tmp_path / "plain.avif").frames) == [9]


def test_an_animated_avif_is_a_short_video(tmp_path: Path) -> None:
    pictures = [Image.fromarray(painted(k)) for k in (1, 2, 3)]
    pictures[0].save(tmp_path / "a.avif", save_all=True, append_images=pictures[1:], duration=100, quality=95)
    clip = read(tmp_path / "a.avif")
    assert numbers(clip.frames) == [1, 2, 3] and clip.timestamps == pytest.approx([0.0, 0.1, 0.2], abs=1e-3)
