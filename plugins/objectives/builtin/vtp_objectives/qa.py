"""``qa``: open-ended question answering as classification over a fixed answer list.

    fused pooled (B, D) -> Linear, GELU, Linear -> logits (B, A);  loss = mean cross-entropy over the rows that take
    part

The question is the text; video and audio are whatever the model has and the clip has. The list is made from the
training answers, so a test answer outside it cannot be given: its row takes no part in the loss (label -100), and an
evaluation counts it as wrong.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.objective import Objective, masked_mean
from vtp.ranges import Range, Share
from vtp.types import IGNORE, LossOutput

__all__ = ["QA"]


class QA(Objective):
    """Answer classification on the fused vector.

    Args:
        hidden: width of the hidden layer; 0 is a single linear layer.
        dropout: before the last layer.
        label: name of the label in ``batch.labels``: int64 (B,), index into the answer list, -100 = not in it.
        context: tells the answer list and the width of the fusion encoder.
    """

    needs = frozenset({"text"})
    needs_fusion = True

    def __init__(
        self,
        *,
        context: BuildContext,
        hidden: Annotated[int, Range(least=0, most=65536)] = 0,
        dropout: Share = 0.0,
        label: str = "answer",
    ) -> None:
        super().__init__()
        if not context.answers:
            raise ConfigError(
                "objective qa: there is no answer list. It comes from the task (task=msrvtt_qa and its like) or from "
                "a checkpoint; leave qa out of objective=[...] for tasks without answers."
            )
        self.answers = context.answers
        self.label = label
        width = int(context.encoders["fusion"].width)
        layers: list[nn.Module] = [nn.Linear(width, hidden), nn.GELU()] if hidden else []
        self.head = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(hidden or width, len(self.answers)))

    def rows(self, ctx: ForwardContext) -> Tensor:
        """bool (B,): rows with a question and an answer of the list."""
        return super().rows(ctx) & (self._labels(ctx) >= 0)

    def logits(self, ctx: ForwardContext) -> Tensor:
        """Score of every answer of the list, (B, A)."""
        fused = ctx.fused(dict.fromkeys(ctx.modalities, ""))
        logits: Tensor = self.head(fused.pooled)
        return logits

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy over the rows that take part, and their accuracy."""
        rows, labels = self.rows(ctx), self._labels(ctx)
        logits = self.logits(ctx).float()
        loss = cross_entropy(logits, labels.clamp(min=0), reduction="none")
        right = (logits.detach().argmax(dim=1) == labels).float()
        return LossOutput(masked_mean(loss, rows), rows.sum(), {"accuracy": masked_mean(right, rows)})

    def _labels(self, ctx: ForwardContext) -> Tensor:
        labels = ctx.batch.labels.get(self.label)
        return torch.full((len(ctx.batch),), IGNORE, device=ctx.device) if labels is None else labels
