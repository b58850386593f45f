"""SigLIP (arXiv:2303.15343): every pair of a text and a clip is a yes-or-no question of its own."""

import math

import torch
from torch import nn
from torch.nn.functional import logsigmoid, normalize

from vtp.model.objective import ContrastiveObjective
from vtp.types import LossOutput


class SigLIP(ContrastiveObjective):
    needs = frozenset({"video", "text"})

    def __init__(self, *, context, width: int = 32, temperature: float = 0.1, bias: float = -10.0):
        super().__init__()
        self.proj = nn.ModuleDict({m: nn.Linear(context.pooled_width(m), width) for m in sorted(self.needs)})
        self.scale = nn.Parameter(torch.full((1,), -math.log(temperature)))
        self.bias = nn.Parameter(torch.full((1,), bias))

    def embed(self, ctx, modality):
        return normalize(self.proj[modality](ctx.pooled(modality)).float(), dim=1)

    def features(self, ctx):
        same = {f"same_{m}": ctx.identity(m) for m in self.proj}
        travelling = {"scale": self.scale * 1.0, "bias": self.bias * 1.0}
        return {m: self.embed(ctx, m) for m in self.proj} | same | travelling | {"rows": self.rows(ctx)}

    def loss_from_features(self, features):
        rows, here = (
            features["rows"],
            torch.eye(len(features["rows"]), dtype=torch.bool, device=features["rows"].device),
        )
        logits = features["text"] @ features["video"].T * features["scale"].mean().exp() + features["bias"].mean()
        equal = [features[f"same_{m}"][:, None] == features[f"same_{m}"] for m in self.proj]
        counted = rows[:, None] & rows & (here | ~(equal[0] | equal[1]))
        losses = -logsigmoid(torch.where(here, logits, -logits)).masked_fill(~counted, 0.0)
        return LossOutput(losses.sum() / rows.sum().clamp(min=1), rows.sum())
