"""``whisper``: the encoder of Whisper (arXiv:2212.04356), by transformers; the features are computed on the
device.

    waveform (B, S)         float32 mono in [-1, 1], lengths (B,) real samples
    mel      (B, M, F)      log10 of Slaney's mel filters, 10 ms per step, F = 3000 whatever the sound is: its positions
                            are learnt for 30 s, and it takes no other length
    tokens   (B, N, D)      one token per 20 ms of the first ``seconds``

It was trained on sounds padded with silence and attends to that silence, so that is what is done here. Tokens that
begin behind the sound are masked for whoever reads them.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.ranges import Range
from vtp.types import AudioSpec, Tokens
from vtp_encoders.huggingface import HubEncoder, config_of, load_settings, load_weights, source_of

__all__ = ["Whisper"]

NAME = "whisper"
STRIDE = 2  # mel steps per token


class Whisper(HubEncoder):
    """Whisper without its decoder, from a checkpoint.

    Args:
        model: hub name (``openai/whisper-base``) or folder written by ``save_pretrained``.
        pretrained: False takes the architecture only, with random weights.
        seconds: longest sound, and what tokens are given for; null is all that the model hears, 30 s. Less saves the
            memory of tokens that would be padding, and changes none of the others.
        context: gives the saved configuration when a checkpoint is restored; then nothing is downloaded.
    """

    filters: Tensor

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str = "openai/whisper-base",
        pretrained: bool = True,
        seconds: Annotated[float, Range(least=0.02, most=3600)] | None = None,
    ) -> None:
        super().__init__()
        source, restored = source_of(NAME, "audio", model, context)
        config: Any = config_of(NAME, WhisperConfig, source)
        config.encoder_layerdrop = 0.0
        self.settings = load_settings(NAME, WhisperFeatureExtractor, source)
        if int(self.settings.feature_size) != config.num_mel_bins:  # large-v3 has 128; a folder may lack its settings
            self.settings = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
        whole = load_weights(NAME, WhisperModel, source, config=config) if pretrained and not restored else None
        self.model = (WhisperModel(config) if whole is None else whole).get_encoder()
        self.width = int(config.d_model)
        self.depth = int(config.encoder_layers)
        self.hop = int(self.settings.hop_length)
        self.heard = STRIDE * self.hop * int(config.max_source_positions)  # samples
        rate = int(self.settings.sampling_rate)
        if seconds is not None and seconds * rate > self.heard:
            raise ConfigError(
                f"encoder {NAME}: seconds={seconds} is more than {model!r} hears. Give at most {self.heard / rate:g}."
            )
        samples = self.heard if seconds is None else round(seconds * rate)
        self.spec = AudioSpec(sample_rate=rate, seconds=samples / rate)
        self.grid = (math.ceil(samples / (STRIDE * self.hop)),)
        filters = torch.from_numpy(self.settings.mel_filters).float().T.contiguous()
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tokens:
        """(B, S) -> Tokens (B, N, D), padding masked."""
        hidden = self.model(self.features(waveform, lengths)).last_hidden_state[:, : self.grid[0]]
        begins = torch.arange(self.grid[0], device=hidden.device) * (STRIDE * self.hop)
        return Tokens(hidden, begins < lengths[:, None], self.grid)

    def features(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(B, M, F): log10 of mel power, at most 8 below the loudest of its row, scaled to about [-1, 1]."""
        with torch.autocast(waveform.device.type, enabled=False):
            real = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
            sound = nn.functional.pad(waveform.float() * real, (0, self.heard - waveform.shape[1]))
            size = int(self.settings.n_fft)
            window = torch.hann_window(size, device=sound.device)
            spectrum = torch.stft(sound, size, self.hop, window=window, return_complex=True)[..., :-1].abs().square()
            mel = (self.filters @ spectrum).clamp(min=1e-10).log10()
            loudest = mel.amax(dim=(1, 2), keepdim=True)
            return (torch.maximum(mel, loudest - 8.0) + 4.0) / 4.0
