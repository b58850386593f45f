"""``crossformer_contrast``: symmetric contrastive loss between two sides, each of one modality or of several together
(InfoNCE, arXiv:1807.03748; learnable temperature as in CLIP, arXiv:2103.00020).

    side -> one vector per row (B, D) -> projection, unit length -> embedding (N, E)
    sim = exp(logit_scale) * one @ other^T (N, N), the diagonal being the positives
    loss = (CE over rows + CE over columns) / 2

N are the rows of all micro-batches and processes. ``sides=[[video],[text]]``, ``[[audio],[text]]`` and
``[[video],[audio]]`` are the pairs, ``[[video,audio],[text]]`` compares a clip as a whole with its text, whatever of
the two it has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vtp import distributed
from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.losses import MAX_LOGIT_SCALE, clamp_scale, comparable, symmetric_nce
from vtp.model.objective import ContrastiveObjective, masked_mean
from vtp.ranges import Range, Size
from vtp.types import LossOutput
from vtp_crossformer.groups import check_groups, has_some
from vtp_objectives.views import check_masked, training_views

__all__ = ["Contrast"]


class Contrast(ContrastiveObjective):
    """Contrastive loss between two sides. A row takes part if it has something of both.

    Args:
        sides: two groups of modalities.
        before_fusion: compare what the encoders pool: of a side of several the mean of their projections, over those
            that the row has. The encoders are then of use alone. False takes each side through the fusion encoder, by
            itself, and compares its joint token.
        width: E, width of the common space.
        temperature: start of the learnable temperature; logit_scale = log(1 / temperature) ends at 0.01.
        learn_temperature: False keeps it fixed; it is no parameter then, and not in the weights.
        negatives_from: ``gathered`` compares the rows of all processes and micro-batches, with gradients; ``local``
            those of the own process.
        mask_duplicates: leave out negatives that are no negatives: equal texts, or the same clip.
        masked: modalities whose masked version (``masks``) training looks at. Evaluation looks at clean ones.
        context: tells the widths of the encoders.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        sides: Sequence[Sequence[str]] = (("video",), ("text",)),
        before_fusion: bool = True,
        width: Size = 768,
        temperature: Annotated[float, Range(least=0.01, most=100)] = 0.07,
        learn_temperature: bool = True,
        negatives_from: Literal["gathered", "local"] = "gathered",
        mask_duplicates: bool = True,
        masked: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.sides = check_groups("crossformer_contrast", "sides", sides, context, most=2)
        if not before_fusion and "fusion" not in context.encoders:
            raise ConfigError(
                "objective crossformer_contrast: before_fusion=false needs a fusion encoder, and that slot is empty. "
                "Fill it (encoder/fusion=crossformer), or leave before_fusion out."
            )
        check_masked("crossformer_contrast", masked, context)
        named = [m for side in self.sides for m in side]
        self.needs = frozenset(side[0] for side in self.sides if len(side) == 1)
        self.slots = frozenset(named)
        self.embeds = {m: side for side in self.sides for m in side}
        self.needs_fusion = not before_fusion
        self.before_fusion = before_fusion
        self.negatives_from = negatives_from
        self.mask_duplicates = mask_duplicates
        self.masked = tuple(masked)
        widths: dict[str, int]
        if before_fusion:
            widths = {str(m): context.pooled_width(m) for m in named}
        else:
            widths = {"_".join(side): int(context.encoders["fusion"].width) for side in self.sides}
        self.proj = nn.ModuleDict({name: nn.Linear(found, width, bias=False) for name, found in widths.items()})
        # shape (1,): sharding (FSDP2) refuses parameters without a dimension
        scale = torch.full((1,), -math.log(temperature))
        self.logit_scale: Tensor
        if learn_temperature:
            self.logit_scale = nn.Parameter(scale)
        else:
            self.register_buffer("logit_scale", scale, persistent=False)

    def rows(self, ctx: ForwardContext) -> Tensor:
        """bool (B,): rows that have something of both sides."""
        return has_some(ctx, self.sides[0]) & has_some(ctx, self.sides[1])

    def embed(self, ctx: ForwardContext, modality: str) -> Tensor:
        """Embedding of the side that ``modality`` is of, from clean inputs: unit length, float32 (B, E). Rows that have
        nothing of it: finite, no meaning."""
        side = next(side for side in self.sides if modality in side)
        return self._embed(ctx, side, dict.fromkeys(side, ""))

    def similarity(self, ctx: ForwardContext, rows: str, columns: str) -> Tensor:
        """exp(logit_scale) * cosine within the batch, float32 (B, B), the side of one modality against the other."""
        scale = self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
        return scale * self.embed(ctx, rows) @ self.embed(ctx, columns).T

    def plan(self, ctx: ForwardContext) -> None:
        """A pass per side, or per modality where features come from a unimodal fusion encoder."""
        for side in self.sides:
            views = training_views(ctx, self.masked, side)
            if not self.before_fusion:
                ctx.plan(views)
            elif ctx.model.unimodal_fusion:
                for m, view in views.items():
                    ctx.plan({m: view})

    def features(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """Embeddings of both sides, which rows have them, what counts as equal, and the temperature."""
        one, other = (self._embed(ctx, side, training_views(ctx, self.masked, side)) for side in self.sides)
        features = {"one": one, "other": other, "rows": self.rows(ctx), "logit_scale": clamp_scale(self.logit_scale)}
        if self.negatives_from == "local":
            features["group"] = torch.full((len(ctx.batch),), distributed.rank(), device=ctx.device)
        if self.mask_duplicates:
            features |= {f"same {side[-1]}": ctx.identity(side[-1]) for side in self.sides}
        return features

    def loss_from_features(self, features: dict[str, Tensor]) -> LossOutput:
        """The symmetric loss over all N rows; ``t2v_r1`` is the share of texts whose own video is the nearest."""
        rows, scale = features["rows"], features["logit_scale"].mean().exp()
        sim = scale * features["other"] @ features["one"].T
        same = [features[f"same {side[-1]}"] for side in self.sides if self.mask_duplicates]
        sim = comparable(sim, rows, same, features.get("group"))
        a, b = ("".join(m[0] for m in side) for side in self.sides)
        own = torch.arange(len(sim), device=sim.device)
        metrics = {
            f"{b}2{a}_r1": masked_mean((sim.detach().argmax(dim=1) == own).float(), rows),
            f"{a}2{b}_r1": masked_mean((sim.detach().argmax(dim=0) == own).float(), rows),
            "logit_scale": scale.detach().log(),
        }
        return LossOutput(symmetric_nce(sim, rows), rows.sum(), metrics)

    def _embed(self, ctx: ForwardContext, side: tuple[str, ...], views: dict[str, str]) -> Tensor:
        if not self.before_fusion:
            joint: Tensor = self.proj["_".join(side)](ctx.fused(views).pooled)
            return normalize(joint.float(), dim=1)
        there = torch.stack([ctx.present(m) for m in side])[..., None]  # (M, B, 1)
        if len(side) == 1:
            there = torch.ones_like(there)  # no meaning without it, but not a zero, which has no direction
        parts = torch.stack([self.proj[m](ctx.pooled(m, views[m])).float() for m in side])
        return normalize(parts.masked_fill(~there, 0.0).sum(dim=0) / there.sum(dim=0).clamp(min=1), dim=1)
