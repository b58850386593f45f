"""Masked attention that reads only what a query may see, forward and backward.

    q          (B, Lq, H, D) padded, or (Tq, H, D) packed     float32, float16, bfloat16
    k, v       (B, Lk, H, D)         or (Tk, H, D)            the same type
    o          like q; 0, with zero gradients, in rows without any allowed key

FlashAttention's tiling and recomputation (arXiv:2205.14135; 2307.08691 for the loop order) with the sets of
``AttnLayout`` as the mask. Query blocks and key blocks have one program each, in separate kernels, so nothing is added
atomically and results are the same in every run.

Order: definition, kernels A1 (forward), A2 (delta), A3 (dk, dv), A4 (dq), launches, registration,
public function.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vtp_kernels.attention_fallback import fallback_backward, fallback_forward, statistics
from vtp_kernels.configs import attention_config
from vtp_kernels.dispatch import INTERPRET, Backend, accelerator, compute_dtype, jit, on_device, tl, triton, use_triton
from vtp_kernels.layout import AttnLayout, span

__all__ = ["masked_attention", "masked_attention_reference"]


def masked_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, layout: AttnLayout, *, scale: float | None = None
) -> Tensor:
    """What the kernels must equal: a softmax over the allowed pairs in at least float32, from a dense mask."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    wide = torch.promote_types(q.dtype, torch.float32)
    allowed = layout.dense_mask().to(q.device).unsqueeze(-3)  # (..., 1, Lq, Lk)
    heads_first = [x.transpose(-2, -3).to(wide) for x in (q, k, v)]  # (..., H, L, D)
    scores = (heads_first[0] @ heads_first[1].mT * scale).masked_fill(~allowed, -math.inf)
    weights = torch.where(allowed.any(-1, keepdim=True), scores, 0.0).softmax(-1).masked_fill(~allowed, 0.0)
    return (weights @ heads_first[2]).transpose(-2, -3).to(q.dtype)


@jit()
def _rows(base, token, stride, keep, D: tl.constexpr, BLOCK_D: tl.constexpr, CHECK: tl.constexpr, DT: tl.constexpr):
    """Tile (tokens, BLOCK_D) of one head; rows that are not kept are not read and give 0, whatever lies there."""
    column = tl.arange(0, BLOCK_D)[None, :]
    at = base + token.to(tl.int64)[:, None] * stride + column
    if CHECK:
        tile = tl.load(at, mask=keep[:, None] & (column < D), other=0.0)
    elif D == BLOCK_D:
        tile = tl.load(at)
    else:
        tile = tl.load(at, mask=column < D, other=0.0)
    return tile.to(DT)


@jit()
def _store_rows(base, token, stride, tile, keep, D: tl.constexpr, BLOCK_D: tl.constexpr):
    column = tl.arange(0, BLOCK_D)[None, :]
    at = base + token.to(tl.int64)[:, None] * stride + column
    tl.store(at, tile.to(base.dtype.element_ty), mask=keep[:, None] & (column < D))


@jit()
def _sets(pointer, token, inside):
    """Sets of a block of tokens, empty past the end; without a pointer everything is in every set."""
    return tl.where(inside, -1, 0) if pointer is None else tl.load(pointer + token, mask=inside, other=0)


@jit()
def _origin(cu, start, sample, longest):
    """Number of the sample's first token in the whole buffer."""
    return start if cu is not None else sample * longest


