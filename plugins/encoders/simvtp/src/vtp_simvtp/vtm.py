"""``simvtp_vtm``: do clip and text belong together? Two classes on the pooled joint pass.

    positives: clip i with text i;  negatives: clip idx(i) != i with text i;  loss = mean cross-entropy over both halves

The mask of the other clip comes along with it (arXiv:2212.03490).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vtp import distributed
from vtp.errors import ConfigError
from vtp.model.blocks import connected_zero, init_weights
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.losses import other_rows
from vtp.model.objective import Objective, masked_mean
from vtp.types import LossOutput, Tokens
from vtp_simvtp.views import is_legacy

__all__ = ["SimVTPVTM"]


class SimVTPVTM(Objective):
    """Matching of clip and text.

    Args:
        video: training looks at the ``masked`` clip (its visible tokens) or the ``clean`` one. :meth:`match_logits`:
            always clean.
        text: training looks at ``masked`` or ``clean`` words; null is clean, or masked if legacy.
        negatives: the other clip is drawn from the ``gathered`` rows of all processes or from the ``local``
            micro-batch; null is gathered, or local if legacy.
        reuse_joint: take the positives from the joint pass that mvm and mlm make of the same views, not from one more
            with another dropout of the words; null is true, or false if legacy. Equal without dropout.
        context: tells the width, and whether the model is legacy.

    A single row has no negative: it takes no part; in legacy models it is an error (the released code never returns).
    """

    needs = frozenset({"video", "text"})
    needs_fusion = True

    def __init__(
        self,
        *,
        context: BuildContext,
        video: Literal["masked", "clean"] = "masked",
        text: Literal["masked", "clean"] | None = None,
        negatives: Literal["gathered", "local"] | None = None,
        reuse_joint: bool | None = None,
    ) -> None:
        super().__init__()
        self.legacy = is_legacy(context)
        self.video = video
        self.text = text or ("masked" if self.legacy else "clean")
        self.negatives = negatives or ("local" if self.legacy else "gathered")
        self.reuse_joint = (not self.legacy) if reuse_joint is None else reuse_joint
        self.vtm_head = nn.Linear(int(context.encoders["fusion"].width), 2)  # type: ignore[arg-type]
        init_weights(self)

    def count(self, ctx: ForwardContext) -> Tensor:
        """Pairs that take part: twice the rows, or none where there is no other row."""
        rows = self.rows(ctx).sum()
        return 2 * rows * (self._candidates(rows) > 1)

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy over positives and negatives, and the share that is told right."""
        rows = self.rows(ctx)
        if self.legacy and len(ctx.batch) < 2:
            raise ConfigError(
                "simvtp_vtm: it needs a batch of at least 2 rows per process and micro-batch, because a negative is "
                "another "
                "row. Raise train.global_batch or lower train.accumulation; model=simvtp does without."
            )
        takes_part = rows & (self._candidates(rows.sum()) > 1)
        logits = torch.cat([self.vtm_head(pooled) for pooled in self._pooled(ctx, rows)]).float()
        labels = torch.ones(len(logits), dtype=torch.int64, device=logits.device)
        labels[len(rows) :] = 0
        both = takes_part.repeat(2)
        loss = masked_mean(cross_entropy(logits, labels, reduction="none"), both)
        right = (logits.detach().argmax(dim=1) == labels).float()
        loss = loss + connected_zero(self.parameters(), loss)
        return LossOutput(loss, both.sum(), {"accuracy": masked_mean(right, both)})

    def match_logits(self, ctx: ForwardContext, rows: dict[str, Tensor] | None = None) -> Tensor:
        """Scores (R, 2) of clean pairs, column 1 = they belong together; ``rows`` as in ``ctx.fused``."""
        out: Tensor = self.vtm_head(ctx.fused({"video": "", "text": ""}, rows=rows).pooled)
        return out

    def plan(self, ctx: ForwardContext) -> None:
        """Positives, and negatives where they come from this micro-batch."""
        views, others = self._views(ctx), self._local_negatives(ctx)
        ctx.plan(views)
        if others is not None:
            ctx.plan(views, {"video": others})

    def _pooled(self, ctx: ForwardContext, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Joint features of the B positives and the B negatives."""
        views, others = self._views(ctx), self._local_negatives(ctx)
        positives = ctx.fused(views).pooled
        if others is not None:
            return positives, ctx.fused(views, {"video": others}).pooled
        own = ctx.tokens("video", views["video"])
        everyone = Tokens(
            distributed.gather_with_grad(own.x), distributed.gather_with_grad(own.attention_mask), own.grid
        )
        counts = distributed.gather_objects(len(rows))
        start = sum(counts[: distributed.rank()])
        index = other_rows(self._draw(ctx), distributed.gather_with_grad(rows), start)
        return positives, ctx.fused({"video": everyone.take(index), "text": views["text"]}).pooled

    def _views(self, ctx: ForwardContext) -> dict[str, str]:
        text = ctx.masked("text") if self.text == "masked" else ""
        if text and not self.reuse_joint:  # the same words under another name are another pass
            words = ctx.inputs("text", text)
            text = f"{text}:vtm"
            ctx.view("text", text, lambda inputs: words)
        return {"video": ctx.masked("video") if self.video == "masked" else "", "text": text}

    def _local_negatives(self, ctx: ForwardContext) -> Tensor | None:
        """int64 (B,): the clip of each negative; None where it comes from the gathered rows of several processes."""
        if self.negatives != "local" and distributed.world_size() > 1:
            return None
        return ctx.once("simvtp.vtm", lambda: other_rows(self._draw(ctx), self.rows(ctx)))

    def _draw(self, ctx: ForwardContext) -> Tensor:
        return ctx.uniform("simvtp.vtm", 1)[:, 0]

    def _candidates(self, rows: Tensor) -> Tensor:
        """Rows among which negatives are drawn, a scalar."""
        return rows if self.negatives == "local" else distributed.sum_scalars(rows)
