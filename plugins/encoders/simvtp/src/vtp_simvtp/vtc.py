"""``simvtp_vtc``: contrastive loss on pooled features without a projection and with a fixed temperature.

    S_ij = cos(text_i, video_j) / temperature;  loss = CE over rows + CE over columns, the diagonal being the positives

The sum of both directions, not their mean (arXiv:2212.03490).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vtp import distributed
from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.objective import ContrastiveObjective, masked_mean
from vtp.types import LossOutput
from vtp_simvtp.views import is_legacy

__all__ = ["SimVTPVTC"]


class SimVTPVTC(ContrastiveObjective):
    """Pulls the features of a text and of its clip together, away from those of the others.

    Args:
        video: training looks at the ``masked`` clip (its visible tokens) or the ``clean`` one; null is masked where a
        fusion
            encoder is shared (pre-training), clean without one. Evaluation always looks at the clean clip.
        text: training looks at ``masked`` or ``clean`` words; null is clean, or masked if the fusion encoder is legacy.
        negatives: ``gathered`` over all processes and micro-batches, with gradients, or ``local`` to the process; null
        is
            gathered, or local if legacy.
        temperature: divides the similarity.
        learn_temperature: make it a parameter (its logarithm, clamped at 1/100) that starts there.
        mask_duplicates: equal texts and clips of one video are not negatives of each other; null is true, or false if
            legacy.
        context: tells whether the model is legacy.
    """

    needs = frozenset({"video", "text"})

    def __init__(
        self,
        *,
        context: BuildContext,
        video: Literal["masked", "clean"] | None = None,
        text: Literal["masked", "clean"] | None = None,
        negatives: Literal["gathered", "local"] | None = None,
        temperature: float = 0.05,
        learn_temperature: bool = False,
        mask_duplicates: bool | None = None,
    ) -> None:
        super().__init__()
        legacy = is_legacy(context)
        if temperature < 0.01:
            raise ConfigError(f"objective simvtp_vtc: temperature={temperature} must be at least 0.01.")
        widths = {m: context.pooled_width(m) for m in ("video", "text")}
        if len(set(widths.values())) > 1:
            raise ConfigError(
                f"objective simvtp_vtc: it has no projection, so video ({widths['video']} wide) and text "
                f"({widths['text']} "
                "wide) must have features of one width. Use objective=[vtc], which projects."
            )
        shared = "fusion" in context.encoders
        self.video = video or ("masked" if shared else "clean")
        self.text = text or ("masked" if shared and legacy else "clean")
        self.negatives = negatives or ("local" if legacy else "gathered")
        self.mask_duplicates = (not legacy) if mask_duplicates is None else mask_duplicates
        scale = torch.full((1,), -math.log(temperature))
        self.logit_scale: Tensor
        if learn_temperature:
            self.logit_scale = nn.Parameter(scale)
        else:
            self.register_buffer("logit_scale", scale, persistent=False)

    def embed(self, ctx: ForwardContext, modality: str, view: str = "") -> Tensor:
        """Pooled feature of unit length, float32 (B, D). Rows without the modality: finite, no meaning."""
        return normalize(ctx.pooled(modality, view).float(), dim=1, eps=1e-8)

    def embeddings(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """``{"video_embedding": (B, D), "text_embedding": (B, D)}`` of the clean inputs, for evaluation."""
        return {f"{m}_embedding": self.embed(ctx, m) for m in ("video", "text")}

    def plan(self, ctx: ForwardContext) -> None:
        """One pass per modality."""
        if ctx.model.unimodal_fusion:
            for modality, view in self._views(ctx).items():
                ctx.plan({modality: view})

    def features(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """Embeddings of the views that training looks at, and what decides which pairs are compared."""
        features = {f"{m}_embedding": self.embed(ctx, m, view) for m, view in self._views(ctx).items()}
        features["rows"] = self.rows(ctx)
        features["logit_scale"] = self.logit_scale * 1.0
        if self.negatives == "local":
            features["group"] = torch.full((len(ctx.batch),), distributed.rank(), device=ctx.device)
        if self.mask_duplicates:
            features |= {f"{m}_identity": ctx.identity(m) for m in ("video", "text")}
        return features

    def _views(self, ctx: ForwardContext) -> dict[str, str]:
        return {
            "video": ctx.masked("video") if self.video == "masked" else "",
            "text": ctx.masked("text") if self.text == "masked" else "",
        }

    def loss_from_features(self, features: dict[str, Tensor]) -> LossOutput:
        """Cross-entropy of both directions over all rows; ``t2v_r1`` is the share of texts whose own clip is
        nearest."""
        rows = features["rows"]
        scale = features["logit_scale"].mean()
        # At most ln 100, with a gradient that passes: behind a plain clamp the temperature could never come back.
        scale = (scale - (scale - scale.clamp(max=math.log(100.0))).detach()).exp()
        sim = scale * features["text_embedding"] @ features["video_embedding"].T
        excluded = ~rows[None, :] | ~rows[:, None]
        if self.negatives == "local":
            excluded = excluded | (features["group"][None, :] != features["group"][:, None])
        for modality in ("video", "text") if self.mask_duplicates else ():
            identity = features[f"{modality}_identity"]
            excluded = excluded | (identity[None, :] == identity[:, None])
        own = torch.eye(len(sim), dtype=torch.bool, device=sim.device)
        sim = sim.masked_fill(excluded & ~own, -torch.inf)  # the diagonal stays: a row of -inf alone would be NaN
        by_text = sim.logsumexp(dim=1) - sim.diagonal()
        by_video = sim.logsumexp(dim=0) - sim.diagonal()
        nearest = (sim.detach().argmax(dim=1) == torch.arange(len(sim), device=sim.device)).float()
        loss = masked_mean(by_text, rows) + masked_mean(by_video, rows)
        return LossOutput(loss, rows.sum(), {"t2v_r1": masked_mean(nearest, rows)})
