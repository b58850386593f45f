"""Eight latents read the tokens of all modalities (arXiv:2103.03206); in training some rows lose a modality."""

import torch
from torch import nn

from vtp.types import MODALITIES, Fused, Tokens


class Perceiver(nn.Module):
    def __init__(self, *, context, width: int = 32, latents: int = 8, heads: int = 2, modality_dropout: float = 0.2):
        super().__init__()
        self.width, self.modality_dropout = width, modality_dropout
        there = [m for m in MODALITIES if m in context.encoders]
        self.proj = nn.ModuleDict({m: nn.Linear(context.encoders[m].width, width) for m in there})
        self.kind = nn.ParameterDict({m: nn.Parameter(torch.randn(width) * 0.1) for m in there})
        self.latents = nn.Parameter(torch.randn(latents, width) * 0.1)
        self.read = nn.MultiheadAttention(width, heads, batch_first=True)
        self.think = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)
        self.write = nn.MultiheadAttention(width, heads, batch_first=True)

    def kept(self, tokens):
        """Masks per modality, some rows of which are all False in training, but never those of all modalities."""
        masks = {m: t.attention_mask for m, t in tokens.items()}
        if self.training and self.modality_dropout:
            here = torch.stack([mask.any(1) for mask in masks.values()])  # (M, B)
            keep = torch.rand(here.shape, device=here.device) >= self.modality_dropout
            keep = keep | ~(keep & here).any(0)
            masks = {m: mask & kept[:, None] for (m, mask), kept in zip(masks.items(), keep, strict=True)}
        return masks

    def forward(self, tokens):
        masks, rows = self.kept(tokens), len(next(iter(tokens.values())).x)
        parts = {m: self.proj[m](t.x) + self.kind[m] for m, t in tokens.items()}
        latents = self.latents.expand(rows, -1, -1)
        always = torch.ones(latents.shape[:2], dtype=torch.bool, device=latents.device)
        hidden = ~torch.cat([always, *(masks[m] for m in parts)], dim=1)
        seen = torch.cat([latents, *parts.values()], dim=1)
        z = self.think(latents + self.read(latents, seen, seen, key_padding_mask=hidden)[0])
        out = {m: x + self.write(x, z, z)[0] for m, x in parts.items()}
        fused = {m: Tokens(out[m], t.attention_mask, t.grid, t.index) for m, t in tokens.items()}
        return Fused(fused, z.mean(1))
