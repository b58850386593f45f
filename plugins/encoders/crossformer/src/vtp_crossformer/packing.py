"""Batches without padding: only real tokens run through the layers.

    rows of real tokens, one behind the other   (L, D)
    groups of rows of one length n              (b, n, D), which attention reads without a mask

Everything but attention works on all L tokens at once (:meth:`vtp.model.blocks.Blocks.run`).
"""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor

from vtp.model.blocks import Blocks

__all__ = ["run_packed"]


def run_packed(blocks: Blocks, x: Tensor, lengths: Tensor) -> Tensor:
    """``blocks`` over sequences of any lengths, exactly what each of them gives alone.

    Args:
        blocks: the layers.
        x: (L, D), the tokens of R sequences, one sequence behind the other.
        lengths: int64 (R,), at least 1 each; their sum is L. Waits for the device, if they lie on one.

    Returns:
        (L, D), in the same order.
    """
    sizes = lengths.tolist()
    starts = (lengths.cumsum(0) - lengths).to(x.device)
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    places = []
    for size, rows in groupby(order, key=sizes.__getitem__):
        found = starts[torch.tensor(list(rows), device=x.device)]
        places.append(found[:, None] + torch.arange(size, device=x.device))  # (b, n)
    run = blocks.run([x[place] for place in places], [None] * len(places))
    # a permutation, turned round
    back = torch.cat([place.flatten() for place in places]).argsort()
    return torch.cat([part.flatten(0, 1) for part in run])[back]
