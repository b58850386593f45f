"""Spectrograms against torchaudio, against a slow formula, and against their own padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vtp.media.audio import fbank_frames, kaldi_fbank, log_mel, mel_bank, spec_augment


def sound(samples: int = 8000, rows: int = 2) -> torch.Tensor:
    time = torch.arange(samples) / 16000
    tones = torch.stack([torch.sin(2 * math.pi * 300 * (row + 1) * time) for row in range(rows)])
    return 0.3 * tones + 0.05 * torch.randn(rows, samples)


@pytest.mark.parametrize("bins, rate", [(128, 16000), (80, 16000), (40, 8000)])
def test_fbank_equals_torchaudio(bins: int, rate: int) -> None:
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi", exc_type=(ImportError, OSError, RuntimeError))
    waveform = sound()
    features, frames = kaldi_fbank(waveform, sample_rate=rate, bins=bins)
    for row in range(2):
        expected = kaldi.fbank(
            waveform[row : row + 1],
            sample_frequency=rate,
            num_mel_bins=bins,
            window_type="hanning",
            dither=0.0,
            frame_shift=10,
        )
        torch.testing.assert_close(features[row], expected, atol=1e-3, rtol=0)
    assert frames.tolist() == [features.shape[1]] * 2 == [fbank_frames(8000, rate)] * 2


def test_fbank_of_a_row_does_not_depend_on_its_padding() -> None:
    waveform = sound(8000)
    lengths = torch.tensor([8000, 3210])
    waveform[1, 3210:] = 7.0  # whatever lies there
    features, frames = kaldi_fbank(waveform, lengths)
    alone, _ = kaldi_fbank(waveform[1:, :3210])
    assert frames.tolist() == [48, 1 + (3210 - 400) // 160]
    torch.testing.assert_close(features[1, : frames[1]], alone[0])
    assert (features[1, frames[1] :] == math.log(torch.finfo(torch.float32).eps)).all()


def test_rows_too_short_for_one_window_have_no_frames() -> None:
    features, frames = kaldi_fbank(torch.zeros(2, 100), torch.tensor([100, 0]))
    assert features.shape == (2, 1, 128) and frames.tolist() == [0, 0] and features.isfinite().all()


def test_log_mel_equals_the_formula() -> None:
    waveform = sound(1600, rows=1)
    features, frames = log_mel(waveform, bins=20)
    padded = np.concatenate([np.zeros(256), waveform[0].double().numpy(), np.zeros(256)])
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    bank = mel_bank(20, 512, 16000, 0.0, 0.0).double().numpy()
    for frame in (0, 4, 10):
        piece = padded[160 * frame : 160 * frame + 512].copy()
        piece[:56] = piece[456:] = 0
        piece[56:456] *= taper
        power = np.abs(np.fft.rfft(piece))[:256] ** 2
        np.testing.assert_allclose(features[0, frame].numpy(), np.log(np.maximum(bank @ power, 1e-5)), atol=1e-3)
    assert frames.tolist() == [11] and features.shape == (1, 11, 20)


def test_log_mel_of_a_row_does_not_depend_on_its_padding() -> None:
    waveform = sound(8000)
    waveform[1, 4000:] = 0
    features, frames = log_mel(waveform, torch.tensor([8000, 4000]))
    alone, _ = log_mel(waveform[1:, :4000])
    torch.testing.assert_close(features[1, : frames[1]], alone[0])
    silent, none = log_mel(torch.zeros(1, 8000), torch.tensor([0]))
    assert none.tolist() == [0] and silent.isfinite().all()


def test_a_tone_lands_in_the_bin_of_its_pitch() -> None:
    time = torch.arange(16000) / 16000
    for hertz in (250.0, 1000.0, 4000.0):
        features, _ = kaldi_fbank(torch.sin(2 * math.pi * hertz * time)[None], bins=64)
        low, high = 1127 * math.log1p(20 / 700), 1127 * math.log1p(8000 / 700)
        expected = (1127 * math.log1p(hertz / 700) - low) / (high - low) * 65 - 1
        assert abs(float(features[0, 50].argmax()) - expected) <= 1


def test_spec_augment_blanks_what_the_draws_say() -> None:
    features = torch.ones(2, 10, 8)
    draws = torch.tensor([[0.5, 0.5, 0.0, 0.9], [0.999, 0.0, 0.999, 0.999]])
    out = spec_augment(features, draws, time_width=4, bin_width=3)
    expected = torch.ones(2, 10, 8)
    expected[0, 4:6] = 0  # width floor(.5 * 5) = 2 at floor(.5 * 9) = 4, no band
    expected[1, :4] = 0  # width 4 at 0
    expected[1, :, 5:] = 0  # band of 3 at floor(.999 * 6) = 5
    torch.testing.assert_close(out, expected)
    assert (features == 1).all()
    with pytest.raises(ValueError, match="draws of shape"):
        spec_augment(features, draws[:, :2])
