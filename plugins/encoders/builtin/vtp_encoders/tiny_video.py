"""``tiny``: convolutions per frame, one over time, and a small transformer over all tokens, trained from scratch.

video   (B, T, 3, H, W)   float, normalised
tokens  (B, N, D)         N = T * H' * W', T slowest; one token per frame by default
visible (B, N_vis, D)     only if a mask is given
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtp.errors import ConfigError
from vtp.model.blocks import Transformer, layer_of_blocks, visible_index
from vtp.ranges import Count, Depth, Share, Size
from vtp.types import Tokens, VideoSpec

__all__ = ["TinyVideo"]

STRIDE = 16  # pixels between two positions of the stem's last map
CHANNELS = (32, 64, 64)


class TinyVideo(nn.Module):
    """Frames to tokens.

    Args:
        width: D.
        depth: transformer blocks over the tokens of all frames; 0 leaves mixing over time to the fusion encoder.
        heads: attention heads.
        frames: frames per clip, T.
        size: side of the square frames in pixels; a multiple of ``patch``.
        patch: pixels per token and axis, a multiple of 16; None is the whole frame, that is one token per frame.
        dropout: after attention and feed-forward.
    """

    def __init__(
        self,
        *,
        width: Size = 96,
        depth: Depth = 1,
        heads: Count = 4,
        frames: Size = 6,
        size: Size = 64,
        patch: Size | None = None,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        patch = size if patch is None else patch
        if patch < STRIDE or patch % STRIDE or size % patch:
            nearest = max(STRIDE, round(patch / STRIDE) * STRIDE)
            raise ConfigError(
                f"encoder tiny: size={size} with patch={patch}: patch must be a multiple of {STRIDE} and divide size. "
                f"Nearest valid: patch={nearest}, size={max(1, round(size / nearest)) * nearest}."
            )
        self.spec = VideoSpec(frames=frames, size=size, mean=(0.45, 0.45, 0.45), std=(0.25, 0.25, 0.25))
        self.width = width
        self.depth = depth
        side = size // patch
        self.grid = (frames, side, side)
        self.stem = nn.Sequential(
            nn.Conv2d(3, CHANNELS[0], 4, stride=4),
            ChannelNorm(CHANNELS[0]),
            nn.GELU(),
            nn.Conv2d(CHANNELS[0], CHANNELS[1], 3, stride=2, padding=1),
            ChannelNorm(CHANNELS[1]),
            nn.GELU(),
            nn.Conv2d(CHANNELS[1], CHANNELS[2], 3, stride=2, padding=1),
            nn.GELU(),
        )
        self.embed = nn.Conv2d(CHANNELS[2], width, patch // STRIDE, stride=patch // STRIDE)
        self.motion = nn.Conv1d(width, width, 3, padding=1)  # over time, at each place
        self.norm = nn.LayerNorm(width)
        # As large as what they are added to: with the usual 0.02 the order in time is learnt many times more slowly.
        self.time = nn.Parameter(torch.randn(frames, 1, width) * 0.5)
        self.space = nn.Parameter(torch.randn(1, side * side, width) * 0.5 if side > 1 else torch.zeros(1, 1, width))
        self.transformer = Transformer(width, depth, heads, mlp_ratio=2.0, dropout=dropout)

    def forward(self, video: Tensor, mask: Tensor | None = None) -> Tokens:
        """(B, T, 3, H, W) -> Tokens (B, T * H' * W', D); with ``mask`` (bool (B, N), True = hidden; every row hides the
        same number) only visible tokens, with their ``index``. Hidden tokens are blanked before frames are mixed; the
        stem's receptive field still reaches a few pixels into neighbouring patches.
        """
        batch, frames = video.shape[:2]
        pictures = video.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = self.embed(self.stem(pictures)).flatten(2).transpose(1, 2).unflatten(0, (batch, frames))  # (B, T, H'W', D)
        if mask is not None:
            x = x.masked_fill(mask.view(batch, frames, -1, 1), 0.0)
        over_time = x.permute(0, 2, 3, 1).flatten(0, 1)  # (B * H'W', D, T)
        moved = F.gelu(self.motion(over_time)).reshape(batch, -1, self.width, frames).permute(0, 3, 1, 2)
        x = (self.norm(x + moved) + self.time[:frames] + self.space).flatten(1, 2)
        index = None
        if mask is not None:
            index = visible_index(mask)
            x = x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return Tokens(self.transformer(x), real, (frames, *self.grid[1:]), index)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 stem and positions, 1..depth blocks, depth + 1 the norm."""
        return layer_of_blocks(name, self.depth)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks in the backward pass."""
        self.transformer.blocks.checkpointing = True


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of a map (B, C, H, W); rows stay independent of their batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out
