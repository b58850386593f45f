"""Sound stands where it belongs in the clip that a model gets."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from vtp.data.pipeline import Pipeline
from vtp.errors import ConfigError
from vtp.media import MediaError
from vtp.media.request import Wanted
from vtp.types import AudioSpec, Clip, MediaRef, Sample, VideoSpec

RATE = 100
VIDEO = VideoSpec(frames=2, size=8)


class Fake:
    """A film whose sound rises by one each hundredth of a second, from ``start`` to ``end`` of the file."""

    backend_name = "fake"

    def __init__(self, start: float, end: float, frames: bool = True) -> None:
        self.start, self.end, self.frames = start, end, frames

    def read(self, ref: MediaRef, wanted: Wanted) -> Clip:
        clip = Clip()
        if wanted.video and self.frames:
            clip.frames, clip.timestamps = np.zeros((2, 8, 8, 3), np.uint8), np.array([0.0, 1.0])
        elif wanted.video:
            clip.missing["video"], clip.timestamps = "the span lies outside", np.zeros(0)
        if wanted.sample_rate is not None:
            begin, end = max(self.start, ref.start or 0.0), min(self.end, ref.end or self.end)
            clip.waveform = np.arange(round(begin * RATE), round(end * RATE), dtype=np.float32)[None]
            clip.sample_rate, clip.sound_start = RATE, begin
        return clip


def sound_of(fake: Fake, seconds: float, *span: float, train: bool = False, epoch: int = 0, own: bool = False):
    specs = {"video": VIDEO, "audio": AudioSpec(RATE, seconds)}
    ref = MediaRef("film.mp4", *span)
    audio = MediaRef("sound.wav", *span) if own else ref
    return Pipeline(specs, train=train, reader=fake)(Sample("a", ref, audio), epoch, 0).waveform


@pytest.mark.parametrize("own", [False, True])
def test_late_sound_has_silence_before_it(own: bool) -> None:
    waveform = sound_of(Fake(3.0, 8.0), 10.0, own=own)
    np.testing.assert_array_equal(waveform, np.r_[np.zeros(300), np.arange(300, 800)])
    span = sound_of(Fake(3.0, 8.0), 10.0, 2.0, 5.0, own=own)
    np.testing.assert_array_equal(span, np.r_[np.zeros(100), np.arange(300, 500)])
    after = sound_of(Fake(3.0, 8.0), 10.0, 4.0, 6.0, own=own)
    np.testing.assert_array_equal(after, np.arange(400, 600))


def test_the_middle_is_that_of_the_clip_not_of_the_sound() -> None:
    waveform = sound_of(Fake(3.0, 8.0), 4.0)  # seconds 2 to 6 of 8
    np.testing.assert_array_equal(waveform, np.r_[np.zeros(100), np.arange(300, 600)])


def test_random_stretches_are_those_of_a_sound_with_silence_before_it() -> None:
    late, whole = Fake(3.0, 8.0), Fake(0.0, 8.0)
    for epoch in range(20):
        got, want = (partial(sound_of, seconds=1.5, train=True, epoch=epoch)(fake) for fake in (late, whole))
        np.testing.assert_array_equal(got, np.where(want < 300, 0, want))
        assert len(got) == 150


def test_a_span_with_sound_alone_lacks_its_picture() -> None:
    specs = {"video": VIDEO, "audio": AudioSpec(RATE, 2.0)}
    ref = MediaRef("film.mp4", 1.0, 2.0)
    example = Pipeline(specs, train=False, reader=Fake(0.0, 8.0, frames=False))(Sample("a", ref, ref), 0, 0)
    assert example.frames is None and example.missing == {"video": "the span lies outside"}
    np.testing.assert_array_equal(example.waveform, np.arange(100, 200))
    alone = Pipeline({"video": VIDEO}, train=False, reader=Fake(0.0, 8.0, frames=False))
    with pytest.raises(MediaError):
        alone(Sample("a", ref), 0, 0)


@pytest.mark.parametrize("spec", [VideoSpec(frames=0, size=8), VideoSpec(frames=2, size=0), AudioSpec(RATE, 0.0)])
def test_nothing_wanted_is_refused_before_anything_is_read(spec) -> None:
    kind = "video" if isinstance(spec, VideoSpec) else "audio"
    with pytest.raises(ConfigError, match=f"the {kind} encoder asks for .* must be positive"):
        Pipeline({kind: spec}, train=False, reader=Fake(0.0, 1.0))
