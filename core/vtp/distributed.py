"""Several processes as one: the few collectives that vtp needs, which do nothing (at no cost) when there is only one
process.

``torchrun --nproc-per-node 8 -m vtp run ...`` starts the processes and sets ``RANK``, ``WORLD_SIZE`` and
``LOCAL_RANK``; :func:`setup` reads them. Objects and flags always travel over gloo on the CPU, also on a machine with
GPUs, so that asking "does any rank want to stop?" never waits for a device.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from vtp.errors import ConfigError

__all__ = [
    "any_rank",
    "barrier",
    "broadcast_object",
    "gather_objects",
    "gather_with_grad",
    "is_main",
    "patience",
    "rank",
    "setup",
    "shutdown",
    "sum_scalars",
    "world_size",
]

T = TypeVar("T")

_LET_GO_S = 0.2


def setup(device: torch.device | str = "auto", patience: timedelta | None = None) -> torch.device:
    """Join the process group that torchrun announced, if any, and give the device of this process.

    Args:
        device: ``auto`` takes the GPU of this process where there is one, else the CPU; ``cpu``, ``cuda`` (the GPU of
            this process) and ``cuda:1`` are taken as they are.
        patience: how long to wait for the others where ``VTP_RANK_TIMEOUT_S`` says nothing; None is torch's own limit.

    Raises:
        ConfigError: CUDA was asked for and there is none, there are more processes than GPUs, or ``VTP_RANK_TIMEOUT_S``
            is no number of seconds.
    """
    chosen = _device(str(device))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # gloo beside nccl: flags and objects are exchanged without a device synchronisation.
        # On a CPU machine nccl must not even be named.
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=_timeout() or patience)
    return chosen


def _timeout() -> timedelta | None:
    """How long a process waits for the others: ``VTP_RANK_TIMEOUT_S``, or None for what torch takes by itself."""
    text = os.environ.get("VTP_RANK_TIMEOUT_S")
    if not text:
        return None
    try:
        seconds = float(text)
        if seconds > 0:
            return timedelta(seconds=seconds)
    except (ValueError, OverflowError):  # of float, or of timedelta for inf
        pass
    raise ConfigError(f"VTP_RANK_TIMEOUT_S={text!r} must be a number of seconds above 0, for example 600.")


def patience() -> str:
    """How long a process waits for the others, in words."""
    seconds = os.environ.get("VTP_RANK_TIMEOUT_S")
    return f"{seconds} seconds" if seconds else "torch's own limit, 10 to 30 minutes"


def _device(name: str) -> torch.device:
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    wanted = torch.device(name)
    if wanted.type != "cuda":
        return wanted
    if not available:
        raise ConfigError(
            f"device={name}: torch {torch.__version__} sees no CUDA device here. "
            "Use device=cpu, or device=auto to take what is there."
        )
    index = int(os.environ.get("LOCAL_RANK", "0")) if wanted.index is None else wanted.index
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"device={name}: this process wants GPU {index}, but there are {torch.cuda.device_count()}. "
            "Start at most one process per GPU (torchrun --nproc-per-node), or use device=cpu."
        )
    return torch.device("cuda", index)


def shutdown() -> None:
    """Leave the process group. Safe to call in any state."""
    if dist.is_initialized():
        # The threads of gloo drop the tensors of a collective after its end, and need the interpreter for that. DDP
        # and FSDP keep the group, so nobody joins these threads: one that comes too late finds Python gone and takes
        # the process down with "terminate called without an active exception" (torch 2.11: every second toy run).
        time.sleep(_LET_GO_S)
        dist.destroy_process_group()


def rank() -> int:
    """Index of this process, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """True in the one process that writes files and prints."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.all_reduce(torch.zeros(1))  # over gloo: dist.barrier() on nccl would wait for the device


def broadcast_object(value: T, source: int = 0) -> T:
    """The picklable ``value`` of rank ``source``, on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=source, device=torch.device("cpu"))
    return box[0]


def gather_objects(value: T) -> list[T]:
    """The picklable ``value`` of every rank in rank order, on every rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return cast("list[T]", values)


def any_rank(flag: bool) -> bool:
    """True on every rank if ``flag`` is true on one of them."""
    if world_size() == 1:
        return flag
    box = torch.tensor([flag], dtype=torch.int32)
    dist.all_reduce(box, op=dist.ReduceOp.MAX)
    return bool(box.item())


def sum_scalars(values: Tensor) -> Tensor:
    """Elementwise sum of ``values`` (any shape, the same on every rank) over the ranks; a new tensor, without
    gradient.
    """
    total = values.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def gather_with_grad(values: Tensor) -> Tensor:
    """Concatenate ``values`` (n_r, ...) of all ranks along dimension 0 in rank order; ranks may hold different
    numbers of rows.

    The backward pass sums the gradient over the ranks and gives every rank its own rows. When each rank computes the
    same loss from the gathered rows, the local gradient is therefore ``world_size`` times the true one, and the
    averaging of DDP and FSDP makes it exact: no further factor is needed.

    Returns:
        (n_0 + n_1 + ..., ...); ``values`` itself in a single process.
    """
    if world_size() == 1:
        return values
    return cast("Tensor", _Gather.apply(values))  # type: ignore[no-untyped-call]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        rows = torch.zeros(world_size(), dtype=torch.int64)
        rows[rank()] = len(values)
        dist.all_reduce(rows)  # on the CPU: known to the host, so no device synchronisation
        ctx.rows = rows.tolist()
        most = max(ctx.rows)
        wire = values.to(torch.uint8) if values.dtype == torch.bool else values
        padded = wire.new_zeros(most, *wire.shape[1:])
        padded[: len(wire)] = wire
        parts = [torch.empty_like(padded) for _ in ctx.rows]
        dist.all_gather(parts, padded)
        if not values.is_floating_point():
            ctx.set_materialize_grads(False)
        return torch.cat([part[:n] for part, n in zip(parts, ctx.rows, strict=True)]).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Tensor | None:
        if grad is None:
            return None
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        start = sum(ctx.rows[: rank()])
        return total[start : start + ctx.rows[rank()]]
