"""The one place where vtp computes attention: every block of ours calls :func:`attention`, and :mod:`vtp.model.kernels`
says by which backend.

q   (B, H, Lq, D)     queries; any strides
k v (B, H, Lk, D)     keys and values
key_mask (B, Lk)      bool, True = may be attended to
o   (B, H, Lq, D)     softmax(q k^T * scale) v over the allowed keys; exactly 0 with zero gradient where a row of the
                      batch allows none
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from vtp.model.kernels import backend_for

__all__ = ["attention", "attention_torch"]


def attention(q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Multi-head attention with an optional key-padding mask, by the backend that ``kernels=`` chose.

    Args:
        q: (B, H, Lq, D).
        k: (B, H, Lk, D).
        v: (B, H, Lk, D).
        key_mask: bool (B, Lk), True = real key; None = all of them.
        scale: factor on the logits; None is 1 / sqrt(D).

    Returns:
        (B, H, Lq, D). Batch rows without an allowed key are exactly 0 and send no gradient, never NaN.
    """
    backend = backend_for(q, k, v, key_mask)
    run = attention_torch if backend is None else backend.run
    return run(q, k, v, key_mask, scale)


def attention_torch(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, scale: float | None) -> Tensor:
    """The reference, any device and dtype: PyTorch's own attention, written out where that is faster."""
    if key_mask is None:
        if _faster_written_out(q, k, v):
            return _written_out(q, k, v, scale)
        if q.device.type == "cpu" and k.shape[2] >= 768:  # each row is read many times: 3 % faster
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        return scaled_dot_product_attention(q, k, v, scale=scale)
    # Softmax over no key is 0/0, and SDPA's kernels make different things of it: open such rows, then cut them off.
    empty = ~key_mask.any(dim=1)
    mask = (key_mask | empty[:, None])[:, None, None, :]
    out: Tensor = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.masked_fill(empty[:, None, None, None], 0.0)


def _faster_written_out(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether SDPA's own kernel is the slower choice.

    On a CPU it cuts fewer than 192 queries into slices of 32, whose matrix products are too small: forward and backward
    of 96 to 191 float32 tokens take 1.2 to 1.3 times as long as two products and a softmax
    (benchmarks/cpu_attention.py).
    """
    return (
        q.device.type == "cpu"
        and q.dtype == k.dtype == v.dtype == torch.float32
        and 96 <= q.shape[2] < 192
        and 96 <= k.shape[2] < 192
        and torch.is_grad_enabled()
        and (q.requires_grad or k.requires_grad or v.requires_grad)
    )


def _written_out(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    """Attention as two matrix products and a softmax; keeps the (B, H, Lq, Lk) weights for the backward pass."""
    batch, heads, queries, width = q.shape
    logits = torch.baddbmm(
        q.new_empty(1, 1, 1),  # not read: beta is 0
        q.reshape(-1, queries, width),
        k.reshape(batch * heads, -1, width).transpose(1, 2),
        beta=0,
        alpha=width**-0.5 if scale is None else scale,
    )
    out = torch.bmm(logits.softmax(dim=-1), v.reshape(batch * heads, -1, v.shape[-1]))
    return out.view(batch, heads, queries, -1)
