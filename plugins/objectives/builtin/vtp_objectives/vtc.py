"""``vtc``: symmetric contrastive loss between two modalities (InfoNCE, arXiv:1807.03748; with a learnable temperature
as in CLIP, arXiv:2103.00020); or the sigmoid loss of SigLIP (arXiv:2303.15343).

    video, text features (B, D) -> projections, unit length -> embeddings (N, E)
    sim_t2v = exp(logit_scale) * text @ video^T (N, N), the diagonal being the positives
    loss    = (CE over rows + CE over columns) / 2
    sigmoid   sum over all pairs of -log sigmoid(+-(sim_t2v + logit_bias)) / N, plus for the positives

N are the rows of all micro-batches and processes.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vtp import distributed
from vtp.contracts import Encoder, Fusion, member
from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.losses import MAX_LOGIT_SCALE, clamp_scale, comparable, pairwise_sigmoid, symmetric_nce
from vtp.model.objective import ContrastiveObjective, masked_mean
from vtp.ranges import Range, Size
from vtp.types import MODALITIES, LossOutput, Space
from vtp_objectives.views import check_masked, training_views

__all__ = ["VTC"]


class VTC(ContrastiveObjective):
    """Contrastive loss between a pair of modalities.

    Args:
        modalities: the pair: ``[video, text]``, ``[video, audio]`` or ``[audio, text]``.
        width: E, width of the common space; None = no projection, the features of both must then have one width;
            ``auto`` is none for encoders that share a space already (``Encoder.space``), such as the towers of CLIP,
            and 128 for others.
        temperature: start of the learnable temperature; logit_scale = log(1 / temperature) ends at 0.01. ``auto`` is
            that of the space that the encoders share, not below 0.01, and 0.07 for others.
        learn_temperature: False keeps it fixed, and the bias with it; they are no parameters then, and not in the
            weights.
        loss: ``softmax`` is the cross-entropy over the batch; ``sigmoid`` asks of every pair by itself whether it
            belongs together, as SigLIP was trained. Its temperature has no bound.
        bias: of ``sigmoid``, where the learnable bias of all pairs starts; ``auto`` is that of the space that the
            encoders share (SigLIP), and -10 for others.
        directions: of ``softmax``: mean or sum of both cross-entropies.
        negatives_from: ``gathered`` compares the rows of all processes and micro-batches, with gradients; ``local``
            those of the own process.
        mask_duplicates: leave out negatives that are no negatives: equal captions, or clips of the same video.
        masked: modalities whose masked version (``masks``) training looks at. Evaluation looks at clean ones.
        context: tells the widths of the encoders.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        modalities: list[str] | tuple[str, ...] = ("video", "text"),
        width: Size | Literal["auto"] | None = "auto",
        temperature: Annotated[float, Range(least=0.01, most=100)] | Literal["auto"] = "auto",
        learn_temperature: bool = True,
        loss: Literal["softmax", "sigmoid"] = "softmax",
        bias: float | Literal["auto"] = "auto",
        directions: Literal["mean", "sum"] = "mean",
        negatives_from: Literal["gathered", "local"] = "gathered",
        mask_duplicates: bool = True,
        masked: list[str] | tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        pair = [m for m in MODALITIES if m in modalities]
        if len(modalities) != 2 or len(pair) != 2:
            raise ConfigError(
                f"objective vtc: modalities={list(modalities)} must be two different ones of {', '.join(MODALITIES)}, "
                "for example modalities=[video,text]"
            )
        lacking = [m for m in pair if m not in context.encoders]
        if lacking:
            raise ConfigError(
                f"objective vtc: needs an encoder for {' and '.join(lacking)}, and that slot is empty. "
                f"Fill it (encoder/{lacking[0]}=...), or {_others(context)}."
            )
        check_masked("vtc", masked, context)
        self.first, self.second = modalities = (pair[0], pair[1])
        self.needs = frozenset(modalities)
        self.directions = directions
        self.negatives_from = negatives_from
        self.mask_duplicates = mask_duplicates
        self.masked = tuple(masked)
        space = _shared_space(context, modalities)
        if isinstance(width, str):
            width = 128 if space is None else None
        self.sigmoid = loss == "sigmoid"
        shared = 0.07 if space is None else max(space.temperature, 0.0 if self.sigmoid else 0.01)
        start = shared if isinstance(temperature, str) else temperature
        widths = {m: context.pooled_width(m) for m in modalities}
        if width is None and len(set(widths.values())) > 1:
            raise ConfigError(
                f"objective vtc: width=null is no projection, so the features must have one width, and they have "
                f"{', '.join(f'{n} ({m})' for m, n in widths.items())}. Give objectives.vtc.width."
            )
        proj: dict[str, nn.Module] = (
            {} if width is None else {m: nn.Linear(n, width, bias=False) for m, n in widths.items()}
        )
        self.proj = nn.ModuleDict(proj)
        # shape (1,): sharding (FSDP2) refuses parameters without a dimension
        scale = torch.full((1,), -math.log(start))
        self.logit_scale: Tensor
        self.logit_bias: Tensor
        learnt = {"logit_scale": scale}
        if self.sigmoid:
            known = -10.0 if space is None or space.bias is None else space.bias
            learnt["logit_bias"] = torch.full((1,), known if isinstance(bias, str) else bias)
        for name, value in learnt.items():
            if learn_temperature:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value, persistent=False)

    def embed(self, ctx: ForwardContext, modality: str, view: str = "") -> Tensor:
        """Projected feature of unit length, float32 (B, E). Rows without the modality: finite, no meaning."""
        pooled = ctx.pooled(modality, view)
        return normalize((self.proj[modality](pooled) if modality in self.proj else pooled).float(), dim=1)

    def embeddings(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """``{"video_embedding": (B, E), "text_embedding": (B, E)}`` of clean inputs, for the pair of this objective."""
        return {f"{m}_embedding": self.embed(ctx, m) for m in (self.first, self.second)}

    def similarity(self, ctx: ForwardContext, rows: str, columns: str) -> Tensor:
        """exp(logit_scale) * cosine within the batch, float32 (B, B), rows of one modality against columns of the
        other, of the versions that training looks at. Without the bias, which is the same for all.
        """
        scale = self.logit_scale.clamp(max=math.inf if self.sigmoid else MAX_LOGIT_SCALE).exp()
        views = self._views(ctx)
        return scale * self.embed(ctx, rows, views[rows]) @ self.embed(ctx, columns, views[columns]).T

    def plan(self, ctx: ForwardContext) -> None:
        """One pass per modality, where features come from the fusion encoder."""
        if ctx.model.unimodal_fusion:
            for modality, view in self._views(ctx).items():
                ctx.plan({modality: view})

    def features(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """Embeddings of what training looks at, which rows have both, what counts as equal, and the temperature."""
        features = {f"{m}_embedding": self.embed(ctx, m, view) for m, view in self._views(ctx).items()}
        features["rows"] = self.rows(ctx)
        features["logit_scale"] = self.logit_scale * 1.0 if self.sigmoid else clamp_scale(self.logit_scale)
        if self.sigmoid:
            features["logit_bias"] = self.logit_bias * 1.0
        if self.negatives_from == "local":
            features["group"] = torch.full((len(ctx.batch),), distributed.rank(), device=ctx.device)
        if self.mask_duplicates:
            features |= {f"{m}_identity": ctx.identity(m) for m in (self.first, self.second)}
        return features

    def loss_from_features(self, features: dict[str, Tensor]) -> LossOutput:
        """The loss over all N rows; ``t2v_r1`` is the share of texts whose own video is the nearest."""
        rows = features["rows"]
        scale = features["logit_scale"].mean().exp()
        one, two = features[f"{self.first}_embedding"], features[f"{self.second}_embedding"]
        sim = scale * two @ one.T  # for the usual pair sim_t2v: rows are texts, columns are videos
        sim = sim + features["logit_bias"].mean() if self.sigmoid else sim
        same = [features[f"{m}_identity"] for m in (self.first, self.second) if self.mask_duplicates]
        sim = comparable(sim, rows, same, features.get("group"))
        a, b = self.first[0], self.second[0]
        index = torch.arange(len(sim), device=sim.device)
        metrics = {
            f"{b}2{a}_r1": masked_mean((sim.detach().argmax(dim=1) == index).float(), rows),
            f"{a}2{b}_r1": masked_mean((sim.detach().argmax(dim=0) == index).float(), rows),
            "logit_scale": scale.detach().log(),
        }
        if self.sigmoid:
            metrics["logit_bias"] = features["logit_bias"].detach().mean()
            return LossOutput(pairwise_sigmoid(sim, rows), rows.sum(), metrics)
        return LossOutput(symmetric_nce(sim, rows, directions=self.directions), rows.sum(), metrics)

    def _views(self, ctx: ForwardContext) -> dict[str, str]:
        return training_views(ctx, self.masked, (self.first, self.second))


def _others(context: BuildContext) -> str:
    """What to compare instead of a modality without an encoder."""
    there = [m for m in MODALITIES if m in context.encoders]
    if len(there) < 2:
        return "leave the objective out"
    return f"set objectives.vtc.modalities=[{there[0]},{there[-1]}]"


def _shared_space(context: BuildContext, modalities: tuple[str, str]) -> Space | None:
    """The space that both encoders were trained for, if it is one; what a fusion encoder gives lies in none."""
    if member(context.encoders.get("fusion"), Fusion, "unimodal"):
        return None
    first, second = (member(context.encoders[m], Encoder, "space") for m in modalities)
    return first if first == second else None
