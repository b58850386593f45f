from __future__ import annotations

import threading
import time

import pytest

from vtp.errors import LoadingError
from vtp.prepare.threads import results


class Reader:
    def __init__(self):
        self.thread, self.closed = threading.get_ident(), False

    def close(self):
        self.closed = True


def test_each_thread_has_its_reader_and_closes_it_in_the_end():
    readers, started = [], threading.Barrier(3, timeout=20)

    def make():
        reader = Reader()
        readers.append(reader)
        started.wait()  # there are as many threads as asked for
        return reader

    def work(reader, item):
        assert reader.thread == threading.get_ident() and not reader.closed
        return item * item

    with results(work, iter(range(50)), make, 3) as found:
        assert sorted(found) == [item * item for item in range(50)]
    assert len(readers) == 3 and all(reader.closed for reader in readers)


@pytest.mark.parametrize("of", ["the work", "the caller"])
def test_after_an_error_nothing_new_is_begun(of):
    begun, reader = [], Reader()

    def work(reader, item):
        begun.append(item)
        time.sleep(0.01)
        if of == "the work" and item == 2:
            raise ValueError(of)
        return item

    told = r"^file 2 cannot be loaded: ValueError: the work \(test_threads.py, line \d+\)\."
    kind, text = (LoadingError, told) if of == "the work" else (ValueError, of)
    with pytest.raises(kind, match=text), results(work, range(1000), lambda: reader, 1, "file {}".format) as found:
        for item in found:
            if of == "the caller" and item == 2:
                raise ValueError(of)
    assert len(begun) < 10 and reader.closed  # twice as many as there are threads wait for their turn
    with results(work, [], Reader, 0) as found:
        assert list(found) == []
