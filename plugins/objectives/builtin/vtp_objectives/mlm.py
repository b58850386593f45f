"""``mlm``: masked language modelling (BERT, arXiv:1810.04805), by default on text that has been fused with what is seen
and heard.

    view "mlm" of the text    token_ids (B, L) with masked words, labels (B, L) = original id where a word was selected,
    -100 elsewhere
    loss                      mean cross-entropy over the selected positions; only they pass the vocabulary layer
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.objective import Objective, masked_mean
from vtp.types import LossOutput, TextSpec

__all__ = ["MLM", "mask_words"]

IGNORE = -100


class MLM(Objective):
    """Predict hidden words.

    Args:
        probability: share of the words to select, each independently; special tokens never are.
        replace: ``bert`` makes 80 % of the selected words [MASK], 10 % a random word and leaves 10 % as they are;
            ``mask`` makes all of them [MASK] (SimVTP).
        tokens: ``fused`` reads the fused text tokens, ``text`` those of the text encoder alone.
        context: tells the tokenizer and the widths.
    """

    needs = frozenset({"text"})

    def __init__(
        self,
        *,
        context: BuildContext,
        probability: float = 0.15,
        replace: Literal["bert", "mask"] = "bert",
        tokens: Literal["fused", "text"] = "fused",
    ) -> None:
        super().__init__()
        if not 0 < probability < 1:
            raise ConfigError(f"objective mlm: probability={probability} must lie between 0 and 1; BERT takes 0.15")
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
        self.probability = probability
        self.replace = replace
        width = int(cast("int", context.encoders["fusion" if self.needs_fusion else "text"].width))
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, self.spec.vocab_size)
        )
        ordinary = torch.tensor(sorted(set(range(self.spec.vocab_size)) - set(self.spec.special_ids)))
        self.register_buffer("ordinary", ordinary, persistent=False)
        self.register_buffer("special", torch.tensor(self.spec.special_ids), persistent=False)

    def view(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """The masked text: ``token_ids``, ``attention_mask`` and ``labels``."""
        return ctx.view("text", "mlm", lambda inputs: self._mask(ctx, inputs))

    def count(self, ctx: ForwardContext) -> Tensor:
        """Number of selected words."""
        return (self.view(ctx)["labels"] != IGNORE).sum()

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy over the selected words, and how many of them are found."""
        labels = self.view(ctx)["labels"]
        if self.needs_fusion:
            tokens = ctx.fused({m: "mlm" if m == "text" else "" for m in ctx.modalities}).tokens["text"]
        else:
            tokens = ctx.tokens("text", "mlm")
        selected = labels != IGNORE
        logits = self.head(tokens.x[selected]).float()  # (selected, vocabulary); with none selected still in the graph
        wanted = labels[selected]
        taking_part = torch.ones_like(wanted, dtype=torch.bool)
        loss = masked_mean(cross_entropy(logits, wanted, reduction="none"), taking_part)
        right = masked_mean((logits.detach().argmax(dim=1) == wanted).float(), taking_part)
        return LossOutput(loss, selected.sum(), {"accuracy": right})

    def _mask(self, ctx: ForwardContext, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        ids, real = inputs["token_ids"], inputs["attention_mask"]
        # Columns for the longest text that can come, then cut: the draw must not depend on this batch's padding.
        draws = ctx.uniform("mlm", 3 * self.spec.max_length).view(len(ids), 3, -1)[:, :, : ids.shape[1]]
        may = real & self.rows(ctx)[:, None] & ~torch.isin(ids, self.special)
        share_masked = 0.8 if self.replace == "bert" else 1.0
        masked, labels = mask_words(ids, may, draws, self.probability, self.spec.mask_id, self.ordinary, share_masked)
        return {**inputs, "token_ids": masked, "labels": labels}


def mask_words(
    ids: Tensor, may: Tensor, draws: Tensor, probability: float, mask_id: int, ordinary: Tensor, share_masked: float
) -> tuple[Tensor, Tensor]:
    """Select words and replace them.

    Args:
        ids: int64 (B, L).
        may: bool (B, L), where a word may be selected.
        draws: float (B, 3, L) uniform in [0, 1): whether to select, what to do, which random word.
        probability: of selecting a position.
        mask_id: id of [MASK].
        ordinary: int64 (V',), ids to draw random words from.
        share_masked: of the selected words this share becomes [MASK]; of the rest one half becomes a random word, the
            other stays.

    Returns:
        masked ids (B, L), and labels (B, L): the original id where selected, -100 elsewhere.
    """
    select, action, word = draws.unbind(1)
    selected = may & (select < probability)
    to_mask = selected & (action < share_masked)
    to_random = selected & (action >= share_masked) & (action < (1 + share_masked) / 2)
    which = (word * len(ordinary)).long().clamp(max=len(ordinary) - 1)  # float32: 0.99999997 * n may round up to n
    masked = torch.where(to_mask, mask_id, torch.where(to_random, ordinary[which], ids))
    return masked, torch.where(selected, ids, IGNORE)
