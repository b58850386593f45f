"""``wav2vec2``: wav2vec 2.0 (arXiv:2006.11477), by transformers.

    waveform (B, S)         float32 mono in [-1, 1], lengths (B,) real samples; shifted and scaled to mean 0 and
                            variance 1 per row where the settings beside the model say so
    tokens   (B, N, D)      one token per 20 ms, as many as the convolutions give without padding

What a sound gives does not depend on how far it is padded: it is what the model gives for that sound alone. The models
whose first convolution is followed by a group norm over time (wav2vec2-base) do not have this property in transformers:
the silence that they are padded with is part of the mean there. Here it is the mean over the sound.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.ranges import Range
from vtp.types import AudioSpec, Tokens
from vtp_encoders.huggingface import HubEncoder, config_of, load_settings, load_weights, source_of

__all__ = ["Wav2Vec2"]

NAME = "wav2vec2"


class Wav2Vec2(HubEncoder):
    """wav2vec 2.0, from a checkpoint. SpecAugment and LayerDrop of its own are off: they draw from numpy and leave
    parameters without gradients.

    Args:
        model: hub name (``facebook/wav2vec2-base``) or folder written by ``save_pretrained``.
        pretrained: False takes the architecture only, with random weights.
        seconds: longest sound, at least 25 ms; the rest is cut off by the loader.
        context: gives the saved configuration when a checkpoint is restored; then nothing is downloaded.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str = "facebook/wav2vec2-base",
        pretrained: bool = True,
        seconds: Annotated[float, Range(least=0.025, most=3600)] = 10.0,
    ) -> None:
        super().__init__()
        source, restored = source_of(NAME, "audio", model, context)
        config: Any = config_of(NAME, Wav2Vec2Config, source)
        if config.add_adapter:
            raise ConfigError(
                f"encoder {NAME}: {model!r} ends in convolutions of its own (add_adapter), which are not supported. "
                "Choose the model without them."
            )
        for option in ("mask_time_prob", "mask_feature_prob", "layerdrop"):
            setattr(config, option, 0.0)
        self.settings = load_settings(NAME, Wav2Vec2FeatureExtractor, source)
        if pretrained and not restored:
            self.model = load_weights(NAME, Wav2Vec2Model, source, config=config)
        else:
            self.model = Wav2Vec2Model(config)
        self.width = int(config.hidden_size)
        self.depth = int(config.num_hidden_layers)
        self.least = 1  # samples of the shortest sound that gives a token
        for kernel, stride in reversed(list(zip(config.conv_kernel, config.conv_stride, strict=True))):
            self.least = (self.least - 1) * stride + kernel
        self.spec = AudioSpec(sample_rate=int(self.settings.sampling_rate), seconds=seconds)
        if self.spec.samples < self.least:
            raise ConfigError(
                f"encoder {NAME}: seconds={seconds} is shorter than one token of {model!r}. Give at least "
                f"{self.least / self.spec.sample_rate}."
            )
        self.grid = (int(self._frames(torch.tensor(self.spec.samples))),)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tokens:
        """(B, S) -> Tokens (B, N, D), padding masked. A sound shorter than one token is padded to one."""
        samples = lengths.clamp(min=self.least)
        values = self._normalized(waveform, lengths)
        if values.shape[1] < self.least:
            values = nn.functional.pad(values, (0, self.least - values.shape[1]))
        first, *others = self.model.feature_extractor.conv_layers
        hidden = values[:, None]
        if self.model.config.feat_extract_norm == "group":
            convolved = first.conv(hidden)
            hidden = first.activation(_norm_over_time(first.layer_norm, convolved, self._frames(samples, 1)))
        else:
            hidden = first(hidden)
        for layer in others:
            hidden = layer(hidden)
        hidden, _ = self.model.feature_projection(hidden.transpose(1, 2))
        real = torch.arange(hidden.shape[1], device=hidden.device) < self._frames(samples)[:, None]
        hidden = self.model.encoder(hidden, attention_mask=real).last_hidden_state
        return Tokens(hidden, real & (lengths > 0)[:, None], (hidden.shape[1],))

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 convolutions, 1..depth layers, depth + 1 the final norm."""
        before = "feature_" in name or name == "model.encoder.layer_norm" and not self.model.config.do_stable_layer_norm
        return 0 if before or "pos_conv" in name else super().layer_of(name)

    def _frames(self, samples: Tensor, layers: int | None = None) -> Tensor:
        """int64, what the first ``layers`` convolutions give for so many samples."""
        config = self.model.config
        for kernel, stride in list(zip(config.conv_kernel, config.conv_stride, strict=True))[:layers]:
            samples = torch.div(samples - kernel, stride, rounding_mode="floor") + 1
        return samples

    def _normalized(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(B, S) as the model takes it: zero behind the sound."""
        waveform = waveform.float()
        real = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
        if not self.settings.do_normalize:
            return waveform * real
        count = lengths.clamp(min=1)[:, None]
        centred = (waveform - (waveform * real).sum(1, keepdim=True) / count) * real
        return centred * torch.rsqrt(centred.square().sum(1, keepdim=True) / count + 1e-7)


def _norm_over_time(norm: nn.GroupNorm, x: Tensor, frames: Tensor) -> Tensor:
    """Group norm with a group per channel, (B, C, M), whose mean and variance are those of the real frames alone."""
    x = x.float()
    real = (torch.arange(x.shape[2], device=x.device) < frames[:, None])[:, None]
    count = frames[:, None, None]
    centred = x - (x * real).sum(2, keepdim=True) / count
    scale = torch.rsqrt((centred * real).square().sum(2, keepdim=True) / count + norm.eps)
    return centred * scale * norm.weight[:, None] + norm.bias[:, None]
