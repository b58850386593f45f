"""Which of the tags does a clip have? One yes or no for each, from picture and sound."""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from vtp.model.objective import Objective, masked_mean
from vtp.types import LossOutput


class ClipCls(Objective):
    slots = frozenset({"video"})
    needs_fusion = True

    def __init__(self, *, context):
        super().__init__()
        self.head = nn.Linear(context.encoders["fusion"].width, len(context.answers))

    def logits(self, ctx):
        return self.head(ctx.fused({m: "" for m in ctx.modalities if m != "text"}).pooled)

    def rows(self, ctx):
        return torch.stack([ctx.present(m) for m in ctx.modalities if m != "text"]).any(0)

    def forward(self, ctx):
        rows = self.rows(ctx)
        losses = binary_cross_entropy_with_logits(
            self.logits(ctx).float(), ctx.batch.labels["tags"].float(), reduction="none"
        )
        return LossOutput(masked_mean(losses.mean(1), rows), rows.sum())
