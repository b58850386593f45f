"""Pairwise sigmoid loss (SigLIP, arXiv:2303.15343): every pair of a text and a clip is a yes-or-no question.

logits[i, j] = exp(scale) * <text i, clip j> + bias
loss = sum over pairs of -log sigmoid(+logits for the own pair, -logits for any other) / rows
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, normalize

from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.objective import ContrastiveObjective
from vtp.ranges import Positive, Size
from vtp.types import LossOutput


class Sigmoid(ContrastiveObjective):
    """Compares all texts with all clips of a step, over micro-batches and processes."""

    needs = frozenset({"video", "text"})

    def __init__(self, *, context: BuildContext, width: Size = 64, temperature: Positive = 0.1, bias: float = -10.0):
        super().__init__()
        self.proj = nn.ModuleDict({m: nn.Linear(context.pooled_width(m), width) for m in sorted(self.needs)})
        self.scale = nn.Parameter(torch.full((1,), -math.log(temperature)))
        self.bias = nn.Parameter(torch.full((1,), bias))

    def embed(self, ctx: ForwardContext, modality: str) -> Tensor:
        """(B, width) of unit length; retrieval compares these."""
        return normalize(self.proj[modality](ctx.pooled(modality)).float(), dim=1)

    def features(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """What the engine gathers: a row per row of the batch, and the parameters as ``p * 1.0``."""
        found = {m: self.embed(ctx, m) for m in self.proj}
        same = {f"same_{m}": ctx.identity(m) for m in self.proj}
        return found | same | {"scale": self.scale * 1.0, "bias": self.bias * 1.0, "rows": self.rows(ctx)}

    def loss_from_features(self, features: dict[str, Tensor]) -> LossOutput:
        """The loss over all rows; equal texts and moments of one clip are no negatives of each other."""
        rows = features["rows"]
        own = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        logits = features["scale"].mean().exp() * features["text"] @ features["video"].T + features["bias"].mean()
        equal = [features[f"same_{m}"][:, None] == features[f"same_{m}"] for m in self.proj]
        counted = rows[:, None] & rows & (own | ~(equal[0] | equal[1]))
        losses = -logsigmoid(torch.where(own, logits, -logits)).masked_fill(~counted, 0.0)
        return LossOutput(losses.sum() / rows.sum().clamp(min=1), rows.sum())
