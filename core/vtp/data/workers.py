"""What both loaders share: how torch's DataLoader is started, and what its workers do about signals and errors."""

from __future__ import annotations

import atexit
import gc
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import reduction, util
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data._utils import signal_handling

from vtp.errors import RunError, VtpError
from vtp.faults import while_loading
from vtp.machine import deaf_child, ignore_stopping, keep_memory
from vtp.types import Batch, Sample

__all__ = ["Delivery", "deliver", "named"]

Place = TypeVar("Place")

_SMALL = 1 << 16  # bytes
_ENDING_S = 10.0  # for workers to finish the file that they are at; killed then


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
        alone = get_worker_info() is None
        try:
            delivery = self.load(place)
            return delivery if alone else delivery.packed()
        except VtpError as error:
            return Delivery(error=error)
        except BaseException as error:
            if alone and not isinstance(error, Exception):  # Ctrl-C is for the main process
                raise
            return Delivery(error=while_loading(error, f"the batch at {place}"))


class _Order(Generic[Place]):
    """The sampler: hands on an iterable of places, which need not have a length."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.places = places

    def __iter__(self) -> Iterator[Place]:
        return iter(self.places)


def deliver(
    places: Iterable[Place], load: Callable[[Place], Delivery], *, workers: int, prefetch: int = 2
) -> Generator[Delivery]:
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
            # The folder for their sockets is ours, so that a killed worker leaves none behind; without us, theirs.
            worker_init_fn=partial(_start_worker, util.get_temp_dir(), os.getpid()) if workers else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # its own: starting a loader must not move the one that dropout draws from
        )
        before = set(multiprocessing.active_children())
        started: list[BaseProcess] = []
        # A traceback may keep this generator, and so the workers, alive until the interpreter ends; it then terminates
        # and joins its children for ever, because they ignore SIGTERM. Functions registered later run first.
        kill = partial(_kill, started)
        atexit.register(kill)
        deliveries = None
        try:
            with deaf_child():
                deliveries = iter(loader)  # which says it, too
        finally:
            started += [child for child in multiprocessing.active_children() if child not in before]
            if deliveries is None:  # the system has no room for all of them
                kill()
    _watch_ourselves(deliveries)
    try:
        while True:
            try:
                delivery = next(deliveries, None)
            except RuntimeError as error:
                if (lost := _lost(started)) is None:
                    raise
                raise RunError(lost) from error
            if delivery is None:
                return
            if delivery.error is not None:
                raise delivery.error
            yield delivery.unpacked()
    finally:
        _end(deliveries, started)
        atexit.unregister(kill)


def named(table: Sequence[Sample], row: int) -> str:
    """A sample for people: its id and its file, as far as the table can still say them."""
    with suppress(Exception):
        sample = table[row]
        ref = sample.video or sample.audio
        file = "" if ref is None else f" ({os.fsdecode(ref.path)})"
        return f"the sample {sample.id!r}{file}"
    return f"row {row} of the table"


def _watch_ourselves(deliveries: Any) -> None:
    """Torch raises an exception wherever this process is when a worker dies, in the middle of a checkpoint too. A dead
    worker is noticed soon enough where its batch is waited for."""
    if getattr(deliveries, "_worker_pids_set", False):
        signal_handling._remove_worker_pids(id(deliveries))  # type: ignore[attr-defined]
        deliveries._worker_pids_set = False


def _lost(workers: Iterable[BaseProcess]) -> str | None:
    """What is said of a worker that has ended, which none does by itself; None if all are there."""
    for worker in workers:
        if worker.exitcode is not None:
            code = worker.exitcode
            how = f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
            why = ", probably for want of memory" if code == -signal.SIGKILL else ""
            return (
                f"a loader worker (process {worker.pid}) {how} from outside{why}. "
                "Fewer data.workers need less memory; resume=auto goes on from the last checkpoint."
            )
    return None


def _end(deliveries: Any, workers: Sequence[BaseProcess]) -> None:
    """Shut the workers down in an orderly way; those that have not ended in time are killed."""
    if sys.is_finalizing():  # no thread can be started any more, and all workers have been killed
        return
    late = threading.Timer(_ENDING_S, _kill, (workers,))
    late.daemon = True
    late.start()
    try:
        if hasattr(deliveries, "_shutdown_workers"):
            deliveries._shutdown_workers()
    finally:
        late.cancel()
        _kill(workers)


def _kill(workers: Iterable[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()


def _remove_if_orphaned(folder: str, parent: int) -> None:
    """The last worker finds it empty; what another one has in there, that one removes, and would miss."""
    if os.getppid() != parent:
        with suppress(OSError):
            os.rmdir(folder)


def _start_worker(folder: str, parent: int, worker: int) -> None:
    """torchrun and Ctrl-C signal the whole process group: a worker that dies first takes the checkpoint with it."""
    gc.freeze()  # looking for cycles in what was there before would copy every page of it
    ignore_stopping()
    torch.set_num_threads(1)
    keep_memory()
    util.Finalize(None, _remove_if_orphaned, (folder, parent), exitpriority=-100)
