"""The one place where vtp computes attention: every block of ours calls :func:`attention`, and a kernel plugs in here.

q   (B, H, Lq, D)     queries; any strides
k v (B, H, Lk, D)     keys and values
key_mask (B, Lk)      bool, True = may be attended to
o   (B, H, Lq, D)     softmax(q k^T * scale) v over the allowed keys; exactly 0 with zero gradient where a batch row
allows none
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from vtp.errors import ConfigError

__all__ = ["Backend", "attention", "attention_torch", "backends", "register_backend", "selected", "set_kernels"]

KERNELS = ("auto", "triton", "torch")


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to compute attention.

    Attributes:
        run: ``(q, k, v, key_mask, scale) -> o`` with the shapes and the rule for empty rows of this module.
        supports: whether it takes these tensors (device, dtype, head width). Asked at every call under
            ``kernels=auto``, so it must be cheap and must not look at values, which would wait for the device.
    """

    run: Callable[[Tensor, Tensor, Tensor, Tensor | None, float | None], Tensor]
    supports: Callable[[Tensor, Tensor, Tensor, Tensor | None], bool]


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
    if _selected == "torch":
        return attention_torch(q, k, v, key_mask, scale)
    if _selected != "auto":
        return _backends[_selected].run(q, k, v, key_mask, scale)
    if q.device.type == "cuda":  # elsewhere nothing is gained by importing Triton
        _look_for_kernels()
    for backend in _backends.values():
        if backend.supports(q, k, v, key_mask):
            return backend.run(q, k, v, key_mask, scale)
    return attention_torch(q, k, v, key_mask, scale)


def attention_torch(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, scale: float | None) -> Tensor:
    """The reference, any device and dtype: PyTorch's own attention, written out where that is faster."""
    if key_mask is None:
        if _faster_written_out(q, k, v):
            return _written_out(q, k, v, scale)
        if q.device.type == "cpu" and k.shape[2] >= 768:  # each row is read many times: 3 % faster
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        return scaled_dot_product_attention(q, k, v, scale=scale)
    # Softmax over no key is 0/0, and what SDPA makes of it differs between its kernels: open such rows, then cut them
    # off.
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


def register_backend(name: str, backend: Backend) -> None:
    """Offer a kernel under ``kernels=<name>``; ``auto`` then takes it where it says that it supports the tensors."""
    if name in ("auto", "torch"):
        raise ConfigError(
            f"attention backend {name!r}: this name is taken by vtp itself. Choose another one, for example 'triton'."
        )
    _backends[name] = backend


def backends() -> list[str]:
    """Names that :func:`set_kernels` accepts at the moment."""
    _look_for_kernels()
    return ["auto", "torch", *_backends]


def set_kernels(name: str) -> None:
    """Choose how attention is computed in this process: ``auto``, ``torch``, or a registered backend such as
    ``triton``.

    Raises:
        ConfigError: for a name that nobody offers.
    """
    global _selected
    if name in ("auto", "torch"):  # need no look at what is installed
        _selected = name
        return
    if name not in backends():
        known = ", ".join(backends())
        hint = (
            " Install vtp-kernels (Linux, a GPU), or use kernels=auto."
            if name in KERNELS
            else f" Choose one of: {known}."
        )
        raise ConfigError(f"kernels={name}: there is no such attention backend here (available: {known}).{hint}")
    _selected = name


def selected() -> str:
    """What :func:`set_kernels` chose."""
    return _selected


def _look_for_kernels() -> None:
    """Offer the kernels of vtp-kernels as ``triton``, once, if they are installed."""
    global _looked
    if _looked:
        return
    _looked = True
    from vtp.model.kernels import attention_backend

    if (found := attention_backend()) is not None:
        register_backend("triton", found)


_backends: dict[str, Backend] = {}
_selected = "auto"
_looked = False
