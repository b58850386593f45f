"""Batches without padding: only real tokens run through the layers.

    rows of real tokens, one behind the other   (L, D), pass by pass, in each those of one length n together
    groups of rows of one length n              (b, n, D), views of it, which attention reads without a mask

Everything but attention works on all L tokens at once (:class:`vtp.model.blocks.Layout`). The last layer treats the
first token of each row and the others of each pass apart, so that of a pass whose first tokens alone are read nothing
more is propagated backwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn, split
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from vtp.model.attention import attention
from vtp.model.blocks import Blocks, Layout

__all__ = ["Packing", "run_packed"]


class Packing:
    """Where the real tokens of the rows of several passes lie in one row. Waits for the device, if masks lie on one.

    Args:
        masks: bool (B_p, N_p) of each pass, True = real token; the first of each row must be.

    Attributes:
        groups: of each pass the (b, n) of its groups: b rows of n real tokens.
        rows: of each pass int64 (B_p,), its rows in the order in which they lie.
        cells: of each pass int64 (L_p,), place of each token in the flattened mask.
    """

    def __init__(self, masks: Sequence[Tensor]) -> None:
        self.groups: list[list[tuple[int, int]]] = []
        self.rows: list[Tensor] = []
        self.cells: list[Tensor] = []
        for mask in masks:
            lengths = mask.sum(dim=1).tolist()
            order = sorted(range(len(lengths)), key=lengths.__getitem__)
            rows = torch.tensor(order, device=mask.device)
            self.groups.append([(len(list(some)), n) for n, some in groupby(order, key=lengths.__getitem__)])
            self.rows.append(rows)
            real = mask[rows].nonzero()
            self.cells.append(rows[real[:, 0]] * mask.shape[1] + real[:, 1])

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The groups of all passes."""
        return [size for groups in self.groups for size in groups]

    @property
    def lengths(self) -> list[int]:
        """L_p, the real tokens of each pass."""
        return [sum(b * n for b, n in groups) for groups in self.groups]


def run_packed(blocks: Blocks, x: Tensor, packing: Packing) -> tuple[list[Tensor], list[Tensor]]:
    """``blocks`` over sequences of any lengths, exactly what each of them gives alone.

    Args:
        blocks: the layers.
        x: (L, D), the tokens of all passes as ``packing`` says.
        packing: where they lie.

    Returns:
        Of each pass the first token of every row, (B_p, D), and its other tokens, (L_p - B_p, D), both in the order of
        ``packing``.
    """
    layout = Layout(packing.sizes, [None] * len(packing.sizes))
    keeps = blocks.checkpointing and torch.is_grad_enabled()
    # Sharded weights (FSDP) are whole within the layer's own call alone.
    last: Any = blocks[-1] if len(blocks) else None
    apart = last is not None and type(last.attention.qkv.weight) is nn.Parameter
    for block in list(blocks)[: -1 if apart else None]:
        x = checkpoint(block, x, layout, use_reentrant=False) if keeps else block(x, layout)
    if not apart:
        return _parted(x, packing)
    if keeps:
        parted: tuple[list[Tensor], list[Tensor]] = checkpoint(_last, blocks[-1], x, packing, use_reentrant=False)
        return parted
    return _last(blocks[-1], x, packing)


def _last(block: Any, x: Tensor, packing: Packing) -> tuple[list[Tensor], list[Tensor]]:
    """The last layer, as :class:`vtp.model.blocks.Block` computes it."""
    part, width = block.attention, x.shape[1]
    queries, others = split(part.qkv.weight, [width, 2 * width])
    query_bias, other_bias = split(part.qkv.bias, [width, 2 * width])
    normed = block.norm1(x)
    keys = linear(normed, others, other_bias)  # (L, 2 D)
    heard: list[list[Tensor]] = [[], []]  # of first tokens, of the others; per pass
    asking, rest = _parted(normed, packing)
    first_queries = split(linear(torch.cat(asking), queries, query_bias), [len(one) for one in asking])
    for number, seen in enumerate(split(keys, packing.lengths)):
        made = (first_queries[number], linear(rest[number], queries, query_bias))
        for place, found in enumerate(_attended(made, seen, packing.groups[number], part.heads)):
            heard[place].append(found)
    first, other = _parted(x, packing)
    joined = _after(block, torch.cat(first), torch.cat(heard[0]))  # a few rows: of all passes at once
    return (
        list(split(joined, [len(one) for one in first])),
        [_after(block, one, found) for one, found in zip(other, heard[1], strict=True)],
    )


def _attended(
    queries: tuple[Tensor, Tensor], keys: Tensor, groups: Sequence[tuple[int, int]], heads: int
) -> Iterator[Tensor]:
    """What first tokens (b, D) and other tokens (b * (n - 1), D) of the groups of a pass hear of all their tokens."""
    seen = split(keys, [b * n for b, n in groups])
    for asking, first in zip(queries, (True, False), strict=True):
        counts = [1 if first else n - 1 for _, n in groups]
        parts = split(asking, [b * count for (b, _), count in zip(groups, counts, strict=True)])
        found = []
        for own, part, (b, n), count in zip(parts, seen, groups, counts, strict=True):
            if count:
                k, v = part.view(b, n, 2, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
                q = own.view(b, count, heads, -1).transpose(1, 2)
                found.append(attention(q, k, v, key_mask=None).transpose(1, 2).flatten(2).flatten(0, 1))
        yield torch.cat(found) if found else asking


def _after(block: Any, x: Tensor, heard: Tensor) -> Tensor:
    x = x + block.dropout(block.attention.proj(heard))
    out: Tensor = x + block.dropout(block.mlp(block.norm2(x)))
    return out


def _parted(x: Tensor, packing: Packing) -> tuple[list[Tensor], list[Tensor]]:
    """The first tokens of each pass (B_p, D), and the others (L_p - B_p, D)."""
    first: list[Tensor] = []
    other: list[Tensor] = []
    for part, groups in zip(split(x, packing.lengths), packing.groups, strict=True):
        whole = [
            own.view(b, n, -1) for own, (b, n) in zip(split(part, [b * n for b, n in groups]), groups, strict=True)
        ]
        first.append(torch.cat([own[:, 0] for own in whole]))
        other.append(torch.cat([own[:, 1:].flatten(0, 1) for own in whole]))
    return first, other
