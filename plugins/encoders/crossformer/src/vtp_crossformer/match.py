"""``crossformer_match``: do the modalities of a row belong together? Two classes on the fused joint token.

positives   every row that takes part as it is, R rows
negatives   the same rows, one group of modalities coming from another row, R rows
loss        mean cross-entropy over the 2 R pairs

The interface is that of simple-multimodal, whose sound goes with the text: ``groups=[[video],[text,audio]]``. Its batch
was shuffled itself, so that some "mismatches" matched and the other losses saw mismatched rows; here every negative is
a true mismatch, in a pass of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.losses import derange, draw_by_weight, matching_cross_entropy
from vtp.model.objective import Objective
from vtp.ranges import Range
from vtp.types import LossOutput
from vtp_crossformer.groups import check_groups, has_some, is_same
from vtp_objectives.views import check_masked, training_views

__all__ = ["Match"]


class Match(Objective):
    """Matching between groups of modalities, right for rows that lack any of them.

    A negative takes a group from another row that has the same modalities of it, so that what is missing tells nothing;
    of another clip, and with another text. A row takes part if it has something of that group and something else, and
    there is such a row in the micro-batch: alone, its loss is 0 with weight 0.

    Args:
        groups: two or three groups of modalities that stay together. With three, each row draws which one is replaced.
        token: what the head reads: ``joint``, or ``text_cls``, the fused first token of the text
            (``use_t_cls_to_vt_m`` of simple-multimodal); rows without a text then take no part.
        masked: modalities whose masked version (``masks``) training looks at. :meth:`match_logits` looks at clean ones.
        hidden: width of the hidden layer of the head; 0 = one linear layer.
        context: tells the width of the fusion encoder.
    """

    needs_fusion = True

    def __init__(
        self,
        *,
        context: BuildContext,
        groups: Sequence[Sequence[str]] = (("video",), ("text", "audio")),
        token: Literal["joint", "text_cls"] = "joint",
        masked: Sequence[str] = (),
        hidden: Annotated[int, Range(least=0, most=65536)] = 0,
    ) -> None:
        super().__init__()
        self.groups = check_groups("crossformer_match", "groups", groups, context, most=3)
        named = [m for group in self.groups for m in group]
        if token == "text_cls" and "text" not in named:
            raise ConfigError("objective crossformer_match: token=text_cls needs text in one of the groups.")
        check_masked("crossformer_match", masked, context)
        self.needs = frozenset({"text"} if token == "text_cls" else ())
        self.slots = frozenset(m for m in ("video", "audio", "text") if m in named)
        # The text of retrieval, and what a clip is compared with it.
        self.embeds = {m: tuple(o for o in named if o != "text") for m in named if m != "text"}
        self.token = token
        self.masked = tuple(masked)
        width = int(context.encoders["fusion"].width)
        layers: list[nn.Module] = [nn.Linear(width, hidden), nn.GELU()] if hidden else []
        self.head = nn.Sequential(*layers, nn.Linear(hidden or width, 2))

    def match_logits(self, ctx: ForwardContext, rows: Mapping[str, Tensor] | None = None) -> Tensor:
        """(R, 2): no match, match, of clean inputs. ``rows``: modality -> int64 (R,) rows of the batch to pair, as in
        ``ctx.fused``."""
        named = [m for m in ctx.modalities if any(m in group for group in self.groups)]
        taken: dict[str, Tensor] | None = (
            None if rows is None else {m: index for m, index in rows.items() if m in named}
        )
        return self._judge(ctx, dict.fromkeys(named, ""), taken)

    def rows(self, ctx: ForwardContext) -> Tensor:
        """bool (B,): rows that have a negative."""
        return super().rows(ctx) & torch.stack([self._allowed(ctx, g).any(dim=1) for g in self._moving()]).any(dim=0)

    def count(self, ctx: ForwardContext) -> Tensor:
        """Number of pairs, positive and negative."""
        return 2 * self.rows(ctx).sum()

    def plan(self, ctx: ForwardContext) -> None:
        """Both passes."""
        views = self._views(ctx)
        ctx.plan(views)
        ctx.plan(views, self.negatives(ctx))

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy over positives and negatives, and the share told right."""
        rows, views = self.rows(ctx), self._views(ctx)
        positive, negative = self._judge(ctx, views, None), self._judge(ctx, views, self.negatives(ctx))
        loss, right = matching_cross_entropy(positive, negative, rows)
        return LossOutput(loss, 2 * rows.sum(), {"accuracy": right})

    def negatives(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """Per modality that may move int64 (B,), the row that it comes from in the negative of each row; its own row
        where another group moves. The same tensors at each call."""
        name = f"crossformer_match.{self.groups}.{self.token}"
        moving = self._moving()
        chosen = ctx.once(f"{name}.chosen", lambda: self._choose(ctx, name))
        own = torch.arange(len(ctx.batch), device=ctx.device)
        found: dict[str, Tensor] = {}
        for place, group in enumerate(moving):

            def draw(place: int = place, group: int = group) -> Tensor:
                partner = derange(self._allowed(ctx, group), ctx.uniform(f"{name}.{group}", 2))
                return torch.where(chosen == place, partner, own)

            rows = ctx.once(f"{name}.{group}", draw)
            found |= dict.fromkeys(self.groups[group], rows)
        return found

    def _choose(self, ctx: ForwardContext, name: str) -> Tensor:
        """int64 (B,): which of the groups that may move does, evenly among those that have a partner."""
        able = torch.stack([self._allowed(ctx, group).any(dim=1) for group in self._moving()], dim=1)
        return draw_by_weight(able.float(), ctx.uniform(f"{name}.chosen", 1)[:, 0])

    def _moving(self) -> list[int]:
        """Groups that may come from another row: of two the second, since moving either makes the same pairs."""
        return [1] if len(self.groups) == 2 else [0, 1, 2]

    def _allowed(self, ctx: ForwardContext, group: int) -> Tensor:
        """bool (B, B), symmetric: rows of which one may take the group of the other."""
        moves = self.groups[group]
        stay = [m for place, other in enumerate(self.groups) for m in other if place != group]
        rows = super().rows(ctx) & has_some(ctx, moves) & has_some(ctx, stay)
        allowed = rows[:, None] & rows[None, :]
        for m in moves:  # what is missing must not tell a negative from a positive
            allowed = allowed & (ctx.present(m)[:, None] == ctx.present(m)[None, :])
        for m in self.slots or ():
            allowed = allowed & ~is_same(ctx, m)
        return allowed

    def _judge(self, ctx: ForwardContext, views: Mapping[str, str], rows: Mapping[str, Tensor] | None) -> Tensor:
        fused = ctx.fused(views, rows)
        logits: Tensor = self.head(fused.pooled if self.token == "joint" else fused.tokens["text"].x[:, 0])
        return logits

    def _views(self, ctx: ForwardContext) -> dict[str, str]:
        return training_views(ctx, self.masked, [m for group in self.groups for m in group])
