"""``bottleneck``: every modality has a transformer of its own, and they meet in a few tokens (MBT, arXiv:2107.00135,
section "Fusion via Attention Bottlenecks").

    first layers   x_m = layer_m(x_m)
    fusion layers  [x_m ; z_m] = layer_m([x_m ; z]),  z = mean of z_m over the modalities that the row has
    x_m            (B, 1 + N_m, D), a learned token of the modality first
    z              (B, n, D), the bottleneck
    tokens         (B, N_m, D) per modality, 0 in place of padding
    pooled         (B, D): the mean of the first tokens of the modalities that the row has

The paper averages what a classifier says of these first tokens; here they are averaged before it, for any objective.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vtp.errors import ConfigError
from vtp.model.blocks import Blocks, Layout, connected_zero
from vtp.model.build import BuildContext
from vtp.ranges import Count, Depth, Positive, Share, Size
from vtp.types import MODALITIES, Fused, Tokens
from vtp_crossformer.projections import Projections, sizes

__all__ = ["Bottleneck"]


class Bottleneck(nn.Module):
    """Fusion through bottleneck tokens; works for any subset of the modalities, per row.

    Args:
        preset, width, depth, heads, mlp_ratio: as in :class:`vtp_crossformer.crossformer.Crossformer`. Every modality
            has ``depth`` layers of its own.
        tokens: n, of the bottleneck.
        start: first of the layers, counted from 0, in which modalities meet.
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
        tokens: Count = 4,
        start: Depth = 0,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.depth, n_heads, ratio = sizes("bottleneck", preset, width, depth, heads, mlp_ratio)
        if start > 0 and start >= self.depth:
            raise ConfigError(
                f"encoder bottleneck: start={start} must be below depth={self.depth}, or the modalities never meet."
            )
        self.start = start
        self.projections = Projections("bottleneck", self.width, context)
        names = self.projections.modalities
        self.first = nn.ParameterDict({m: nn.Parameter(torch.randn(self.width) * 0.02) for m in names})
        self.bottleneck = nn.Parameter(torch.randn(tokens, self.width) * 0.02)
        self.blocks = nn.ModuleDict({m: Blocks(self.width, self.depth, n_heads, ratio, dropout=dropout) for m in names})
        self.norm = nn.ModuleDict({m: nn.LayerNorm(self.width, eps=1e-6) for m in names})
        self.checkpointing = False

    def forward(self, tokens: Mapping[str, Tokens]) -> Fused:
        """Tokens per modality (R rows each) -> the same after fusion, and ``pooled`` (R, D)."""
        names: list[str] = [m for m in MODALITIES if m in tokens]
        masks = {m: tokens[m].attention_mask for m in names}
        there = torch.stack([masks[m].any(dim=1) for m in names])  # (M, B)
        x = {m: self.projections(m, tokens[m]) for m in names}
        x = {m: torch.cat([self._rows(self.first[m][None], x[m]), x[m]], dim=1) for m in names}
        z = self._rows(self.bottleneck, x[names[0]])
        shared = z.shape[1]
        masks = {m: nn.functional.pad(masks[m], (1, 0), value=True) for m in names}
        for layer in range(self.depth):
            if layer < self.start:
                x = {m: self._layer(m, layer, x[m], masks[m]) for m in names}
                continue
            wide = {m: nn.functional.pad(masks[m], (0, shared), value=True) for m in names}
            made = {m: self._layer(m, layer, torch.cat([x[m], z], dim=1), wide[m]) for m in names}
            x = {m: made[m][:, :-shared] for m in names}
            z = _mean_there(torch.stack([made[m][:, -shared:] for m in names]), there, z)
        out = {m: self.norm[m](x[m]).masked_fill(~masks[m][..., None], 0.0) for m in names}
        pooled = torch.stack([out[m][:, :1] for m in names])
        pooled = _mean_there(pooled, there, pooled.new_zeros(pooled.shape[1:]))[:, 0]
        if torch.is_grad_enabled():
            pooled = pooled + connected_zero(self._idle(names), pooled)
        return Fused({m: replace(tokens[m], x=out[m][:, 1:]) for m in names}, pooled)

    def _rows(self, learned: Tensor, like: Tensor) -> Tensor:
        return learned.to(like.dtype).expand(like.shape[0], -1, -1)

    def _layer(self, modality: str, layer: int, x: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D) by one layer of a modality."""
        layout = Layout([(x.shape[0], x.shape[1])], [mask])
        block = self.blocks[modality][layer]  # type: ignore[index]
        flat = layout.pack([x])
        if self.checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(block, flat, layout, use_reentrant=False)
        else:
            out = block(flat, layout)
        return out.view_as(x)

    def _idle(self, names: list[str]) -> Iterator[nn.Parameter]:
        """Parameters that a pass over these modalities leaves without a gradient."""
        yield from self.projections.idle([names])
        for m in self.projections.modalities:
            if m not in names:
                yield self.first[m]
                yield from self.blocks[m].parameters()
                yield from self.norm[m].parameters()
        yield self.bottleneck  # without layers

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 projections, 1..depth layers, depth + 1 the final norms."""
        if name.startswith("blocks."):
            return int(name.split(".")[2]) + 1
        return self.depth + 1 if name.startswith("norm.") else 0

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the layers in the backward pass."""
        self.checkpointing = True


def _mean_there(parts: Tensor, there: Tensor, otherwise: Tensor) -> Tensor:
    """Mean of ``parts`` (M, B, n, D) over the modalities that a row has (bool (M, B)) -> (B, n, D); ``otherwise`` in
    rows that have none."""
    kept = parts.masked_fill(~there[..., None, None], 0.0).sum(dim=0)
    count = there.sum(dim=0)[:, None, None]
    return torch.where(count > 0, kept / count.clamp(min=1).to(kept.dtype), otherwise)
