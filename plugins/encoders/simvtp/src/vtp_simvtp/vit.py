"""The vision transformer that SimVTP runs over video tubelets and words alike: pre-norm blocks, no modality inside.

    x = x + drop_path(gamma_1 * attention(norm1(x)));  x = x + drop_path(gamma_2 * mlp(norm2(x)))

x        (B, N, D)
key_mask (B, N)     bool, True = real token, None = all of them

Parameters have the names of the released checkpoints: ``qkv`` without a bias, ``q_bias`` and ``v_bias`` beside it (a
bias of the keys would change no softmax).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear
from torch.utils.checkpoint import checkpoint

from vtp.errors import ConfigError
from vtp.model.attention import attention

__all__ = ["PRESETS", "Attention", "Block", "Blocks", "Shape", "init_weights", "shape_of", "width_and_depth"]


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a vision transformer."""

    width: int
    depth: int
    heads: int


PRESETS = {
    "tiny": Shape(128, 4, 4),
    "small": Shape(384, 12, 6),
    "base": Shape(768, 12, 12),
    "large": Shape(1024, 24, 16),
}


def shape_of(preset: str, width: int | None, depth: int | None, heads: int | None) -> Shape:
    """The preset with the numbers that are given in place of its own.

    Raises:
        ConfigError: for an unknown preset, or a width that the heads do not divide.
    """
    shape = Shape(*width_and_depth(preset, width, depth), heads or PRESETS[preset].heads)
    if shape.width % shape.heads:
        raise ConfigError(f"simvtp: width={shape.width} must be a multiple of heads={shape.heads}.")
    return shape


def width_and_depth(preset: str, width: int | None, depth: int | None) -> tuple[int, int]:
    """The same for a part without heads.

    Raises:
        ConfigError: for an unknown preset.
    """
    if preset not in PRESETS:
        raise ConfigError(f"simvtp: no preset {preset!r}. Choose one of: {', '.join(PRESETS)}.")
    return width or PRESETS[preset].width, depth or PRESETS[preset].depth


class Blocks(nn.ModuleList):
    """``depth`` blocks; calling it runs them all.

    Args:
        width: D.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden width of the feed-forward part over D.
        drop_path: share of rows whose residual branch is dropped in the last block; it grows linearly from 0 in the
        first. init_values: start of a learned factor per channel on both branches (LayerScale); 0 = none.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        init_values: float = 0.0,
    ) -> None:
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        super().__init__(Block(width, heads, mlp_ratio, rate, init_values) for rate in rates)
        self.checkpointing = False

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D); padded keys influence nobody."""
        for block in self:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, key_mask, use_reentrant=False)
            else:
                x = block(x, key_mask)
        return x


class Block(nn.Module):
    """Attention and a feed-forward part, each behind a LayerNorm (eps 1e-6)."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0, init_values: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _Mlp(width, int(width * mlp_ratio))
        self.drop_path = drop_path
        self.gamma_1 = nn.Parameter(torch.full((width,), init_values)) if init_values > 0 else None
        self.gamma_2 = nn.Parameter(torch.full((width,), init_values)) if init_values > 0 else None

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self._branch(self.attn(self.norm1(x), key_mask), self.gamma_1)
        return x + self._branch(self.mlp(self.norm2(x)), self.gamma_2)

    def _branch(self, y: Tensor, gamma: Tensor | None) -> Tensor:
        if gamma is not None:
            y = gamma * y
        if not (self.training and self.drop_path > 0):
            return y
        keep = 1.0 - self.drop_path
        return y * (torch.rand(len(y), 1, 1, device=y.device) < keep).to(y.dtype).div_(keep)


class Attention(nn.Module):
    """Multi-head self-attention; the rows of ``qkv.weight`` are q, k, v, each heads * head width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        # three slices of the last axis: their gradients join in one copy, which unbinding a new axis would do twice
        parts = linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)  # (B, H, N, D / H)
        out: Tensor = self.proj(attention(q, k, v, key_mask=key_mask).transpose(1, 2).flatten(2))
        return out


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(gelu(self.fc1(x)))
        return out


def init_weights(module: nn.Module, std: float | None = None) -> None:
    """Initialise the linear layers and LayerNorms below ``module``: weights xavier-uniform (pre-training), or normal
    with ``std`` cut at two of them (fine-tuning); biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            if std is None:
                nn.init.xavier_uniform_(part.weight)
            else:
                nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
