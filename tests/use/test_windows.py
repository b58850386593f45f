"""Which windows a file is cut into."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vtp.errors import ConfigError
from vtp.media import AudioInfo, MediaInfo, VideoInfo
from vtp.types import MediaRef, Sample
from vtp.use.windows import Source, sources, spans, windows


@pytest.mark.parametrize(
    ("end", "window", "stride", "want"),
    [
        (20.2, 10, 5, [(0, 10), (5, 15), (10, 20)]),  # what is left is 0.2 seconds
        (21, 10, 5, [(0, 10), (5, 15), (10, 20), (15, 21)]),
        (20, 10, 10, [(0, 10), (10, 20)]),
        (4, 10, 5, [(0, 4)]),
        (0, 10, 5, [(0, 0)]),  # an image
        (0.3, 10, 5, [(0, 0.3)]),
        (500, 0, 5, [(0, 500)]),
    ],
)
def test_windows_cover_a_file(end, window, stride, want):
    assert [*spans(0, end, window, stride)] == want


def test_no_second_is_lost_whatever_the_stride():
    rng = np.random.default_rng(0)
    for _ in range(200):
        begin, end = np.sort(rng.uniform(0, 100, 2))
        window = rng.uniform(1, 30)
        found = [*spans(begin, end, window, rng.uniform(0.2, 1) * window)]
        assert found[0][0] == begin and end - found[-1][1] < 0.5
        assert all(before[1] >= after[0] for before, after in zip(found, found[1:], strict=False))
        assert all(b - a <= window + 1e-9 for a, b in found)


def test_a_stride_that_loses_seconds_is_refused():
    with pytest.raises(ConfigError, match="what lies between would be lost"):
        [*spans(0, 30, 5, 6)]


def info(video=None, audio=None):
    picture = None if video is None else VideoInfo(0, "h264", 8, 8, 4.0, np.arange(0, video, 0.25), video)
    sound = None if audio is None else AudioInfo(1, "aac", 16000, 1, audio)
    return MediaInfo("mov", video or audio, picture, sound)


def test_each_stream_has_its_own_end_and_only_those_that_are_there():
    source = Source("a", MediaRef("a"), 1, 2)
    found = [*windows(source, info(video=4.0, audio=9.0), ("video", "audio"), 5, 5)]
    assert [(w.modality, w.ref.start, w.ref.end, w.start, w.end) for w in found] == [
        ("video", None, None, 0, 4.0),  # the whole file: it is read as encode() reads it
        ("audio", 0, 5, 0, 5),
        ("audio", 5, 9.0, 5, 9.0),
    ]
    assert [w.modality for w in windows(source, info(audio=9.0), ("video", "audio"), 0, 1)] == ["audio"]


@pytest.mark.parametrize("stream", ["video", "audio"])
def test_a_file_that_claims_to_last_for_ages_is_one_window(stream):
    claimed = info(video=1.0, audio=1e9)
    if stream == "video":  # four frames, the last one on screen for thirty years
        claimed = replace(claimed, video=replace(claimed.video, end=1e9))
    source = Source("a", MediaRef("a"), 1000, 2)
    assert [(w.start, w.end) for w in windows(source, claimed, (stream,), 10, 5)] == [(0, 1e9)]


def test_windows_of_a_span_lie_in_it():
    source = Source("a[2-8]", MediaRef("a", 2.0, 8.0), 1, 2)
    found = [*windows(source, info(video=100.0), ("video",), 4, 2)]
    assert [(w.start, w.end) for w in found] == [(2, 6), (4, 8)]


def test_sources_are_files_each_once(tmp_path):
    file = tmp_path / "a.mp4"
    file.write_bytes(b"12345")
    ref, span = MediaRef(str(file)), MediaRef(str(file), 1.0, 2.0)
    samples = [Sample("1", ref, ref), Sample("2", span), Sample("3", ref), Sample("4", MediaRef(b"in memory"))]
    found = sources([*samples, Sample("5", None, MediaRef("/gone.wav")), Sample("6", texts=("a",))])
    assert [(s.key, s.bytes) for s in found] == [(str(file), 5), (f"{file}[1-2]", 5), ("/gone.wav", -1)]


def test_sources_have_whole_paths(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"12345")
    monkeypatch.chdir(tmp_path)
    refs = [MediaRef(path) for path in ("a.mp4", "./a.mp4", "../" + tmp_path.name + "/a.mp4", str(tmp_path / "a.mp4"))]
    member = MediaRef("x.tar!512+5/../b.mp4")
    (one, other) = sources([*(Sample(str(n), ref) for n, ref in enumerate(refs)), Sample("m", member)])
    assert (one.key, one.ref.path, one.bytes) == (str(tmp_path / "a.mp4"), str(tmp_path / "a.mp4"), 5)
    assert other.key == f"{tmp_path}/x.tar!512+5/../b.mp4"
