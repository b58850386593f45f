"""``gate``: late fusion. One vector per modality, and a learned gate that says, channel by channel, whom to listen to
(gated multimodal unit, arXiv:1702.01992, here with a softmax over the modalities that a row has).

    p_m     (B, D)     projected mean of the tokens of modality m
    s       (B, D)     mean of p_m over the modalities that the row has
    gate_m  (B, D)     softmax over these modalities of G_m [p_m ; s]
    y       (B, D)     sum of gate_m * tanh(V_m p_m) + s, and ``depth`` residual layers over it
    pooled  (B, D)     LayerNorm of y
    tokens  (B, N, D)  projected and never mixed, 0 in place of padding

Nothing is compared token by token, so it is the cheapest of all and cannot say which word goes with which moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import nn

from vtp.model.blocks import connected_zero
from vtp.model.build import BuildContext
from vtp.ranges import Count, Depth, Positive, Share, Size
from vtp.types import MODALITIES, Fused, Tokens
from vtp_crossformer.projections import Projections, sizes

__all__ = ["Gate"]


class Gate(nn.Module):
    """Fusion of pooled vectors; works for any subset of the modalities, per row.

    Args:
        preset, width, depth, mlp_ratio: as in :class:`vtp_crossformer.crossformer.Crossformer`; the ``depth`` layers
            are feed-forward and see one vector per row.
        heads: not used: taken so that the options of one fusion encoder fit the others.
        dropout: after each feed-forward layer.
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
        self.width, self.depth, _, ratio = sizes("gate", preset, width, depth, heads, mlp_ratio)
        self.projections = Projections("gate", self.width, context, positions=False)
        names = self.projections.modalities
        self.gates = nn.ModuleDict({m: nn.Linear(2 * self.width, self.width) for m in names})
        self.values = nn.ModuleDict({m: nn.Linear(self.width, self.width) for m in names})
        hidden = int(self.width * ratio)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(self.width, eps=1e-6),
                nn.Linear(self.width, hidden),
                nn.GELU(),
                nn.Linear(hidden, self.width),
                nn.Dropout(dropout),
            )
            for _ in range(self.depth)
        )
        self.norm = nn.LayerNorm(self.width, eps=1e-6)

    def forward(self, tokens: Mapping[str, Tokens]) -> Fused:
        """Tokens per modality (R rows each) -> the same projected, and ``pooled`` (R, D)."""
        names: list[str] = [m for m in MODALITIES if m in tokens]
        fused, pooled = {}, []
        for m in names:
            x = self.projections(m, tokens[m]).masked_fill(~tokens[m].attention_mask[..., None], 0.0)
            fused[m] = replace(tokens[m], x=x)
            pooled.append(fused[m].pooled())
        p = torch.stack(pooled)  # (M, B, D)
        there = torch.stack([tokens[m].attention_mask.any(dim=1) for m in names])[..., None]  # (M, B, 1)
        mean = p.sum(dim=0) / there.sum(dim=0).clamp(min=1)
        asked = torch.stack([self.gates[m](torch.cat([one, mean], dim=1)) for m, one in zip(names, p, strict=True)])
        nobody = ~there.any(dim=0)
        gate = asked.float().masked_fill(~there & ~nobody, -torch.inf).softmax(dim=0).masked_fill(nobody, 0.0)
        heard = torch.stack([self.values[m](one).tanh() for m, one in zip(names, p, strict=True)])
        y = (gate.to(heard.dtype) * heard).sum(dim=0) + mean
        for layer in self.layers:
            y = y + layer(y)
        if torch.is_grad_enabled():
            y = y + connected_zero(self._idle(names), y)
        return Fused(fused, self.norm(y))

    def _idle(self, names: list[str]) -> Iterator[nn.Parameter]:
        """Parameters that a pass over these modalities leaves without a gradient."""
        yield from self.projections.idle([names])
        for m in self.projections.modalities:
            if m not in names:
                yield from self.gates[m].parameters()
                yield from self.values[m].parameters()

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 projections, 1..depth layers, depth + 1 the final norm."""
        if name.startswith("layers."):
            return int(name.split(".")[1]) + 1
        return self.depth + 1 if name.startswith("norm.") else 0
