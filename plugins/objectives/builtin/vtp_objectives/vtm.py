"""``vtm``: do picture and text belong together? Two classes on the fused vector (ITM of ALBEF, arXiv:2107.07651).

positives   every row that takes part with its own text, R rows
negatives   the same rows with the text of another row, R rows
loss        mean cross-entropy over the 2 R pairs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from vtp import contracts, distributed
from vtp.contracts import member
from vtp.errors import ConfigError
from vtp.model.blocks import init_weights
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.losses import derange, draw_by_weight, matching_cross_entropy, other_rows
from vtp.model.objective import Objective
from vtp.ranges import Range
from vtp.types import MODALITIES, LossOutput, Tokens
from vtp_objectives.views import check_masked, training_views

__all__ = ["VTM"]


class VTM(Objective):
    """Matching on fused tokens. A row that has no negative takes no part: a single row has a loss of 0 with weight 0.

    Args:
        modalities: the two that must be there; others are fused as well where present.
        swap: which modalities change the row in a negative; the others stay. ``[text]``, or ``[text, audio]`` when the
            sound goes with the text.
        negatives_from: ``local`` takes the other row from the own micro-batch, ``gathered`` from those of all processes
            at this moment, with gradients.
        negatives_draw: ``derange`` makes every row the negative of one other; ``hard`` draws with probability softmax
            of the similarity that the objective ``vtc`` computes, which must then be among the objectives; ``random``
            draws each time anew. Rows with the same text or of the same video are never negatives of each other, but
            with ``any``, which is ``random`` without looking.
        masked: modalities whose masked version (``masks``) training looks at. :meth:`match_logits` looks at clean ones.
        reuse_joint: take the positives from the pass that other objectives make of the same versions; False makes one
            more, with another dropout. Equal without dropout.
        hidden: width of the hidden layer of the head; 0 = one linear layer.
        head_init: start of the head: PyTorch's ``default``, or ``xavier`` with biases of 0.
        context: tells the width of the fusion encoder.
    """

    needs_fusion = True
    renamed: ClassVar[Mapping[str, str]] = {
        "negatives": "objectives.vtm.negatives_draw (derange is what random was, random is new) and negatives_from"
    }

    def __init__(
        self,
        *,
        context: BuildContext,
        modalities: list[str] | tuple[str, ...] = ("video", "text"),
        swap: list[str] | tuple[str, ...] = ("text",),
        negatives_from: Literal["local", "gathered"] = "local",
        negatives_draw: Literal["derange", "hard", "random", "any"] = "derange",
        masked: list[str] | tuple[str, ...] = (),
        reuse_joint: bool = True,
        hidden: Annotated[int, Range(least=0, most=65536)] = 0,
        head_init: Literal["default", "xavier"] = "default",
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
        if negatives_from == "gathered" and (negatives_draw not in ("random", "any") or "text" in swap):
            raise ConfigError(
                "objective vtm: negatives_from=gathered needs negatives_draw=random and swap=[video] or [audio]: "
                "texts of other processes have other lengths, and similarities are computed within a process"
            )
        check_masked("vtm", masked, context)
        self.needs = frozenset(pair)
        self.swap = tuple(m for m in MODALITIES if m in swap)
        self.moving = moving[0]
        self.staying = next(m for m in pair if m not in swap)
        self.negatives_from = negatives_from
        self.negatives_draw = negatives_draw
        self.masked = tuple(masked)
        self.reuse_joint = reuse_joint
        width = int(context.encoders["fusion"].width)
        layers: list[nn.Module] = [nn.Linear(width, hidden), nn.GELU()] if hidden else []
        self.head = nn.Sequential(*layers, nn.Linear(hidden or width, 2))
        if head_init == "xavier":
            init_weights(self.head)

    def match_logits(self, ctx: ForwardContext, rows: Mapping[str, Tensor] | None = None) -> Tensor:
        """(R, 2): no match, match, of clean inputs. ``rows``: modality -> int64 (R,) rows of the batch to pair, as in
        ``ctx.fused``."""
        logits: Tensor = self.head(ctx.fused(dict.fromkeys(ctx.modalities, ""), rows).pooled)
        return logits

    def count(self, ctx: ForwardContext) -> Tensor:
        """Number of pairs, positive and negative."""
        return 2 * self._taking_part(ctx).sum()

    def plan(self, ctx: ForwardContext) -> None:
        """Positives, and negatives where they are known before an encoder has run."""
        views = self._views(ctx)
        ctx.plan(views)
        if self.negatives_draw != "hard" and not self._elsewhere():
            ctx.plan(views, self._swapped(ctx))

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy over positives and negatives, and the share told right."""
        rows, views = self._taking_part(ctx), self._views(ctx)
        positive = ctx.fused(views).pooled
        if self._elsewhere():
            negative = ctx.fused({**views, **self._gathered(ctx, views)}).pooled
        else:
            negative = ctx.fused(views, self._swapped(ctx)).pooled
        loss, right = matching_cross_entropy(self.head(positive), self.head(negative), rows)
        return LossOutput(loss, 2 * rows.sum(), {"accuracy": right})

    def _views(self, ctx: ForwardContext) -> dict[str, str]:
        views = training_views(ctx, self.masked)
        if not self.reuse_joint and views.get("text"):  # the same words under another name are another pass
            words = ctx.inputs("text", views["text"])
            views["text"] += ":vtm"
            ctx.view("text", views["text"], lambda inputs: words)
        return views

    def _taking_part(self, ctx: ForwardContext) -> Tensor:
        """bool (B,): rows that have a negative."""
        return self._allowed(ctx).any(dim=1)

    def _allowed(self, ctx: ForwardContext) -> Tensor:
        """bool (B, M): row j of the M that there are, here or on all processes, may be the negative of row i; the same
        tensor at each call."""
        name = f"vtm.{self.moving}.{self.staying}.{self.negatives_from}.{self.negatives_draw}"
        return ctx.once(name, lambda: self._compared(ctx))

    def _compared(self, ctx: ForwardContext) -> Tensor:
        rows, start = self.rows(ctx), self._start(ctx)
        others = self._everywhere(rows)
        allowed = rows[:, None] & others[None, :]
        own = torch.arange(len(rows), device=rows.device)
        allowed[own, start + own] = False
        if self.negatives_draw != "any":
            for modality in (self.moving, self.staying):
                identity = ctx.identity(modality)
                allowed = allowed & (identity[:, None] != self._everywhere(identity)[None, :])
        return allowed

    def _start(self, ctx: ForwardContext) -> int:
        """Where the own rows lie among those of :meth:`_everywhere`."""
        return sum(distributed.gather_objects(len(ctx.batch))[: distributed.rank()]) if self._elsewhere() else 0

    def _everywhere(self, values: Tensor) -> Tensor:
        """A tensor with a row per row of the batch, of all processes where negatives may lie there."""
        return distributed.gather_with_grad(values) if self._elsewhere() else values

    def _swapped(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """Per modality that moves int64 (B,): the row that it comes from; the same tensors at each call."""
        name = f"vtm.{'+'.join(self.swap)}.{self.negatives_draw}"
        other = ctx.once(name, lambda: self._negative_rows(ctx))
        return {m: other for m in self.swap if m in ctx.modalities}

    def _negative_rows(self, ctx: ForwardContext) -> Tensor:
        """int64 (B,); rows without an allowed one get some row, and take no part."""
        if self.negatives_draw in ("random", "any"):
            return other_rows(self._uniform(ctx), self._allowed(ctx), self._start(ctx))
        allowed, draws = self._allowed(ctx), ctx.uniform("vtm", 2)
        if self.negatives_draw == "derange":
            return derange(allowed, draws)
        scores = self._similarity(ctx).masked_fill(~allowed, -torch.inf)
        weights = torch.nan_to_num(scores.softmax(dim=1))  # rows without an allowed one: 0 / 0
        return draw_by_weight(weights, draws[:, 0])

    def _similarity(self, ctx: ForwardContext) -> Tensor:
        """(B, B), detached, at the temperature of the contrastive objective that has these two modalities."""
        for objective in ctx.model.objectives.values():
            similarity = member(objective, contracts.Objective, "similarity")
            if similarity is not None and objective.needs == self.needs:
                found: Tensor = similarity(ctx, self.staying, self.moving)
                return found.detach()
        raise ConfigError(
            f"objective vtm: negatives_draw=hard needs the similarity of {self.staying} and {self.moving} from a "
            "contrastive objective. Add vtc (objective=[vtc,vtm,...]), or set objectives.vtm.negatives_draw=derange."
        )

    def _elsewhere(self) -> bool:
        """Whether a negative may lie on another process."""
        return self.negatives_from == "gathered" and distributed.world_size() > 1

    def _gathered(self, ctx: ForwardContext, views: Mapping[str, str]) -> dict[str, Tokens]:
        """Tokens of the modalities that move, of rows of all processes."""
        others = self._negative_rows(ctx)
        found: dict[str, Tokens] = {}
        for modality in [m for m in self.swap if m in ctx.modalities]:
            own = ctx.tokens(modality, views[modality])
            x, mask = (distributed.gather_with_grad(part) for part in (own.x, own.attention_mask))
            places = None if own.index is None else distributed.gather_with_grad(own.index)
            found[modality] = replace(own, x=x, attention_mask=mask, index=places).take(others)
        return found

    def _uniform(self, ctx: ForwardContext) -> Tensor:
        return ctx.uniform("simvtp.vtm", 1)[:, 0]
