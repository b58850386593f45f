"""``univl_vtm``: MIL-NCE over scores of pairs by the cross encoder (stage 2 of UniVL, arXiv:2002.06353), with the
mining of hard negatives and the curriculum of CNVid-3.5M (HSM, HSCL).

    s(i, j)   similarity_dense of the fused text i and video j
    row i     own video and others: all those it is compared with, or the hardest of all processes
    loss      mean over rows of  -log( e^s(i,i) / ( sum of its column and of the rest of its row ) )
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from vtp import distributed
from vtp.contracts import offers
from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.objective import Objective, masked_mean
from vtp.ranges import Count, Range, Share, Size
from vtp.types import LossOutput
from vtp_objectives.views import check_masked, training_views
from vtp_univl.draws import mines_now
from vtp_univl.losses import candidates, easiness, hardness, level1, mil_nce_of_slots
from vtp_univl.pool import Pool

__all__ = ["VTM"]


class VTM(Objective):
    """Matching of texts and videos by contrast. Rows are compared with each other in blocks; the pairs that belong
    together come from the pass that other objectives make of the same versions.

    Args:
        masked: modalities whose masked version (``masks``) training looks at: [text] in pre-training.
            :meth:`match_logits` looks at clean ones.
        negatives_from: ``gathered`` compares the rows of all processes, which gives the same loss for any number of
            them; ``local``, as published, those of each process, with as many times fewer pairs as there are processes.
        block: so many rows in a row are compared with each other, and no others, so that pairs grow with the rows and
            not with their square; null = all of them, as published.
        hard_example_mining: the videos of a row are the hardest of all processes instead of those of its block. Needs a
            contrastive objective of this package (univl/vtc, univl/moco), whose similarity tells which they are.
        re_sample_method: ``nearliest``: those whose similarity is nearest to that of the own video; ``top_k``: the most
            similar.
        re_weight_method: mined rows that are easy already count less: null, or around the ``mean`` or the ``median``.
        change_iter: mine in a growing share of the steps (HSCL), which grows by ``change_rate`` every so many updates;
            null = in every step (HSM).
        change_rate: see ``change_iter``.
        mask_duplicates: equal captions and clips of the same video are no negatives of each other.
        hidden: width of the hidden layer of the head; null = twice the width of the tokens.
        dropout: in front of the head.
        context: tells the width of the fusion encoder, and the variant: ``released`` takes a mean for the median,
            weights all steps, and draws an integer per process for the curriculum.
    """

    needs = frozenset({"video", "text"})
    needs_fusion = True
    variants = ("released",)

    def __init__(
        self,
        *,
        context: BuildContext,
        masked: list[str] | tuple[str, ...] = (),
        negatives_from: Literal["gathered", "local"] = "gathered",
        block: Annotated[int, Range(least=2)] | None = 32,
        hard_example_mining: bool = False,
        re_sample_method: Literal["nearliest", "top_k"] = "nearliest",
        re_weight_method: Literal["mean", "median"] | None = None,
        change_iter: Count | None = None,
        change_rate: Annotated[float, Range(least=0, most=1)] = 0.15,
        mask_duplicates: bool = True,
        hidden: Size | None = None,
        dropout: Share = 0.1,
    ) -> None:
        super().__init__()
        if not hard_example_mining and (re_weight_method or change_iter):
            idle = "re_weight_method" if re_weight_method else "change_iter"
            raise ConfigError(
                f"objective univl_vtm: {idle} says how mined rows are treated, and hard_example_mining is off. Set "
                f"objectives.vtm.hard_example_mining=true, or {idle}=null."
            )
        check_masked("univl_vtm", masked, context)
        self.masked = tuple(masked)
        self.everywhere = negatives_from == "gathered"
        self.block = block
        self.mining = hard_example_mining
        self.method: Literal["nearliest", "top_k"] = re_sample_method
        self.released = context.variant == "released"
        self.weighting: Literal["mean", "median"] | None = (
            "mean" if re_weight_method and self.released else re_weight_method
        )
        self.change_iter, self.change_rate = change_iter, change_rate
        self.mask_duplicates = mask_duplicates
        width = int(context.encoders["fusion"].width)
        self.dropout = nn.Dropout(dropout)
        self.similarity_dense = nn.Sequential(
            nn.Linear(width, hidden or 2 * width), nn.ReLU(), nn.Linear(hidden or 2 * width, 1)
        )

    def scores(self, pooled: Tensor) -> Tensor:
        """Fused vectors (R, D) -> float32 (R,)."""
        out: Tensor = self.similarity_dense(self.dropout(pooled))[:, 0]
        return out.float()

    def match_logits(self, ctx: ForwardContext, rows: Mapping[str, Tensor] | None = None) -> Tensor:
        """(R, 2) of clean inputs: zero and the score, so that their difference is the score. ``rows``: modality ->
        int64 (R,) rows of the batch to pair, as in ``ctx.fused``."""
        modalities: list[str] = [m for m in ctx.modalities if m in self.needs]
        taken = None if rows is None else {m: rows[m] for m in modalities if m in rows}
        score = self.scores(ctx.fused(dict.fromkeys(modalities, ""), taken).pooled)
        return torch.stack([torch.zeros_like(score), score], dim=1)

    def plan(self, ctx: ForwardContext) -> None:
        """The pairs that belong together."""
        ctx.plan(self._views(ctx))

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """The loss of the rows of this micro-batch, and the share of texts whose own video has the highest score."""
        rows, views = self.rows(ctx), self._views(ctx)
        mine = self.mining and mines_now(
            ctx, self.change_iter, self.change_rate, distributed.world_size() if self.released else None
        )
        weigh = self.weighting is not None and (mine or self.released)
        pool = Pool(ctx, self.everywhere or mine)
        blocks = _Blocks(pool, self.block, self.everywhere)
        allowed = pool.comparable(rows, duplicates=not self.mask_duplicates)
        sim = self._level1(ctx, pool) if mine or weigh else None
        scores = self._scores(ctx, pool, blocks, views, allowed, sim if mine else None)
        everyone = pool.all(scores) if self.everywhere else scores
        losses = mil_nce_of_slots(scores, blocks.slot, everyone, blocks.together(own=not self.everywhere))
        if weigh and sim is not None and self.weighting is not None:
            members = blocks.together() & pool.all(rows)[None, :]
            own = sim.gather(1, pool.own()[:, None])[:, 0]
            losses = losses * easiness(own, pool.all(own), members, self.weighting)
        right = masked_mean((scores.detach().argmax(dim=1) == blocks.slot).float(), rows)
        metrics = {"accuracy": right}
        if self.mining:
            metrics["mined"] = torch.tensor(float(mine), device=ctx.device)
        return LossOutput(masked_mean(losses, rows), rows.sum(), metrics)

    def _views(self, ctx: ForwardContext) -> dict[str, str]:
        return training_views(ctx, self.masked, ("video", "text"))

    def _scores(
        self,
        ctx: ForwardContext,
        pool: Pool,
        blocks: _Blocks,
        views: Mapping[str, str],
        allowed: Tensor,
        sim: Tensor | None,
    ) -> Tensor:
        """Scores of each own text with the videos in its slots, (B, C); -inf where there is none. With ``sim`` (B, M)
        the videos are the hardest."""
        positive = self.scores(ctx.fused(views).pooled)
        empty = positive.new_full((len(positive), blocks.columns), -torch.inf)
        found = empty.scatter(1, blocks.slot[:, None], positive[:, None])
        if not len(blocks.text):
            return found
        if sim is None:
            video = blocks.neighbour
        else:
            hard = hardness(sim, pool.own(), self.method)
            video = candidates(hard, allowed, blocks.columns)[blocks.text, blocks.order]
        negative = self.scores(pool.pairs(views, blocks.text, video).pooled)
        negative = negative.masked_fill(~allowed[blocks.text, video], -torch.inf)
        return found.index_put((blocks.text, blocks.other_slot), negative)

    @staticmethod
    def _level1(ctx: ForwardContext, pool: Pool) -> Tensor:
        """Similarity of the own texts with all videos of the pool, (B, M), without gradient."""
        for objective in ctx.model.objectives.values():
            if offers(objective, "clip_embeddings"):
                source: Any = objective
                video = pool.all(source.clip_embeddings(ctx).detach())
                return level1(source.text_embeddings(ctx).detach(), video)
        raise ConfigError(
            "objective univl_vtm: hard_example_mining needs the similarity of texts and clips from a contrastive "
            "objective of UniVL. Add one (objective=[univl/vtc,univl/vtm,...]), or set "
            "objectives.vtm.hard_example_mining=false."
        )


class _Blocks:
    """Which rows are compared with each other. A row has a slot in its block, where its own video stands in all rows of
    the block; the other videos of a row fill the other slots in their order.

    Args:
        pool: of all rows.
        size: rows of a block; the last one may have fewer.
        everywhere: whether blocks may hold rows of several processes.

    Attributes:
        columns: C, the number of slots.
        slot: int64 (B,), of each own row.
        text, other_slot, order, neighbour: int64 (R,) of each pair that does not belong together: own row, slot, number
            in the row from 0, and place in the pool of the row with that slot.
    """

    def __init__(self, pool: Pool, size: int | None, everywhere: bool) -> None:
        rows, device = len(pool.ctx.batch), pool.ctx.device
        first = 0 if everywhere else pool.start  # of the rows that blocks are made of
        total = pool.size if everywhere else rows
        size = min(size or total, total)
        self.columns = size
        self._pool, self._size, self._first, self._everywhere = pool, size, first, everywhere
        places = [pool.start - first + i for i in range(rows)]
        pairs = []
        for i, place in enumerate(places):
            begin = place // size * size
            others = [other for other in range(begin, min(begin + size, total)) if other != place]
            pairs += [(i, other - begin, order, first + other) for order, other in enumerate(others)]
        table = torch.tensor(pairs, dtype=torch.int64).view(-1, 4).to(device, non_blocking=True)
        self.text, self.other_slot, self.order, self.neighbour = table.unbind(1)
        self.slot = torch.tensor([place % size for place in places], device=device)

    def together(self, own: bool = False) -> Tensor:
        """bool (B, M): rows of one block; with ``own`` only the columns of the own rows, (B, B)."""
        pool, mine = self._pool, slice(self._pool.start, self._pool.start + len(self.slot))
        place = torch.arange(pool.size, device=self.slot.device)
        block = torch.div(place - self._first, self._size, rounding_mode="floor")
        found = block[mine, None] == block[None, :]
        if not self._everywhere:
            found = found & (place >= mine.start) & (place < mine.stop)
        return found[:, mine] if own else found
