"""``tiny``: log-mel features, two convolutions over time and a small transformer, trained from scratch.

waveform (B, S)      float32 mono in [-1, 1], lengths (B,) real samples
tokens   (B, N, D)   one token per 160 ms
visible  (B, N_vis, D)   only if a mask is given
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from vtp.media.audio import log_mel
from vtp.model.blocks import Transformer, layer_of_blocks, visible_index
from vtp.ranges import Count, Depth, Range, Share, Size
from vtp.types import AudioSpec, Tokens

__all__ = ["TinyAudio"]

HOP_MS = 20.0
FRAMES_PER_TOKEN = 8  # strides 2 and 4


class TinyAudio(nn.Module):
    """Sound to tokens.

    Args:
        width: D.
        depth: transformer blocks; 0 leaves mixing over time to the fusion encoder.
        heads: attention heads.
        seconds: longest sound; the rest is cut off, shorter ones are padded and masked.
        sample_rate: Hz that sound is resampled to.
        bins: mel bins.
        dropout: after attention and feed-forward.
    """

    def __init__(
        self,
        *,
        width: Size = 96,
        depth: Depth = 0,
        heads: Count = 4,
        seconds: Annotated[float, Range(above=0, most=3600)] = 2.0,
        sample_rate: Annotated[int, Range(least=4000, most=192000)] = 16000,
        bins: Annotated[int, Range(least=8, most=1024)] = 40,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        self.spec = AudioSpec(sample_rate=sample_rate, seconds=seconds)
        self.width = width
        self.depth = depth
        self.bins = bins
        self.stem = nn.Sequential(
            nn.Conv1d(bins, width, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv1d(width, width, 5, stride=4, padding=2),
            nn.GELU(),
        )
        frames = 1 + self.spec.samples // round(sample_rate * HOP_MS / 1000)
        self.count = -(-frames // FRAMES_PER_TOKEN)
        self.grid = (self.count,)
        self.norm = nn.LayerNorm(width)
        self.positions = nn.Parameter(torch.randn(self.count, width) * 0.5)  # as large as the normalised features
        self.transformer = Transformer(width, depth, heads, mlp_ratio=2.0, dropout=dropout)

    def forward(self, waveform: Tensor, lengths: Tensor, mask: Tensor | None = None) -> Tokens:
        """(B, S) -> Tokens (B, N, D), padding masked; with ``mask`` (bool (B, N), True = hidden; every row hides the
        same number) only visible tokens, with their ``index``.
        """
        features, real = self._features(waveform, lengths)
        x = self.norm(self.stem(features.transpose(1, 2)).transpose(1, 2)) + self.positions
        index = None
        if mask is not None:
            index = visible_index(mask)
            x = x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
            real = real.gather(1, index)
        return Tokens(self.transformer(x, real), real, (self.count,), index)

    def patches(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The features of the 8 frames behind each token, (B, N, 8 * bins), and bool (B, N), real tokens."""
        features, real = self._features(waveform, lengths)
        lacking = self.count * FRAMES_PER_TOKEN - features.shape[1]
        return nn.functional.pad(features, (0, 0, 0, lacking)).reshape(features.shape[0], self.count, -1), real

    def _features(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel features of about unit scale (B, F, M), and bool (B, N): tokens that begin within the sound."""
        real_samples = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
        features, frames = log_mel(
            waveform * real_samples, lengths, sample_rate=self.spec.sample_rate, bins=self.bins, hop_ms=HOP_MS
        )
        first_frame = torch.arange(self.count, device=features.device) * FRAMES_PER_TOKEN
        return (features + 5) / 5, first_frame < frames[:, None]  # from about -11.5 .. 5

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 stem and positions, 1..depth blocks, depth + 1 the norm."""
        return layer_of_blocks(name, self.depth)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks in the backward pass."""
        self.transformer.blocks.checkpointing = True
