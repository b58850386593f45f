"""What ``kernels=auto|triton|torch`` means: which implementation computes attention and tube masking in this process.

vtp-kernels is an add-on that the core knows in this module alone. Without it, or where it cannot run, everything runs
on PyTorch, and one log line says so.

    use_kernels(name, device)   before the model is built
    adopt(model, device)        after: transformers models inside it take the implementation ``vtp_masked``
"""

from __future__ import annotations

import functools
import logging
import sys
import weakref
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtp.errors import ConfigError
from vtp.model import attention

__all__ = ["adopt", "installed", "operators", "use_kernels"]

log = logging.getLogger("vtp")

_HINT = "Use kernels=auto, which takes PyTorch where the Triton kernels cannot run."


@functools.cache
def installed() -> ModuleType | None:
    """``vtp_kernels``, or None where it is not installed. Imports Triton, so it is asked late."""
    try:
        import vtp_kernels
    except ImportError:
        return None
    return vtp_kernels  # type: ignore[no-any-return]


def operators(device: torch.device) -> ModuleType | None:
    """``vtp_kernels`` where its compiled kernels are to be used on tensors of ``device``: under ``kernels=auto`` or
    ``triton``, on a GPU that they run on. None otherwise: its PyTorch fallbacks are for others."""
    if attention.selected() == "torch" or _why_not(device) is not None or device.type == "cpu":
        return None
    return installed()


def use_kernels(name: str, device: torch.device) -> str:
    """Choose for this process, and log the choice once.

    Args:
        name: ``auto`` takes the Triton kernels where they are installed and can run on ``device``; ``triton`` insists;
            ``torch`` never takes them; or an attention backend that a plugin registered.
        device: of the model.

    Returns:
        What will run, for reports: ``triton (vtp-kernels 0.1.0)`` or ``torch (no CUDA device)``.

    Raises:
        ConfigError: no such backend, or ``triton`` cannot run on this device; says why.
    """
    reason = _why_not(device)
    if name == "triton" and reason is not None:
        raise ConfigError(f"kernels=triton cannot run here: {reason}. {_HINT}")
    attention.set_kernels(name)
    if name not in ("auto", "triton"):
        running = f"{name} (as asked)"
    elif reason is None and (name == "triton" or device.type != "cpu"):
        running = f"triton (vtp-kernels {installed().__version__})"  # type: ignore[union-attr]
    else:
        running = f"torch ({reason or 'the interpreter is for tests'})"
    log.info("attention and tube masking run on %s", running)
    return running


def adopt(model: nn.Module, device: torch.device) -> list[str]:
    """Give every transformers model inside ``model`` the attention implementation ``vtp_masked`` where the kernels run.

    Models that compute attention in their own way (T5, MPNet, DeBERTa: a position bias in every score) keep it.

    Returns:
        Names of the modules that took it.
    """
    chosen = attention.selected()
    if chosen not in ("auto", "triton") or _why_not(device) is not None or (chosen == "auto" and device.type == "cpu"):
        return []
    if "transformers" not in sys.modules:
        return []  # then none of its models can be inside
    from transformers import PreTrainedModel

    from vtp_kernels import transformers_attention

    transformers_attention.register("triton" if chosen == "triton" else "auto")
    took = []
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel) and module._supports_attention_backend:
            module.set_attn_implementation(transformers_attention.NAME)
            took.append(name)
    return took


def _why_not(device: torch.device) -> str | None:
    """Why the kernels cannot run on ``device``; None if they can."""
    if installed() is None:
        return "vtp-kernels is not installed: pip install vtp-kernels (Linux, Triton)"
    from vtp_kernels import dispatch

    reason: str | None = dispatch.missing(device)
    return "no CUDA device" if reason == "the tensors are on the CPU" else reason


def attention_backend() -> attention.Backend | None:
    """The kernel for :func:`vtp.model.attention.attention`, or None where vtp-kernels is not installed."""
    return None if installed() is None else attention.Backend(_run, _supports)


def _run(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, scale: float | None) -> Tensor:
    from vtp_kernels import masked_attention

    width = q.shape[-1]
    scale = width**-0.5 if scale is None else scale
    if width % 16:  # columns of zeros change no score, and their outputs are cut off again
        q, k, v = (functional.pad(x, (0, -width % 16)) for x in (q, k, v))
    heads_last = (x.transpose(1, 2) for x in (q, k, v))
    out: Tensor = masked_attention(*heads_last, _layout(key_mask, q, k), scale=scale, backend="triton")
    return out.transpose(1, 2)[..., :width]


def _supports(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> bool:
    """On a GPU, with a mask: without one the kernels of torch are faster."""
    from vtp_kernels import dispatch

    width = q.shape[-1]
    return (
        key_mask is not None
        and q.device.type == "cuda"
        and q.dtype == k.dtype == v.dtype
        and width % 16 == 0
        and all(x.stride(-1) == 1 for x in (q, k, v))
        and dispatch.missing(q.device, q.dtype, width) is None
    )


# The layout of the last mask: all layers of an encoder come with the same tensor, and its block lists are built once.
_last: tuple[weakref.ref[Tensor], int, int, Any] | None = None


def _layout(key_mask: Tensor | None, q: Tensor, k: Tensor) -> Any:
    from vtp_kernels import AttnLayout

    global _last
    if key_mask is None:
        return AttnLayout.full(q.shape[0], q.shape[2], k.shape[2])
    if torch.compiler.is_compiling():
        return AttnLayout.from_key_mask(key_mask, n_queries=q.shape[2])
    if _last is not None and _last[0]() is key_mask and _last[1:3] == (key_mask._version, q.shape[2]):
        return _last[3]
    layout = AttnLayout.from_key_mask(key_mask, n_queries=q.shape[2])
    _last = (weakref.ref(key_mask), key_mask._version, q.shape[2], layout)
    return layout
