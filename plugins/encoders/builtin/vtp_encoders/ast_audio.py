"""``ast``: Audio Spectrogram Transformer (arXiv:2104.01778), by transformers; the features are computed here, on the
device.

    waveform (B, S)         float32 mono in [-1, 1], lengths (B,) real samples
    fbank    (B, F, 128)    Kaldi log-mel, 10 ms per step, F = max_length of the model; padded with 0, then
                            (x - mean) / (2 std), both as the settings beside the model say
    tokens   (B, N, D)      N = F' * S', patches of 16 x 16 with stride 10; frequency slowest (the order of AST)
    visible  (B, N_vis, D)  only if a mask is given

AST attends to padded steps; here they are masked, so that what follows a sound has no influence on it, unless
``padding=attended`` asks for what transformers gives.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

from vtp.media.audio import kaldi_fbank
from vtp.model.blocks import visible_index
from vtp.model.build import BuildContext
from vtp.ranges import Positive, Range
from vtp.types import AudioSpec, Tokens
from vtp_encoders.huggingface import HubEncoder, checkpoint_or_preset, load_settings

__all__ = ["AST", "PRESETS"]

NAME = "ast"
PRESETS = {"tiny": (192, 4, 3), "small": (384, 12, 6), "base": (768, 12, 12)}  # width, depth, heads
SAMPLE_RATE = 16000
PREFIX = 2  # cls and distillation token


class AST(HubEncoder):
    """AST's encoder, from a checkpoint or from scratch. Its cls and distillation tokens take part inside and are not
    returned.

    Args:
        model: hub name (``MIT/ast-finetuned-audioset-10-10-0.4593``) or folder written by ``save_pretrained``; null
            builds ``preset`` from scratch.
        pretrained: with ``model``: False takes the architecture only, with random weights.
        preset: without ``model``: tiny (width 192, depth 4), small (384, 12) or base (768, 12).
        seconds: without ``model``: longest sound, at least one patch of 0.16 s; with one it is the model's max_length
            of 10 ms steps.
        mean, std: of the features; null is what the settings beside the model say, and of a preset those of AudioSet.
        padding: whether the steps behind a sound are ``masked``, or ``attended`` to as the released checkpoints were
            trained. Tokens that begin there are masked afterwards either way.
        context: gives the saved configuration when a checkpoint is restored; then nothing is downloaded.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str | None = None,
        pretrained: bool = True,
        preset: Literal["tiny", "small", "base"] = "base",
        seconds: Annotated[float, Range(least=0.16, most=3600)] = 10.24,
        mean: float | None = None,
        std: Positive | None = None,
        padding: Literal["masked", "attended"] = "masked",
    ) -> None:
        super().__init__()
        kinds = (ASTConfig, ASTModel)
        self.model, source = checkpoint_or_preset(
            NAME, "audio", model, pretrained, context, kinds, lambda: _config(preset, seconds)
        )
        config = self.model.config
        self.settings = load_settings(NAME, ASTFeatureExtractor, source)
        self.steps = int(config.max_length)
        self.spec = AudioSpec(sample_rate=SAMPLE_RATE, seconds=self.steps / 100)
        self.bins = int(config.num_mel_bins)
        self.width = int(config.hidden_size)
        self.depth = int(config.num_hidden_layers)
        self.mean = float(self.settings.mean) if mean is None else mean
        self.std = float(self.settings.std) if std is None else std
        self.attended = padding == "attended"
        self.grid = (
            (self.bins - config.patch_size) // config.frequency_stride + 1,
            (self.steps - config.patch_size) // config.time_stride + 1,
        )
        self.patch = int(config.patch_size)
        self.strides = (int(config.frequency_stride), int(config.time_stride))

    def forward(self, waveform: Tensor, lengths: Tensor, mask: Tensor | None = None) -> Tokens:
        """(B, S) -> Tokens (B, N, D), padding masked; with ``mask`` (bool (B, N), True = hidden; every row hides the
        same number) hidden tokens are dropped before the first layer, and ``index`` tells which are left.
        """
        features, steps = self.features(waveform, lengths)
        real = self._real(steps)
        hidden = self.model.embeddings(features)
        index = None
        if mask is not None:
            index = visible_index(mask)
            real = real.gather(1, index)
            kept = hidden[:, PREFIX:].gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))
            hidden = torch.cat([hidden[:, :PREFIX], kept], dim=1)
        keys = torch.cat([real.new_ones(real.shape[0], PREFIX), real | self.attended], dim=1)
        for layer in self.model.layers:
            hidden = layer(hidden, keys[:, None, None, :])
        return Tokens(self.model.layernorm(hidden)[:, PREFIX:], real, self.grid, index)

    def patches(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The 16 x 16 values of the normalised fbank behind each token, (B, N, 256), and bool (B, N), real tokens."""
        features, steps = self.features(waveform, lengths)
        picture = features.transpose(1, 2)[:, None]  # (B, 1, 128, F)
        return nn.functional.unfold(picture, self.patch, stride=self.strides).transpose(1, 2), self._real(steps)

    def _real(self, steps: Tensor) -> Tensor:
        """bool (B, N): tokens whose first step is within the sound; ``steps`` is int64 (B,)."""
        first_step = torch.arange(self.grid[1], device=steps.device) * self.strides[1]
        return (first_step < steps[:, None])[:, None].expand(-1, self.grid[0], -1).flatten(1)

    def features(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised fbank (B, F, M) and int64 (B,) real steps per row."""
        real = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
        fbank, steps = kaldi_fbank(waveform * real, lengths, sample_rate=SAMPLE_RATE, bins=self.bins)
        fbank = nn.functional.pad(fbank, (0, 0, 0, max(self.steps - fbank.shape[1], 0)))[:, : self.steps]
        steps = steps.clamp(max=self.steps)
        padding = torch.arange(self.steps, device=fbank.device) >= steps[:, None]
        return (fbank.masked_fill(padding[..., None], 0.0) - self.mean) / (2 * self.std), steps


def _config(preset: str, seconds: float) -> ASTConfig:
    width, depth, heads = PRESETS[preset]
    return ASTConfig(
        max_length=round(seconds * 100),
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )
