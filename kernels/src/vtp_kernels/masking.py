"""Random masks as lists of kept and dropped positions, drawn on the device from a counter: no host sync, nothing to
ship, repeatable everywhere.

    keep  int32 (B, K)      positions that stay visible, ascending
    drop  int32 (B, n - K)  the others, ascending

Position p of sample b gets the first word of Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", SC 2011) with the counter (p, first + b, step, step >> 32) and the key ``seed``; the K positions with the smallest
words are kept, the earlier one if words are equal. So a mask depends on the seed, the step and the sample's place in
the global batch alone: CPU, interpreter and GPU give the same bits for any number of workers.

The positions mean what the caller says: the H' * W' places of a tube mask (``kind="tube"``), all T' * H' * W' tokens of
a plain random mask (``"token"``), or the T' frames of a frame mask (``"frame"``). ``grid_index`` turns them into token
numbers.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vtp_kernels.dispatch import Backend, jit, on_device, tl, use_triton

__all__ = ["KINDS", "MaskKind", "grid_index", "philox", "tube_keep_ids", "tube_keep_ids_reference"]

MaskKind = Literal["tube", "token", "frame"]
KINDS = ("tube", "token", "frame")
LARGEST = 16384  # positions that one program of the kernel can hold
_WORD = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[Tensor, ...]:
    """Four words of Philox4x32-10 per counter; int64 tensors that hold unsigned 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _WORD, seed >> 32 & _WORD
    for _ in range(10):
        left, right = (
            c0 * 0xD2511F53,
            c2 * 0xCD9E8D57,
        )  # 64-bit products; the sign is the 64th bit, and the mask below drops its copies
        c0, c1, c2, c3 = (right >> 32 & _WORD) ^ c1 ^ k0, right & _WORD, (left >> 32 & _WORD) ^ c3 ^ k1, left & _WORD
        k0, k1 = k0 + 0x9E3779B9 & _WORD, k1 + 0xBB67AE85 & _WORD
    return c0, c1, c2, c3


def tube_keep_ids_reference(
    batch: int, n_space: int, n_keep: int, *, seed: int, step: Tensor, first: int
) -> tuple[Tensor, Tensor]:
    """The definition, and the fallback: sort the words."""
    lane = torch.arange(n_space, device=step.device)
    row = torch.arange(first, first + batch, device=step.device)
    counter = torch.broadcast_tensors(lane[None, :], row[:, None], step & _WORD, step >> 32 & _WORD)
    words = philox(counter, seed)[0]
    order = words.sort(dim=1, stable=True).indices.to(torch.int32)
    return order[:, :n_keep].sort(dim=1).values, order[:, n_keep:].sort(dim=1).values


@jit(do_not_specialize=["seed", "first"])
def _keep_kernel(step, keep, drop, seed, first, n_space, n_keep, BLOCK: tl.constexpr):
    """T1: one sample per program. Radix select of the n_keep smallest words, bit by bit from the top, then a prefix
    sum to write them in order."""
    sample = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    valid = lane < n_space
    zero = lane * 0
    now = tl.load(step)
    word, _, _, _ = tl.philox(
        seed, lane, zero + (first + sample), zero + (now & 0xFFFFFFFF).to(tl.uint32), zero + (now >> 32).to(tl.uint32)
    )
    alive = valid.to(tl.int32)  # words that agree with the threshold in all bits so far
    below = zero
    missing = n_keep
    for step_down in tl.static_range(32):
        low = alive * (1 - ((word >> (31 - step_down)) & 1).to(tl.int32))
        count = tl.sum(low, 0)
        enough = (count >= missing).to(tl.int32)
        below += (1 - enough) * low
        missing -= (1 - enough) * count
        alive = enough * low + (1 - enough) * (alive - low)
    kept = below + alive * (tl.cumsum(alive, 0) <= missing).to(tl.int32)  # equal words: the first ones
    place = tl.cumsum(kept, 0)
    tl.store(keep + sample.to(tl.int64) * n_keep + place - 1, lane, mask=kept != 0)
    tl.store(drop + sample.to(tl.int64) * (n_space - n_keep) + lane - place, lane, mask=valid & (kept == 0))


