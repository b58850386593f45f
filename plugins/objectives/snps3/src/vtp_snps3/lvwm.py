"""``snps3_lvwm``: local vision-word matching (SNP-S3, arXiv:2401.17773). A few significant words of each text are
matched with the clips of all videos, one by one.

    words  (N, K, E)  vectors of K words per text, from the embedding layer (before) or the last layer (after)
    video  (N, n, E)  features of the clips of a video, of unit length
    sim    (N, N, n)  log sum_k exp(<word k of text a, clip c of video b> / temperature)
    loss   MIL-NCE of sim as in univl/vtc; N are the rows of all micro-batches and processes
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vtp.contracts import Fusion, member, offers
from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.objective import ContrastiveObjective, masked_mean
from vtp.ranges import Count, Size
from vtp.types import LossOutput, TextSpec
from vtp_snps3.masking import SignificantWordMask
from vtp_snps3.significant import Significant, ordinary_words
from vtp_univl.clips import clip_features, feature_width
from vtp_univl.losses import mil_nce_of_clips
from vtp_univl.vtc import Temperature

__all__ = ["LVWM", "choose_positions", "vision_word_similarity"]

OWNER = "snps3_lvwm"


class LVWM(ContrastiveObjective):
    """Contrastive loss between significant words and clips.

    Args:
        words: file of a table of words (``vtp mine-words``); null = the words of the training texts without function
            words, by count.
        top_k: how many words are significant.
        chosen: K, words drawn per text: among the significant ones, without any among all, with fewer than K some of
            them twice.
        stage: what a word is: ``before`` the layers of the text encoder (its embedding), ``after`` them, or ``both``,
            whose losses are added.
        normalize: words are of unit length, as clips are; the released code has them as they are.
        temperature: divides the products of words and clips; the released code has none, which is 1.0.
        width: E, width of a common space into which words and clips are projected; null = no projection: both must
            then have one width.
        mask_duplicates: equal captions, and clips of the same video, are no negatives of each other.
        context: tells the tokenizer and the widths, and the variant: ``released`` has the released rule of what is
            significant.
    """

    needs = frozenset({"video", "text"})
    variants = ("released",)

    def __init__(
        self,
        *,
        context: BuildContext,
        words: str | None = None,
        top_k: Count = 3000,
        chosen: Count = 3,
        stage: Literal["before", "after", "both"] = "after",
        normalize: bool = True,
        temperature: Temperature = 0.05,
        width: Size | None = None,
        mask_duplicates: bool = True,
    ) -> None:
        super().__init__()
        self.chosen = chosen
        self.stages = ("before", "after") if stage == "both" else (stage,)
        self.normalize = normalize
        self.temperature = temperature
        self.mask_duplicates = mask_duplicates
        shared = context.masks["text"]
        if isinstance(shared, SignificantWordMask) and shared.significant.source == words and context.assets is None:
            known = shared.significant  # mssm has read or counted it already
            released = context.variant == "released"
            self.significant = Significant(known.whole, top_k, known.spec, released=released, source=words)
        else:
            self.significant = Significant.of(context, words, top_k, OWNER)
        text: Any = context.encoders["text"]
        self.spec: TextSpec = text.spec
        self._embeds = offers(text, "embed")
        widths = {"video": feature_width(context)} | {stage: self._width(context, stage) for stage in self.stages}
        if width is None and len(set(widths.values())) > 1:
            told = ", ".join(f"{found} ({name})" for name, found in widths.items())
            raise ConfigError(
                "objective snps3_lvwm: width=null is no projection, so clips and words must have features of one "
                f"width, and they have {told}. Give objectives.lvwm.width."
            )
        made = {} if width is None else {m: nn.Linear(found, width, bias=False) for m, found in widths.items()}
        self.proj = nn.ModuleDict(made)

    def plan(self, ctx: ForwardContext) -> None:
        """One pass per modality, where features come from the fusion encoder."""
        if ctx.model.unimodal_fusion:
            for modality in ("video", "text"):
                ctx.plan({modality: ""})

    def positions(self, ctx: ForwardContext) -> Tensor:
        """int64 (B, K): where the chosen words of each text stand."""
        length = ctx.inputs("text")["token_ids"].shape[1]
        longest = max(self.spec.max_length, length)
        numbers = ctx.uniform("snps3.lvwm", longest + self.chosen)
        words = ordinary_words(ctx, self.spec)
        significant = self.significant.tokens(ctx) & words
        allowed = torch.where(significant.any(dim=1, keepdim=True), significant, words)
        return choose_positions(allowed, numbers[:, :length], numbers[:, longest:])

    def features(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """Words and clips of clean inputs, which rows have both, and what counts as equal."""
        places = self.positions(ctx)
        video = clip_features(ctx)
        video = normalize(self.proj["video"](video).float(), dim=-1) if "video" in self.proj else video
        found = {"video": video, "rows": self.rows(ctx)}
        for stage in self.stages:
            x = self._words(ctx, stage)
            x = x.gather(1, places[..., None].expand(-1, -1, x.shape[2]))
            x = (self.proj[stage](x) if stage in self.proj else x).float()
            found[stage] = normalize(x, dim=-1) if self.normalize else x
        if self.mask_duplicates:
            found |= {f"{m}_identity": ctx.identity(m) for m in ("video", "text")}
        return found

    def loss_from_features(self, features: dict[str, Tensor]) -> LossOutput:
        """The loss over all N rows, of both stages added; ``t2v_r1`` is the share of texts whose words lie nearest to
        their own video (of the last stage)."""
        rows = features["rows"]
        excluded = ~rows[None, :] | ~rows[:, None]
        for name in ("video_identity", "text_identity"):
            if name in features:
                excluded = excluded | (features[name][None, :] == features[name][:, None])
        losses = []
        for stage in self.stages:
            sim = vision_word_similarity(features[stage], features["video"], self.temperature)
            losses.append(masked_mean(mil_nce_of_clips(sim, excluded), rows))
        index = torch.arange(len(rows), device=rows.device)
        near = sim.detach().logsumexp(dim=2).masked_fill(excluded & (index[:, None] != index), -torch.inf)
        right = masked_mean((near.argmax(dim=1) == index).float(), rows)
        return LossOutput(torch.stack(losses).sum(), rows.sum(), {"t2v_r1": right})

    def save_assets(self, directory: Path) -> None:
        """Write the significant words, so that a checkpoint can be loaded without the table."""
        self.significant.save(directory, OWNER)

    def origin(self) -> dict[str, Any]:
        """Of which table of words its significant words are."""
        return self.significant.origin()

    def _words(self, ctx: ForwardContext, stage: str) -> Tensor:
        """Vectors of all tokens of the clean texts, (B, L, D)."""
        if stage == "before":
            return ctx.tokens("text", "", "embedded" if self._embeds else "encoded").x
        if ctx.model.unimodal_fusion:
            return ctx.fused({"text": ""}).tokens["text"].x
        return ctx.tokens("text").x

    def _width(self, context: BuildContext, stage: str) -> int:
        """D of :meth:`_words`."""
        fusion: Any = context.encoders.get("fusion")
        unimodal = member(fusion, Fusion, "unimodal")
        if stage == "before" and not self._embeds and not unimodal:
            raise ConfigError(
                f"objective snps3_lvwm: stage={stage} needs a text encoder that gives its embedding layer alone "
                "(embed), and this one does not. Choose encoder/text=univl, or stage=after."
            )
        return int((fusion if unimodal and stage == "after" else context.encoders["text"]).width)


def choose_positions(allowed: Tensor, order: Tensor, again: Tensor) -> Tensor:
    """K places per text, int64 (B, K): of more than K allowed ones a random choice, of fewer all of them and random
    ones of them again, without any the first K places.

    Args:
        allowed: bool (B, L).
        order: uniform float (B, L).
        again: uniform float (B, K).
    """
    count = allowed.sum(dim=1, keepdim=True)
    shuffled = torch.where(allowed, order, 2.0).argsort(dim=1)  # those allowed first
    slot = torch.arange(again.shape[1], device=allowed.device).expand_as(again)
    repeat = (again.double() * count).long().minimum(count - 1).clamp(min=0)
    last = allowed.shape[1] - 1
    chosen = shuffled.gather(1, torch.where(slot < count, slot, repeat).clamp(max=last))
    return torch.where(count > 0, chosen, slot.clamp(max=last))


def vision_word_similarity(words: Tensor, video: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-sum-exp over the words of a text of their products with a clip over the temperature, (T, V, n).

    Args:
        words: float (T, K, E).
        video: float (V, n, E), clips of unit length.
    """
    products = words.flatten(0, 1) @ video.flatten(0, 1).T / temperature  # (T K, V n)
    return products.view(*words.shape[:2], -1).logsumexp(dim=1).view(len(words), *video.shape[:2])
