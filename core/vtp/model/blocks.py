"""Transformer parts that encoders are composed of. Pre-norm, exact GELU, LayerNorm eps 1e-6 (the ViT convention).

x        (B, N, D)
key_mask (B, N)     bool, True = real token
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vtp.model.attention import attention

__all__ = ["Attention", "Block", "Transformer", "connected_zero", "layer_of_blocks", "sincos_table", "visible_index"]


class Transformer(nn.Module):
    """``depth`` blocks and a final LayerNorm.

    Args:
        width: D.
        depth: number of blocks.
        heads: attention heads; must divide ``width``.
        mlp_ratio: hidden width of the feed-forward part over D.
        dropout: after attention and feed-forward, 0 = none.
    """

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.checkpointing = False

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D); padded keys influence nobody."""
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(
                    block, x, key_mask, use_reentrant=False
                )  # reentrant loses gradients when x itself needs none
            else:
                x = block(x, key_mask)
        out: Tensor = self.norm(x)
        return out


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.dropout(self.attention(self.norm1(x), key_mask))
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"attention: width={width} must be a multiple of heads={heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, H, N, D / H)
        q, k, v = qkv.unbind(0)
        out: Tensor = self.proj(attention(q, k, v, key_mask=key_mask).transpose(1, 2).flatten(2))
        return out


def sincos_table(positions: int, width: int) -> Tensor:
    """Fixed sine-cosine positions, float32 (positions, width): sin in even columns, cos in odd ones (arXiv:1706.03762).

    Angles are computed in float64: in float32 the error reaches 2e-5 at position 1567.
    """
    column = torch.arange(width, dtype=torch.float64)
    rate = torch.exp(-math.log(10000.0) * 2 * torch.div(column, 2, rounding_mode="floor") / width)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * rate
    table = torch.where(torch.arange(width) % 2 == 0, angle.sin(), angle.cos())
    return table.float()


def layer_of_blocks(name: str, depth: int, prefix: str = "blocks.") -> int:
    """Layer number of a parameter for layer-wise learning-rate decay: 0 before the blocks, 1..depth inside, depth + 1
    after.

    Args:
        name: parameter name inside the encoder, such as ``transformer.blocks.3.mlp.0.weight``.
        depth: number of blocks.
        prefix: what stands before the block number. Names after the last block (a final norm) must contain ``norm``
            right behind the module that holds the blocks; everything else without a block number counts as embedding.
    """
    before, found, after = name.partition(prefix)
    if found and after.split(".", 1)[0].isdigit():
        return int(after.split(".", 1)[0]) + 1
    return depth + 1 if name.startswith(("transformer.norm.", "norm.", "final.")) else 0


def visible_index(mask: Tensor) -> Tensor:
    """int64 (B, N_vis): positions of the tokens that ``mask`` (bool (B, N), True = hidden) leaves visible, ascending.

    Raises:
        ValueError: if rows hide different numbers of tokens; they could not be stacked.
    """
    counts = (~mask).sum(dim=1).tolist()
    if len(set(counts)) > 1:
        raise ValueError(f"a mask must leave the same number of tokens visible in every row, got {counts}")
    return mask.int().argsort(dim=1, stable=True)[:, : counts[0]]


def connected_zero(parameters: Iterable[nn.Parameter], like: Tensor) -> Tensor:
    """A zero, scalar like ``like``, whose gradient for each of ``parameters`` is zero and not None."""
    zero = like.new_zeros(())
    for parameter in parameters:
        if parameter.requires_grad:
            zero = zero + parameter.reshape(-1)[:1].sum().to(zero.dtype) * 0.0
    return zero
