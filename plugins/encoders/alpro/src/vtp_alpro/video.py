"""``timesformer``: divided attention over space and time (TimeSformer, arXiv:2102.05095, "Divided Space-Time
Attention"), and the mean over time that ALPRO puts behind it (arXiv:2112.09583, "ALPRO Architecture").

    video   (B, T, 3, H, W)    float, normalised with the mean and std of CLIP
    patches (B, T, P, D)       P = H' * W' per frame, + position + time;  cls (B, 1, D) + position
    block   each patch attends to the same place in all frames, then each frame to its patches and the cls token, of
            which every frame makes its own and whose mean goes on; then a feed-forward part
    tokens  (B, 1 + P, D)      the cls token, then the mean over frames of each place

A clip is the cls token.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vtp.errors import ConfigError
from vtp.model.blocks import Attention, Layout, layer_of_blocks
from vtp.model.build import BuildContext
from vtp.ranges import Count, Depth, Size
from vtp.types import Tokens, VideoSpec
from vtp_univl.backbones import CLIP_PIXELS

__all__ = ["PRESETS", "TimeSformer"]

# width, depth, heads, frames, size
PRESETS = {"tiny": (128, 2, 4, 6, 64), "base": (768, 12, 12, 8, 224)}


class TimeSformer(nn.Module):
    """The video encoder.

    Args:
        preset: tiny (width 128, depth 2, 4 heads, 6 frames of 64 pixels) or base (768, 12, 12, 8 of 224).
        width, depth, heads, frames, size: numbers in place of the preset's.
        patch: side of a patch in pixels.
        context: not looked at.

    Attributes:
        cls_token (1, 1, D), pos_embed (1, 1 + P, D), time_embed (1, T, D): as the released code names them.
    """

    padded = False

    def __init__(
        self,
        *,
        context: BuildContext,
        preset: str = "base",
        width: Size | None = None,
        depth: Depth | None = None,
        heads: Count | None = None,
        frames: Size | None = None,
        size: Size | None = None,
        patch: Size = 16,
    ) -> None:
        super().__init__()
        where = "encoder timesformer"
        if preset not in PRESETS:
            raise ConfigError(f"{where}: no preset {preset!r}. Choose one of: {', '.join(PRESETS)}.")
        given = zip((width, depth, heads, frames, size), PRESETS[preset], strict=True)
        self.width, self.depth, heads, frames, size = (usual if one is None else one for one, usual in given)
        if size % patch:
            near = max(patch, size // patch * patch)
            raise ConfigError(f"{where}: size={size} must be a multiple of patch={patch}. Nearest valid: size={near}.")
        mean, std = CLIP_PIXELS
        self.spec = VideoSpec(frames=frames, size=size, mean=mean, std=std)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, self.width, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, self.width))
        self.time_embed = nn.Parameter(torch.zeros(1, frames, self.width))
        self.blocks = nn.ModuleList(DividedBlock(self.width, heads) for _ in range(self.depth))
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        self.checkpointing = False
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for table in (self.cls_token, self.pos_embed, self.time_embed):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, video: Tensor) -> Tokens:
        """(B, T, 3, H, W) -> Tokens (B, 1 + P, D).

        Raises:
            ConfigError: it has other frames than the table of times.
        """
        if video.shape[1] != self.spec.frames:
            raise ConfigError(
                f"encoder timesformer: a clip of {video.shape[1]} frames, and its table of times has "
                f"{self.spec.frames}. Set encoder.video.frames, or import with frames={video.shape[1]}."
            )
        rows = video.shape[0]
        x = self.patch_embed["proj"](video.flatten(0, 1)).flatten(2).transpose(1, 2)  # (B * T, P, D)
        x = (x + self.pos_embed[:, 1:]).view(rows, self.spec.frames, -1, self.width) + self.time_embed[:, :, None]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(rows, -1, -1)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                cls, x = checkpoint(block, cls, x, use_reentrant=False)
            else:
                cls, x = block(cls, x)
        tokens = torch.cat([self.norm(cls), self.norm(x).mean(dim=1)], dim=1)
        return Tokens(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, D): the cls token."""
        return tokens.x[:, 0]

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, 1..depth blocks, depth + 1 the norm."""
        return layer_of_blocks(name, self.depth)

    def no_weight_decay(self) -> tuple[str, ...]:
        """The tables."""
        return ("cls_token", "pos_embed", "time_embed")

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks in the backward pass."""
        self.checkpointing = True


class DividedBlock(nn.Module):
    """Attention over time, over space, and a feed-forward part, each behind a LayerNorm and added to its input; what
    time adds passes one linear layer more, which starts at 0: the model begins as one of single frames.

    Args:
        width: D.
        heads: attention heads of both.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.temporal_norm1 = nn.LayerNorm(width, eps=1e-6)
        self.temporal_attn = Attention(width, heads)
        self.temporal_fc = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        layers = {"fc1": nn.Linear(width, 4 * width), "act": nn.GELU(), "fc2": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, cls: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """cls (B, 1, D), patches (B, T, P, D) -> the same."""
        rows, frames, places, width = x.shape
        along_time = x.transpose(1, 2)  # (B, P, T, D)
        seen = _attend(self.temporal_attn, self.temporal_norm1(along_time.reshape(rows * places, frames, width)))
        x = x + self.temporal_fc(seen).view(rows, places, frames, width).transpose(1, 2)

        in_frames = torch.cat([cls[:, None].expand(-1, frames, -1, -1), x], dim=2).flatten(0, 1)  # (B * T, 1 + P, D)
        seen = _attend(self.attn, self.norm1(in_frames)).view(rows, frames, 1 + places, width)
        cls = cls + seen[:, :, 0].mean(dim=1, keepdim=True)
        x = x + seen[:, :, 1:]

        return cls + self.mlp(self.norm2(cls)), x + self.mlp(self.norm2(x))


def _attend(attention: Attention, x: Tensor) -> Tensor:
    """Self-attention inside each of the sequences (R, N, D)."""
    out: Tensor = attention(x.flatten(0, 1), Layout([(x.shape[0], x.shape[1])], [None])).view(x.shape)
    return out
