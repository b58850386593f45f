"""Which implementation an operation runs: the Triton kernel or the PyTorch fallback.

``backend="auto"`` takes the kernel wherever it can run and otherwise logs one reason and takes the fallback;
``"triton"`` insists and raises with the reason; ``"torch"`` always takes the fallback. The choice is made inside the
registered operators, so ``torch.compile`` never traces it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from vtp_kernels.configs import largest_head_dim

try:
    import triton
    import triton.language as tl
except ImportError:  # no wheel for this platform: the fallbacks do all the work
    triton = None
    tl = None

__all__ = [
    "BACKENDS",
    "INTERPRET",
    "Backend",
    "accelerator",
    "compute_dtype",
    "jit",
    "missing",
    "on_device",
    "tl",
    "triton",
    "use_triton",
]

Backend = Literal["auto", "triton", "torch"]
BACKENDS = ("auto", "triton", "torch")
logger = logging.getLogger("vtp_kernels")

# Read once: `triton.jit` reads TRITON_INTERPRET when it decorates, so a later change of the variable has no effect on
# our kernels either.
INTERPRET = triton is not None and bool(triton.knobs.runtime.interpret)
_logged: set[str] = set()


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``triton.jit(**options)``, or the plain function where Triton is not installed, so that kernels can stand beside
    their references."""
    return (lambda function: function) if triton is None else triton.jit(**options)


def missing(device: torch.device, dtype: torch.dtype | None = None, head_dim: int = 0) -> str | None:
    """Why the kernels cannot run on ``device`` with ``dtype`` and heads of this size; None if they can."""
    if triton is None:
        return "triton is not installed"
    if dtype == torch.float64:
        return "the kernels compute in float32, float16 or bfloat16, not in float64"
    if dtype is not None and head_dim > largest_head_dim(dtype):
        return f"head dimension {head_dim} in {dtype} does not fit the registers (at most {largest_head_dim(dtype)})"
    if device.type == "cpu":
        return None if INTERPRET else "the tensors are on the CPU"
    if device.type != "cuda":
        return f"there is no kernel for device type {device.type!r}"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0"
    return None


def use_triton(backend: str, device: torch.device, dtype: torch.dtype | None = None, head_dim: int = 0) -> bool:
    """True for the kernel, False for the fallback.

    Raises:
        ValueError: ``backend`` is not one of auto, triton, torch.
        RuntimeError: ``backend="triton"`` and the kernels cannot run here.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} must be one of {', '.join(BACKENDS)}.")
    if backend == "torch":
        return False
    reason = missing(device, dtype, head_dim)
    if backend == "triton":
        if reason is not None:
            raise RuntimeError(f"backend='triton' cannot run: {reason}. Use backend='auto' for the PyTorch fallback.")
        return True
    if reason is None and device.type == "cpu":
        reason = "the interpreter is for tests"
    if reason is not None and reason not in _logged:
        _logged.add(reason)
        logger.warning("vtp_kernels runs on its PyTorch fallback: %s", reason)
    return reason is None


def compute_dtype(dtype: torch.dtype) -> Any:
    """Type in which a kernel multiplies tensors of ``dtype``: itself on a GPU, float32 in the interpreter, whose
    bfloat16 arithmetic is silently wrong."""
    if INTERPRET or dtype == torch.float32:
        return tl.float32
    return tl.float16 if dtype == torch.float16 else tl.bfloat16


def accelerator(device: torch.device) -> str:
    """Name of the row of configurations for ``device``: ``sm_80``, ``sm_90``, ``gfx942`` or ``interpreter``."""
    if device.type != "cuda":
        return "interpreter"
    if torch.version.hip is not None:
        return "gfx942"
    return "sm_90" if torch.cuda.get_device_capability(device) >= (9, 0) else "sm_80"


def on_device(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Makes the tensor's GPU the current one during a launch (Triton launches on the current device, whatever the
    pointers say)."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()