@torch.library.custom_op("vtp_kernels::tube_keep_ids", mutates_args=(), device_types="cuda")
def _tube_keep_ids(
    step: Tensor, batch: int, n_space: int, n_keep: int, seed: int, first: int, backend: str
) -> tuple[Tensor, Tensor]:
    if n_space > LARGEST or not use_triton(backend, step.device):
        return tube_keep_ids_reference(batch, n_space, n_keep, seed=seed, step=step, first=first)
    keep, drop = _empty_ids(step, batch, n_space, n_keep)
    if batch and n_space:
        block = max(16, 1 << (n_space - 1).bit_length())
        with on_device(step):
            _keep_kernel[(batch,)](
                step, keep, drop, seed, first, n_space, n_keep, BLOCK=block, num_warps=_keep_warps(block)
            )
    return keep, drop


def _keep_warps(block: int) -> int:
    return 1 if block <= 256 else 4 if block <= 4096 else 16


def _empty_ids(step: Tensor, batch: int, n_space: int, n_keep: int) -> tuple[Tensor, Tensor]:
    return step.new_empty(batch, n_keep, dtype=torch.int32), step.new_empty(batch, n_space - n_keep, dtype=torch.int32)


@_tube_keep_ids.register_fake
def _(step, batch, n_space, n_keep, seed, first, backend):
    return _empty_ids(step, batch, n_space, n_keep)


_tube_keep_ids.register_kernel("cpu")(_tube_keep_ids._init_fn)


def tube_keep_ids(
    batch: int,
    n_space: int,
    n_keep: int,
    *,
    seed: int,
    step: int | Tensor = 0,
    offset: int = 0,
    device: torch.device | str = "cpu",
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Draw which of ``n_space`` positions each sample keeps, all samples the same number.

    Args:
        batch: number of samples B.
        n_space: positions to choose from: H' * W' for tubes, T' * H' * W' for plain random masks, T' for frame masks.
        n_keep: how many stay visible, K.
        seed: of the run, 0 <= seed < 2**63.
        step: of the training; an int64 scalar on ``device`` may be advanced inside a captured CUDA graph.
        offset: index of the first sample in the global batch, so that ranks and micro-batches continue one sequence.
        device: where the ids go.
        backend: ``auto``, ``triton`` or ``torch``: the same bits.

    Returns:
        keep int32 (B, K) and drop int32 (B, n_space - K), both ascending.
    """
    if not 0 <= n_keep <= n_space:
        raise ValueError(f"n_keep={n_keep} must lie in 0..{n_space}, the number of positions.")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed} must lie in 0..2**63 - 1.")
    if not isinstance(step, Tensor):
        step = torch.full((), step, dtype=torch.int64, device=device)
    return _tube_keep_ids(step, batch, n_space, n_keep, seed, offset, backend)


def grid_index(ids: Tensor, grid: tuple[int, int, int], kind: MaskKind = "tube") -> Tensor:
    """Token numbers int64 (B, N), T' slowest, of positions (B, K) in a grid (T', H', W'); N is K * T' for tubes, K for
    tokens, K * H' * W' for frames."""
    time, space = grid[0], grid[1] * grid[2]
    ids = ids.to(torch.int64)
    if kind == "tube":
        return (torch.arange(time, device=ids.device)[:, None] * space + ids[:, None, :]).flatten(1)
    if kind == "frame":
        return (ids[:, :, None] * space + torch.arange(space, device=ids.device)).flatten(1)
    if kind == "token":
        return ids
    raise ValueError(f"kind={kind!r} must be one of {', '.join(KINDS)}.")
