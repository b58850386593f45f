"""``alpro_vtc``, ``alpro_vtm``, ``alpro_qa``: the objectives of vtp with the heads of ALPRO (arXiv:2112.09583).

vtc   linear layers with a bias into the common space, and a temperature in [0.001, 0.5]
vtm   softmax over (no match, match) of one linear layer on the [CLS] of a pair; hard negatives
qa    Linear to twice the width, ReLU, Linear to the answers, on the [CLS] of question and clip
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.losses import clamp_scale
from vtp.ranges import Size
from vtp_objectives import qa, vtc, vtm

__all__ = ["QA", "VTC", "VTM"]

DECIMALS = 4  # of the probabilities that the released code ranks by
SCALES = (math.log(1 / 0.5), math.log(1 / 0.001))  # of logit_scale = log(1 / temperature)


class VTC(vtc.VTC):
    """Contrast of clips and texts ("Video-Text Contrastive").

    Args:
        width: E, width of the common space.
        mask_duplicates: equal captions, and clips of the same video, are no negatives of each other.
        context: tells the widths of the encoders.
    """

    def __init__(self, *, context: BuildContext, width: Size = 256, mask_duplicates: bool = True) -> None:
        super().__init__(context=context, width=width, temperature=0.07, mask_duplicates=mask_duplicates)
        self.proj = nn.ModuleDict({m: nn.Linear(context.pooled_width(m), width) for m in ("video", "text")})

    def _scale(self) -> Tensor:
        """logit_scale within its bounds; the gradient still lets a value outside of them come back."""
        return -clamp_scale(-clamp_scale(self.logit_scale, SCALES[1]), -SCALES[0])

    def similarity(self, ctx: ForwardContext, rows: str, columns: str) -> Tensor:
        """Cosines over the temperature, float32 (B, B), within the batch."""
        return self._scale().exp() * self.embed(ctx, rows) @ self.embed(ctx, columns).T

    def features(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """Embeddings of clean inputs, which rows have both, what counts as equal, and the temperature."""
        return super().features(ctx) | {"logit_scale": self._scale()}


class VTM(vtm.VTM):
    """Do a clip and a text belong together? ("Video-Text Matching").

    Args:
        negatives_draw: ``hard`` draws the other text by the similarity of alpro/vtc, which must then be among the
            objectives; the others as in ``vtm``.
        context: tells the width of the fusion encoder, and the variant: ``released`` scores a pair by its probability,
            rounded to 4 decimals, which makes ties.
    """

    variants = ("released",)

    def __init__(
        self, *, context: BuildContext, negatives_draw: Literal["derange", "hard", "random", "any"] = "hard"
    ) -> None:
        super().__init__(context=context, negatives_draw=negatives_draw)
        self.released = context.variant == "released"

    def match_logits(self, ctx: ForwardContext, rows: Mapping[str, Tensor] | None = None) -> Tensor:
        """(R, 2): no match, match, of clean inputs; as released (R,), the rounded probability of a match."""
        logits = super().match_logits(ctx, rows)
        if not self.released:
            return logits
        probability = logits.float().softmax(dim=1)[:, 1]
        return torch.round(probability.double(), decimals=DECIMALS).float()  # as Python's round, of the exact number


class QA(qa.QA):
    """Answer classification on the [CLS] of question and clip.

    Args:
        context: tells the answer list and the width of the fusion encoder.
    """

    variants = ("released",)  # of the recipes, which then count some questions twice

    def __init__(self, *, context: BuildContext) -> None:
        super().__init__(context=context)
        width = int(context.encoders["fusion"].width)
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, len(self.answers)))
