"""Work on many files, several at a time; each thread has a reader of its own, which decodes in a process of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from vtp.faults import while_loading
from vtp.media import MediaReader

__all__ = ["results"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def results(
    work: Callable[[MediaReader, Item], Result],
    items: Iterable[Item],
    make: Callable[[], MediaReader],
    workers: int,
    name: Callable[[Item], str] = str,
) -> Iterator[Iterator[Result]]:
    """``work(reader, item)`` of every item, as they come. After an error, or when the block is left, nothing new is
    begun, what has begun is waited for, and the readers are closed.

    Args:
        make: a reader; called once in each thread.
        workers: threads; at least one.
        name: an item for people.

    Raises:
        VtpError: what ``work`` raises; what is none of vtp's, as an error that names the item.
    """
    workers = max(1, workers)
    own = threading.local()
    readers: list[MediaReader] = []

    def run(item: Item) -> Result:
        if not hasattr(own, "reader"):
            own.reader = make()
            readers.append(own.reader)
        try:
            return work(own.reader, item)
        except OSError:  # of the disk that is written to: those of the media are MediaErrors by now
            raise
        except Exception as error:
            raise while_loading(error, name(item)) from error

    def as_they_come() -> Iterator[Result]:
        rest = iter(items)
        running: set[Future[Result]] = set()
        while True:
            running |= {pool.submit(run, item) for item in islice(rest, 2 * workers - len(running))}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()

    pool = ThreadPoolExecutor(workers, "vtp-prepare")
    try:
        yield as_they_come()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for reader in readers:
            reader.close()
