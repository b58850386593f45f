"""``simvtp_mlm``: masked language modelling with one linear layer as the whole decoder.

    [visible video ; masked words] -> fusion encoder -> the selected positions (S, D) -> Linear -> (S, V)
    loss = mean cross-entropy over the S selected words of the batch

Three words in four are hidden (arXiv:2212.03490). Only selected positions meet the vocabulary layer.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vtp.errors import RunError
from vtp.model.blocks import connected_zero, init_weights
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.objective import Objective
from vtp.types import LossOutput
from vtp_simvtp.views import fused_views, is_legacy

__all__ = ["SimVTPMLM"]


class SimVTPMLM(Objective):
    """Masked words from their context and the visible part of the clip.

    Args:
        video: what the words are fused with: the ``masked`` clip (its visible tokens), the ``clean`` clip, or ``none``;
            without a fusion encoder always none.
        context: tells widths and vocabulary.

    A batch without a selected word takes no part; in legacy models it ends the run, as it did in the released code.
    """

    needs = frozenset({"text"})

    def __init__(
        self,
        *,
        context: BuildContext,
        video: Literal["masked", "clean", "none"] = "masked",
    ) -> None:
        super().__init__()
        fusion = context.encoders.get("fusion")
        self.video = video if fusion is not None and "video" in context.encoders else "none"
        self.legacy = is_legacy(context)
        text = context.encoders["text"]
        width = int((fusion if fusion is not None else text).width)  # type: ignore[arg-type]
        self.text_cls = nn.Linear(width, text.spec.vocab_size)  # type: ignore[union-attr, arg-type]
        init_weights(self)

    def logits(self, ctx: ForwardContext) -> tuple[Tensor, Tensor]:
        """Scores of the selected positions, (S, V), and where they are, int64 (S, 2): row and place."""
        places = self._labels(ctx).ge(0).nonzero()
        x = self._tokens(ctx)
        return self.text_cls(x[places[:, 0], places[:, 1]]), places

    def count(self, ctx: ForwardContext) -> Tensor:
        """Selected words."""
        return self._labels(ctx).ge(0).sum()

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy over the selected words, and the share that is guessed right."""
        logits, places = self.logits(ctx)
        if not len(places):
            if self.legacy:
                raise RunError(
                    "simvtp_mlm: no word of this batch was selected, so its loss is 0/0; the original code stops here "
                    "too. "
                    "Use model=simvtp, in which such a batch takes no part."
                )
            return LossOutput(
                connected_zero(self.parameters(), logits.new_zeros((), dtype=torch.float32)), self.count(ctx)
            )
        labels = self._labels(ctx)[places[:, 0], places[:, 1]]
        right = (logits.detach().argmax(dim=1) == labels).float().mean()
        return LossOutput(cross_entropy(logits.float(), labels), self.count(ctx), {"accuracy": right})

    def _labels(self, ctx: ForwardContext) -> Tensor:
        return ctx.inputs("text", ctx.masked("text"))["labels"]

    def plan(self, ctx: ForwardContext) -> None:
        """The joint pass."""
        if "fusion" in ctx.model.encoders:
            ctx.plan(self._views(ctx))

    def _tokens(self, ctx: ForwardContext) -> Tensor:
        if "fusion" not in ctx.model.encoders:
            return ctx.tokens("text", ctx.masked("text")).x
        return ctx.fused(self._views(ctx)).tokens["text"].x

    def _views(self, ctx: ForwardContext) -> dict[str, str]:
        video = {"masked": ctx.masked("video") if self.video == "masked" else "", "clean": "", "none": None}[self.video]
        return fused_views(ctx, {"video": video, "text": ctx.masked("text")})
