"""``univl_itm``: do a text and a video belong together? Two classes on the fused vector, as in Base-VTP.

positives   each video with its own text, masked as for masked language modelling: the same pass
negatives   each text, masked likewise, with the video of another row
loss        mean cross-entropy over both

Positives and negatives are masked alike: otherwise [MASK] would give the answer away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from vtp.contracts import offers
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.losses import matching_cross_entropy, other_rows
from vtp.model.objective import Objective
from vtp.types import LossOutput
from vtp_univl.pool import Pool

__all__ = ["ITM"]


class ITM(Objective):
    """Matching of texts and videos. A row that has no negative takes no part.

    Args:
        negatives_from: ``gathered`` draws the other video from those of all processes, ``local`` from the own
            micro-batch. It has another caption and is another video.
        context: tells the width of the fusion encoder, and the variant: ``released`` leaves the words of negatives as
            they are.
    """

    needs = frozenset({"video", "text"})
    needs_fusion = True
    variants = ("released",)

    def __init__(self, *, context: BuildContext, negatives_from: Literal["gathered", "local"] = "gathered") -> None:
        super().__init__()
        self.everywhere = negatives_from == "gathered"
        self.released = context.variant == "released"
        self.itm_head = nn.Linear(int(context.encoders["fusion"].width), 2)

    def logits_of(self, pooled: Tensor) -> Tensor:
        """Fused vectors (R, D) -> (R, 2)."""
        out: Tensor = self.itm_head(pooled)
        return out

    def match_logits(self, ctx: ForwardContext, rows: Mapping[str, Tensor] | None = None) -> Tensor:
        """(R, 2): no match, match, of clean inputs. ``rows``: modality -> int64 (R,) rows of the batch to pair, as in
        ``ctx.fused``."""
        modalities: list[str] = [m for m in ctx.modalities if m in self.needs]
        taken = None if rows is None else {m: rows[m] for m in modalities if m in rows}
        return self.logits_of(ctx.fused(dict.fromkeys(modalities, ""), taken).pooled)

    def count(self, ctx: ForwardContext) -> Tensor:
        """Number of pairs, positive and negative."""
        return 2 * self._allowed(ctx, Pool(ctx, self.everywhere)).any(dim=1).sum()

    def plan(self, ctx: ForwardContext) -> None:
        """The pairs that belong together."""
        ctx.plan({"video": "", "text": words_of(ctx)})

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy over positives and negatives, and the share told right."""
        pool = Pool(ctx, self.everywhere)
        allowed = self._allowed(ctx, pool)
        rows = allowed.any(dim=1)
        other = other_rows(ctx.uniform("univl.itm", 1)[:, 0], allowed, pool.start)
        views = {"video": "", "text": words_of(ctx)}
        positive = ctx.fused(views).pooled
        unlike = {"video": "", "text": ""} if self.released else views
        own = pool.own() - pool.start
        negative = pool.pairs(unlike, own, other).pooled
        loss, right = matching_cross_entropy(self.logits_of(positive), self.logits_of(negative), rows)
        return LossOutput(loss, 2 * rows.sum(), {"accuracy": right})

    def _allowed(self, ctx: ForwardContext, pool: Pool) -> Tensor:
        """bool (B, M): videos that may be the negative of a text."""
        return pool.comparable(self.rows(ctx))


def words_of(ctx: ForwardContext) -> str:
    """Name of the view with the masked text that masked language modelling reads, or that of ``masks.text``."""
    found: Any
    for found in ctx.model.objectives.values():
        if offers(found, "words"):
            name: str = found.words(ctx)
            return name
    return ctx.masked("text")
