"""``classification``: which of the classes does a clip show? One class each, or several.

    features (B, D) -> Linear -> logits (B, C)
    one class       labels int64 (B,), -100 = none          loss = mean cross-entropy over the rows that take part
    several classes labels float (B, C) of 0 and 1, NaN = unknown   loss = mean over rows and classes of the binary
                                                                           cross-entropy

Which of the two it is, the labels say that the task gives. Features are what the fusion encoder pools, where the model
has one (UniVL classifies a clip with its empty caption this way), else the pooled features of the clip.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.objective import Objective, masked_mean
from vtp.ranges import Range, Share
from vtp.types import IGNORE, MODALITIES, LossOutput

__all__ = ["Classification"]


class Classification(Objective):
    """Classes of clips.

    Args:
        modalities: those that a row must have: ``[video]``, ``[audio]`` or both.
        features: ``fused`` = what the fusion encoder pools from everything that the row has, its text included;
            ``pooled`` = the pooled features of ``modalities``, side by side; None = fused where the model can.
        hidden: width of the hidden layer; 0 is a single linear layer.
        dropout: before the last layer.
        smoothing: of labels, for one class each.
        label: name of the label in ``batch.labels``.
        context: tells the classes (its answer list) and the widths.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        modalities: list[str] | tuple[str, ...] = ("video",),
        features: Literal["fused", "pooled"] | None = None,
        hidden: Annotated[int, Range(least=0, most=65536)] = 0,
        dropout: Share = 0.0,
        smoothing: Share = 0.0,
        label: str = "class",
    ) -> None:
        super().__init__()
        if not context.answers:
            raise ConfigError(
                "objective classification: there are no classes. They come from the task (task=classification and its "
                "like) or from a checkpoint; leave classification out of objective=[...] for other tasks."
            )
        taken = [m for m in MODALITIES if m in modalities]
        if not taken or len(taken) != len(modalities):
            raise ConfigError(
                f"objective classification: modalities={list(modalities)} must be different ones of "
                f"{', '.join(MODALITIES)}"
            )
        if lacking := [m for m in taken if m not in context.encoders]:
            there = [m for m in MODALITIES if m in context.encoders]
            raise ConfigError(
                f"objective classification: needs an encoder for {' and '.join(lacking)}, and that slot is empty. Fill "
                f"it (encoder/{lacking[0]}=...), or set objectives.classification.modalities=[{','.join(there)}]."
            )
        if features == "fused" and "fusion" not in context.encoders:
            raise ConfigError(
                "objective classification: features=fused needs a fusion encoder, and that slot is empty. Fill it "
                "(encoder/fusion=...), or set objectives.classification.features=pooled."
            )
        self.needs = frozenset(taken)
        self.modalities = tuple(taken)
        self.fused = "fusion" in context.encoders if features is None else features == "fused"
        self.needs_fusion = self.fused
        self.classes = context.answers
        self.smoothing = smoothing
        self.label = label
        width = int(context.encoders["fusion"].width) if self.fused else sum(map(context.pooled_width, taken))
        layers: list[nn.Module] = [nn.Linear(width, hidden), nn.GELU()] if hidden else []
        self.head = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(hidden or width, len(self.classes)))

    def rows(self, ctx: ForwardContext) -> Tensor:
        """bool (B,): rows with the modalities and a label."""
        labels = self._labels(ctx)
        known = labels >= 0 if labels.dim() == 1 else ~labels.isnan().any(1)
        return super().rows(ctx) & known

    def logits(self, ctx: ForwardContext) -> Tensor:
        """Score of every class, (B, C)."""
        if self.fused:
            pooled = ctx.fused(dict.fromkeys(ctx.modalities, "")).pooled
        else:
            pooled = torch.cat([ctx.pooled(modality) for modality in self.modalities], 1)
        logits: Tensor = self.head(pooled)
        return logits

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """The loss over the rows that take part; ``accuracy`` is the share whose first class is (one of the) right."""
        rows, labels = self.rows(ctx), self._labels(ctx)
        logits = self.logits(ctx).float()
        best = logits.detach().argmax(1)
        if labels.dim() == 1:
            loss = cross_entropy(logits, labels.clamp(min=0), reduction="none", label_smoothing=self.smoothing)
            right = best == labels
        else:
            targets = labels.nan_to_num()
            loss = binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
            right = targets.gather(1, best[:, None])[:, 0] > 0.5
        return LossOutput(masked_mean(loss, rows), rows.sum(), {"accuracy": masked_mean(right.float(), rows)})

    def _labels(self, ctx: ForwardContext) -> Tensor:
        labels = ctx.batch.labels.get(self.label)
        return torch.full((len(ctx.batch),), IGNORE, device=ctx.device) if labels is None else labels
