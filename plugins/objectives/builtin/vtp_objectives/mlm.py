"""``mlm``: masked language modelling (BERT, arXiv:1810.04805), by default on text that has been fused with what is seen
and heard.

    masked text   token_ids (B, L) with masked words, labels (B, L) = original id where a word was selected, else -100
    loss          mean cross-entropy over the selected positions; only they pass the vocabulary layer

Which words are selected, and what becomes of them, is the mask of the run (``masks.text``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor, nn

from vtp.errors import ConfigError
from vtp.model.blocks import init_weights
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.losses import masked_cross_entropy, share_right
from vtp.model.objective import Objective
from vtp.types import IGNORE, LossOutput, TextSpec
from vtp_objectives.views import check_masked, training_views

__all__ = ["MLM"]


class MLM(Objective):
    """Predict hidden words.

    Args:
        tokens: ``fused`` reads the fused text tokens, ``text`` those of the text encoder alone.
        fuse: modalities that the words are fused with; null = all of the model, ``[]`` = none.
        masked: of these the modalities whose masked version (``masks``) is fused, the others are clean.
        head: ``mlp`` is linear, GELU, LayerNorm, linear; ``linear`` the last one alone.
        head_init: start of the head: PyTorch's ``default``, or ``xavier`` with biases of 0.
        context: tells the tokenizer and the widths.
    """

    needs = frozenset({"text"})
    renamed: ClassVar[Mapping[str, str]] = {"probability": "masks.text.probability", "replace": "masks.text.replace"}

    def __init__(
        self,
        *,
        context: BuildContext,
        tokens: Literal["fused", "text"] = "fused",
        fuse: list[str] | tuple[str, ...] | None = None,
        masked: list[str] | tuple[str, ...] = (),
        head: Literal["mlp", "linear"] = "mlp",
        head_init: Literal["default", "xavier"] = "default",
    ) -> None:
        super().__init__()
        self.needs_fusion = tokens == "fused"
        if self.needs_fusion and "fusion" not in context.encoders:
            raise ConfigError(
                "objective mlm: tokens=fused needs a fusion encoder (encoder/fusion=concat), or set tokens=text"
            )
        self.spec: TextSpec = context.encoders["text"].spec
        if self.spec.mask_id < 0:
            raise ConfigError(
                "objective mlm: the tokenizer of this text encoder has no [MASK] token. "
                "Choose a masked language model (bert, roberta, deberta) or leave mlm out."
            )
        check_masked("mlm", masked, context)
        self.fuse = None if fuse is None else (*fuse, "text")
        self.masked = tuple(masked)
        width = int(context.encoders["fusion" if self.needs_fusion else "text"].width)
        layers: list[nn.Module] = [nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width)] if head == "mlp" else []
        self.head = nn.Sequential(*layers, nn.Linear(width, self.spec.vocab_size))
        if head_init == "xavier":
            init_weights(self.head)

    def words(self, ctx: ForwardContext) -> str:
        """Name of the view with the masked text; a subclass may have a mask of its own."""
        return ctx.masked("text")

    def view(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """The masked text: ``token_ids``, ``attention_mask`` and ``labels``."""
        return ctx.inputs("text", self.words(ctx))

    def count(self, ctx: ForwardContext) -> Tensor:
        """Number of selected words."""
        return (self.view(ctx)["labels"] != IGNORE).sum()

    def plan(self, ctx: ForwardContext) -> None:
        """The joint pass."""
        if self.needs_fusion:
            ctx.plan(self._views(ctx))

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy over the selected words, and how many of them are found."""
        logits, places = self.word_logits(ctx)
        labels = self.view(ctx)["labels"][places[:, 0], places[:, 1]]
        loss, right = masked_cross_entropy(logits, labels), share_right(logits, labels)
        return LossOutput(loss, self.count(ctx), {"accuracy": right})

    def word_logits(self, ctx: ForwardContext) -> tuple[Tensor, Tensor]:
        """Scores of the selected positions, (S, V), and where they are, int64 (S, 2): row and place. With none selected
        the scores are still part of the graph."""
        places = (self.view(ctx)["labels"] != IGNORE).nonzero()
        if self.needs_fusion:
            tokens = ctx.fused(self._views(ctx)).tokens["text"]
        else:
            tokens = ctx.tokens("text", self.words(ctx))
        return self.head(tokens.x[places[:, 0], places[:, 1]]), places

    def _views(self, ctx: ForwardContext) -> dict[str, str]:
        return training_views(ctx, self.masked, self.fuse) | {"text": self.words(ctx)}
