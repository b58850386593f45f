"""What both loaders share: how torch's DataLoader is started, and what its workers do about signals and errors."""

from __future__ import annotations

import atexit
import gc
import mmap
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import reduction
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vtp.errors import VtpError
from vtp.faults import fault_of
from vtp.machine import keep_memory
from vtp.types import Batch

__all__ = ["Delivery", "deliver"]

Place = TypeVar("Place")

_SMALL = 1 << 16  # bytes


@dataclass(slots=True)
class Delivery:
    """What a worker sends for one batch.

    Attributes:
        batch: None when no sample of it could be used.
        tried: in training int64 (parts of the table, 2), samples that were tried, and those that could not be used.
        misses: id -> reason, in evaluation.
        error: what stops the run; raised in the main process, where it still has its own type and message.
    """

    batch: Batch | None = None
    tried: npt.NDArray[np.int64] | None = None
    misses: dict[str, str] = field(default_factory=dict)
    error: VtpError | None = None

    def packed(self) -> Delivery:
        """For the way to the main process; nothing of it uses the memory of the batch any more."""
        if self.batch is not None:
            self.batch = self.batch.map(_pack)
        return self

    def unpacked(self) -> Delivery:
        """Undo :meth:`packed`."""
        if self.batch is not None:
            self.batch = self.batch.map(_unpack)
        return self

    def pin_memory(self) -> Delivery:
        """Called by ``DataLoader(pin_memory=True)``."""
        self.unpacked()
        if self.batch is not None:
            self.batch = self.batch.pin_memory()
        return self


class _Sent:
    """A tensor in a nameless file in memory, whose descriptor is handed over.

    Torch would map fresh shared memory and fill it: writing to the file spares the page faults and the zeroing, which
    are most of the cost.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        array: Any = tensor.contiguous().numpy()
        data = memoryview(array).cast("B")
        file = os.memfd_create("vtp-batch", os.MFD_CLOEXEC)
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(file, data[done:], done)
            self.file: Any = reduction.DupFd(file)
        finally:
            os.close(file)
        self.shape, self.dtype = tensor.shape, tensor.dtype

    def tensor(self) -> torch.Tensor:
        """In the process that receives it, once."""
        file = self.file.detach()
        try:
            memory = mmap.mmap(file, 0, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
        finally:
            os.close(file)
        return torch.frombuffer(memory, dtype=self.dtype).view(self.shape)


def _pack(tensor: torch.Tensor) -> Any:
    """A tensor costs a descriptor and a handshake on its way, which a small one is not worth: it goes as an array."""
    if tensor.nbytes < _SMALL:
        return np.array(tensor.numpy())
    return _Sent(tensor) if hasattr(os, "memfd_create") else tensor.clone()


def _unpack(part: Any) -> torch.Tensor:
    if isinstance(part, _Sent):
        return part.tensor()
    return torch.from_numpy(part) if isinstance(part, np.ndarray) else part


class _Places(Dataset[Any], Generic[Place]):
    """Gives a whole batch per item: ``load`` gets what the sampler yields."""

    def __init__(self, load: Callable[[Place], Delivery]) -> None:
        self.load = load

    def __getitem__(self, place: Place) -> Delivery:
        try:
            delivery = self.load(place)
        except VtpError as error:
            return Delivery(error=error)
        except Exception as error:
            if (fault := fault_of(error)) is None:
                raise
            return Delivery(error=fault)
        return delivery if get_worker_info() is None else delivery.packed()


class _Order(Generic[Place]):
    """The sampler: hands on an iterable of places, which need not have a length."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.places = places

    def __iter__(self) -> Iterator[Place]:
        return iter(self.places)


def deliver(
    places: Iterable[Place], load: Callable[[Place], Delivery], *, workers: int, prefetch: int = 2
) -> Iterator[Delivery]:
    """Run ``load`` on every place, in order, in ``workers`` processes (0 = in this one), ``prefetch`` batches ahead per
    worker."""
    with warnings.catch_warnings():
        # torch advises against more workers than cores; ours wait for a decoder process most of the time.
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        loader: DataLoader[Any] = DataLoader(
            _Places(load),
            batch_size=None,
            sampler=_Order(places),
            num_workers=workers,
            prefetch_factor=prefetch if workers else None,
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_start_worker,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # its own: starting a loader must not move the one that dropout draws from
        )
        before = set(multiprocessing.active_children())
        deliveries = iter(loader)  # which says it, too
    started = [child for child in multiprocessing.active_children() if child not in before]
    # A traceback keeps this generator, and so the workers, alive until the interpreter ends; it then terminates and
    # joins its children for ever, because they ignore SIGTERM. Functions registered later run first.
    kill = partial(_kill, started)
    atexit.register(kill)
    try:
        for delivery in deliveries:
            if delivery.error is not None:
                raise delivery.error
            yield delivery.unpacked()
    finally:
        del deliveries  # shuts the workers down in an orderly way
        atexit.unregister(kill)


def _kill(workers: Iterable[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()


def _start_worker(worker: int) -> None:
    """torchrun and Ctrl-C signal the whole process group: a worker that dies first takes the checkpoint with it."""
    gc.freeze()  # looking for cycles in what was there before would copy every page of it
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_memory()
