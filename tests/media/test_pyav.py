"""Frames and sound of real and remuxed files against a plain decode from start to end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vtp.media import MediaError, VideoInfo, Wanted, probe, read_clip
from vtp.media.sampling import uniform
from vtp.types import MediaRef

SOURCE = "msrvtt/video9770.mp4"  # h264 with B-frames, two key frames, stereo sound
SIZE = (60, 80)


def decode_all(path: Path, size: tuple[int, int] | None = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """The oracle: every frame that comes out of the first video stream, as RGB, and its time."""
    frames, times = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        zero = (container.start_time or 0) / av.time_base
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except (av.error.InvalidDataError, EOFError):
                continue
            for frame in decoded:
                height, width = size or (frame.height, frame.width)
                frames.append(frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR"))
                times.append(np.nan if frame.pts is None else frame.pts * float(frame.time_base) - zero)
    return np.stack(frames), np.array(times)


def remux(
    source: Path, target: Path, *, options: dict[str, str] | None = None, edit: Callable[[Any, Any], bool] | None = None
) -> Path:
    """Copy the video packets of ``source`` into ``target``; ``edit(packet, stream)`` may change or refuse them."""
    with av.open(str(source)) as inp, av.open(str(target), "w", options=options or {}) as out:
        stream = inp.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in inp.demux(stream):
            if packet.dts is None or (edit is not None and not edit(packet, stream)):
                continue
            packet.stream = copy
            out.mux(packet)
    return target


def encode(
    target: Path,
    frames: int = 60,
    rate: int = 30,
    *,
    gop: int = 12,
    codec: str = "libx264",
    audio: bool = False,
    **options: str,
) -> Path:
    """A clip whose frame k is recognisable: a bright bar that moves down."""
    with av.open(str(target), "w") as out:
        stream = out.add_stream(codec, rate=rate, options={"g": str(gop), **options})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(frames):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[k % 48] = 255
            picture[:, 0] = 4 * k % 256
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = k
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return target


REAL = [
    "msrvtt/video9770.mp4",
    "msrvtt/video9771.mp4",
    "decoder/av1_video.mkv",
    "decoder/h264_10bits.mp4",
    "decoder/h265_video.mp4",
    "decoder/var_fps_video.mp4",
    "activitynet/v_GGSY1Qvo990.mp4",
    "msvd/klteYv1Uv9A_27_33.avi",
    "msvd/WTf5EgVY5uU_124_128.avi",
]


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_chosen_frames_are_those_of_a_plain_decode(shared_data: Path, name: str) -> None:
    path = shared_data / "videos" / name
    frames, times = decode_all(path)
    positions = np.unique(np.linspace(0, len(frames) - 1, 9).round().astype(int))[::-1]  # also not in order
    clip = read_clip(MediaRef(str(path)), Wanted(times=lambda info: positions, size=SIZE))
    np.testing.assert_array_equal(clip.frames, frames[positions])
    if not np.isnan(times).any():
        np.testing.assert_allclose(clip.timestamps, times[positions], atol=1e-6)


@pytest.mark.data
def test_seconds_mean_the_frame_on_screen_also_at_a_variable_rate(shared_data: Path) -> None:
    path = shared_data / "videos/decoder/var_fps_video.mp4"
    frames, times = decode_all(path)
    moments = np.array([0.0, 0.051, 3.3333, 7.77, 14.0, 99.0])
    shown = [max(k for k in range(len(times)) if k == 0 or times[k] <= moment) for moment in moments]
    clip = read_clip(MediaRef(str(path)), Wanted(times=lambda info: moments, size=SIZE))
    np.testing.assert_array_equal(clip.frames, frames[shown])


@pytest.mark.data
def test_all_frames_at_stored_size_by_default(shared_data: Path) -> None:
    path = shared_data / "videos/decoder/h265_video.mp4"
    frames, _ = decode_all(path, None)
    clip = read_clip(MediaRef(str(path)))
    np.testing.assert_array_equal(clip.frames, frames)
    assert clip.waveform is None and clip.missing == {}


@pytest.mark.data
def test_bytes_give_what_the_file_gives(shared_data: Path) -> None:
    path = shared_data / "videos" / SOURCE
    pick = partial(uniform, frames=4)
    whole = read_clip(MediaRef(str(path)), Wanted(times=pick, size=SIZE, sample_rate=16000))
    again = read_clip(MediaRef(path.read_bytes()), Wanted(times=pick, size=SIZE, sample_rate=16000))
    np.testing.assert_array_equal(again.frames, whole.frames)
    np.testing.assert_array_equal(again.waveform, whole.waveform)


@pytest.mark.data
@pytest.mark.parametrize("start, end", [(2.0, 4.5), (9.5, 99.0), (None, 1.0), (10.5, None), (3.33, 3.34)])
def test_a_span_holds_the_frames_on_screen_during_it(shared_data: Path, start: float | None, end: float | None) -> None:
    path = shared_data / "videos" / SOURCE
    frames, times = decode_all(path)
    first = 0 if start is None else max(k for k in range(len(times)) if times[k] <= start + 1e-6)
    last = len(times) if end is None else sum(times < end - 1e-6)
    clip = read_clip(MediaRef(str(path), start, end), Wanted(size=SIZE, sample_rate=16000))
    np.testing.assert_array_equal(clip.frames, frames[first : max(last, first + 1)])
    assert clip.timestamps is not None and clip.waveform is not None
    seconds = min(11.0, 99 if end is None else end) - (start or 0.0)
    assert clip.waveform.shape[1] == pytest.approx(16000 * seconds, abs=1600)


@pytest.mark.data
def test_the_sound_of_a_span_is_that_part_of_the_whole(shared_data: Path) -> None:
    path = str(shared_data / "videos" / SOURCE)
    whole = read_clip(MediaRef(path), Wanted(sample_rate=44100, video=False)).waveform
    part = read_clip(MediaRef(path, 3.0, 5.0), Wanted(sample_rate=44100, video=False)).waveform
    assert whole is not None and part is not None and part.shape == (1, 88200)
    np.testing.assert_allclose(part[0], whole[0, 3 * 44100 : 5 * 44100], atol=1e-6)


@pytest.mark.data
def test_a_span_outside_the_file_is_an_error_of_that_span(shared_data: Path) -> None:
    with pytest.raises(MediaError, match="outside the 11.00 s") as caught:
        read_clip(MediaRef(str(shared_data / "videos" / SOURCE), 50.0, 60.0))
    assert caught.value.kind == "span" and caught.value.backend == "pyav"


def test_a_span_far_into_a_long_file_does_not_read_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vtp.media import packets

    path = encode(tmp_path / "long.mp4", frames=1800, gop=60)
    frames, times = decode_all(path)
    seen: list[int] = []
    original = packets._scan_from_here
    monkeypatch.setattr(packets, "_scan_from_here", lambda *a: seen.append(len(out := original(*a))) or out)
    clip = read_clip(MediaRef(str(path), 40.0, 41.0), Wanted(size=SIZE))
    np.testing.assert_array_equal(clip.frames, frames[1200:1230])
    assert len(seen) == 1 and seen[0] < 300


def test_an_edit_list_hides_the_frames_before_its_start(tmp_path: Path, shared_data: Path) -> None:
    """A stream copy that starts between key frames keeps the packets it needs and marks them as not shown."""
    path = encode(tmp_path / "source.mp4", frames=60, gop=30)
    shift = 10

    def earlier(packet: Any, stream: Any) -> bool:
        step = round(1 / 30 / float(stream.time_base))
        packet.pts -= shift * step
        packet.dts -= shift * step
        return True

    edited = remux(
        path, tmp_path / "edited.mp4", options={"movflags": "use_metadata_tags", "use_editlist": "1"}, edit=earlier
    )
    frames, _ = decode_all(edited)
    original, _ = decode_all(path)
    np.testing.assert_array_equal(frames[0], original[shift])  # the oracle itself honours the list
    picks = np.array([0, 1, 17, 18, 19, len(frames) - 1])
    clip = read_clip(MediaRef(str(edited)), Wanted(times=lambda info: picks, size=SIZE))
    np.testing.assert_array_equal(clip.frames, frames[picks])
    assert probe(MediaRef(str(edited))).video.count == len(frames) == 60 - shift


@pytest.mark.data
def test_a_transport_stream_cut_anywhere_gives_the_frames_that_decode(tmp_path: Path, shared_data: Path) -> None:
    """Packets before the first key frame are there, but no picture comes out of them."""
    count = [0]

    def later(packet: Any, stream: Any) -> bool:
        count[0] += 1
        return count[0] > 100

    path = remux(shared_data / "videos" / SOURCE, tmp_path / "cut.ts", edit=later)
    frames, _ = decode_all(path)
    for picks in (np.arange(0, len(frames), 7), np.array([len(frames) - 1, 0])):
        clip = read_clip(MediaRef(str(path)), Wanted(times=lambda info, p=picks: p, size=SIZE))
        np.testing.assert_array_equal(clip.frames, frames[picks])
    clip = read_clip(MediaRef(str(path)), Wanted(times=partial(uniform, frames=8), size=SIZE))
    assert clip.frames is not None and len(clip.frames) == 8


@pytest.mark.data
@pytest.mark.parametrize("suffix", ["ts", "mkv", "mov"])
def test_other_containers_give_the_same_frames(tmp_path: Path, shared_data: Path, suffix: str) -> None:
    source = shared_data / "videos" / SOURCE
    path = remux(source, tmp_path / f"copy.{suffix}")
    frames, _ = decode_all(source)
    picks = np.array([0, 3, 120, 249, 250, 251, 329])
    clip = read_clip(MediaRef(str(path)), Wanted(times=lambda info: picks, size=SIZE))
    np.testing.assert_array_equal(clip.frames, frames[picks])


@pytest.mark.parametrize(
    "degrees, mirrored", [(0, False), (90, False), (180, False), (270, False), (90, True), (0, True)]
)
def test_frames_are_turned_upright(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    path = encode(tmp_path / "plain.mp4", frames=4)
    turned = tmp_path / "turned.mp4"
    with av.open(str(path)) as inp, av.open(str(turned), "w") as out:
        copy = out.add_stream_from_template(inp.streams.video[0])
        copy.set_display_rotation(degrees if degrees <= 180 else degrees - 360, hflip=mirrored)
        for packet in inp.demux(inp.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    frames, _ = decode_all(path, None)
    expected = np.rot90(frames, degrees // 90, axes=(1, 2))
    expected = expected[:, :, ::-1] if mirrored else expected
    clip = read_clip(MediaRef(str(turned)))
    np.testing.assert_array_equal(clip.frames, expected)
    assert read_clip(MediaRef(str(turned)), Wanted(size=24)).frames.shape == (
        (4, 32, 24, 3) if degrees % 180 else (4, 24, 32, 3)
    )
    assert probe(MediaRef(str(turned))).rotation == degrees or mirrored


def test_open_groups_of_pictures_start_one_key_frame_earlier(tmp_path: Path) -> None:
    """Pictures that lead a key frame need the one before it; decoding from their own gives garbage or nothing."""
    path = encode(
        tmp_path / "open.mp4", frames=48, gop=12, **{"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}
    )
    frames, _ = decode_all(path)
    for k in range(len(frames)):
        clip = read_clip(MediaRef(str(path)), Wanted(times=lambda info, k=k: np.array([k]), size=SIZE))
        np.testing.assert_array_equal(clip.frames[0], frames[k])


def test_a_still_is_a_video_of_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "still 100%02d.png"  # FFmpeg would look for a numbered sequence
    picture = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    from PIL import Image

    Image.fromarray(picture).save(path)
    Image.new("RGB", (30, 40)).save(tmp_path / "still 10001.png")
    clip = read_clip(MediaRef(str(path)), Wanted(times=partial(uniform, frames=3), sample_rate=16000))
    np.testing.assert_array_equal(clip.frames, np.stack([picture] * 3))
    assert clip.timestamps.tolist() == [0.0] * 3 and clip.missing == {"audio": "no audio stream"}


def test_a_gif_is_a_short_video(tmp_path: Path) -> None:
    from PIL import Image

    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    pictures = [Image.new("RGB", (32, 24), colour) for colour in colours]
    path = tmp_path / "three.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 300, 200], loop=0)
    clip = read_clip(MediaRef(str(path)))
    np.testing.assert_array_equal(clip.frames[:, 5, 5], np.array(colours, np.uint8))
    np.testing.assert_allclose(clip.timestamps, [0.0, 0.1, 0.4], atol=1e-9)
    clip = read_clip(MediaRef(str(path)), Wanted(times=lambda info: np.array([0.25, 0.45])))
    assert clip.frames[:, 5, 5].tolist() == [[0, 255, 0], [0, 0, 255]]


def test_the_first_video_stream_is_chosen_and_cover_art_is_none(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=10) for _ in range(2)]
        for stream, width in zip(streams, (32, 64), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 32, "yuv420p"
        for k in range(5):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(np.zeros((32, stream.width, 3), np.uint8), format="rgb24")
                frame.pts = k
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    info = probe(MediaRef(str(path)))
    assert (info.video.stream, info.video.width, info.video.others) == (0, 32, (1,))
    assert "2 video streams" in info.notes[0]


def write_sound(path: Path, waveform: np.ndarray, rate: int, layout: str, codec: str = "pcm_s16le") -> Path:
    """``waveform`` (channels, S) in [-1, 1]."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        samples = np.ascontiguousarray((waveform.T * 32767).round().astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate = rate
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_stereo_and_surround_are_mixed_as_ffmpeg_does(tmp_path: Path) -> None:
    for layout, channels in (("stereo", 2), ("5.1", 6), ("mono", 1)):
        waveform = np.random.default_rng(1).uniform(-1, 1, (channels, 8000))
        path = write_sound(tmp_path / f"{channels}.wav", waveform, 8000, layout)
        clip = read_clip(MediaRef(str(path)), Wanted(sample_rate=8000, video=False))
        with av.open(str(path)) as container:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=8000)
            pieces = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
            pieces += resampler.resample(None)
        expected = np.concatenate([piece.to_ndarray()[0] for piece in pieces]) / 32768
        assert clip.waveform.shape == (1, 8000) and clip.sample_rate == 8000
        np.testing.assert_allclose(clip.waveform[0], expected, atol=2e-4)


