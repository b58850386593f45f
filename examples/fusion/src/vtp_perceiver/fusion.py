"""Perceiver (arXiv:2103.03206): a few latents read the tokens of all modalities, and the tokens read the latents.

tokens of each modality (B, N_m, D_m) -> projected (B, N_m, D) -> keys of every layer
latents (L, D) -> each layer: read the tokens, then attend to each other -> pooled (B, D), their mean
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vtp.contracts import Encoder, member
from vtp.model.build import BuildContext
from vtp.ranges import Count, Size
from vtp.types import MODALITIES, Fused, Tokens


class Perceiver(nn.Module):
    """Cost grows with the number of tokens, not with its square."""

    def __init__(
        self, *, context: BuildContext, width: Size = 96, depth: Count = 2, latents: Count = 8, heads: Count = 4
    ):
        super().__init__()
        self.width, self.depth = width, depth
        widths = {m: member(context.encoders[m], Encoder, "width") for m in MODALITIES if m in context.encoders}
        self.proj = nn.ModuleDict({m: nn.Linear(size, width) for m, size in widths.items()})
        self.kind = nn.ParameterDict({m: nn.Parameter(torch.randn(width) * 0.1) for m in widths})
        self.latents = nn.Parameter(torch.randn(latents, width) * 0.1)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.write = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, tokens: Mapping[str, Tokens]) -> Fused:
        """Any of the modalities; padding and missing ones are masked keys."""
        parts = {m: self.proj[m](t.x) + self.kind[m] for m, t in tokens.items()}
        seen = torch.cat(list(parts.values()), dim=1)
        mask = torch.cat([t.attention_mask for t in tokens.values()], dim=1)
        z = self.latents.expand(len(seen), -1, -1)
        for layer in self.layers:
            z = layer(z, seen, mask)
        out = {m: x + self.write(x, z, z, need_weights=False)[0] for m, x in parts.items()}
        return Fused({m: Tokens(out[m], t.attention_mask, t.grid, t.index) for m, t in tokens.items()}, z.mean(1))

    def layer_of(self, name: str) -> int:
        """For train.layer_decay: 0 input, 1 to depth layers, depth + 1 output."""
        first, _, rest = name.partition(".")
        return int(rest.partition(".")[0]) + 1 if first == "layers" else self.depth + 1 if first == "write" else 0


class Layer(nn.Module):
    """Latents read tokens, then each other."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.read = nn.MultiheadAttention(width, heads, batch_first=True)
        self.think = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)

    def forward(self, z: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
        """z (B, L, D), seen (B, N, D), mask bool (B, N), True = real -> (B, L, D)."""
        keys = torch.cat([z, seen], dim=1)  # the latents too: a row without any token still has something to read
        hidden = torch.cat([torch.zeros_like(z[..., 0], dtype=torch.bool), ~mask], dim=1)
        found: Tensor = self.think(z + self.read(z, keys, keys, key_padding_mask=hidden, need_weights=False)[0])
        return found
