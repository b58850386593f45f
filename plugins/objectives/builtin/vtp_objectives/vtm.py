"""``vtm``: do picture and text belong together? Two classes on the fused vector (ITM of ALBEF, arXiv:2107.07651).

positives   every row that takes part with its own text, R rows
negatives   the same rows with the text of another row, R rows
loss        mean cross-entropy over the 2 R pairs
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from vtp.contracts import offers
from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.losses import derange, draw_by_weight, matching_cross_entropy
from vtp.model.objective import Objective
from vtp.types import MODALITIES, LossOutput

__all__ = ["VTM"]


class VTM(Objective):
    """Matching on fused tokens. Negatives come from the own micro-batch; a row that has none takes no part.

    Rows with the same text, or of the same video, are never negatives of each other. With one row per micro-batch there
    are no negatives at all: the loss is 0 with weight 0.

    Args:
        modalities: the two that must be there; others are fused as well where present.
        swap: which modalities change the row in a negative; the others stay. ``[text]``, or ``[text, audio]`` when the
            sound goes with the text.
        negatives: ``random`` is a derangement (every text is the negative of one other row, as far as duplicates
            allow); ``hard`` draws with probability softmax of the similarity that the objective ``vtc`` computes, which
            must then be among the objectives.
        hidden: width of the hidden layer of the head; 0 = one linear layer.
        context: tells the width of the fusion encoder.
    """

    needs_fusion = True

    def __init__(
        self,
        *,
        context: BuildContext,
        modalities: list[str] | tuple[str, ...] = ("video", "text"),
        swap: list[str] | tuple[str, ...] = ("text",),
        negatives: Literal["random", "hard"] = "random",
        hidden: int = 0,
    ) -> None:
        super().__init__()
        pair = [m for m in MODALITIES if m in modalities]
        if len(modalities) != 2 or len(pair) != 2:
            raise ConfigError(
                f"objective vtm: modalities={list(modalities)} must be two different ones of {', '.join(MODALITIES)}"
            )
        moving = [m for m in pair if m in swap]
        if len(moving) != 1 or any(m not in MODALITIES for m in swap):
            raise ConfigError(
                f"objective vtm: swap={list(swap)} must hold exactly one of modalities={list(modalities)}, "
                "and beside it at most the third one; else both sides of a pair would move together, or neither"
            )
        self.needs = frozenset(pair)
        self.swap = tuple(m for m in MODALITIES if m in swap)
        self.moving = moving[0]
        self.staying = next(m for m in pair if m not in swap)
        self.negatives = negatives
        width = int(context.encoders["fusion"].width)
        layers: list[nn.Module] = [nn.Linear(width, hidden), nn.GELU()] if hidden else []
        self.head = nn.Sequential(*layers, nn.Linear(hidden or width, 2))

    def match_logits(self, ctx: ForwardContext, rows: Mapping[str, Tensor] | None = None) -> Tensor:
        """(R, 2): no match, match. ``rows``: modality -> int64 (R,) rows of the batch to pair, as in ``ctx.fused``."""
        logits: Tensor = self.head(ctx.fused(dict.fromkeys(ctx.modalities, ""), rows).pooled)
        return logits

    def count(self, ctx: ForwardContext) -> Tensor:
        """Number of pairs, positive and negative."""
        return 2 * self._allowed(ctx).any(dim=1).sum()

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy over positives and negatives, and the share told right."""
        allowed = self._allowed(ctx)
        rows = allowed.any(dim=1)
        other = self._negative_rows(ctx, allowed)
        positive = self.match_logits(ctx)
        negative = self.match_logits(ctx, {m: other for m in self.swap if m in ctx.modalities})
        loss, right = matching_cross_entropy(positive, negative, rows)
        return LossOutput(loss, 2 * rows.sum(), {"accuracy": right})

    def _allowed(self, ctx: ForwardContext) -> Tensor:
        """bool (B, B): row j may be the negative of row i."""
        rows = self.rows(ctx)
        allowed = rows[:, None] & rows[None, :] & ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        for modality in (self.moving, self.staying):
            identity = ctx.identity(modality)
            allowed = allowed & (identity[:, None] != identity[None, :])
        return allowed

    def _negative_rows(self, ctx: ForwardContext, allowed: Tensor) -> Tensor:
        """int64 (B,): the row whose text is the negative; rows without an allowed one get some row, and take no
        part.
        """
        draws = ctx.uniform("vtm", 2)
        if self.negatives == "random":
            return derange(allowed, draws)
        scores = _similarity(ctx, self.staying, self.moving).masked_fill(~allowed, -torch.inf)
        weights = torch.nan_to_num(scores.softmax(dim=1))  # rows without an allowed one: 0 / 0
        return draw_by_weight(weights, draws[:, 0])


def _similarity(ctx: ForwardContext, rows: str, columns: str) -> Tensor:
    """(B, B), detached, at the temperature of the contrastive objective that has these two modalities."""
    for objective in ctx.model.objectives.values():
        if offers(objective, "similarity") and objective.needs == {rows, columns}:
            return objective.similarity(ctx, rows, columns).detach()
    raise ConfigError(
        f"objective vtm: negatives=hard needs the similarity of {rows} and {columns} from a contrastive objective. "
        "Add vtc (objective=[vtc,vtm,...]), or set objectives.vtm.negatives=random."
    )
