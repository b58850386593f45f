"""What a training objective is: an ``nn.Module`` with its own head that reads a ForwardContext and gives a loss.

An objective sees one micro-batch. So that the sum over micro-batches and processes equals the loss of the whole batch,

* an ordinary objective tells beforehand with :meth:`Objective.count` how many items will take part (the engine divides
  by the count of the whole step), and
* an objective that compares rows with each other is a :class:`ContrastiveObjective`: it splits into features per row,
  which the engine collects over micro-batches (GradCache) and processes, and a loss over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from vtp.types import LossOutput, Modality, StepDone

if TYPE_CHECKING:
    from vtp.model.context import ForwardContext

__all__ = ["ContrastiveObjective", "Objective", "masked_mean"]


class Objective(nn.Module):
    """Base of all objectives. Subclass it, or :class:`ContrastiveObjective` when rows are compared with each other.

    Attributes:
        needs: modalities without which a row cannot take part; rows of a batch that lack one take no part
            (``present``), they are never an error.
        slots: modalities that the model must have an encoder for, else it is refused when it is built; None = those of
            ``needs``.
        embeds: what ``embed(ctx, modality)`` reads where that is not ``needs``: ``{"video": ("video", "audio")}`` for
            texts that are compared with picture and sound together.
        needs_fusion: whether the model must have a fusion encoder.
        reads: what ``ctx.batch.extra`` must hold besides ``video_id`` and ``text``: keys of ``Sample.extra``, or
            ``texts``.
        contrastive: True for :class:`ContrastiveObjective`.
        after_step: ``after_step(done)``, called once after every update of the weights: for a queue of negatives, or
            prototypes that are normalised. Under no_grad and on whole weights; done is a
            :class:`vtp.types.StepDone`. A copy of averaged weights is a :class:`vtp.model.momentum.Momentum`.

    Example::

        class VideoNorm(Objective):
            '''Keeps pooled video features at unit length.'''

            needs = frozenset({"video"})

            def count(self, ctx):
                return self.rows(ctx).sum()

            def forward(self, ctx):
                error = (ctx.pooled("video").float().norm(dim=1) - 1).square()
                rows = self.rows(ctx)
                return LossOutput(masked_mean(error, rows), weight=rows.sum())
    """

    needs: frozenset[Modality] = frozenset()
    slots: frozenset[Modality] | None = None
    embeds: Mapping[str, tuple[str, ...]] = {}
    needs_fusion: bool = False
    reads: frozenset[str] | Mapping[str, Any] = frozenset()
    contrastive: ClassVar[bool] = False
    after_step: Callable[[StepDone], None] | None = None

    def rows(self, ctx: ForwardContext) -> Tensor:
        """bool (B,): rows that have every modality of ``needs``."""
        rows = torch.ones(len(ctx.batch), dtype=torch.bool, device=ctx.device)
        for modality in sorted(self.needs):
            rows = rows & ctx.present(modality)
        return rows

    def count(self, ctx: ForwardContext) -> Tensor:
        """Number of items of this micro-batch that will take part, a scalar tensor; equals ``forward(ctx).weight``.

        Called before the forward pass, so it must not run an encoder. Views may be made (they are cheap).
        """
        return self.rows(ctx).sum()

    def plan(self, ctx: ForwardContext) -> None:
        """Announce the fusion passes that this objective will ask for (``ctx.plan``). The engine calls it for all
        objectives before the first one runs, and the passes of all of them are then made at once. Optional: a pass that
        was not announced is made when it is asked for.

        Random numbers only from ``ctx.uniform``: GradCache repeats the passes of contrastive objectives alone.
        """

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """The loss of this micro-batch: the mean over the items that take part; with none, a zero that is connected to
        the graph.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(ctx) -> LossOutput")


class ContrastiveObjective(Objective):
    """An objective whose loss compares the rows of the whole step with each other, over micro-batches and processes.

    The engine calls :meth:`features` per micro-batch and :meth:`loss_from_features` once. There is no ``forward``.
    """

    contrastive = True

    def features(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """Per-row tensors, one row per batch row (so that rows can be concatenated). A gradient flows back through
        those of floating dtype.

        A scalar parameter (``logit_scale``) travels as ``parameter * 1.0`` of shape (1,), once per micro-batch, so that
        its gradient flows through the wrapped forward; :meth:`loss_from_features` takes the mean of the copies.
        """
        raise NotImplementedError(f"{type(self).__name__} must define features(ctx) -> dict of tensors")

    def loss_from_features(self, features: dict[str, Tensor]) -> LossOutput:
        """The loss over all rows. ``features`` are concatenated over micro-batches and processes; the result is the
        same on every process.
        """
        raise NotImplementedError(f"{type(self).__name__} must define loss_from_features(features) -> LossOutput")


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask`` (bool, same shape) is True; a zero that is connected to the graph where it
    never is.
    """
    kept = values.masked_fill(~mask, 0.0)  # not a product: 0 * inf is NaN
    mean: Tensor = kept.sum() / mask.sum().clamp(min=1)
    return mean
