"""Loading the next batches in a thread while the model works on this one.

No process is forked for it: what takes time, decoding, is done by the process of the reader, and the rest in libraries
that let other threads run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Full, Queue
from typing import Any

__all__ = ["Ahead"]

_BATCHES = 2  # that wait for the model


class Ahead:
    """A loader whose batches are made before they are asked for, in the same order.

    Args:
        loader: an :class:`vtp.data.EvalLoader` without workers.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    @property
    def misses(self) -> dict[str, str]:
        """Why items are missing, as of the loader: all of them once the iteration is over."""
        return dict(self._loader.misses)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        made: Queue[tuple[str, Any]] = Queue(_BATCHES)
        stop = threading.Event()

        def put(kind: str, value: Any = None) -> bool:
            while not stop.is_set():
                try:
                    made.put((kind, value), timeout=0.2)
                except Full:
                    continue
                return True
            return False

        def work() -> None:
            source = iter(self._loader)
            try:
                for batch in source:
                    if not put("batch", batch):
                        return
                put("end")
            except BaseException as error:  # raised where the batch is waited for
                put("error", error)
            finally:
                source.close()

        thread = threading.Thread(target=work, name="vtp-load-ahead", daemon=True)
        thread.start()
        try:
            while True:
                kind, value = made.get()
                if kind == "error":
                    raise value
                if kind == "end":
                    return
                yield value
        finally:
            stop.set()
            thread.join()
