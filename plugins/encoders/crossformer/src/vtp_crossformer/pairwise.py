"""``pairwise``: every modality asks every other one, pair by pair (crossmodal attention of MulT, arXiv:1906.00295), and
itself.

    per layer, for each modality m, all pre-norm:
        x_m = x_m + attention(x_m, x_m)
        x_m = x_m + mean over the other modalities o that the row has of attention_{m,o}(x_m, x_o)
        x_m = x_m + mlp(x_m)
    tokens  (B, N_m, D) per modality, 0 in place of padding
    pooled  (B, D): a learned query over all of them

Attention over a modality that a row lacks is exactly 0, and that modality does not count in the mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vtp.model.attention import attention
from vtp.model.blocks import connected_zero
from vtp.model.build import BuildContext
from vtp.ranges import Count, Depth, Positive, Share, Size
from vtp.types import MODALITIES, Fused, Tokens
from vtp_crossformer.projections import Projections, sizes

__all__ = ["Pairwise"]


class Pairwise(nn.Module):
    """Fusion by cross-attention between each two modalities; works for any subset of them, per row.

    Args:
        preset, width, depth, heads, mlp_ratio: as in :class:`vtp_crossformer.crossformer.Crossformer`. A layer has an
            attention for each ordered pair of modalities, so it is larger than one of the crossformer.
        dropout: after attention and feed-forward.
        context: tells the widths of the encoders.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        preset: str = "base",
        width: Size | None = None,
        depth: Depth | None = None,
        heads: Count | None = None,
        mlp_ratio: Positive | None = None,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.depth, n_heads, ratio = sizes("pairwise", preset, width, depth, heads, mlp_ratio)
        self.projections = Projections("pairwise", self.width, context)
        names = self.projections.modalities
        self.layers = nn.ModuleList(_Layer(names, self.width, n_heads, ratio, dropout) for _ in range(self.depth))
        self.joint = nn.Parameter(torch.randn(self.width) * 0.02)
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        self.reads = CrossAttention(self.width, n_heads)
        self.norm_pooled = nn.LayerNorm(self.width, eps=1e-6)
        self.checkpointing = False

    def forward(self, tokens: Mapping[str, Tokens]) -> Fused:
        """Tokens per modality (R rows each) -> the same after fusion, and ``pooled`` (R, D)."""
        names: list[str] = [m for m in MODALITIES if m in tokens]
        masks = {m: tokens[m].attention_mask for m in names}
        x = {m: self.projections(m, tokens[m]) for m in names}
        for layer in self.layers:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, masks, use_reentrant=False)
            else:
                x = layer(x, masks)
        x = {m: self.norm(x[m]).masked_fill(~masks[m][..., None], 0.0) for m in names}
        joint: Tensor = self.joint
        if torch.is_grad_enabled():
            joint = joint + connected_zero(self._idle(names), joint)
        everything = torch.cat([x[m] for m in names], dim=1)
        reads: CrossAttention = self.reads
        query = joint.to(everything.dtype).expand(everything.shape[0], 1, -1)
        pooled = query + reads(query, everything, torch.cat([masks[m] for m in names], dim=1))
        fused = {m: replace(tokens[m], x=x[m]) for m in names}
        return Fused(fused, self.norm_pooled(pooled)[:, 0])

    def _idle(self, names: list[str]) -> Iterator[nn.Parameter]:
        """Parameters that a pass over these modalities leaves without a gradient."""
        yield from self.projections.idle([names])
        layer: Any
        for layer in self.layers:
            yield from layer.idle(names)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 projections, 1..depth layers, depth + 1 what pools."""
        if name.startswith("layers."):
            return int(name.split(".")[1]) + 1
        return 0 if name.startswith("projections.") else self.depth + 1

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the layers in the backward pass."""
        self.checkpointing = True


class CrossAttention(nn.Module):
    """Multi-head attention of one sequence to another; its output, bias included, is 0 where there is nothing to see.

    Args:
        width: D.
        heads: must divide it.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D) asks (B, M, D), of which ``mask`` (bool (B, M), True = real) may be seen -> (B, N, D)."""
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(seen).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(attention(q, k, v, key_mask=mask).transpose(1, 2).flatten(2))
        return out.masked_fill(~mask.any(dim=1)[:, None, None], 0.0)


class _Layer(nn.Module):
    def __init__(self, modalities: tuple[str, ...], width: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(width, eps=1e-6)

        def mlp() -> nn.Sequential:
            return nn.Sequential(norm(), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

        pairs = [f"{m}_{o}" for m in modalities for o in modalities]  # of m and m: self-attention
        self.attention = nn.ModuleDict({pair: CrossAttention(width, heads) for pair in pairs})
        self.norm1 = nn.ModuleDict({m: norm() for m in modalities})
        self.norm2 = nn.ModuleDict({m: norm() for m in modalities} if len(modalities) > 1 else {})
        self.mlp = nn.ModuleDict({m: mlp() for m in modalities})
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tokens and their masks by modality -> the tokens."""
        normed = {m: self.norm1[m](x[m]) for m in x}
        x = {m: x[m] + self.dropout(self.attention[f"{m}_{m}"](normed[m], normed[m], masks[m])) for m in x}
        if len(x) > 1:
            normed = {m: self.norm2[m](x[m]) for m in x}
            x = {m: x[m] + self.dropout(self._heard(m, normed, masks)) for m in x}
        return {m: x[m] + self.dropout(self.mlp[m](x[m])) for m in x}

    def _heard(self, modality: str, x: dict[str, Tensor], masks: dict[str, Tensor]) -> Tensor:
        """Mean over the other modalities that each row has, 0 in rows that have none."""
        others = [m for m in x if m != modality]
        found = torch.stack([self.attention[f"{modality}_{o}"](x[modality], x[o], masks[o]) for o in others])
        there = torch.stack([masks[o].any(dim=1) for o in others]).sum(dim=0).clamp(min=1)
        mean: Tensor = found.sum(dim=0) / there[:, None, None].to(found.dtype)
        return mean

    def idle(self, names: list[str]) -> Iterator[nn.Parameter]:
        """Parameters without a gradient, where only these modalities are given."""
        for pair, part in self.attention.items():
            if not set(pair.split("_")) <= set(names):
                yield from part.parameters()
        for norms in (self.norm1, self.mlp):
            for m, part in norms.items():
                if m not in names:
                    yield from part.parameters()
        for m, part in self.norm2.items():
            if m not in names or len(names) == 1:
                yield from part.parameters()
