"""``constant``: the same vector whatever was seen, heard or read. What a head on it learns is how frequent each answer
is, and no more: the number that a model has to beat.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from vtp.model.blocks import connected_zero
from vtp.model.build import BuildContext
from vtp.ranges import Size
from vtp.types import MODALITIES, Fused, Tokens

__all__ = ["Constant"]


class Constant(nn.Module):
    """Fusion that looks at nothing.

    Args:
        width: D of the vector.
        context: of every encoder; nothing of it is needed.
    """

    def __init__(self, *, context: BuildContext, width: Size = 16) -> None:
        super().__init__()
        del context
        self.width = width
        self.vector = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Mapping[str, Tokens]) -> Fused:
        """Tokens per modality (R rows each) -> the vector in each of their places, and as ``pooled`` (R, D)."""
        inputs = [tokens[m].x for m in MODALITIES if m in tokens]
        vector = self.vector + connected_zero(inputs, self.vector) if torch.is_grad_enabled() else self.vector
        fused: dict[str, Tokens] = {
            m: Tokens(vector.expand(*t.x.shape[:2], -1), t.attention_mask, t.grid, t.index) for m, t in tokens.items()
        }
        return Fused(fused, vector.expand(inputs[0].shape[0], -1))

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: there is one."""
        del name
        return 1

    def gradient_checkpointing_enable(self) -> None:
        """Nothing is computed, and nothing need be computed again."""
