"""What ``kernels=auto|triton|torch`` means: which implementation computes attention and tube masking in this process.

vtp-kernels is an add-on that the core knows in this module alone. Without it, or where it cannot run, everything runs
on PyTorch, and one log line says so.

    use_kernels(name, device)   before the model is built
    adopt(model, device)        after: transformers models inside it take the implementation ``vtp_masked``
    backend_for(q, k, v, mask)  who computes one call of attention
    operators(device)           the kernels for tubelets and pixels, where they are to be used
"""

from __future__ import annotations

import functools
import logging
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtp.errors import ConfigError

__all__ = [
    "Backend",
    "adopt",
    "backend_for",
    "backends",
    "installed",
    "operators",
    "register_backend",
    "selected",
    "set_kernels",
    "use_kernels",
]

log = logging.getLogger("vtp")

_HINT = "Use kernels=auto, which takes PyTorch where the Triton kernels cannot run."


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
    if _selected == "torch" or _why_not(device) is not None or device.type == "cpu":
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
    set_kernels(name)
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

    Models that compute attention in their own way (T5, MPNet, DeBERTa: a position bias in every score; VideoPrism: a
    soft cap on the scores, which SDPA does not have) keep it.

    Returns:
        Names of the modules that took it.
    """
    chosen = _selected
    if chosen not in ("auto", "triton") or _why_not(device) is not None or (chosen == "auto" and device.type == "cpu"):
        return []
    if "transformers" not in sys.modules:
        return []  # then none of its models can be inside
    from transformers import PreTrainedModel

    from vtp_kernels import transformers_attention

    transformers_attention.register("triton" if chosen == "triton" else "auto")
    took = []
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel) and module._supports_attention_backend and module._supports_sdpa:
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


def backend_for(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> Backend | None:
    """Who computes attention of these tensors (B, H, L, D) under what :func:`set_kernels` chose; None is PyTorch."""
    if _selected == "torch":
        return None
    if _selected != "auto":
        return _backends[_selected]
    if q.device.type == "cuda":  # elsewhere nothing is gained by importing Triton
        _look_for_kernels()
    return next((backend for backend in _backends.values() if backend.supports(q, k, v, key_mask)), None)


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
    if (found := attention_backend()) is not None:
        register_backend("triton", found)


def attention_backend() -> Backend | None:
    """The kernel for :func:`vtp.model.attention.attention`, or None where vtp-kernels is not installed."""
    return None if installed() is None else Backend(_run, _supports)


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


_backends: dict[str, Backend] = {}
_selected = "auto"
_looked = False
