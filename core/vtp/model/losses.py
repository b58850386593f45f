"""Losses as functions: plain tensors in, plain tensors out; an objective decides what is compared with what.

    contrastive   comparable, symmetric_nce, pairwise_sigmoid, mil_nce, log_share, clamp_scale
    words         masked_cross_entropy, share_right
    matching      matching_cross_entropy, and who is a negative: derange, draw_by_weight, other_rows

Shapes: N rows of the whole step (over micro-batches and processes), B rows of a micro-batch, M rows of all processes.
A similarity is (N, N), row = query, column = candidate, the diagonal holding the pairs that belong together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from vtp.model.objective import masked_mean
from vtp.types import IGNORE

__all__ = [
    "MAX_LOGIT_SCALE",
    "clamp_scale",
    "comparable",
    "derange",
    "draw_by_weight",
    "log_share",
    "masked_cross_entropy",
    "matching_cross_entropy",
    "mil_nce",
    "other_rows",
    "pairwise_sigmoid",
    "share_right",
    "symmetric_nce",
]

MAX_LOGIT_SCALE = math.log(100.0)


def clamp_scale(logit_scale: Tensor, bound: float = MAX_LOGIT_SCALE) -> Tensor:
    """min(logit_scale, bound), whose gradient still lets a value above the bound come down: behind a plain clamp it
    would stay there for ever."""
    clamped: Tensor = _ClampAbove.apply(logit_scale, bound)  # type: ignore[no-untyped-call]
    return clamped


def comparable(sim: Tensor, rows: Tensor, same: Sequence[Tensor] = (), group: Tensor | None = None) -> Tensor:
    """``sim`` with -inf for the pairs that are not compared. The diagonal stays: a row of -inf alone would be NaN.

    Args:
        sim: float (N, N).
        rows: bool (N,), rows that take part; the others are nobody's negative.
        same: int64 (N,) each, equal for rows that are no negatives of each other: equal captions, clips of one video.
        group: int64 (N,), for example the process of a row; rows are compared inside their group only.
    """
    excluded = ~rows[None, :] | ~rows[:, None]
    if group is not None:
        excluded = excluded | (group[None, :] != group[:, None])
    for identity in same:
        excluded = excluded | (identity[None, :] == identity[:, None])
    own = torch.eye(len(sim), dtype=torch.bool, device=sim.device)
    return sim.masked_fill(excluded & ~own, -torch.inf)


def symmetric_nce(
    sim: Tensor,
    rows: Tensor,
    *,
    directions: Literal["mean", "sum"] = "mean",
    queues: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """InfoNCE (arXiv:1807.03748) in both directions, a scalar: cross-entropy over the rows of ``sim`` and over its
    columns, the diagonal being right.

    Args:
        sim: float (N, N), divided by the temperature; -inf where a pair is not compared (:func:`comparable`).
        rows: bool (N,), rows that take part.
        directions: mean or sum of both.
        queues: more negatives (MoCo, arXiv:1911.05722): float (N, K) similarities of each query with a queue of
            candidates, and float (N, K') of each candidate with a queue of queries.
    """
    to_rows = to_columns = sim
    if queues is not None:
        to_rows, to_columns = torch.cat([sim, queues[0]], dim=1), torch.cat([sim, queues[1].T], dim=0)
    by_row = to_rows.logsumexp(dim=1) - sim.diagonal()
    by_column = to_columns.logsumexp(dim=0) - sim.diagonal()
    loss = masked_mean(by_row, rows) + masked_mean(by_column, rows)
    return loss / 2 if directions == "mean" else loss


def pairwise_sigmoid(sim: Tensor, rows: Tensor) -> Tensor:
    """The sigmoid loss of SigLIP (arXiv:2303.15343, section 3.2), a scalar: every pair is a question of its own,
    whether the two belong together::

        - 1 / N * sum_ij log sigmoid(z_ij * sim[i, j]),  z = 1 on the diagonal and -1 beside it

    Args:
        sim: float (N, N), divided by the temperature and with the bias; -inf where a pair is not compared
            (:func:`comparable`).
        rows: bool (N,), rows that take part, the N of the mean.
    """
    own = torch.eye(len(sim), dtype=torch.bool, device=sim.device)
    return masked_mean(-logsigmoid(torch.where(own, sim, -sim)).sum(dim=1), rows)


def log_share(scores: Tensor, positive: Tensor) -> Tensor:
    """-log of the share of the positives in the sum of exp(scores), (Q,).

    Args:
        scores: float (Q, C); -inf for a candidate that does not count.
        positive: bool (Q, C), at least one per row that counts.
    """
    return scores.logsumexp(dim=1) - scores.masked_fill(~positive, -torch.inf).logsumexp(dim=1)


def mil_nce(sim: Tensor, bag: Tensor, rows: Tensor | None = None) -> Tensor:
    """MIL-NCE (arXiv:1912.06430) over bags, per index j, float (N,):

        -log( sum_{i in bag of j} e^sim[i,j] / ( sum_i e^sim[i,j] + sum_{k not in bag of j} e^sim[j,k] ) )

    With bags of one it is the cross-entropy of both directions in one fraction. There is no temperature in it. Take the
    mean over the indices that count (:func:`masked_mean`), for example the middle one of each bag.

    Args:
        sim: float (N, N).
        bag: int64 (N,), equal for indices that are positives of each other: the clips of one video.
        rows: bool (N,), rows that take part; None = all of them.
    """
    positive = bag[None, :] == bag[:, None]
    if rows is not None:
        sim = comparable(sim, rows)
    others = sim.masked_fill(positive, -torch.inf)
    nothing = torch.zeros_like(positive)
    return log_share(torch.cat([sim.T, others], dim=1), torch.cat([positive, nothing], dim=1))


def masked_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the places with a label, a float32 scalar; with none a zero connected to the graph.

    Args:
        logits: float (..., V).
        labels: int64 (...), -100 = no label.
    """
    flat = labels.flatten()
    losses = cross_entropy(logits.flatten(0, -2).float(), flat, ignore_index=IGNORE, reduction="none")
    return masked_mean(losses, flat != IGNORE)


def share_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of the places with a label (int64 (...), -100 = none) where the largest of ``logits`` (..., V) is it."""
    return masked_mean((logits.detach().argmax(dim=-1) == labels).float(), labels != IGNORE)


def matching_cross_entropy(positive: Tensor, negative: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Do two things belong together? Mean cross-entropy over both kinds of pairs, and the share told right; scalars.

    Args:
        positive: float (R, 2), scores (no match, match) of pairs that belong together.
        negative: float (R, 2), of pairs that do not.
        rows: bool (R,), those that take part, with both of their pairs.
    """
    logits = torch.cat([positive, negative]).float()
    labels = torch.cat([torch.ones_like(rows, dtype=torch.int64), torch.zeros_like(rows, dtype=torch.int64)])
    twice = torch.cat([rows, rows])
    loss = masked_mean(cross_entropy(logits, labels, reduction="none"), twice)
    return loss, masked_mean((logits.detach().argmax(dim=1) == labels).float(), twice)


def derange(allowed: Tensor, draws: Tensor) -> Tensor:
    """Random partners: each row gets the next one in a random order, and, where that is not allowed, a random allowed
    one.

    Args:
        allowed: bool (B, B), symmetric, False on the diagonal.
        draws: float (B, 2), uniform in [0, 1): the order, and the second choice.

    Returns:
        int64 (B,). Where every pair is allowed it is a permutation without fixed points.
    """
    taking_part = allowed.any(dim=1)
    order = torch.where(taking_part, draws[:, 0], 2.0).argsort()  # rows without partners go last
    count = taking_part.sum().clamp(min=1)
    place = torch.arange(len(order), device=order.device)
    following = order[torch.where(place + 1 < count, place + 1, torch.zeros_like(place))]
    partner = torch.empty_like(order).scatter(0, order, following)
    fits = allowed.gather(1, partner[:, None])[:, 0]
    return torch.where(fits, partner, draw_by_weight(allowed.float(), draws[:, 1]))


def draw_by_weight(weights: Tensor, uniform: Tensor) -> Tensor:
    """One column per row, int64 (B,), with probability proportional to ``weights`` (B, M), by inverting the
    distribution at ``uniform`` (B,). Columns of weight 0 are never drawn, except in rows that have nothing else.
    """
    total = weights.double().cumsum(dim=1)
    goal = uniform.double()[:, None] * total[:, -1:]
    drawn = (total <= goal).sum(dim=1)
    return drawn.clamp(max=weights.shape[1] - 1)


def other_rows(uniform: Tensor, rows: Tensor, start: int = 0) -> Tensor:
    """For each of B rows another one that takes part, uniformly: int64 (B,).

    Args:
        uniform: float (B,) in [0, 1).
        rows: bool (M,), M >= B: those that take part; or (B, M): which of them may be drawn for each row. Where there
            is no other one the result means nothing.
        start: where the B rows lie among the M.
    """
    if rows.ndim == 2:
        own = start + torch.arange(len(uniform), device=rows.device)
        following = (own[:, None] + torch.arange(1, rows.shape[1] + 1, device=rows.device)) % rows.shape[1]
        drawn = draw_by_weight(rows.gather(1, following).float(), uniform)
        return following.gather(1, drawn[:, None])[:, 0]
    order = (~rows).int().argsort(stable=True)  # those that take part first
    count = rows.sum()
    place = rows.cumsum(0)[start : start + len(uniform)] - 1  # of each row among them
    # the product of the largest float below 1 may round up to count - 1, which is the row itself
    step = 1 + torch.minimum((uniform * (count - 1)).floor().long(), (count - 2).clamp(min=0))
    return order[(place + step) % count.clamp(min=1)]


class _ClampAbove(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x > bound)
        return x.clamp(max=bound)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        return grad.masked_fill(above & (grad < 0), 0.0), None  # a negative gradient would push it further up
