"""``univl_vtc``: texts against the clips of all videos of the step by MIL-NCE (stage 1 of UniVL, arXiv:2002.06353).

text   (N, E)     pooled text of unit length
video  (N, n, E)  features of the clips of a video, of unit length
loss   MIL-NCE of the cosines over a temperature; N are the rows of all micro-batches and processes
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.objective import ContrastiveObjective, masked_mean
from vtp.ranges import Range, Size
from vtp.types import LossOutput
from vtp_univl.clips import clip_features, feature_width
from vtp_univl.losses import clip_similarity, level1, mil_nce_of_clips

__all__ = ["VTC", "Temperature"]

Temperature = Annotated[float, Range(least=0.001, most=100)]


class VTC(ContrastiveObjective):
    """Contrastive loss between texts and clips.

    Args:
        width: E, width of a common space into which both are projected; null = no projection: the pooled text and the
            features of the clips must then have one width.
        temperature: divides the cosines; the released code has none, which is 1.0.
        mask_duplicates: equal captions, and clips of the same video, are no negatives of each other.
        context: tells the widths of the encoders.
    """

    needs = frozenset({"video", "text"})
    variants = ("released",)  # of the options in its file

    def __init__(
        self,
        *,
        context: BuildContext,
        width: Size | None = None,
        temperature: Temperature = 0.05,
        mask_duplicates: bool = True,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.mask_duplicates = mask_duplicates
        widths = {"video": feature_width(context), "text": context.pooled_width("text")}
        if width is None and len(set(widths.values())) > 1:
            raise ConfigError(
                f"objective univl_vtc: width=null is no projection, so clips and texts must have features of one "
                f"width, and they have {widths['video']} and {widths['text']}. Give objectives.vtc.width."
            )
        self.width = width or widths["text"]
        made = {} if width is None else {m: nn.Linear(found, width, bias=False) for m, found in widths.items()}
        self.proj = nn.ModuleDict(made)

    def text_embeddings(self, ctx: ForwardContext, view: str = "") -> Tensor:
        """Texts, float32 (B, E) of unit length. Rows without one: finite, no meaning."""
        return self._unit("text", ctx.pooled("text", view))

    def clip_embeddings(self, ctx: ForwardContext, view: str = "") -> Tensor:
        """Clips, float32 (B, n, E) of unit length. Rows without a video: finite, no meaning."""
        return self._unit("video", clip_features(ctx, view))

    def embed(self, ctx: ForwardContext, modality: str, view: str = "") -> Tensor:
        """For retrieval: texts (B, E), videos (B, n, E), or (B, E) of a single clip. The similarity of a text and a
        video of n clips is the log-sum-exp of their cosines."""
        if modality == "text":
            return self.text_embeddings(ctx, view)
        clips = self.clip_embeddings(ctx, view)
        return clips[:, 0] if clips.shape[1] == 1 else clips

    def similarity(self, ctx: ForwardContext, rows: str, columns: str) -> Tensor:
        """Log-sum-exp over clips of the cosines over the temperature, float32 (B, B), within the batch."""
        sim = (clip_similarity(self.text_embeddings(ctx), self.clip_embeddings(ctx)) / self.temperature).logsumexp(2)
        return sim if rows == "text" else sim.T

    def plan(self, ctx: ForwardContext) -> None:
        """One pass per modality, where features come from the fusion encoder."""
        if ctx.model.unimodal_fusion:
            for modality in ("video", "text"):
                ctx.plan({modality: ""})

    def features(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """Embeddings of clean inputs, which rows have both, and what counts as equal."""
        found = {"text": self.text_embeddings(ctx), "video": self.clip_embeddings(ctx), "rows": self.rows(ctx)}
        if self.mask_duplicates:
            found |= {f"{m}_identity": ctx.identity(m) for m in ("video", "text")}
        return found

    def loss_from_features(self, features: dict[str, Tensor]) -> LossOutput:
        """The loss over all N rows; ``t2v_r1`` is the share of texts whose own video is the nearest."""
        rows = features["rows"]
        sim = clip_similarity(features["text"], features["video"]) / self.temperature
        excluded = ~rows[None, :] | ~rows[:, None]
        for name in ("video_identity", "text_identity"):
            if name in features:
                excluded = excluded | (features[name][None, :] == features[name][:, None])
        loss = masked_mean(mil_nce_of_clips(sim, excluded), rows)
        return LossOutput(loss, rows.sum(), nearest(features, excluded))

    def _unit(self, modality: str, x: Tensor) -> Tensor:
        return normalize((self.proj[modality](x) if modality in self.proj else x).float(), dim=-1)


def nearest(features: dict[str, Tensor], excluded: Tensor) -> dict[str, Tensor]:
    """``t2v_r1`` and ``v2t_r1`` among the rows of the step: shares of texts and of videos whose own is the nearest."""
    sim = level1(features["text"].detach(), features["video"].detach())
    index = torch.arange(len(sim), device=sim.device)
    sim = sim.masked_fill(excluded & (index[:, None] != index), -torch.inf)
    right = {"t2v_r1": sim.argmax(dim=1) == index, "v2t_r1": sim.argmax(dim=0) == index}
    return {name: masked_mean(found.float(), features["rows"]) for name, found in right.items()}