def test_sound_is_resampled(tmp_path: Path) -> None:
    seconds = np.arange(44100) / 44100
    path = write_sound(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * seconds)[None], 44100, "mono")
    clip = read_clip(MediaRef(str(path)), Wanted(sample_rate=16000, video=False))
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert clip.waveform.shape == (1, 16000)
    np.testing.assert_allclose(clip.waveform[0, 200:-200], expected[200:-200], atol=2e-3)


def test_an_audio_file_has_no_picture(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", np.zeros((1, 800)), 8000, "mono")
    clip = read_clip(MediaRef(str(path)), Wanted(sample_rate=8000))
    assert clip.frames is None and clip.missing == {"video": "no video stream"} and clip.waveform.shape == (1, 800)
    assert probe(MediaRef(str(path))).video is None
    with pytest.raises(MediaError, match="no video stream") as caught:
        read_clip(MediaRef(str(path)))
    assert caught.value.kind == "no_video"


def test_a_silent_film_has_no_sound(tmp_path: Path) -> None:
    path = encode(tmp_path / "silent.mp4", frames=3)
    assert read_clip(MediaRef(str(path)), Wanted(sample_rate=8000)).missing == {"audio": "no audio stream"}
    with pytest.raises(MediaError, match="no audio stream") as caught:
        read_clip(MediaRef(str(path)), Wanted(sample_rate=8000, video=False))
    assert caught.value.kind == "no_audio"


@pytest.mark.data
def test_a_truncated_file_gives_what_comes_before_the_cut(tmp_path: Path, shared_data: Path) -> None:
    """With the index at its front an mp4 can be read up to the cut; both frames and sound are kept."""
    path = tmp_path / "fast.mp4"
    with (
        av.open(str(shared_data / "videos" / SOURCE)) as inp,
        av.open(str(path), "w", options={"movflags": "faststart"}) as out,
    ):
        copies = {s.index: out.add_stream_from_template(s) for s in (inp.streams.video[0], inp.streams.audio[0])}
        for packet in inp.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames, _ = decode_all(path)
    whole, _ = decode_all(shared_data / "videos" / SOURCE)
    clip = read_clip(MediaRef(str(path)), Wanted(size=SIZE, sample_rate=16000))
    assert 100 < len(frames) < 250
    np.testing.assert_array_equal(clip.frames[:100], whole[:100])
    assert len(clip.frames) == len(frames)
    assert 3 * 16000 < clip.waveform.shape[1] < 8 * 16000


def test_a_very_long_picture_is_squeezed(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "wide.png"
    Image.new("RGB", (4000, 16)).save(path)
    assert read_clip(MediaRef(str(path)), Wanted(size=32)).frames.shape == (1, 32, 8 * 32, 3)


HOSTILE: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a video\n" * 50),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "header only": lambda path: path.write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"),
    "directory": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path),
    "playlist": lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n"),
    "missing": lambda path: None,
}


