"""All installed backends choose the same frames of the real clips and show the same pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from vtp.errors import ConfigError, PluginError
from vtp.media import MediaError, Wanted, backends, read_clip
from vtp.media.sampling import uniform
from vtp.plugins import RESERVED
from vtp.types import MediaRef

# Largest difference of a colour value at stored size. Measured with torchcodec 0.17 on FFmpeg 5.1 and decord 0.6: 0,
# but for 10-bit sources.
TOLERANCE = 3
CLIPS = [
    "msrvtt/video9770.mp4",
    "msrvtt/video9771.mp4",
    "msvd/klteYv1Uv9A_27_33.avi",
    "decoder/var_fps_video.mp4",
    "decoder/av1_video.mkv",
    "decoder/h264_10bits.mp4",
    "decoder/h265_video.mp4",
]


def installed(name: str) -> str:
    try:
        backends.load_backend(backends.find_backend(name))
    except PluginError as error:
        pytest.skip(str(error))
    return name


@pytest.mark.data
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("name", ["torchcodec", "decord"])
def test_backends_agree(shared_data: Path, name: str, clip: str) -> None:
    installed(name)
    if name == "decord" and "av1" in clip:
        pytest.skip("decord 0.6 cannot open AV1")
    ref = MediaRef(str(shared_data / "videos" / clip))
    expected = read_clip(ref, Wanted(times=partial(uniform, frames=8), sample_rate=16000))
    got = read_clip(ref, Wanted(times=partial(uniform, frames=8), sample_rate=16000), backend=name)
    difference = np.abs(got.frames.astype(int) - expected.frames)
    if "10bits" in clip:  # noise in full colour: what is compared is how versions of swscale interpolate it
        assert difference.mean() < 4
    else:
        assert difference.max() <= TOLERANCE
    np.testing.assert_array_equal(got.timestamps, expected.timestamps)
    assert got.missing == expected.missing
    if expected.waveform is not None:
        np.testing.assert_array_equal(got.waveform, expected.waveform)
    # frames of neighbouring times differ by more than the tolerance, so a frame beside the right one would be seen
    other = read_clip(ref, Wanted(times=lambda info: info.positions(uniform(info, frames=8)) + 1)).frames
    assert np.abs(other.astype(int) - expected.frames).max() > 20


@pytest.mark.data
@pytest.mark.parametrize("name", ["torchcodec", "decord"])
def test_backends_cut_spans_and_resize_alike(shared_data: Path, name: str) -> None:
    installed(name)
    ref = MediaRef(str(shared_data / "videos" / CLIPS[0]), 4.0, 5.0)
    expected, got = (read_clip(ref, Wanted(size=60), backend=backend) for backend in ("pyav", name))
    assert got.frames.shape == expected.frames.shape == (30, 60, 80, 3)
    assert np.abs(got.frames.astype(int) - expected.frames).mean() < 3
    np.testing.assert_array_equal(got.timestamps, expected.timestamps)


@pytest.mark.data
@pytest.mark.parametrize("name", ["torchcodec", "decord"])
def test_transport_streams_are_refused_by_those_that_misread_them(tmp_path: Path, shared_data: Path, name: str) -> None:
    installed(name)
    path = tmp_path / "copy.ts"
    with av.open(str(shared_data / "videos" / CLIPS[0])) as inp, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(inp.streams.video[0])
        for packet in inp.demux(inp.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    with pytest.raises(MediaError, match="transport streams") as caught:
        read_clip(MediaRef(str(path)), backend=name)
    assert caught.value.backend == name


class Sketch:
    """A decoder that is not finished."""

    name = "sketch"

    def probe(self, ref):
        raise NotImplementedError

    def reads(self, ref, wanted):
        raise NotImplementedError


def test_names_of_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backends.find_backend("auto") == backends.find_backend("pyav")
    with pytest.raises(ConfigError, match=r"backend=dcord: .* Did you mean 'decord'\? Known: auto, pyav, torchcodec"):
        backends.find_backend("dcord")
    assert set(RESERVED["decoder"]) == {"auto", *backends.BACKENDS}
    monkeypatch.setitem(backends.BACKENDS, "none", "vtp_no_such_module:Decoder")
    with pytest.raises(
        PluginError, match="vtp_no_such_module:Decoder cannot be used: ModuleNotFoundError.*media.backend=auto"
    ):
        read_clip(MediaRef("x"), backend="none")
    monkeypatch.setitem(backends.BACKENDS, "none", f"{__name__}:Sketch")
    with pytest.raises(PluginError, match=r"Sketch has no `read`, which .* kind Decoder must have.* Is `reads` meant"):
        read_clip(MediaRef("x"), backend="none")
