"""SIGTERM and SIGINT: finish the step, save, leave. A second signal ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from vtp.errors import RunError

__all__ = ["Interrupted", "StopSignal"]

_SAME_EVENT_S = 1.0  # a job manager may signal both the group and the process


class Interrupted(RunError):
    """The run was asked to stop by a signal. Exit code 128 + number of the signal, as shells count: 143 for SIGTERM."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message, signal_number)
        self.exit_code = 128 + signal_number

    def __str__(self) -> str:
        return str(self.args[0])


class StopSignal:
    """Context in which the two signals only set :attr:`received`.

    Ranks are signalled at different moments: they agree with ``distributed.any_rank`` after each step. Workers of
    data loaders must ignore both signals, since torchrun and terminals signal the whole process group and a dead
    worker ends the step.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._since = number, now
        elif now - self._since > _SAME_EVENT_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