@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_playlist_makes_no_connection(tmp_path: Path, as_bytes: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        path = tmp_path / "playlist.m3u8"
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(MediaError):
            read_clip(MediaRef(path.read_bytes() if as_bytes else str(path)))
        with pytest.raises(TimeoutError):
            server.accept()


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n",
    "script.mp4": "ffconcat version 1.0\nfile {}\n",
    "script.ffconcat": "ffconcat version 1.0\nfile {}\n",
}


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_opens_no_other_file(tmp_path: Path, name: str, as_bytes: bool) -> None:
    encode(tmp_path / "other.ts", 5)
    path = tmp_path / name
    path.write_text(PLAYLISTS[name].format("other.ts"))
    with av.open(str(path)) as container:  # FFmpeg itself does
        assert len(list(container.decode(video=0))) == 5
    for ask in (read_clip, probe):
        with pytest.raises(MediaError, match="playlists and the like name other files|not a media file"):
            ask(MediaRef(path.read_bytes() if as_bytes else str(path)))


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_video_is_one_error_with_a_reason(tmp_path: Path, case: str) -> None:
    path = tmp_path / "hostile.mp4"
    HOSTILE[case](path)
    for read in (read_clip, probe):
        with pytest.raises(MediaError) as caught:
            read(MediaRef(str(path)))
        assert caught.value.reason and caught.value.backend == "pyav"


def test_samplers_see_the_stream() -> None:
    info = VideoInfo(0, "h264", 64, 48, 10.0, np.array([0.0, 0.1, 0.3]), 0.4)
    assert info.positions(np.array([-1.0, 0.1, 0.0999999, 0.29, 0.3, 9.0])).tolist() == [0, 1, 1, 1, 2, 2]
    assert info.positions(np.array([-1, 1, 7])).tolist() == [0, 1, 2]
    assert (info.start, info.count) == (0.0, 3)
