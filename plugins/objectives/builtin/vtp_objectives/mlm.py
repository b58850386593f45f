"""``mlm``: masked language modelling (BERT, arXiv:1810.04805), by default on text that has been fused with what is seen
and heard.

    masked text   token_ids (B, L) with masked words, labels (B, L) = original id where a word was selected, else -100
    loss          mean cross-entropy over the selected positions; only they pass the vocabulary layer

Which words are selected, and what becomes of them, is the mask of the run (``masks.text``).
"""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.losses import masked_cross_entropy, share_right
from vtp.model.masking import IGNORE
from vtp.model.objective import Objective
from vtp.types import LossOutput, TextSpec

__all__ = ["MLM"]


class MLM(Objective):
    """Predict hidden words.

    Args:
        tokens: ``fused`` reads the fused text tokens, ``text`` those of the text encoder alone.
        context: tells the tokenizer and the widths.
    """

    needs = frozenset({"text"})

    def __init__(
        self,
        *,
        context: BuildContext,
        tokens: Literal["fused", "text"] = "fused",
    ) -> None:
        super().__init__()
        self.needs_fusion = tokens == "fused"
        if self.needs_fusion and "fusion" not in context.encoders:
            raise ConfigError(
                "objective mlm: tokens=fused needs a fusion encoder (encoder/fusion=concat), or set tokens=text"
            )
        self.spec = cast("TextSpec", context.encoders["text"].spec)
        if self.spec.mask_id < 0:
            raise ConfigError(
                "objective mlm: the tokenizer of this text encoder has no [MASK] token. "
                "Choose a masked language model (bert, roberta, deberta) or leave mlm out."
            )
        width = int(cast("int", context.encoders["fusion" if self.needs_fusion else "text"].width))
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, self.spec.vocab_size)
        )

    def view(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """The masked text: ``token_ids``, ``attention_mask`` and ``labels``."""
        return ctx.inputs("text", ctx.masked("text"))

    def count(self, ctx: ForwardContext) -> Tensor:
        """Number of selected words."""
        return (self.view(ctx)["labels"] != IGNORE).sum()

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy over the selected words, and how many of them are found."""
        labels = self.view(ctx)["labels"]
        words = ctx.masked("text")
        if self.needs_fusion:
            tokens = ctx.fused({m: words if m == "text" else "" for m in ctx.modalities}).tokens["text"]
        else:
            tokens = ctx.tokens("text", words)
        selected = labels != IGNORE
        logits, wanted = self.head(tokens.x[selected]), labels[selected]  # with none selected still in the graph
        loss, right = masked_cross_entropy(logits, wanted), share_right(logits, wanted)
        return LossOutput(loss, selected.sum(), {"accuracy": right})
