"""``univl_mlm``: masked language modelling on text that has been fused with clips, or on the text encoder alone, with
the head of BERT, whose last layer is the word embeddings (arXiv:1810.04805, as in UniVL and Base-VTP).

    masked text   token_ids (B, L), labels (B, L) = original id where a word was selected, else -100
    loss          mean cross-entropy over the selected positions; only they pass the head

Which words are selected is the mask of the run (``masks.text``), or, in a share of the steps, drawn by the attention
that they receive (attentive masking).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from vtp.contracts import offers
from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.losses import masked_cross_entropy, share_right
from vtp.model.masking import WeightedWordMask, WordMask
from vtp.model.objective import Objective
from vtp.ranges import Range
from vtp.types import IGNORE, LossOutput, TextSpec
from vtp_univl.draws import step_uniform
from vtp_univl.losses import word_importance

__all__ = ["MLM"]


class MLM(Objective):
    """Predict hidden words.

    Args:
        tokens: ``fused`` reads the text tokens behind the cross encoder, ``text`` those of the text encoder, which then
            reads the masked words too.
        attentive_masking: share of the steps in which words are drawn by the attention that they receive from the
            others in the text encoder (``attentions(token_ids, attention_mask)``): 15 % of the words of a text, at
            least one, all of them [MASK]. Null = 0.5 where the text encoder tells and no other objective brings a mask
            of words (snps3/mssm), which attention would discard; else 0.
        context: tells the tokenizer and the widths, and the variant: ``released`` reads unmasked words with
            tokens=text, counts attention of padding, and discards masks of other objectives.
    """

    needs = frozenset({"text"})
    variants = ("released",)

    def __init__(
        self,
        *,
        context: BuildContext,
        tokens: Literal["fused", "text"] = "fused",
        attentive_masking: Annotated[float, Range(least=0, most=1)] | None = None,
    ) -> None:
        super().__init__()
        self.needs_fusion = tokens == "fused"
        if self.needs_fusion and "fusion" not in context.encoders:
            raise ConfigError(
                "objective univl_mlm: tokens=fused needs a fusion encoder (encoder/fusion=univl), or set tokens=text."
            )
        text: Any = context.encoders["text"]
        self.spec: TextSpec = text.spec
        if self.spec.mask_id < 0:
            raise ConfigError(
                "objective univl_mlm: the tokenizer of this text encoder has no [MASK] token. Choose a masked language "
                "model (univl, tiny, bert), or leave mlm out."
            )
        tells = offers(text, "attentions")
        if attentive_masking and not tells:
            raise ConfigError(
                f"objective univl_mlm: attentive_masking={attentive_masking} needs a text encoder that tells its "
                "attention, and this one does not. Choose encoder/text=univl, or attentive_masking=0."
            )
        self.share = (0.5 if tells else 0.0) if attentive_masking is None else attentive_masking
        self.released = context.variant == "released"
        self.yields = attentive_masking is None and not self.released
        self.attentive = WeightedWordMask("univl.attentive", self._weights, 0.15)
        width = int(context.encoders["fusion" if self.needs_fusion else "text"].width)
        self.transform = _Transform(width)
        self.decoder = _Decoder(width, self.spec.vocab_size, _word_table(text, self.spec.vocab_size, width))

    def words(self, ctx: ForwardContext) -> str:
        """Name of the view with the masked text of this step."""
        return self.attentive.view(ctx) if self._attends(ctx) else ctx.masked("text")

    def count(self, ctx: ForwardContext) -> Tensor:
        """Number of selected words."""
        if not self._attends(ctx):
            return (self._masked(ctx)["labels"] != IGNORE).sum()
        inputs = ctx.inputs("text")  # how many it will be is known without the attention
        special = torch.tensor(self.spec.special_ids, device=ctx.device)
        words = inputs["attention_mask"] & ~torch.isin(inputs["token_ids"], special)
        of_text = (words & ctx.present("text")[:, None]).sum(dim=1)
        selected: Tensor = (of_text * self.attentive.share).long().clamp(min=1).minimum(of_text).sum()
        return selected

    def plan(self, ctx: ForwardContext) -> None:
        """The joint pass."""
        if self.needs_fusion:
            ctx.plan(self._views(ctx))

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy over the selected words, and the share of them that is found."""
        labels = self._masked(ctx)["labels"]
        places = (labels != IGNORE).nonzero()
        logits = self.decoder(self.transform(self._read(ctx)[places[:, 0], places[:, 1]]))
        wanted = labels[places[:, 0], places[:, 1]]
        loss, right = masked_cross_entropy(logits, wanted), share_right(logits, wanted)
        return LossOutput(loss, (labels != IGNORE).sum(), {"accuracy": right})

    def vocabulary_scores(self, ctx: ForwardContext, view: str = "") -> Tensor:
        """Scores of all words at all places of a view of the text, (B, L, V)."""
        out: Tensor = self.decoder(self.transform(self._read(ctx, view)))
        return out

    def _attends(self, ctx: ForwardContext) -> bool:
        """Whether words are drawn by attention in this step."""
        if self.yields and not isinstance(ctx.model.masks["text"], WordMask):  # another objective has put its own there
            return False
        return self.share > 0 and float(step_uniform(ctx, "univl.attentive")) < self.share

    def _masked(self, ctx: ForwardContext) -> dict[str, Tensor]:
        return ctx.inputs("text", self.words(ctx))

    def _views(self, ctx: ForwardContext, view: str | None = None) -> dict[str, str]:
        seen = {"video": ""} if "video" in ctx.modalities else {}
        return {**seen, "text": self.words(ctx) if view is None else view}

    def _read(self, ctx: ForwardContext, view: str | None = None) -> Tensor:
        """The tokens that words are guessed from, (B, L, D)."""
        if self.needs_fusion:
            return ctx.fused(self._views(ctx, view)).tokens["text"].x
        masked = "" if self.released else self.words(ctx)
        return ctx.tokens("text", masked if view is None else view).x

    def _weights(self, ctx: ForwardContext) -> Tensor:
        """Attention that each word receives, float (B, L)."""
        inputs = ctx.inputs("text")
        encoder: Any = ctx.model.encoders["text"]
        with torch.no_grad():
            attention = encoder.attentions(inputs["token_ids"], inputs["attention_mask"])
        queries = None if self.released else inputs["attention_mask"]
        return word_importance(attention.float(), queries) + 1e-6


class _Transform(nn.Module):
    """Linear, GELU, LayerNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-6)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(gelu(self.dense(x)))
        return out


class _Decoder(nn.Module):
    """Scores of all words: by the word embeddings ``table`` where there are any, else by a weight of its own."""

    def __init__(self, width: int, words: int, table: nn.Embedding | None) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(words))
        self._table = (table,)  # in a tuple: the text encoder keeps the weight, under one name
        if table is None:
            self.weight = nn.Parameter(torch.empty(words, width).normal_(std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        table = self._table[0]
        return linear(x, self.weight if table is None else table.weight, self.bias)


def _word_table(text: nn.Module, words: int, width: int) -> nn.Embedding | None:
    """The word embeddings of a text encoder, where they have the width of the tokens."""
    for module in text.modules():
        if isinstance(module, nn.Embedding) and (module.num_embeddings, module.embedding_dim) == (words, width):
            return module
    return None
