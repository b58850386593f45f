"""``mvm``: masked autoencoding of video or sound. A light decoder guesses what lies behind the hidden tokens from the
visible ones.

    visible tokens (B, N_v, D), behind the fusion encoder where there is one -> linear -> + positions
    [visible ; mask token + positions of the hidden ones] (B, N, D') -> blocks -> the hidden ones -> LayerNorm -> linear
    loss = mean (prediction - target)^2 over clips, hidden tokens and the values behind each

video   the p0 * p * p * 3 pixels of a tubelet, normalised per tubelet and channel (VideoMAE, arXiv:2203.12602)
audio   the values of a patch of the spectrogram, normalised per patch (Audio-MAE, arXiv:2207.06405)

Which tokens are hidden is the mask of the run (``masks.video``, ``masks.audio``). The decoder sees no other modality.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from vtp.contracts import offers
from vtp.errors import ConfigError
from vtp.model.blocks import Blocks, connected_zero, init_weights, sincos_table
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.masking import grid_of
from vtp.model.objective import Objective, masked_mean
from vtp.model.tubelets import Grid, masked_pixel_loss, normalised_pixels
from vtp.ranges import Count, Depth, Size
from vtp.types import LossOutput, Tokens, VideoSpec
from vtp_objectives.views import check_masked, training_views

__all__ = ["MVM", "Decoder"]


class Decoder(nn.Module):
    """Blocks over visible and hidden tokens; the head runs on the hidden ones alone.

    Args:
        tokens: N of a full clip.
        width: D'.
        depth, heads: of the blocks.
        values: numbers to predict per token.
    """

    pos_embed: Tensor

    def __init__(self, tokens: int, width: int, depth: int, heads: int, values: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.blocks = Blocks(width, depth, heads, mlp_ratio, names="beit")
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, values)
        self.register_buffer("pos_embed", sincos_table(tokens, width), persistent=False)

    def forward(self, x: Tensor, mask_token: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """(B, N_v, D') -> (B, N_h, values) at the positions ``hidden``."""
        positions = self.pos_embed
        x = torch.cat([x + positions[visible], (mask_token + positions[hidden]).to(x.dtype)], dim=1)
        out: Tensor = self.head(self.norm(self.blocks(x, first=visible.shape[1])))
        return out


class MVM(Objective):
    """Reconstruction of hidden tokens, with every video encoder that has a ``grid`` and takes a ``mask``, and every
    audio encoder that also has ``patches``.

    Args:
        modality: video or audio.
        fuse: modalities that the visible tokens are fused with; null = all of the model, ``[]`` = none. Without a
            fusion encoder always none.
        masked: of these the modalities whose masked version (``masks``) is fused, the others are clean.
        decoder_width: D'; null is half the width of the visible tokens.
        decoder_depth: blocks.
        decoder_heads: null is D' / 64.
        normalise: predict values normalised per token (and channel); false predicts pixels in [0, 1], or the
            spectrogram as the encoder takes it.
        context: tells grid and width of the encoder.
    """

    renamed: ClassVar[Mapping[str, str]] = {
        "mask_kind": "masks.video.kind (random is now token)",
        "mask_ratio": "masks.video.ratio",
        "probability": "masks.text.probability",
        "text": "objectives.mvm.masked=[text] for masked words, masked=[] for clean ones, fuse=[] for none",
    }

    def __init__(
        self,
        *,
        context: BuildContext,
        modality: Literal["video", "audio"] = "video",
        fuse: list[str] | tuple[str, ...] | None = None,
        masked: list[str] | tuple[str, ...] = ("text",),
        decoder_width: Size | None = None,
        decoder_depth: Depth = 4,
        decoder_heads: Count | None = None,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        if modality not in context.encoders:
            raise ConfigError(
                f"objective mvm: needs an encoder for {modality}, and that slot is empty. "
                f"Fill it (encoder/{modality}=...), or leave the objective out."
            )
        check_masked("mvm", (modality, *masked), context)
        self.needs = frozenset({modality})
        self.modality = modality
        self.fuse = None if fuse is None else (*fuse, modality)
        self.masked = (*masked, modality)
        self.normalise = normalise
        encoder, fusion = context.encoders[modality], context.encoders.get("fusion")
        shape = grid_of(encoder, modality)
        source = int((encoder if fusion is None else fusion).width)
        width = decoder_width or source // 2
        values = self._values(encoder, shape)
        self.encoder_to_decoder = nn.Linear(source, width, bias=False)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02, a=-0.02, b=0.02))
        self.decoder = Decoder(prod(shape), width, decoder_depth, decoder_heads or max(width // 64, 1), values)
        if modality == "video":
            self.register_buffer("mean", torch.tensor(encoder.spec.mean), persistent=False)
            self.register_buffer("std", torch.tensor(encoder.spec.std), persistent=False)
        init_weights(self)

    def predict(self, ctx: ForwardContext, rows: Tensor | None = None) -> Tensor:
        """What lies behind the hidden tokens: (B, N_h, p0 * p * p * 3), channel fastest; of sound (B, N_h, P). Of K
        clips per video each is decoded alone, (B * K, ...), those of the first video first. ``rows``: int64 (R,), those
        of the batch that are wanted, of sound."""
        made = self._view(ctx)
        visible, hidden = (made[name].flatten(0, -2) for name in ("visible", "hidden"))
        tokens = self._tokens(ctx).x
        if rows is not None:
            visible, hidden, tokens = visible[rows], hidden[rows], tokens[rows]
        x: Tensor = self.encoder_to_decoder(tokens)
        guess: Tensor = self.decoder(x.reshape(*visible.shape, -1), self.mask_token, visible, hidden)
        return guess

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Mean squared error over the clips that are there, or over their real patches of sound."""
        if self._view(ctx)["hidden"].shape[-1] == 0:  # the mask's ratio rounds down to no token: nothing to predict
            return LossOutput(connected_zero(self.parameters(), torch.zeros((), device=ctx.device)), self.count(ctx))
        loss = self._video_loss(ctx) if self.modality == "video" else self._audio_loss(ctx)
        return LossOutput(loss, self.count(ctx))

    def count(self, ctx: ForwardContext) -> Tensor:
        """Clips that take part; of sound its hidden patches that are no padding."""
        if self.modality == "audio":
            return self._real(ctx).sum()
        return self.rows(ctx).sum() * (self._view(ctx)["hidden"].shape[-1] > 0)

    def plan(self, ctx: ForwardContext) -> None:
        """The joint pass."""
        if "fusion" in ctx.model.encoders:
            ctx.plan(training_views(ctx, self.masked, self.fuse))

    def _values(self, encoder: Any, shape: tuple[int, ...]) -> int:
        """How many lie behind a token."""
        spec = encoder.spec
        if isinstance(spec, VideoSpec):
            patch = (spec.size // shape[1], spec.size // shape[2])
            self.grid = Grid((shape[0], shape[1], shape[2]), spec.frames // shape[0], patch)
            return 3 * self.grid.tubelet * patch[0] * patch[1]
        if not offers(encoder, "patches"):
            raise ConfigError(
                f"objective mvm: {type(encoder).__name__} does not say what lies behind its tokens (method patches), "
                "so there is nothing to predict. Choose encoder/audio=ast or tiny."
            )
        with torch.no_grad():
            values: Tensor = encoder.patches(torch.zeros(1, spec.samples), torch.tensor([spec.samples]))[0]
        return values.shape[-1]

    def _view(self, ctx: ForwardContext) -> dict[str, Tensor]:
        return ctx.inputs(self.modality, ctx.masked(self.modality))

    def _tokens(self, ctx: ForwardContext) -> Tokens:
        """The visible tokens that the decoder starts from."""
        if "fusion" not in ctx.model.encoders:
            return ctx.tokens(self.modality, ctx.masked(self.modality))
        return ctx.fused(training_views(ctx, self.masked, self.fuse)).tokens[self.modality]

    def _video_loss(self, ctx: ForwardContext) -> Tensor:
        video, hidden = (self._view(ctx)[name] for name in ("video", "hidden"))
        rows = self.rows(ctx)
        if video.dim() == 6:  # several clips of one video
            rows = rows.repeat_interleave(video.shape[1])
            video, hidden = video.flatten(0, 1), hidden.flatten(0, 1)
        grid = Grid.of(video, grid_of(ctx.model.encoders["video"], "video", video))
        moments = (self.get_buffer("mean"), self.get_buffer("std"))
        return masked_pixel_loss(self.predict(ctx), video, hidden, rows, grid, *moments, self.normalise)

    def _audio_loss(self, ctx: ForwardContext) -> Tensor:
        hidden, real = self._view(ctx)["hidden"], self._real(ctx)
        values = ctx.once("mvm.patches", lambda: self._patches(ctx)[0])
        rows = None
        if ctx.device.type == "cpu":  # elsewhere the number of rows that have sound would have to be waited for
            there = real.any(dim=1).nonzero()[:, 0]
            rows = there if len(there) else there.new_zeros(1)  # one all the same, for gradients of zero
            hidden, values, real = hidden[rows], values[rows], real[rows]
        target = values.gather(1, hidden[..., None].expand(-1, -1, values.shape[-1])).float()
        if self.normalise:
            target = normalised_pixels(target[..., None])[..., 0]
        error = mse_loss(self.predict(ctx, rows).float(), target, reduction="none").mean(dim=2)
        return masked_mean(error, real)

    def _real(self, ctx: ForwardContext) -> Tensor:
        """bool (B, N_h): hidden patches of sound that is there."""
        real = ctx.once("mvm.real", lambda: self._patches(ctx)[1])
        return real.gather(1, self._view(ctx)["hidden"]) & self.rows(ctx)[:, None]

    @torch.no_grad()
    def _patches(self, ctx: ForwardContext) -> tuple[Tensor, Tensor]:
        encoder: Any = ctx.model.encoders["audio"]
        clean = ctx.inputs("audio")
        values, real = encoder.patches(clean["waveform"], clean["lengths"])
        return values, real