@jit()
def _plan(visits, block, sample, n_columns, own_length, length, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Where the block's list lies, and how many blocks need no mask and how many do."""
    if visits is None:
        row = 0
        reach = tl.where(block * ROWS < own_length, length, 0)  # a block of padding visits nothing
        n_free = reach // COLS
        n_masked = (reach % COLS + COLS - 1) // COLS
    else:
        row = visits + (sample * tl.num_programs(0) + block) * (n_columns + 2)
        n_free = tl.load(row)
        n_masked = tl.load(row + 1)
    return row, n_free, n_masked


@jit()
def _visit(visits, row, i, n_free, n_columns, MASKED: tl.constexpr):
    """Number of the i-th block with (or without) a mask."""
    if visits is None:
        at = n_free + i if MASKED else i
    else:
        at = tl.load(row + 1 + n_columns - i) if MASKED else tl.load(row + 2 + i)
    return at


@jit()
def _forward_step(
    acc, peak, total, q, see_q, k_base, v_base, bit, block, length_k, stride_k, stride_v, scale_log2,
    COLS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, SETS: tl.constexpr, MASKED: tl.constexpr,
    DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    token = block * COLS + tl.arange(0, COLS)
    inside = token < length_k
    if MASKED and SETS:
        bit_k = _sets(bit, token, inside)
        inside = bit_k != 0
    k = _rows(k_base, token, stride_k, inside, D, BLOCK_D, MASKED, DT)
    v = _rows(v_base, token, stride_v, inside, D, BLOCK_D, MASKED, DT)
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_log2
    if MASKED:
        if SETS:
            scores = tl.where((see_q[:, None] & bit_k[None, :]) != 0, scores, float("-inf"))
        else:
            scores = tl.where(inside[None, :], scores, float("-inf"))
    new_peak = tl.maximum(peak, tl.max(scores, 1))
    shift = tl.where(new_peak == float("-inf"), 0.0, new_peak)  # nothing allowed so far: exp2(-inf - 0) is 0, not NaN
    weights = tl.exp2(scores - shift[:, None])
    decay = tl.exp2(peak - shift)
    total = total * decay + tl.sum(weights, 1)
    acc = tl.dot(weights.to(DT), v, acc * decay[:, None], input_precision=PRECISION)
    return acc, new_peak, total


@jit()
def _forward_kernel(
    q, k, v, o, lse, cu_q, cu_k, len_q, len_k, see, bit, visits, max_q, max_k, n_columns, scale_log2,
    stride_qb, stride_qt, stride_qh, stride_kb, stride_kt, stride_kh, stride_vb, stride_vt, stride_vh, stride_ob,
    stride_ot, stride_oh,
    stride_lb, stride_lh,
    ROWS: tl.constexpr, COLS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, DT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A1: output and base-2 log-sum-exp of one block of queries. +inf marks a row without any key: every later
    exp2(score - lse) is 0."""
    SETS: tl.constexpr = visits is not None
    block = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    sample = tl.program_id(2).to(tl.int64)
    start_q, length_q = span(cu_q, len_q, sample, max_q)
    start_k, length_k = span(cu_k, len_k, sample, max_k)
    end = length_q if cu_q is not None else max_q  # padded rows are written too, as 0
    if block * ROWS >= end:
        return
    first_q = _origin(cu_q, start_q, sample, max_q)
    first_k = _origin(cu_k, start_k, sample, max_k)
    token = block * ROWS + tl.arange(0, ROWS)
    inside = token < length_q
    see_q = inside
    if SETS:
        see_q = _sets(None if see is None else see + first_q, token, inside)
    q_base = q + sample * stride_qb + start_q * stride_qt + head * stride_qh
    k_base = k + sample * stride_kb + start_k * stride_kt + head * stride_kh
    v_base = v + sample * stride_vb + start_k * stride_vt + head * stride_vh
    bit_base = None if bit is None else bit + first_k
    q_tile = _rows(q_base, token, stride_qt, inside, D, BLOCK_D, True, DT)
    acc = tl.zeros((ROWS, BLOCK_D), tl.float32)
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    row, n_free, n_masked = _plan(visits, block, sample, n_columns, length_q, length_k, ROWS, COLS)
    for i in range(0, n_free):
        at = _visit(visits, row, i, n_free, n_columns, False)
        acc, peak, total = _forward_step(
            acc, peak, total, q_tile, see_q, k_base, v_base, bit_base, at, length_k, stride_kt, stride_vt, scale_log2,
            COLS, D, BLOCK_D, SETS, False, DT, PRECISION,
        )  # fmt: skip
    for i in range(0, n_masked):
        at = _visit(visits, row, i, n_free, n_columns, True)
        acc, peak, total = _forward_step(
            acc, peak, total, q_tile, see_q, k_base, v_base, bit_base, at, length_k, stride_kt, stride_vt, scale_log2,
            COLS, D, BLOCK_D, SETS, True, DT, PRECISION,
        )  # fmt: skip
    some = inside & (total > 0.0)
    acc = tl.where(some[:, None], acc / tl.where(some, total, 1.0)[:, None], 0.0)
    written = token < end
    o_base = o + sample * stride_ob + start_q * stride_ot + head * stride_oh
    _store_rows(o_base, token, stride_ot, acc, written, D, BLOCK_D)
    log_sum = tl.where(some, peak + tl.log2(tl.where(some, total, 1.0)), float("inf"))
    tl.store(lse + sample * stride_lb + start_q + head * stride_lh + token, log_sum, mask=written)


@jit()
def _delta_kernel(
    o, do, delta, cu_q, len_q, max_q,
    stride_ob, stride_ot, stride_oh, stride_gb, stride_gt, stride_gh, stride_lb, stride_lh,
    ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A2: delta = sum over the head dimension of o * do, the softmax gradient's row term."""
    block = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    sample = tl.program_id(2).to(tl.int64)
    start, length = span(cu_q, len_q, sample, max_q)
    if block * ROWS >= length:
        return
    token = block * ROWS + tl.arange(0, ROWS)
    inside = token < length
    o_tile = _rows(
        o + sample * stride_ob + start * stride_ot + head * stride_oh,
        token,
        stride_ot,
        inside,
        D,
        BLOCK_D,
        True,
        tl.float32,
    )
    g_tile = _rows(
        do + sample * stride_gb + start * stride_gt + head * stride_gh,
        token,
        stride_gt,
        inside,
        D,
        BLOCK_D,
        True,
        tl.float32,
    )
    tl.store(
        delta + sample * stride_lb + start + head * stride_lh + token,
        tl.sum(o_tile * g_tile, 1),
        mask=inside,
    )


@jit()
def _dkdv_step(
    dk, dv, k, v, bit_k, q_base, g_base, lse_base, delta_base, see, block, length_q, stride_q, stride_g, scale_log2,
    COLS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, SETS: tl.constexpr, MASKED: tl.constexpr,
    DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    token = block * COLS + tl.arange(0, COLS)
    inside = token < length_q
    if MASKED and SETS:
        see_q = _sets(see, token, inside)
        inside = see_q != 0
    q = _rows(q_base, token, stride_q, inside, D, BLOCK_D, True, DT)
    g = _rows(g_base, token, stride_g, inside, D, BLOCK_D, True, DT)
    lse = tl.load(lse_base + token, mask=inside, other=float("inf"))
    delta = tl.load(delta_base + token, mask=inside, other=0.0)
    scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * scale_log2  # (keys, queries)
    if MASKED and SETS:
        scores = tl.where((bit_k[:, None] & see_q[None, :]) != 0, scores, float("-inf"))
    weights = tl.exp2(scores - lse[None, :])
    dv = tl.dot(weights.to(DT), g, dv, input_precision=PRECISION)
    d_weights = tl.dot(v, tl.trans(g), input_precision=PRECISION)
    d_scores = weights * (d_weights - delta[None, :])
    dk = tl.dot(d_scores.to(DT), q, dk, input_precision=PRECISION)
    return dk, dv


@jit()
def _dkdv_kernel(
    q, k, v, do, lse, delta, dk, dv, cu_q, cu_k, len_q, len_k, see, bit, visits, max_q, max_k, n_columns, scale,
    scale_log2,
    stride_qb, stride_qt, stride_qh, stride_kb, stride_kt, stride_kh, stride_vb, stride_vt, stride_vh, stride_gb,
    stride_gt, stride_gh,
    stride_db, stride_dt, stride_dh, stride_lb, stride_lh,
    ROWS: tl.constexpr, COLS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, DT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A3: gradients of one block of keys and values, over the blocks of queries that see it."""
    SETS: tl.constexpr = visits is not None
    block = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    sample = tl.program_id(2).to(tl.int64)
    start_q, length_q = span(cu_q, len_q, sample, max_q)
    start_k, length_k = span(cu_k, len_k, sample, max_k)
    end = length_k if cu_k is not None else max_k
    if block * ROWS >= end:
        return
    first_q = _origin(cu_q, start_q, sample, max_q)
    first_k = _origin(cu_k, start_k, sample, max_k)
    token = block * ROWS + tl.arange(0, ROWS)
    inside = token < length_k
    bit_k = inside
    if SETS:
        bit_k = _sets(None if bit is None else bit + first_k, token, inside)
        inside = bit_k != 0
    k_tile = _rows(
        k + sample * stride_kb + start_k * stride_kt + head * stride_kh,
        token,
        stride_kt,
        inside,
        D,
        BLOCK_D,
        True,
        DT,
    )
    v_tile = _rows(
        v + sample * stride_vb + start_k * stride_vt + head * stride_vh,
        token,
        stride_vt,
        inside,
        D,
        BLOCK_D,
        True,
        DT,
    )
    q_base = q + sample * stride_qb + start_q * stride_qt + head * stride_qh
    g_base = do + sample * stride_gb + start_q * stride_gt + head * stride_gh
    statistics = sample * stride_lb + start_q + head * stride_lh
    see_base = None if see is None else see + first_q
    dk_tile = tl.zeros((ROWS, BLOCK_D), tl.float32)
    dv_tile = tl.zeros((ROWS, BLOCK_D), tl.float32)
    row, n_free, n_masked = _plan(visits, block, sample, n_columns, length_k, length_q, ROWS, COLS)
    for i in range(0, n_free):
        at = _visit(visits, row, i, n_free, n_columns, False)
        dk_tile, dv_tile = _dkdv_step(
            dk_tile, dv_tile, k_tile, v_tile, bit_k, q_base, g_base, lse + statistics, delta + statistics, see_base,
            at, length_q,
            stride_qt, stride_gt, scale_log2, COLS, D, BLOCK_D, SETS, False, DT, PRECISION,
        )  # fmt: skip
    for i in range(0, n_masked):
        at = _visit(visits, row, i, n_free, n_columns, True)
        dk_tile, dv_tile = _dkdv_step(
            dk_tile, dv_tile, k_tile, v_tile, bit_k, q_base, g_base, lse + statistics, delta + statistics, see_base,
            at, length_q,
            stride_qt, stride_gt, scale_log2, COLS, D, BLOCK_D, SETS, True, DT, PRECISION,
        )  # fmt: skip
    at_out = sample * stride_db + start_k * stride_dt + head * stride_dh
    written = token < end
    _store_rows(dk + at_out, token, stride_dt, tl.where(inside[:, None], dk_tile * scale, 0.0), written, D, BLOCK_D)
    _store_rows(dv + at_out, token, stride_dt, tl.where(inside[:, None], dv_tile, 0.0), written, D, BLOCK_D)


@jit()
def _dq_step(
    dq, q, g, lse, delta, see_q, k_base, v_base, bit, block, length_k, stride_k, stride_v, scale_log2,
    COLS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, SETS: tl.constexpr, MASKED: tl.constexpr,
    DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    token = block * COLS + tl.arange(0, COLS)
    inside = token < length_k
    if MASKED and SETS:
        bit_k = _sets(bit, token, inside)
        inside = bit_k != 0
    k = _rows(k_base, token, stride_k, inside, D, BLOCK_D, MASKED, DT)
    v = _rows(v_base, token, stride_v, inside, D, BLOCK_D, MASKED, DT)
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_log2
    if MASKED:
        if SETS:
            scores = tl.where((see_q[:, None] & bit_k[None, :]) != 0, scores, float("-inf"))
        else:
            scores = tl.where(inside[None, :], scores, float("-inf"))
    weights = tl.exp2(scores - lse[:, None])
    d_weights = tl.dot(g, tl.trans(v), input_precision=PRECISION)
    d_scores = weights * (d_weights - delta[:, None])
    return tl.dot(d_scores.to(DT), k, dq, input_precision=PRECISION)


@jit()
def _dq_kernel(
    q, k, v, do, lse, delta, dq, cu_q, cu_k, len_q, len_k, see, bit, visits, max_q, max_k, n_columns, scale, scale_log2,
    stride_qb, stride_qt, stride_qh, stride_kb, stride_kt, stride_kh, stride_vb, stride_vt, stride_vh, stride_gb,
    stride_gt, stride_gh,
    stride_db, stride_dt, stride_dh, stride_lb, stride_lh,
    ROWS: tl.constexpr, COLS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, DT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A4: gradient of one block of queries, over the blocks of keys that it sees."""
    SETS: tl.constexpr = visits is not None
    block = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    sample = tl.program_id(2).to(tl.int64)
    start_q, length_q = span(cu_q, len_q, sample, max_q)
    start_k, length_k = span(cu_k, len_k, sample, max_k)
    end = length_q if cu_q is not None else max_q
    if block * ROWS >= end:
        return
    first_q = _origin(cu_q, start_q, sample, max_q)
    first_k = _origin(cu_k, start_k, sample, max_k)
    token = block * ROWS + tl.arange(0, ROWS)
    inside = token < length_q
    see_q = inside
    if SETS:
        see_q = _sets(None if see is None else see + first_q, token, inside)
        inside = see_q != 0
    q_tile = _rows(
        q + sample * stride_qb + start_q * stride_qt + head * stride_qh,
        token,
        stride_qt,
        inside,
        D,
        BLOCK_D,
        True,
        DT,
    )
    g_tile = _rows(
        do + sample * stride_gb + start_q * stride_gt + head * stride_gh,
        token,
        stride_gt,
        inside,
        D,
        BLOCK_D,
        True,
        DT,
    )
    statistics = sample * stride_lb + start_q + head * stride_lh
    lse_q = tl.load(lse + statistics + token, mask=inside, other=float("inf"))
    delta_q = tl.load(delta + statistics + token, mask=inside, other=0.0)
    k_base = k + sample * stride_kb + start_k * stride_kt + head * stride_kh
    v_base = v + sample * stride_vb + start_k * stride_vt + head * stride_vh
    bit_base = None if bit is None else bit + first_k
    dq_tile = tl.zeros((ROWS, BLOCK_D), tl.float32)
    row, n_free, n_masked = _plan(visits, block, sample, n_columns, length_q, length_k, ROWS, COLS)
    for i in range(0, n_free):
        at = _visit(visits, row, i, n_free, n_columns, False)
        dq_tile = _dq_step(
            dq_tile, q_tile, g_tile, lse_q, delta_q, see_q, k_base, v_base, bit_base, at, length_k, stride_kt,
            stride_vt, scale_log2,
            COLS, D, BLOCK_D, SETS, False, DT, PRECISION,
        )  # fmt: skip
    for i in range(0, n_masked):
        at = _visit(visits, row, i, n_free, n_columns, True)
        dq_tile = _dq_step(
            dq_tile, q_tile, g_tile, lse_q, delta_q, see_q, k_base, v_base, bit_base, at, length_k, stride_kt,
            stride_vt, scale_log2,
            COLS, D, BLOCK_D, SETS, True, DT, PRECISION,
        )  # fmt: skip
    dq_base = dq + sample * stride_db + start_q * stride_dt + head * stride_dh
    _store_rows(dq_base, token, stride_dt, dq_tile * scale, token < end, D, BLOCK_D)


def _strides(x: Tensor) -> tuple[int, int, int]:
    """(sample, token, head); packed tensors have no sample axis."""
    return (0, x.stride(0), x.stride(1)) if x.dim() == 3 else x.stride()[:3]


def _statistics_strides(lse: Tensor) -> tuple[int, int]:
    return (0, lse.stride(0)) if lse.dim() == 2 else (lse.stride(0), lse.stride(1))


def _precision(dtype: torch.dtype) -> str:
    if dtype != torch.float32 or INTERPRET:
        return "ieee"  # without meaning for 16-bit products
    if torch.backends.cuda.matmul.allow_tf32:
        return "tf32"
    return (
        "ieee" if torch.version.hip is not None else "tf32x3"
    )  # three tf32 products give float32's accuracy on tensor cores


class _Launch:
    """What the launches of one call share."""

    def __init__(self, q: Tensor, k: Tensor, max_q: int, max_k: int, cu_q: Tensor | None, batch: int) -> None:
        self.q, self.k, self.max_q, self.max_k = q, k, max_q, max_k
        self.batch = batch if cu_q is not None else q.shape[0]
        self.heads, self.head_dim = q.shape[-2:]
        self.tile = {"D": self.head_dim, "BLOCK_D": max(16, 1 << (self.head_dim - 1).bit_length())}
        self.types = {"DT": compute_dtype(q.dtype), "PRECISION": _precision(q.dtype)}

    def options(self, kernel: str) -> tuple[tuple[int, int, int], int, dict[str, Any]]:
        """Grid, number of column blocks, and the constants of ``kernel``."""
        config = attention_config(
            kernel, accelerator(self.q.device), self.q.dtype, self.head_dim, max(self.max_q, self.max_k)
        )
        n_rows, n_columns = (self.max_k, self.max_q) if kernel == "dkdv" else (self.max_q, self.max_k)
        grid = (-(-n_rows // config.rows), self.heads, self.batch)
        constants = {"ROWS": config.rows, "COLS": config.cols, "num_warps": config.warps, "num_stages": config.stages}
        return grid, -(-n_columns // config.cols), {**constants, **self.tile, **self.types}


def _launch_forward(
    q, k, v, cu_q, cu_k, len_q, len_k, see, bit, visits, max_q, max_k, batch, scale
) -> tuple[Tensor, Tensor]:
    o, lse = torch.empty(q.shape, dtype=q.dtype, device=q.device), statistics(q)
    launch = _Launch(q, k, max_q, max_k, cu_q, batch)
    grid, n_columns, constants = launch.options("forward")
    if o.numel():
        with on_device(q):
            _forward_kernel[grid](
                q, k, v, o, lse, cu_q, cu_k, len_q, len_k, see, bit, visits, max_q, max_k, n_columns,
                scale * math.log2(math.e),
                *_strides(q), *_strides(k), *_strides(v), *_strides(o), *_statistics_strides(lse), **constants,
            )  # fmt: skip
    return o, lse


def _launch_backward(
    do, q, k, v, o, lse, cu_q, cu_k, len_q, len_k, see, bit, visits_dkdv, visits_dq, max_q, max_k, batch, scale
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    delta = torch.empty_like(lse)
    launch = _Launch(q, k, max_q, max_k, cu_q, batch)
    scale_log2 = scale * math.log2(math.e)
    shared = (cu_q, cu_k, len_q, len_k, see, bit)
    in_strides = (*_strides(q), *_strides(k), *_strides(v), *_strides(do))
    with on_device(q):
        if dq.numel():
            grid, n_columns, constants = launch.options("dq")
            _delta_kernel[grid](
                o, do, delta, cu_q, len_q, max_q, *_strides(o), *_strides(do), *_statistics_strides(lse),
                ROWS=constants["ROWS"], **launch.tile, num_warps=4,
            )  # fmt: skip
            _dq_kernel[grid](
                q, k, v, do, lse, delta, dq, *shared, visits_dq, max_q, max_k, n_columns, scale, scale_log2,
                *in_strides, *_strides(dq), *_statistics_strides(lse), **constants,
            )  # fmt: skip
        if dk.numel():
            grid, n_columns, constants = launch.options("dkdv")
            _dkdv_kernel[grid](
                q, k, v, do, lse, delta, dk, dv, *shared, visits_dkdv, max_q, max_k, n_columns, scale, scale_log2,
                *in_strides, *_strides(dk), *_statistics_strides(lse), **constants,
            )  # fmt: skip
    return dq, dk, dv


@torch.library.custom_op("vtp_kernels::attention_forward", mutates_args=(), device_types="cuda")
def _attention_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor | None,
    cu_k: Tensor | None,
    len_q: Tensor | None,
    len_k: Tensor | None,
    see: Tensor | None,
    bit: Tensor | None,
    visits: Tensor | None,
    visits_dkdv: Tensor | None,
    visits_dq: Tensor | None,
    max_q: int,
    max_k: int,
    batch: int,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Output, and the log-sum-exp per row: base 2 from the kernel, natural from the fallback. ``visits_*`` are for the
    backward pass."""
    if use_triton(backend, q.device, q.dtype, q.shape[-1]):
        return _launch_forward(q, k, v, cu_q, cu_k, len_q, len_k, see, bit, visits, max_q, max_k, batch, scale)
    return fallback_forward(q, k, v, cu_q, cu_k, len_q, len_k, see, bit, scale)


@torch.library.custom_op("vtp_kernels::attention_backward", mutates_args=(), device_types="cuda")
def _attention_backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    cu_q: Tensor | None,
    cu_k: Tensor | None,
    len_q: Tensor | None,
    len_k: Tensor | None,
    see: Tensor | None,
    bit: Tensor | None,
    visits_dkdv: Tensor | None,
    visits_dq: Tensor | None,
    max_q: int,
    max_k: int,
    batch: int,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    do = do if do.stride(-1) == 1 else do.contiguous()  # o.sum() hands over an expanded scalar
    if use_triton(backend, q.device, q.dtype, q.shape[-1]):
        sets = (see, bit, visits_dkdv, visits_dq)
        return _launch_backward(do, q, k, v, o, lse, cu_q, cu_k, len_q, len_k, *sets, max_q, max_k, batch, scale)
    return fallback_backward(do, q, k, v, o, lse, cu_q, cu_k, len_q, len_k, see, bit, scale)


@_attention_forward.register_fake
def _(q, k, v, *rest):
    return torch.empty(q.shape, dtype=q.dtype, device=q.device), statistics(q)


@_attention_backward.register_fake
def _(do, q, k, v, *rest):
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, *layout = inputs[:12]
    ctx.save_for_backward(q, k, v, *output, *layout)
    ctx.rest = inputs[12:]
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, do: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    q, k, v, o, lse, cu_q, cu_k, len_q, len_k, see, bit, _, visits_dkdv, visits_dq = ctx.saved_tensors
    grads = _attention_backward(
        do, q, k, v, o, lse, cu_q, cu_k, len_q, len_k, see, bit, visits_dkdv, visits_dq, *ctx.rest
    )
    return (*grads, *[None] * 14)


_attention_forward.register_kernel("cpu")(_attention_forward._init_fn)
_attention_backward.register_kernel("cpu")(_attention_backward._init_fn)
_attention_forward.register_autograd(_backward, setup_context=_setup_context)


def _operations(q: torch.Size, k: torch.Size, products: int) -> int:
    """FLOPs of so many products of two matrices per head. All pairs of a sample count, as torch's counter does for its
    own attention under a mask; of packed samples, whose lengths are on the device, all pairs of the batch would: they
    count as one sample of mean length."""
    pairs = q[0] * q[1] * k[1] if len(q) == 4 else q[0] * k[0]
    return 2 * products * pairs * q[-2] * q[-1]


def _forward_operations(q, k, v, *rest, out_shape=None, **kwargs) -> int:
    batch = rest[-3] if len(q) == 3 else 1
    return _operations(q, k, 2) // max(batch, 1)


def _backward_operations(do, q, k, v, *rest, out_shape=None, **kwargs) -> int:
    batch = rest[-3] if len(q) == 3 else 1
    return _operations(q, k, 5) // max(batch, 1)  # scores again, dv, dp, dq, dk


if triton is not None:  # without it torch's counter warns when it is imported
    from torch.utils.flop_counter import register_flop_formula

    register_flop_formula(torch.ops.vtp_kernels.attention_forward)(_forward_operations)
    register_flop_formula(torch.ops.vtp_kernels.attention_backward)(_backward_operations)


def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: AttnLayout, *, scale: float | None = None, backend: Backend = "auto"
) -> Tensor:
    """Softmax attention over the pairs that ``layout`` allows, without a dense mask and without dropout.

    Args:
        q: (B, Lq, H, D) or packed (Tq, H, D), float32, float16 or bfloat16, D a multiple of 16 up to 256. Any strides
            if the last is 1: the parts of ``qkv.unbind(2)`` need no copy. Under autocast all three are cast, as SDPA
            does.
        k, v: (B, Lk, H, D) or (Tk, H, D).
        layout: who may see whom; build it once per step.
        scale: factor of the scores; None is D ** -0.5.
        backend: ``auto``, ``triton`` or ``torch``. ``auto`` leaves a layout without any mask to torch's SDPA, which has
            faster kernels for it.

    Returns:
        Like q. Rows without any allowed key are 0 and pass no gradient.

    Raises:
        ValueError: shapes or types do not fit each other or the layout.
        RuntimeError: ``backend="triton"`` cannot run here.
    """
    if torch.is_autocast_enabled(q.device.type):
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
    _check(q, k, v, layout)
    if backend == "auto" and layout.unmasked and layout.max_k:
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        return functional.scaled_dot_product_attention(*heads_first, scale=scale).transpose(1, 2)
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    head_dim = q.shape[-1]
    visits = layout.visits("forward", head_dim, q.dtype, backend)
    visits_dkdv = visits_dq = None
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        visits_dkdv = layout.visits("dkdv", head_dim, q.dtype, backend)
        visits_dq = layout.visits("dq", head_dim, q.dtype, backend)
    o, _ = _attention_forward(
        q, k, v, layout.cu_q, layout.cu_k, layout.len_q, layout.len_k, layout.see, layout.bit, visits, visits_dkdv,
        visits_dq,
        layout.max_q, layout.max_k, layout.batch, head_dim**-0.5 if scale is None else float(scale), backend,
    )  # fmt: skip
    return o


def _check(q: Tensor, k: Tensor, v: Tensor, layout: AttnLayout) -> None:
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise ValueError(f"q, k and v are {q.dtype}, {k.dtype} and {v.dtype}; they must be of one floating-point type.")
    if q.shape[-1] % 16 or not 16 <= q.shape[-1] <= 256:
        raise ValueError(
            f"head dimension {q.shape[-1]} must be a multiple of 16, at most 256: products run on 16-wide tiles."
        )
    if layout.packed:
        if q.dim() != 3 or k.dim() != 3 or k.shape != v.shape or q.shape[1:] != k.shape[1:]:
            raise ValueError(
                f"packed q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} must be (tokens, H, D)."
            )
        return
    want_q, want_k = (layout.batch, layout.max_q, *q.shape[2:]), (layout.batch, layout.max_k, *q.shape[2:])
    if q.dim() != 4 or q.shape != want_q or k.shape != want_k or v.shape != want_k:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} do not fit the padded layout of "
            f"{layout.batch} samples, {layout.max_q} queries, {layout.max_k} keys: expected (B, L, H, D)."
        )
