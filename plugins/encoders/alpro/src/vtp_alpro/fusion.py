"""``alpro`` fusion: words and clip through the last layers of a BERT (arXiv:2112.09583, "ALPRO Architecture").

    [CLS] w1 .. wn [SEP] | cls v1 .. vP          what both encoders give, one after the other, nothing added

    fused   text (R, L, D), video (R, 1 + P, D); zeros in place of padding
    pooled  (R, D), the first real token: [CLS] of the text, or of a row without one the cls token of its clip

Sound, where a model has it, follows the clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vtp.model.build import BuildContext
from vtp.ranges import Count, Depth, Share, Size
from vtp.types import MODALITIES, Fused, Tokens
from vtp_alpro.text import LAYERS
from vtp_univl.bert import Layers, sizes
from vtp_univl.text import layer_of_bert

__all__ = ["ALPROFusion"]

_ORDER = ("text", *(m for m in MODALITIES if m != "text"))


class ALPROFusion(nn.Module):
    """The cross encoder.

    Args:
        preset: tiny (width 128, 2 layers, 4 heads) or base (768, 6, 12).
        width, depth, heads: numbers in place of the preset's.
        dropout: behind the attention and the feed-forward part.
        attention_dropout: of the attention weights.
        chunk: most tokens that pass through the layers together; null = all of a pass. It bounds memory and changes no
            result.
        context: tells the encoders; one whose width differs from D gets a linear layer.

    Attributes:
        takes_many: whether several passes may be asked for in one call: not with dropout, whose draws would differ.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        preset: str = "base",
        width: Size | None = None,
        depth: Depth | None = None,
        heads: Count | None = None,
        dropout: Share = 0.1,
        attention_dropout: Share = 0.1,
        chunk: Count | None = 65536,
    ) -> None:
        super().__init__()
        given = (preset, width, depth or LAYERS.get(preset), heads)
        self.width, self.depth, heads = sizes("encoder alpro (fusion)", *given)
        self.encoder = Layers(self.width, self.depth, heads, dropout, attention_dropout)
        encoders: dict[str, Any] = {m: context.encoders[m] for m in MODALITIES if m in context.encoders}
        other = {m: encoder.width for m, encoder in encoders.items() if encoder.width != self.width}
        self.proj = nn.ModuleDict({m: nn.Linear(found, self.width) for m, found in other.items()})
        self.chunk = chunk
        self.checkpointing = False
        self.takes_many = not self.encoder.random

    def forward(self, tokens: Mapping[str, Tokens] | Sequence[Mapping[str, Tokens]]) -> Fused | list[Fused]:
        """Tokens per modality (R rows each) -> Fused. A list of such dicts gives the list of results."""
        if isinstance(tokens, Mapping):
            return self._run([tokens])[0]
        return self._run(tokens)

    def _run(self, requests: Sequence[Mapping[str, Tokens]]) -> list[Fused]:
        names = [[m for m in _ORDER if m in tokens] for tokens in requests]
        parts = [
            torch.cat([self._projected(m, tokens[m]) for m in found], dim=1)
            for found, tokens in zip(names, requests, strict=True)
        ]
        masks = [
            torch.cat([tokens[m].attention_mask for m in found], dim=1)
            for found, tokens in zip(names, requests, strict=True)
        ]
        encoded = self.encoder.run(parts, masks, chunk=self.chunk, recompute=self.checkpointing)
        return [
            _fused(tokens, found, x, mask)
            for tokens, found, x, mask in zip(requests, names, encoded, masks, strict=True)
        ]

    def _projected(self, modality: str, tokens: Tokens) -> Tensor:
        x: Tensor = self.proj[modality](tokens.x) if modality in self.proj else tokens.x
        return x

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, D): the first real token of each row."""
        return _first(tokens.x, tokens.attention_mask)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 what comes in, 1..depth layers."""
        return 0 if name.startswith("proj.") else layer_of_bert(name, self.depth)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the layers in the backward pass."""
        self.checkpointing = True


def _fused(tokens: Mapping[str, Tokens], names: Sequence[str], x: Tensor, mask: Tensor) -> Fused:
    pieces = torch.split(x, [tokens[m].x.shape[1] for m in names], dim=1)
    found = dict(zip(names, pieces, strict=True))
    return Fused({m: replace(tokens[m], x=found[m]) for m in tokens}, _first(x, mask))


def _first(x: Tensor, mask: Tensor) -> Tensor:
    """(B, D) of (B, N, D): the first token that ``mask`` (bool (B, N)) tells is real; of a row without any, the
    first."""
    return x[torch.arange(x.shape[0], device=x.device), mask.int().argmax(dim=1)]
