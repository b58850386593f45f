"""Videos of all processes at this moment, for objectives that pair the own texts with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vtp import distributed
from vtp.contracts import Fusion, member
from vtp.model.context import ForwardContext
from vtp.types import Fused, Tokens

__all__ = ["Pool"]


class Pool:
    """The M videos that there are: those of the own micro-batch, or also those that the other processes have in theirs.

    All processes must make the same calls.

    Args:
        ctx: of the own micro-batch, B rows.
        everywhere: whether other processes count.

    Attributes:
        start: place of the own first row.
        size: M.
        shared: whether there are videos of other processes.
    """

    def __init__(self, ctx: ForwardContext, everywhere: bool) -> None:
        self.ctx = ctx
        self.shared = everywhere and distributed.world_size() > 1
        counts = distributed.gather_objects(len(ctx.batch)) if self.shared else [len(ctx.batch)]
        self.start = sum(counts[: distributed.rank()]) if self.shared else 0
        self.size = sum(counts)

    def all(self, values: Tensor) -> Tensor:
        """Of a tensor with a row per own row that with a row per row of the pool, with gradients."""
        return distributed.gather_with_grad(values) if self.shared else values

    def own(self) -> Tensor:
        """int64 (B,): places of the own rows."""
        return self.start + torch.arange(len(self.ctx.batch), device=self.ctx.device)

    def comparable(self, rows: Tensor, *, duplicates: bool = False) -> Tensor:
        """bool (B, M): pairs of an own text and another row's video that do not belong together.

        Args:
            rows: bool (B,), the own rows that take part.
            duplicates: whether rows with an equal caption or the same video count too.
        """
        found = rows[:, None] & self.all(rows)[None, :]
        found = found.scatter(1, self.own()[:, None], False)
        if not duplicates:
            for modality in ("video", "text"):
                identity = self.ctx.identity(modality)
                found = found & (identity[:, None] != self.all(identity)[None, :])
        return found

    def pairs(self, views: Mapping[str, str], text: Tensor, video: Tensor) -> Fused:
        """The fusion of own texts with videos of the pool.

        Args:
            views: of text and video.
            text: int64 (R,) own rows.
            video: int64 (R,) places in the pool.
        """
        if not self.shared:
            return self.ctx.fused(views, {"video": video, "text": text})
        consumes: Mapping[str, str] = member(self.ctx.model.encoders["fusion"], Fusion, "consumes")
        own = self.ctx.tokens("video", views["video"], consumes.get("video", "encoded"))
        places = None if own.index is None else self.all(own.index)
        everyone: Tokens = replace(own, x=self.all(own.x), attention_mask=self.all(own.attention_mask), index=places)
        return self.ctx.fused({**views, "video": everyone}, {"video": video, "text": text})
