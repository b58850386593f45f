"""``snps3_mssm``: masked significant semantic modelling (SNP-S3, arXiv:2401.17773). Nouns, verbs and adjectives are
masked first, and guessed from what is left of the text and from the clip.

    mask   :class:`vtp_snps3.masking.SignificantWordMask`, put in place of masks.text: every objective that masks words
           reads it (mlm, simvtp/mlm, univl/mlm, univl/mlm_text, univl/itm, masked pairs of univl/vtm)
    loss   mean cross-entropy over the chosen words, by the head of univl/mlm
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.masking import WordMask
from vtp.model.objective import Objective, masked_mean
from vtp.ranges import Count
from vtp.types import IGNORE, LossOutput
from vtp_snps3.masking import SignificantWordMask
from vtp_snps3.significant import Significant
from vtp_univl.mlm import MLM

__all__ = ["MSSM"]

OWNER = "snps3_mssm"


class MSSM(Objective):
    """Masks significant words first, and predicts them.

    Args:
        words: file of a table of words (``vtp mine-words``); null = the words of the training texts without function
            words, by count.
        top_k: how many words are significant.
        inflect: a chosen word that is replaced becomes a random form of a random significant word; false = the word as
            the table has it.
        tokens: ``fused`` predicts from the text tokens behind the fusion encoder, ``text`` from those of the text
            encoder; null predicts nothing: other objectives of the model do (mlm, simvtp/mlm, univl/mlm), on this mask.
        context: tells the tokenizer, the widths, ``masks.text`` (share of words, and what becomes of them) and the
            variant: ``released`` has the released rule of what is significant, and in half of the steps the masks of
            attention in place of these.
    """

    needs = frozenset({"text"})
    variants = ("released",)

    def __init__(
        self,
        *,
        context: BuildContext,
        words: str | None = None,
        top_k: Count = 3000,
        inflect: bool = True,
        tokens: Literal["fused", "text"] | None = "fused",
    ) -> None:
        super().__init__()
        self.needs_fusion = tokens == "fused"
        if self.needs_fusion and "fusion" not in context.encoders:
            raise ConfigError(
                "objective snps3_mssm: tokens=fused needs a fusion encoder (encoder/fusion=univl), or set tokens=text."
            )
        if context.encoders["text"].spec.mask_id < 0:
            raise ConfigError(
                "objective snps3_mssm: the tokenizer of this text encoder has no [MASK] token. Choose a masked "
                "language model (univl, tiny, bert), or leave mssm out."
            )
        mask = context.masks["text"]
        if not isinstance(mask, WordMask):
            raise ConfigError(
                "objective snps3_mssm: another objective has put a mask of its own in place of masks.text. Leave one "
                "of them out."
            )
        if mask.whole_words:
            raise ConfigError(
                "objective snps3_mssm: masks.text.whole_words=true cannot be, because the number of chosen tokens is "
                "fixed. Leave it out."
            )
        self.released = context.variant == "released"
        self.mask = SignificantWordMask(
            Significant.of(context, words, top_k, OWNER), mask.probability, mask.replace, inflect
        )
        context.masks["text"] = self.mask
        self.mlm = None if tokens is None else MLM(context=context, tokens=tokens)

    def words(self, ctx: ForwardContext) -> str:
        """Name of the view with the masked text of this step."""
        return self.mask.make(ctx) if self.mlm is None else self.mlm.words(ctx)

    def count(self, ctx: ForwardContext) -> Tensor:
        """Number of chosen words."""
        if self.mlm is not None:
            return self.mlm.count(ctx)
        return (ctx.inputs("text", self.words(ctx))["labels"] != IGNORE).sum()

    def plan(self, ctx: ForwardContext) -> None:
        """The joint pass."""
        if self.mlm is not None:
            self.mlm.plan(ctx)

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy over the chosen words; metrics: the share of them that is found, and that of significant ones
        among them."""
        if self.mlm is None:
            out = LossOutput(torch.zeros((), device=ctx.device, requires_grad=True), self.count(ctx))
            self._check_used(ctx)
        else:
            out = self.mlm(ctx)
        view = ctx.inputs("text", self.words(ctx))
        if "significant" in view:  # not in steps of attentive masking
            out.metrics["significant"] = masked_mean(view["significant"].float(), view["labels"] != IGNORE)
        return out

    def vocabulary_scores(self, ctx: ForwardContext, view: str = "") -> Tensor:
        """Scores of all words at all places of a view of the text, (B, L, V)."""
        assert self.mlm is not None, "tokens=null predicts nothing"
        return self.mlm.vocabulary_scores(ctx, view)

    def save_assets(self, directory: Path) -> None:
        """Write the significant words, so that a checkpoint can be loaded without the table."""
        self.mask.significant.save(directory, OWNER)

    def origin(self) -> dict[str, Any]:
        """Of which table of words its significant words are."""
        return self.mask.significant.origin()

    def _check_used(self, ctx: ForwardContext) -> None:
        """Masks that nobody predicts are a mistake; whether somebody does is known after the first step."""
        if ctx.step > 0 and not self.mask.used and not self.released:
            raise ConfigError(
                "objective snps3_mssm: tokens=null leaves it to other objectives to predict masked words, and none of "
                "this model does. Add one (mlm, univl/mlm), or set objectives.mssm.tokens=fused."
            )
