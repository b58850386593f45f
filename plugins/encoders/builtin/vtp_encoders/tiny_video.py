"""``tiny``: a convolutional stem per frame and a small transformer over all frames, trained from scratch.

video   (B, T, 3, H, W)   float, normalised
tokens  (B, N, D)         N = T * H' * W', T slowest
visible (B, N_vis, D)     only if a mask is given
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vtp.errors import ConfigError
from vtp.model.blocks import Transformer, layer_of_blocks, visible_index
from vtp.types import Tokens, VideoSpec

__all__ = ["TinyVideo"]


class TinyVideo(nn.Module):
    """Frames to tokens.

    Args:
        width: D.
        depth: transformer blocks over the tokens of all frames; 0 leaves mixing over time to the fusion encoder.
        heads: attention heads.
        frames: frames per clip, T.
        size: side of the square frames in pixels; a multiple of ``patch``.
        patch: pixels per token and axis: 8, 16 or 32.
        dropout: after attention and feed-forward.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 1,
        heads: int = 4,
        frames: int = 8,
        size: int = 64,
        patch: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if patch not in (8, 16, 32) or size % patch:
            nearest = max(size // 16, 1) * 16
            raise ConfigError(
                f"encoder tiny: size={size} with patch={patch}: patch must be 8, 16 or 32 and divide size. "
                f"Nearest valid: size={nearest}, patch=16."
            )
        self.spec = VideoSpec(frames=frames, size=size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        self.width = width
        self.depth = depth
        self.stem = _stem(width, patch)
        side = size // patch
        self.grid = (frames, side, side)
        self.time = nn.Parameter(torch.randn(frames, 1, width) * 0.02)
        self.space = nn.Parameter(torch.randn(1, side * side, width) * 0.02)
        self.transformer = Transformer(width, depth, heads, dropout=dropout)

    def forward(self, video: Tensor, mask: Tensor | None = None) -> Tokens:
        """(B, T, 3, H, W) -> Tokens (B, T * H' * W', D); with ``mask`` (bool (B, N), True = hidden; every row hides the
        same number) only visible tokens, with their ``index``. Hidden tokens are dropped behind the stem, whose
        receptive field reaches into neighbouring patches.
        """
        batch, frames = video.shape[:2]
        maps = self.stem(video.flatten(0, 1)).flatten(2).transpose(1, 2)  # (B * T, H' * W', D)
        x = (maps.unflatten(0, (batch, frames)) + self.time[:frames] + self.space).flatten(1, 2)
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
        self.transformer.checkpointing = True


def _stem(width: int, patch: int) -> nn.Sequential:
    """Convolutions that halve the frame until one pixel is left per patch; GroupNorm, so that rows stay independent."""
    layers: list[nn.Module] = []
    channels = [3, width // 4, width // 2, width, width, width]
    for i in range(patch.bit_length() - 1):
        layers += [
            nn.Conv2d(channels[i], channels[i + 1], 3, stride=2, padding=1),
            nn.GroupNorm(4, channels[i + 1]),
            nn.GELU(),
        ]
    return nn.Sequential(*layers, nn.Conv2d(channels[patch.bit_length() - 1], width, 1))
