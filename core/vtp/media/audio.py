"""Spectrograms of batches of waveforms, in plain torch, on whatever device they are on.

``kaldi_fbank`` computes what ``torchaudio.compliance.kaldi.fbank`` computes with the settings of AST and its
descendants (25 ms Hanning windows every 10 ms, 128 bins, no dither), to 1e-3, without needing torchaudio and for a
whole batch at once. Padding: ``lengths`` say how many samples of each row are real, and how many frames of each row are
real comes back with the features; a row's real frames do not depend on its padding.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["fbank_frames", "kaldi_fbank", "log_mel", "mel_bank", "spec_augment"]

_EPSILON = torch.finfo(torch.float32).eps


def fbank_frames(
    samples: Tensor | int, sample_rate: int, *, window_ms: float = 25.0, hop_ms: float = 10.0
) -> Tensor | int:
    """Frames that :func:`kaldi_fbank` gives for so many samples (an int or int64 tensor): only windows that fit
    count."""
    window, hop = round(sample_rate * window_ms / 1000), round(sample_rate * hop_ms / 1000)
    if isinstance(samples, int):
        return max(0, 1 + (samples - window) // hop)
    return (1 + torch.div(samples - window, hop, rounding_mode="floor")).clamp(min=0)


def kaldi_fbank(
    waveform: Tensor,
    lengths: Tensor | None = None,
    *,
    sample_rate: int = 16000,
    bins: int = 128,
    window_ms: float = 25.0,
    hop_ms: float = 10.0,
    low_hz: float = 20.0,
    high_hz: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Kaldi's log-mel filter-bank features, as AST, AudioMAE and BEATs take them.

    Per window: subtract the mean, pre-emphasis 0.97, Hanning, power spectrum, triangular mel filters, natural
    logarithm. The waveform is used as it is: AST subtracts the mean of the whole clip first, BEATs multiplies by 2**15.

    Args:
        waveform: float (B, S).
        lengths: int64 (B,), real samples per row; None means all are.
        sample_rate: Hz.
        bins: mel bins M.
        window_ms, hop_ms: milliseconds.
        low_hz, high_hz: ends of the mel bank; ``high_hz`` <= 0 counts down from half the sample rate.

    Returns:
        float32 (B, F, M), F = 1 + (S - window) // hop, and int64 (B,) real frames per row. Frames that are not real are
        filled with the floor, log(eps) = -15.9.
    """
    window, hop = round(sample_rate * window_ms / 1000), round(sample_rate * hop_ms / 1000)
    batch, samples = waveform.shape
    if lengths is None:
        lengths = torch.full((batch,), samples, dtype=torch.int64, device=waveform.device)
    waveform = waveform.float()
    if samples < window:
        waveform = pad(waveform, (0, window - samples))
    frames = waveform.unfold(1, window, hop)  # (B, F, window)
    frames = frames - frames.mean(2, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
    frames = (frames - 0.97 * before) * torch.hann_window(window, periodic=False, device=waveform.device)
    size = 1 << (window - 1).bit_length()
    spectrum = torch.fft.rfft(frames, n=size).abs().square()  # (B, F, size / 2 + 1)
    bank = mel_bank(bins, size, sample_rate, low_hz, high_hz).to(waveform.device)
    features = (spectrum[..., :-1] @ bank.T).clamp(min=_EPSILON).log()
    real = torch.as_tensor(fbank_frames(lengths.to(waveform.device), sample_rate, window_ms=window_ms, hop_ms=hop_ms))
    return _floor_padding(features, real, math.log(_EPSILON)), real


@lru_cache(maxsize=16)
def mel_bank(bins: int, fft_size: int, sample_rate: int, low_hz: float, high_hz: float) -> Tensor:
    """Kaldi's triangular filters, float32 (bins, fft_size / 2) on the CPU: straight flanks on the mel scale 1127 ln(1 +
    f / 700)."""
    high_hz = high_hz if high_hz > 0 else sample_rate / 2 + high_hz
    if not 0 <= low_hz < high_hz <= sample_rate / 2:
        raise ValueError(
            f"mel bank from {low_hz} to {high_hz} Hz does not fit below {sample_rate / 2} Hz: "
            "check low_hz, high_hz and sample_rate"
        )
    low, high = _mel(torch.tensor([low_hz, high_hz], dtype=torch.float64)).tolist()
    centre = low + (high - low) / (bins + 1) * torch.arange(bins + 2, dtype=torch.float64)
    mels = _mel(torch.arange(fft_size // 2, dtype=torch.float64) * sample_rate / fft_size)  # of each FFT bin
    rising = (mels - centre[:-2, None]) / (centre[1:-1] - centre[:-2])[:, None]
    falling = (centre[2:, None] - mels) / (centre[2:] - centre[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0).float()


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hertz / 700.0)


def log_mel(
    waveform: Tensor,
    lengths: Tensor | None = None,
    *,
    sample_rate: int = 16000,
    bins: int = 64,
    window_ms: float = 25.0,
    hop_ms: float = 10.0,
) -> tuple[Tensor, Tensor]:
    """Log-mel features with centred windows, so that F = 1 + S // hop and frame f is about the moment f * hop: the
    simple kind, for models of our own.

    Args:
        waveform: float (B, S).
        lengths: int64 (B,), real samples per row; None means all are.

    Returns:
        float32 (B, F, M), natural logarithm of mel power floored at 1e-5, and int64 (B,) real frames per row. Other
        frames hold the floor.
    """
    window, hop = round(sample_rate * window_ms / 1000), round(sample_rate * hop_ms / 1000)
    batch, samples = waveform.shape
    if lengths is None:
        lengths = torch.full((batch,), samples, dtype=torch.int64, device=waveform.device)
    size = 1 << (window - 1).bit_length()
    padded = pad(waveform.float(), (size // 2, size // 2))  # zeros: a row does not depend on how far it is padded
    taper = pad(torch.hann_window(window, device=waveform.device), ((size - window) // 2, (size - window + 1) // 2))
    spectrum = torch.fft.rfft(padded.unfold(1, size, hop) * taper).abs().square()
    bank = mel_bank(bins, size, sample_rate, 0.0, 0.0).to(waveform.device)
    features = (spectrum[..., :-1] @ bank.T).clamp(min=1e-5).log()
    real = torch.where(lengths > 0, 1 + torch.div(lengths, hop, rounding_mode="floor"), 0).to(waveform.device)
    return _floor_padding(features, real, math.log(1e-5)), real


def _floor_padding(features: Tensor, real: Tensor, floor: float) -> Tensor:
    """Frames at or after ``real`` (B,) become ``floor``."""
    padding = torch.arange(features.shape[1], device=features.device) >= real[:, None]  # (B, F)
    return features.masked_fill(padding[..., None], floor)


def spec_augment(
    features: Tensor,
    draws: Tensor,
    *,
    time_masks: int = 1,
    time_width: int = 192,
    bin_masks: int = 1,
    bin_width: int = 48,
    value: float = 0.0,
) -> Tensor:
    """SpecAugment without warping (arXiv:1904.08779): blank some stretches of time and some bands of frequency. The
    defaults are AST's.

    Args:
        features: (B, F, M).
        draws: (B, 2 * (time_masks + bin_masks)) in [0, 1), for example ``ctx.uniform``: width and place of each mask,
            time masks first. Drawn outside, so that the result does not depend on devices or ranks.
        time_masks, time_width: stretches per row, and frames of the widest.
        bin_masks, bin_width: bands per row, and bins of the widest.
        value: what blanked cells hold; 0 is the mean of normalised features.

    Returns:
        A new tensor like ``features``.
    """
    need = 2 * (time_masks + bin_masks)
    if draws.shape != (len(features), need):
        raise ValueError(
            f"spec_augment needs draws of shape {(len(features), need)} for {time_masks} + {bin_masks} masks, "
            f"got {tuple(draws.shape)}"
        )
    hidden = torch.zeros(features.shape, dtype=torch.bool, device=features.device)
    for k in range(time_masks):
        hidden |= _stretch(features.shape[1], time_width, draws[:, 2 * k], draws[:, 2 * k + 1])[:, :, None]
    for k in range(time_masks, time_masks + bin_masks):
        hidden |= _stretch(features.shape[2], bin_width, draws[:, 2 * k], draws[:, 2 * k + 1])[:, None, :]
    return features.masked_fill(hidden, value)


def _stretch(length: int, widest: int, width_draw: Tensor, place_draw: Tensor) -> Tensor:
    """bool (B, length): a run of 0 to ``widest`` cells at a random place, per row."""
    width = (width_draw * (min(widest, length) + 1)).floor()  # (B,)
    start = (place_draw * (length - width + 1)).floor()
    cells = torch.arange(length, device=width_draw.device)
    return (cells >= start[:, None]) & (cells < (start + width)[:, None])
