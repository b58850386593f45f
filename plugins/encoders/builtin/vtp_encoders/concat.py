"""``concat``: one transformer over the projected tokens of all modalities and a joint cls token.

    [fuse_cls ; video ; audio ; text]   (B, 1 + N_v + N_a + N_t, D), this order, whatever was given
    pooled                              (B, D) the fused fuse_cls

Every modality has its own projection and a learned modality embedding. Padding and missing modalities are masked keys;
a softmax over nothing cannot happen, because fuse_cls is always there.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from vtp.contracts import Encoder, member
from vtp.errors import ConfigError
from vtp.model.blocks import Transformer, connected_zero, layer_of_blocks
from vtp.model.build import BuildContext
from vtp.ranges import Count, Depth, Positive, Share, Size
from vtp.types import MODALITIES, Fused, Tokens

__all__ = ["PRESETS", "Concat"]

# depth, width, heads, hidden width of the feed-forward part over width
PRESETS = {"tiny": (2, 96, 4, 2.0), "small": (4, 384, 6, 4.0), "base": (4, 768, 12, 4.0)}


class Concat(nn.Module):
    """Fusion by self-attention over the concatenation; works for any non-empty subset of the modalities.

    Args:
        preset: ``tiny`` (depth 2, width 96, 4 heads, mlp_ratio 2), ``small`` (4, 384, 6, 4), ``base`` (4, 768, 12, 4).
        width, depth, heads, mlp_ratio: override the preset's numbers; mlp_ratio is the hidden width of the feed-forward
            part over D.
        dropout: after attention and feed-forward.
        context: tells the widths of the encoders.

    A modality that is in the model but not in a pass keeps its parameters in the graph, with zero gradients.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        preset: str = "tiny",
        width: Size | None = None,
        depth: Depth | None = None,
        heads: Count | None = None,
        mlp_ratio: Positive | None = None,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        if preset not in PRESETS:
            raise ConfigError(f"encoder concat: no preset {preset!r}. Choose one of: {', '.join(PRESETS)}.")
        modalities = [m for m in MODALITIES if m in context.encoders]
        if not modalities:
            raise ConfigError(
                "encoder concat: there is nothing to fuse; fill at least one of encoder/text, video, audio"
            )
        given = zip((depth, width, heads, mlp_ratio), PRESETS[preset], strict=True)
        numbers = [number if number is not None else default for number, default in given]
        self.depth, self.width, n_heads = (int(number) for number in numbers[:3])
        self.cls = nn.Parameter(torch.randn(1, 1, self.width) * 0.02)
        self.proj = nn.ModuleDict(
            {m: _projection(member(context.encoders[m], Encoder, "width"), self.width) for m in modalities}
        )
        self.modality = nn.ParameterDict({m: nn.Parameter(torch.randn(self.width) * 0.5) for m in modalities})
        self.transformer = Transformer(self.width, self.depth, n_heads, numbers[3], dropout)

    def forward(self, tokens: Mapping[str, Tokens]) -> Fused:
        """Tokens per modality (R rows each) -> the same after fusion, and ``pooled`` (R, D)."""
        names = [m for m in MODALITIES if m in tokens]
        rows = tokens[names[0]].x.shape[0]
        absent = [p for m in self.proj if m not in tokens for p in (*self.proj[m].parameters(), self.modality[m])]
        cls = self.cls + connected_zero(absent, self.cls) if absent and torch.is_grad_enabled() else self.cls
        parts = [cls.expand(rows, -1, -1)] + [self.proj[m](tokens[m].x) + self.modality[m] for m in names]
        first = torch.ones(rows, 1, dtype=torch.bool, device=self.cls.device)
        mask = torch.cat([first] + [tokens[m].attention_mask for m in names], dim=1)
        x = self.transformer(torch.cat([part.to(parts[-1].dtype) for part in parts], dim=1), mask)
        pieces = x[:, 1:].split([tokens[m].x.shape[1] for m in names], dim=1)
        fused: dict[str, Tokens] = {
            m: Tokens(piece, tokens[m].attention_mask, tokens[m].grid, tokens[m].index)
            for m, piece in zip(names, pieces, strict=True)
        }
        return Fused(fused, x[:, 0])

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 projections, 1..depth blocks, depth + 1 the final norm."""
        return layer_of_blocks(name, self.depth)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks in the backward pass."""
        self.transformer.blocks.checkpointing = True


def _projection(width: int, fusion_width: int) -> nn.Module:
    """To the fusion width. Features that have it pass as they are: projected, they are learnt from much later."""
    if width == fusion_width:
        return nn.Identity()
    return nn.Sequential(nn.Linear(width, fusion_width), nn.LayerNorm(fusion_width))
