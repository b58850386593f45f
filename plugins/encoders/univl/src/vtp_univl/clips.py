"""Clip tokens and clip features of any video encoder: what the losses of UniVL compare texts with.

A video is n clips; a clip is one frame, a few of them, or one moment of a token grid.

    tokens    (B, n, D)   input of the cross encoder, not normalised
    features  (B, n, E)   of unit length
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vtp.contracts import Fusion, member, offers
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.types import Tokens

__all__ = ["by_moment", "clip_features", "clip_tokens", "feature_width", "features_of", "token_width"]


def clip_tokens(ctx: ForwardContext, view: str = "") -> tuple[Tensor, Tensor]:
    """One token per clip.

    The tokens of an encoder that knows clips (``clip_features``) are those of its clips. Of any other encoder whose
    tokens lie on a grid (T', H', W') a clip is one of the T' moments and its token the mean over that moment; else the
    whole video is one clip, the mean over all real tokens. Where single modalities pass through the fusion encoder
    (``unimodal``), tokens are taken behind it, as ``ctx.pooled`` does.

    Args:
        ctx: with a video encoder.
        view: name of a view of the video, "" = clean.

    Returns:
        x (B, n, D), and a mask bool (B, n), True = real; all False in rows without a video.
    """
    return by_moment(_tokens(ctx, view), whole=not offers(_encoder(ctx), "clip_features"))


def clip_features(ctx: ForwardContext, view: str = "") -> Tensor:
    """One feature of unit length per clip, float32 (B, n, E), E = :func:`feature_width`: the encoder's own
    ``clip_features(tokens)`` where it has one, else the normalised clip tokens. Rows without a video: finite, no
    meaning.
    """
    return features_of(_encoder(ctx), _tokens(ctx, view))


def features_of(encoder: Any, tokens: Tokens) -> Tensor:
    """:func:`clip_features` of tokens that a video encoder gave: float32 (B, n, E)."""
    if offers(encoder, "clip_features"):
        own: Tensor = encoder.clip_features(tokens)
        return own.float()
    return normalize(by_moment(tokens)[0].float(), dim=-1)


def feature_width(context: BuildContext) -> int:
    """E of :func:`clip_features`: ``clip_width`` of the encoder where it has one, else the width of its tokens."""
    encoder = context.encoders["video"]
    own = getattr(encoder, "clip_width", None)
    return token_width(context) if own is None else int(own)


def token_width(context: BuildContext) -> int:
    """D of :func:`clip_tokens`."""
    fusion: Any = context.encoders.get("fusion")
    owner = fusion if member(fusion, Fusion, "unimodal") else context.encoders["video"]
    return int(owner.width)


def by_moment(tokens: Tokens, *, whole: bool = True) -> tuple[Tensor, Tensor]:
    """Mean over the tokens of each moment.

    Args:
        tokens: (B, N, D); with a grid of three axes these are its places, T' slowest, all of them or those that
            ``index`` names.
        whole: without such a grid, whether all tokens are one clip; False = each is a clip of its own.

    Returns:
        x (B, n, D), 0 for a moment without real tokens; and bool (B, n), True = it has some.
    """
    x, mask = tokens.x, tokens.attention_mask
    grid = tokens.grid
    if grid is None or len(grid) != 3 or (tokens.index is None and prod(grid) != x.shape[1]):
        return (tokens.pooled()[:, None], mask.any(dim=1, keepdim=True)) if whole else (x, mask)
    moments, places = grid[0], grid[1] * grid[2]
    if places == 1 and tokens.index is None:
        return x, mask
    if tokens.index is None:
        moment = torch.arange(x.shape[1], device=x.device).expand(len(x), -1) // places
    else:
        moment = tokens.index // places
    weight = mask.to(x.dtype)
    count = weight.new_zeros(len(x), moments).scatter_add(1, moment, weight)
    total = x.new_zeros(len(x), moments, x.shape[2])
    total = total.scatter_add(1, moment[..., None].expand_as(x), x * weight[..., None])
    return total / count.clamp(min=1)[..., None], count > 0


def _tokens(ctx: ForwardContext, view: str) -> Tokens:
    if ctx.model.unimodal_fusion:
        return ctx.fused({"video": view}).tokens["video"]
    return ctx.tokens("video", view)


def _encoder(ctx: ForwardContext) -> Any:
    return ctx.model.encoders["video"]
