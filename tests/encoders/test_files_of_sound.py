"""From files to tokens, as in evaluation: surround sound, the shortest and the longest tracks, every audio encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from encoder_names import NAMES

from vtp.data.batching import collate
from vtp.data.pipeline import Pipeline
from vtp.types import MediaRef, Sample

AUDIO = [name for slot, name in NAMES if slot == "audio"]


def tone(seconds: float, rate: int) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * (300 + 50 * np.sin(t)) * t)


def write(path: Path, wave: np.ndarray, rate: int, layout: str = "mono", codec: str = "pcm_s16le") -> MediaRef:
    """``wave`` on every loudspeaker."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        channels = np.repeat(wave[None], {"mono": 1, "stereo": 2, "5.1": 6}[layout], 0)
        planar = codec == "aac"
        step = 1024 if planar else 1 << 16
        for at in range(0, len(wave), step):
            piece = np.ascontiguousarray(channels[:, at : at + step])
            packed = (piece.T * 32767).round().astype(np.int16).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(
                piece.astype(np.float32) if planar else packed, format="fltp" if planar else "s16", layout=layout
            )
            frame.sample_rate, frame.pts = rate, at
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return MediaRef(str(path))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, MediaRef]:
    root, wave = tmp_path_factory.mktemp("sounds"), tone(3.0, 44100)
    return {
        "mono": write(root / "mono.wav", wave, 44100),
        "surround": write(root / "surround.wav", wave, 44100, "5.1"),
        "m4a": write(root / "sound.m4a", wave, 44100, "stereo", "aac"),
        "0.1 s": write(root / "short.wav", tone(0.1, 44100), 44100),
        "10 minutes": write(root / "long.wav", np.tile(tone(60.0, 8000), 10), 8000),
    }


def tokens_of(encoder, refs: list[MediaRef]):
    """Of a batch, as the loader makes it, whose last row has no sound."""
    pipeline = Pipeline({"audio": encoder.spec}, train=False)
    examples = [pipeline(Sample(f"clip{row}", None, ref, texts=("a",)), 0, row) for row, ref in enumerate(refs)]
    examples.append(replace(examples[0], waveform=None))
    with torch.no_grad():
        return encoder(**collate(examples, {"audio": encoder.spec}).inputs["audio"])


@pytest.mark.slow
@pytest.mark.parametrize("name", AUDIO)
def test_every_kind_of_file_has_tokens(build, files, name):
    encoder = build("audio", name).eval()
    tokens = tokens_of(encoder, list(files.values()))
    real = dict(zip(files, tokens.attention_mask[:-1], strict=True))
    assert tokens.x.isfinite().all() and not tokens.attention_mask[-1].any()
    assert all(row.any() for row in real.values())
    assert real["10 minutes"].all() and torch.equal(real["mono"], real["surround"])
    if encoder.spec.seconds > 0.3:
        assert real["0.1 s"].sum() < real["mono"].sum()
    torch.testing.assert_close(tokens.x[0], tokens.x[1], rtol=0, atol=0.05)  # 16 bits a channel, mixed
    row = list(files).index("0.1 s")
    again = tokens_of(encoder, [files["0.1 s"]])
    torch.testing.assert_close(again.x[0][real["0.1 s"]], tokens.x[row][real["0.1 s"]], rtol=0, atol=1e-4)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", AUDIO)
def test_real_clips(build, shared_data, name):
    found = sorted((shared_data / "videos" / "vggsound").glob("*.mp4"))
    encoder = build("audio", name).eval()
    tokens = tokens_of(encoder, [MediaRef(str(file)) for file in found])
    assert tokens.x.isfinite().all() and tokens.attention_mask[:-1].all()
    pooled = torch.nn.functional.normalize(tokens.pooled()[:-1])
    assert (pooled @ pooled.T).fill_diagonal_(0).max() < 1 - 1e-6  # they do not sound alike
