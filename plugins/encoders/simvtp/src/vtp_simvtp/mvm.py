"""``mvm``: masked video modelling. A light decoder guesses the pixels of hidden tubelets from the visible ones.

    visible tokens (B, N_v, D), behind the fusion encoder where there is one -> linear -> + positions
    [visible ; mask token + positions of the hidden ones] (B, N, D') -> blocks -> the hidden ones -> LayerNorm -> linear
    loss = mean (prediction - target)^2 over clips, hidden tubelets and their p0 * p * p * 3 values

The target is the tubelet's pixels, normalised per tubelet and channel (VideoMAE, arXiv:2203.12602; SimVTP,
arXiv:2212.03490). The decoder sees no words.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vtp.model.blocks import Blocks, connected_zero, init_weights, sincos_table
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.masking import grid_of
from vtp.model.objective import Objective
from vtp.model.tubelets import Grid, masked_pixel_loss
from vtp.types import LossOutput, Tokens
from vtp_simvtp.views import fused_views

__all__ = ["MVM", "Decoder"]


class Decoder(nn.Module):
    """Blocks over visible and hidden tokens; the head runs on the hidden ones alone.

    Args:
        tokens: N of a full clip.
        width: D'.
        depth, heads: of the blocks.
        values: numbers to predict per token.
    """

    def __init__(self, tokens: int, width: int, depth: int, heads: int, values: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.blocks = Blocks(width, depth, heads, mlp_ratio, names="beit")
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, values)
        self.register_buffer("pos_embed", sincos_table(tokens, width), persistent=False)

    def forward(self, x: Tensor, mask_token: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """(B, N_v, D') -> (B, N_h, values) at the positions ``hidden``."""
        positions: Tensor = self.pos_embed  # type: ignore[assignment]
        x = torch.cat([x + positions[visible], (mask_token + positions[hidden]).to(x.dtype)], dim=1)
        out: Tensor = self.head(self.norm(self.blocks(x, first=visible.shape[1])))
        return out


class MVM(Objective):
    """Reconstruction of hidden tubelets; works with every video encoder that has a ``grid`` and takes a ``mask``.

    Args:
        text: what the visible tokens are fused with: ``masked`` words, ``clean`` words, or ``none``; without a fusion
            encoder always none.
        decoder_width: D'; null is half the width of the visible tokens.
        decoder_depth: blocks.
        decoder_heads: null is D' / 64.
        normalise: predict pixels normalised per tubelet and channel; false predicts the pixels, in [0, 1].
        context: tells grid and width of the video encoder.
    """

    needs = frozenset({"video"})

    def __init__(
        self,
        *,
        context: BuildContext,
        text: Literal["masked", "clean", "none"] = "masked",
        decoder_width: int | None = None,
        decoder_depth: int = 4,
        decoder_heads: int | None = None,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        encoder = context.encoders["video"]
        fusion = context.encoders.get("fusion")
        self.text = text if fusion is not None and "text" in context.encoders else "none"
        self.normalise = normalise
        spec = encoder.spec  # type: ignore[union-attr]
        grid = grid_of(encoder, "video")
        self.grid = Grid(
            (grid[0], grid[1], grid[2]), spec.frames // grid[0], (spec.size // grid[1], spec.size // grid[2])
        )  # type: ignore[union-attr]
        source = int((fusion if fusion is not None else encoder).width)  # type: ignore[arg-type]
        width = decoder_width or source // 2
        values = 3 * self.grid.tubelet * self.grid.patch[0] * self.grid.patch[1]
        heads = decoder_heads or max(width // 64, 1)
        self.encoder_to_decoder = nn.Linear(source, width, bias=False)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02, a=-0.02, b=0.02))
        self.decoder = Decoder(self.grid.tokens, width, decoder_depth, heads, values)
        self.register_buffer("mean", torch.tensor(spec.mean), persistent=False)  # type: ignore[union-attr]
        self.register_buffer("std", torch.tensor(spec.std), persistent=False)  # type: ignore[union-attr]
        init_weights(self)

    def predict(self, ctx: ForwardContext) -> Tensor:
        """Values of the hidden tubelets, (B, N_h, p0 * p * p * 3), channel fastest."""
        view = ctx.masked("video")
        made = ctx.inputs("video", view)
        tokens = self._tokens(ctx, view)
        return self.decoder(self.encoder_to_decoder(tokens.x), self.mask_token, made["visible"], made["hidden"])

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Mean squared error over the clips that are there."""
        rows = self.rows(ctx)
        made = ctx.inputs("video", ctx.masked("video"))
        if made["hidden"].shape[1] == 0:  # masks.video.ratio rounds down to no token: nothing to predict
            zero = connected_zero(self.parameters(), made["mask"].new_zeros((), dtype=torch.float32))
            return LossOutput(zero, rows.sum() * 0)
        grid = Grid.of(made["video"], grid_of(ctx.model.encoders["video"], "video", made["video"]))
        moments = (self.mean, self.std)
        loss = masked_pixel_loss(self.predict(ctx), made["video"], made["hidden"], rows, grid, *moments, self.normalise)
        return LossOutput(loss, rows.sum())

    def count(self, ctx: ForwardContext) -> Tensor:
        """Clips that take part."""
        hidden = ctx.inputs("video", ctx.masked("video"))["hidden"].shape[1]
        return self.rows(ctx).sum() * (hidden > 0)

    def plan(self, ctx: ForwardContext) -> None:
        """The joint pass."""
        if "fusion" in ctx.model.encoders:
            ctx.plan(self._views(ctx))

    def _tokens(self, ctx: ForwardContext, view: str) -> Tokens:
        """The visible tokens that the decoder starts from."""
        if "fusion" not in ctx.model.encoders:
            return ctx.tokens("video", view)
        return ctx.fused(self._views(ctx)).tokens["video"]

    def _views(self, ctx: ForwardContext) -> dict[str, str]:
        text = {"masked": ctx.masked("text") if self.text == "masked" else "", "clean": "", "none": None}[self.text]
        return fused_views(ctx, {"video": ctx.masked("video"), "text": text})
