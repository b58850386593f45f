"""The PyTorch fallback of masked attention: gather what counts, then SDPA per sample.

A padded batch of which at least 80 % of the keys are real goes through one call with a broadcast mask; else each
sample is cut to the queries and keys that see each other, and gets a mask only if these do not all do. On the CPU the
forward pass keeps the log-sum-exp, so that the backward pass needs no second forward. (Nested tensors would be 15 to 60
times slower on a CPU.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["fallback_backward", "fallback_forward", "statistics"]


def statistics(q: Tensor) -> Tensor:
    """Uninitialised (B, H, Lq) or (H, Tq), float32 (float64 for the fallback's float64)."""
    shape = (*q.shape[:-3], q.shape[-2], q.shape[-3])
    return torch.empty(shape, dtype=torch.promote_types(q.dtype, torch.float32), device=q.device)


# index of a sample's tokens, (slice,) packed or (sample, slice) padded, and the rows within it or None
Where = tuple[Any, Any]


def _pieces(
    q: Tensor,
    k: Tensor,
    cu_q: Tensor | None,
    cu_k: Tensor | None,
    len_q: Tensor | None,
    len_k: Tensor | None,
    see: Tensor | None,
    bit: Tensor | None,
) -> Iterator[tuple[Where, Where, Tensor | None]]:
    """Per sample that has any allowed pair: which queries, which keys, and a mask only if these do not all see each
    other."""
    if cu_q is not None and cu_k is not None:
        spans = [((slice(*sq),), (slice(*sk),)) for sq, sk in zip(_pairs(cu_q), _pairs(cu_k), strict=True)]
    else:
        ends_q = [q.shape[1]] * len(q) if len_q is None else len_q.tolist()
        ends_k = [k.shape[1]] * len(q) if len_k is None else len_k.tolist()
        spans = [((b, slice(0, nq)), (b, slice(0, nk))) for b, (nq, nk) in enumerate(zip(ends_q, ends_k, strict=True))]
    for at_q, at_k in spans:
        rows_q = rows_k = mask = None
        if bit is not None or see is not None:
            n_q, n_k = at_q[-1].stop - at_q[-1].start, at_k[-1].stop - at_k[-1].start
            rows_q, rows_k, mask = _select(
                None if see is None else see[at_q], None if bit is None else bit[at_k], n_q, n_k
            )
        n_q = at_q[-1].stop - at_q[-1].start if rows_q is None else len(rows_q)
        n_k = at_k[-1].stop - at_k[-1].start if rows_k is None else len(rows_k)
        if n_q and n_k:
            yield (at_q, rows_q), (at_k, rows_k), mask


def _pairs(cu: Tensor) -> list[tuple[int, int]]:
    ends = cu.tolist()
    return list(zip(ends[:-1], ends[1:], strict=True))


def _select(
    see: Tensor | None, bit: Tensor | None, n_q: int, n_k: int
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Drop keys that nobody sees and queries that see nobody; a mask (queries, keys) for the rest where it is
    needed."""
    queries = torch.full((n_q,), -1, dtype=torch.int32) if see is None else see
    keys = torch.full((n_k,), -1, dtype=torch.int32) if bit is None else bit
    present = keys.unique()  # a handful of values: the segments
    some_key = (queries[:, None] & present[None, :]).ne(0)
    rows_q = some_key.any(1)
    seen_by_any = (queries.unique()[:, None] & keys[None, :]).ne(0)
    rows_k = seen_by_any.any(0)
    needs_mask = not bool(seen_by_any[:, rows_k][seen_by_any.any(1)].all())
    mask = (queries[rows_q][:, None] & keys[rows_k][None, :]).ne(0) if needs_mask else None
    return tuple(None if keep.all() else keep.nonzero().squeeze(1) for keep in (rows_q, rows_k)) + (mask,)  # type: ignore[return-value]


def _take(x: Tensor, where: Where) -> Tensor:
    """(L, H, D) of a sample as (1, H, L, D)."""
    at, rows = where
    tokens = x[at] if rows is None else x[at][rows]
    return tokens.transpose(0, 1).unsqueeze(0)


def _put(x: Tensor, where: Where, tokens: Tensor) -> None:
    at, rows = where
    x[at] = tokens if rows is None else x[at].index_copy(0, rows, tokens)


def _dense_forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor | None]:
    """SDPA on (B, H, L, D), and on the CPU the log-sum-exp that saves its backward a second forward."""
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, False, attn_mask=_additive(mask, q.dtype), scale=scale
        )
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale), None


def _dense_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    if q.device.type == "cpu":
        bias = _additive(mask, q.dtype)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            do, q, k, v, o, lse, 0.0, False, attn_mask=bias, scale=scale
        )
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        out = functional.scaled_dot_product_attention(*leaves, attn_mask=mask, scale=scale)
    return torch.autograd.grad(out, leaves, do)  # type: ignore[return-value]


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if mask is None else torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -math.inf)


def _whole_batch(
    q: Tensor,
    k: Tensor,
    cu_q: Tensor | None,
    len_q: Tensor | None,
    len_k: Tensor | None,
    see: Tensor | None,
    bit: Tensor | None,
):
    """(True, mask) if one call for the whole padded batch is faster than a call per sample: no query is dropped and at
    least 80 % of the keys count."""
    if (
        cu_q is not None
        or see is not None
        or (len_q is not None and bool((len_q < q.shape[1]).any()))
        or q.numel() == 0
        or k.numel() == 0
    ):
        return False, None
    real = torch.ones(k.shape[:2], dtype=torch.bool, device=k.device) if bit is None else bit != 0
    if len_k is not None:
        real = real & (torch.arange(k.shape[1], device=k.device) < len_k[:, None])
    if not bool(real.any(1).all()) or float(real.float().mean()) < 0.8:
        return False, None
    return True, None if bool(real.all()) else real[:, None, None, :]


def fallback_forward(q, k, v, cu_q, cu_k, len_q, len_k, see, bit, scale) -> tuple[Tensor, Tensor]:
    """Output (shape of q) and log-sum-exp (float32) in plain torch: dense where most pairs count, else one by one."""
    together, mask = _whole_batch(q, k, cu_q, len_q, len_k, see, bit)
    if together:
        out, log_sum = _dense_forward(*(x.transpose(1, 2) for x in (q, k, v)), mask, scale)
        lse = statistics(q)
        o = torch.empty(q.shape, dtype=q.dtype, device=q.device).copy_(out.transpose(1, 2))
        return o, lse.fill_(math.inf) if log_sum is None else lse.copy_(log_sum)
    pieces = list(_pieces(q, k, cu_q, cu_k, len_q, len_k, see, bit))
    if _in_a_row(pieces, 0, q):
        found = [
            _dense_forward(_take(q, where_q), _take(k, where_k), _take(v, where_k), mask, scale)
            for where_q, where_k, mask in pieces
        ]
        return _joined([out for out, _ in found]), torch.cat([log_sum[0] for _, log_sum in found], dim=1)
    o = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
    lse = statistics(q).fill_(math.inf)
    lse_tokens = lse.movedim(-2, -1)  # (..., L, H), so that the same index serves both
    for where_q, where_k, mask in pieces:
        out, log_sum = _dense_forward(_take(q, where_q), _take(k, where_k), _take(v, where_k), mask, scale)
        _put(o, where_q, out[0].transpose(0, 1))
        if log_sum is not None:
            _put(lse_tokens, where_q, log_sum[0].T)
    return o, lse


def _in_a_row(pieces: list[tuple[Where, Where, Tensor | None]], side: int, x: Tensor) -> bool:
    """True if the pieces are all tokens of a packed tensor on the CPU, one sample after the other: their results are
    then joined in one copy, with nothing to fill before."""
    if x.dim() != 3 or x.device.type != "cpu" or any(piece[side][1] is not None for piece in pieces):
        return False
    spans = [piece[side][0][0] for piece in pieces]
    edges = [0, *(span.stop for span in spans)]
    return edges[:-1] == [span.start for span in spans] and edges[-1] == len(x) and bool(spans)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """(1, H, L_i, D) each -> (T, H, D)."""
    return torch.cat([part[0].transpose(0, 1) for part in parts])


def fallback_backward(do, q, k, v, o, lse, cu_q, cu_k, len_q, len_k, see, bit, scale) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v (shapes of the inputs) for ``do``, from what the forward pass saved."""
    together, mask = _whole_batch(q, k, cu_q, len_q, len_k, see, bit)
    if together:
        grads = _dense_backward(*(x.transpose(1, 2) for x in (do, q, k, v, o)), lse, mask, scale)
        return tuple(  # type: ignore[return-value]
            torch.empty(x.shape, dtype=x.dtype, device=x.device).copy_(grad.transpose(1, 2))
            for x, grad in zip((q, k, v), grads, strict=True)
        )
    pieces = list(_pieces(q, k, cu_q, cu_k, len_q, len_k, see, bit))
    lse_tokens = lse.movedim(-2, -1)
    if _in_a_row(pieces, 0, q) and _in_a_row(pieces, 1, k):
        found = [_piece_backward(do, q, k, v, o, lse_tokens, piece, scale) for piece in pieces]
        return tuple(_joined(parts) for parts in zip(*found, strict=True))  # type: ignore[return-value]
    dq, dk, dv = (torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    for piece in pieces:
        grads = _piece_backward(do, q, k, v, o, lse_tokens, piece, scale)
        for out, where, grad in zip((dq, dk, dv), (piece[0], piece[1], piece[1]), grads, strict=True):
            _put(out, where, grad[0].transpose(0, 1))
    return dq, dk, dv


def _piece_backward(do, q, k, v, o, lse_tokens, piece, scale) -> tuple[Tensor, Tensor, Tensor]:
    where_q, where_k, mask = piece
    at, rows = where_q
    log_sum = lse_tokens[at] if rows is None else lse_tokens[at][rows]
    taken = [_take(x, where) for x, where in ((do, where_q), (q, where_q), (k, where_k), (v, where_k), (o, where_q))]
    return _dense_backward(*taken, log_sum.T.unsqueeze(0), mask, scale)
