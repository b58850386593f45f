"""Batches that are loaded ahead: their order, errors, and that nothing is left running."""

from __future__ import annotations

import threading

import pytest

from vtp.use.ahead import Ahead


class Loader:
    """Five batches, of which one may fail; waits where it is told to."""

    def __init__(self, fails_at: int = -1, gate: threading.Event | None = None) -> None:
        self.fails_at, self.gate = fails_at, gate
        self.misses = {}
        self.made: list[int] = []
        self.closed = False

    def __len__(self):
        return 5

    def __iter__(self):
        try:
            for number in range(5):
                if number == self.fails_at:
                    raise ValueError("batch 3 is broken")
                self.made.append(number)
                self.misses[str(number)] = "reason"
                yield number
                if self.gate is not None and number == 0:
                    self.gate.set()
        finally:
            self.closed = True


def running() -> bool:
    return any(thread.name == "vtp-load-ahead" for thread in threading.enumerate())


def test_batches_come_in_order_and_misses_with_them():
    loader = Ahead(Loader())
    assert len(loader) == 5 and list(loader) == [0, 1, 2, 3, 4] and not running()
    assert list(loader.misses) == ["0", "1", "2", "3", "4"]


def test_the_next_batch_is_made_while_this_one_is_used():
    gate = threading.Event()
    loader = Ahead(Loader(gate=gate))
    for batch in loader:
        if batch == 0:
            assert gate.wait(10)  # set by the loader on its way to the second batch, which nobody has asked for


def test_an_error_is_raised_where_its_batch_would_have_come():
    got = []
    with pytest.raises(ValueError, match="batch 3 is broken"):
        for batch in Ahead(Loader(fails_at=3)):
            got.append(batch)
    assert got == [0, 1, 2] and not running()


def test_leaving_early_ends_the_thread():
    inner = Loader()
    batches = iter(Ahead(inner))
    assert next(batches) == 0
    batches.close()
    assert not running() and inner.closed and len(inner.made) < 5
