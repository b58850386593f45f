"""Residual attention blocks over the frames of a video, as in CLIP's transformer (arXiv:2103.00020): what CLIP4Clip
(arXiv:2104.08860) and DMAE call ``seqTransf``. Parameters are named as there.

    x = x + attention(ln_1(x));  x = x + mlp(ln_2(x)), QuickGELU: x * sigmoid(1.702 x)
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from vtp.model.attention import attention

__all__ = ["FrameBlocks"]


class FrameBlocks(nn.Module):
    """``depth`` blocks.

    Args:
        width: D.
        depth: number of blocks.
        heads: attention heads; must divide ``width``.
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D) and bool (B, N), True = real -> (B, N, D)."""
        for block in self.resblocks:
            x = block(x, mask)
        return x


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = _Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width, eps=1e-12)
        layers = {"c_fc": nn.Linear(width, 4 * width), "gelu": _QuickGELU(), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        made = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = made.view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        out: Tensor = self.out_proj(attention(q, k, v, key_mask=mask).transpose(1, 2).flatten(2))
        return out


class _QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)
