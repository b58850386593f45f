"""The attention implementation ``vtp_masked`` for transformers models: ``register()``, then
``model.set_attn_implementation("vtp_masked")``.

The mask function turns the 2-D padding mask into an ``AttnLayout`` once per forward pass, so no dense mask is made and
all layers share the block lists. What the kernel does not do goes to torch's SDPA, as in transformers' own ``sdpa``: no
mask at all (cuDNN is faster there), causal and other patterns, attention dropout while training, grouped heads, head
dimensions that are no multiple of 16. ``transformers`` is imported by ``register`` alone.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from torch import Tensor, nn

from vtp_kernels.attention import masked_attention
from vtp_kernels.dispatch import BACKENDS, Backend
from vtp_kernels.layout import AttnLayout

__all__ = ["NAME", "register"]

NAME = "vtp_masked"
logger = logging.getLogger("vtp_kernels")
_logged: set[str] = set()


def register(backend: Backend = "auto", name: str = NAME) -> str:
    """Offer the implementation to transformers, the attention function and its mask function under one name; with the
    second missing, padding would be ignored without a word. Registering again replaces the backend.

    Args:
        backend: ``auto``, ``triton`` or ``torch``.
        name: for ``config._attn_implementation`` and ``set_attn_implementation``.

    Returns:
        ``name``.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} must be one of {', '.join(BACKENDS)}.")
    AttentionInterface.register(name, functools.partial(_attention, backend=backend))
    AttentionMaskInterface.register(name, _mask)
    return name


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Any = None,
    attention_mask: Tensor | None = None,
    allow_is_bidirectional_skip: bool = False,
    **rest: Any,
) -> AttnLayout | Tensor | None:
    """A layout for plain padding, what ``sdpa`` would get for everything else (causal, sliding, or a model that wants
    to edit the mask)."""
    from transformers.masking_utils import bidirectional_mask_function, sdpa_mask

    plain = mask_function is bidirectional_mask_function and q_offset == 0 and kv_offset == 0
    if (
        plain
        and allow_is_bidirectional_skip
        and (attention_mask is None or attention_mask.shape == (batch_size, kv_length))
    ):
        if attention_mask is None or (_may_look_at(attention_mask) and bool(attention_mask.all())):
            return None
        return AttnLayout.from_key_mask(attention_mask, n_queries=q_length)
    given = {} if mask_function is None else {"mask_function": mask_function}
    return sdpa_mask(
        batch_size, q_length, kv_length, q_offset, kv_offset,
        attention_mask=attention_mask, allow_is_bidirectional_skip=allow_is_bidirectional_skip, **given, **rest,
    )  # fmt: skip


def _may_look_at(mask: Tensor) -> bool:
    """On a GPU, or in a traced graph, the values are not at hand."""
    return mask.device.type == "cpu" and not torch.compiler.is_compiling()


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: AttnLayout | Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    backend: Backend = "auto",
    **rest: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: (B, H, L, D) in, (B, L, H, D) and no weights out."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if isinstance(attention_mask, AttnLayout):
        reason = _unsupported(query, key, dropout, rest)
        if reason is None:
            heads_last = (x.transpose(1, 2) for x in (query, key, value))
            return masked_attention(*heads_last, attention_mask, scale=scaling, backend=backend), None
        if reason not in _logged and not torch.compiler.is_compiling():
            _logged.add(reason)
            logger.warning("%s runs on torch's SDPA: %s", NAME, reason)
        attention_mask = attention_mask.dense_mask().unsqueeze(1)
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest)


def _unsupported(query: Tensor, key: Tensor, dropout: float, rest: dict[str, Any]) -> str | None:
    if dropout:
        return "attention dropout is on; set attention_probs_dropout_prob=0 to train with the kernel"
    if query.shape[1] != key.shape[1]:
        return "query heads share key heads"
    if query.shape[-1] % 16 or query.shape[-1] > 256:
        return f"head dimension {query.shape[-1]} is no multiple of 16 up to 256"
    if rest.get("position_bias") is not None or rest.get("softcap") is not None:
        return "scores get a position bias or a soft cap"
    return None
