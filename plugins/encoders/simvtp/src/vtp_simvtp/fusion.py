"""``simvtp`` fusion: one vision transformer over [video ; audio ; text], in which nothing tells the modalities apart. A
single modality passes through the same transformer (``unimodal``), so its features are in the same space.

tokens  dict modality -> Tokens (B, N_m, D_m)
fused   dict modality -> Tokens (B, N_m, D), behind the final LayerNorm; pooled (B, D)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vtp.contracts import Encoder, member
from vtp.model.blocks import Blocks, init_weights
from vtp.model.build import BuildContext
from vtp.ranges import Count, Depth, Positive, Range, Share, Size
from vtp.types import MODALITIES, Fused, Tokens
from vtp_simvtp.vit import shape_of

__all__ = ["SharedViT", "clips_of", "pool"]


class SharedViT(nn.Module):
    """The encoder of SimVTP (arXiv:2212.03490).

    Args:
        preset: tiny, small, base or large.
        width, depth, heads: numbers in place of the preset's.
        mlp_ratio: hidden width of the feed-forward part over D.
        drop_path: see :class:`vtp.model.blocks.Blocks`.
        init_values: start of LayerScale, 0 = none.
        pooling: ``mean`` over real tokens, ``mean_all`` over padding too; null is the first, or the second if variant:
            released.
        context: tells the widths of the encoders (one that differs from D gets a linear layer) and the variant.

    Attributes:
        unimodal: True: features of one modality are taken through this encoder as well.
        takes_many: whether several passes may be asked for in one call: not with drop_path, whose draws would differ.
    """

    unimodal = True
    variants = ("released",)
    renamed: ClassVar[dict[str, str]] = {"legacy": "variant=released", "pooling=mean_valid": "pooling=mean"}

    def __init__(
        self,
        *,
        context: BuildContext,
        preset: str = "base",
        width: Size | None = None,
        depth: Depth | None = None,
        heads: Count | None = None,
        mlp_ratio: Positive = 4.0,
        drop_path: Share = 0.0,
        init_values: Annotated[float, Range(least=0)] = 0.0,
        pooling: Literal["mean", "mean_all"] | None = None,
    ) -> None:
        super().__init__()
        shape = shape_of(preset, width, depth, heads)
        self.width, self.depth = shape.width, shape.depth
        self.pooling = pooling or ("mean_all" if context.variant == "released" else "mean")
        self.takes_many = drop_path == 0
        size = (shape.width, shape.depth, shape.heads, mlp_ratio)
        self.blocks = Blocks(*size, drop_path=drop_path, init_values=init_values, names="beit")
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)
        encoders: dict[str, Any] = {m: context.encoders[m] for m in MODALITIES if m in context.encoders}
        self.proj = nn.ModuleDict(
            {m: nn.Linear(e.width, shape.width) for m, e in encoders.items() if e.width != shape.width}
        )
        self._unpadded = {m for m, e in encoders.items() if not member(e, Encoder, "padded")}
        self._clip = prod(member(encoders.get("video"), Encoder, "grid") or (0,))
        init_weights(self)

    def forward(self, tokens: Mapping[str, Tokens] | Sequence[Mapping[str, Tokens]]) -> Fused | list[Fused]:
        """Tokens per modality (R rows each) -> the same behind the transformer, and ``pooled`` (R, D).

        A list of such dicts gives the list of results: the passes run together, in one matrix product per layer.
        """
        if isinstance(tokens, Mapping):
            return self._run([tokens])[0]
        return self._run(tokens)

    def _run(self, requests: Sequence[Mapping[str, Tokens]]) -> list[Fused]:
        made = [self._sequence(tokens) for tokens in requests]
        encoded = self.blocks.run([x for x, _, _ in made], [None if dense else mask for _, mask, dense in made])
        return [self._fused(t, x, mask) for t, x, (_, mask, _) in zip(requests, encoded, made, strict=True)]

    def _sequence(self, tokens: Mapping[str, Tokens]) -> tuple[Tensor, Tensor, bool]:
        """The concatenation of a pass, its mask over real tokens, and whether it needs none."""
        names = [m for m in MODALITIES if m in tokens]
        parts = [self.proj[m](tokens[m].x) if m in self.proj else tokens[m].x for m in names]
        x = parts[0] if len(parts) == 1 else torch.cat([part.to(parts[-1].dtype) for part in parts], dim=1)
        mask = torch.cat([tokens[m].attention_mask for m in names], dim=1)
        # Each clip of a video is encoded alone, as in training, and pooling averages.
        if names == ["video"] and (clips := clips_of(tokens["video"], self._clip)) > 1:
            rows = x.shape[0] * clips
            x, mask = x.reshape(rows, -1, self.width), mask.reshape(rows, -1)
        # A row without its only modality has no meaning, so unpadded tokens alone need no mask. Where looking does not
        # wait for a device, texts of one length need none either; an exported graph takes texts of any lengths.
        looked = mask.device.type == "cpu" and not torch.compiler.is_exporting()
        dense = set(names) <= self._unpadded or (looked and bool(mask.all()))
        return x, mask, dense

    def _fused(self, tokens: Mapping[str, Tokens], x: Tensor, mask: Tensor) -> Fused:
        names = [m for m in MODALITIES if m in tokens]
        rows = tokens[names[0]].x.shape[0]
        x = self.norm(x).reshape(rows, -1, self.width)
        pieces = torch.split(x, [tokens[m].x.shape[1] for m in names], dim=1)
        fused: dict[str, Tokens] = {m: replace(tokens[m], x=piece) for m, piece in zip(names, pieces, strict=True)}
        return Fused(fused, pool(Tokens(x, mask.reshape(rows, -1)), self.pooling))

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, N, D) -> (B, D), what ``ctx.pooled`` gives for one modality."""
        return pool(tokens, self.pooling)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 1..depth the blocks, depth + 1 the final norm."""
        part = name.split(".")
        return int(part[1]) + 1 if part[0] == "blocks" else 0 if part[0] == "proj" else self.depth + 1

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks in the backward pass."""
        self.blocks.checkpointing = True


def clips_of(tokens: Tokens, clip: int) -> int:
    """How many clips of ``clip`` tokens each the whole tokens of a video are; 1 for visible ones alone."""
    count = tokens.x.shape[1]
    whole = tokens.grid is not None and tokens.index is None and count == prod(tokens.grid)
    return count // clip if whole and clip and count % clip == 0 else 1


def pool(tokens: Tokens, pooling: str) -> Tensor:
    """Mean over real tokens (``mean``) or over all of them, padding included (``mean_all``): (B, D)."""
    return tokens.x.mean(dim=1) if pooling == "mean_all" else tokens.pooled()
