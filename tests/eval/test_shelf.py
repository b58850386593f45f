from __future__ import annotations

import errno

import numpy as np
import pytest

from vtp.errors import RunError
from vtp.eval import shelf as module
from vtp.eval.shelf import Shelf

PARTS = [{"x": np.full((n, 3), n, np.float32), "n": np.full(n, n, np.int64)} for n in (2, 1, 4)]


@pytest.mark.parametrize("most", [0, 40, 10**9], ids=["from the first", "from the second", "never"])
def test_rows_in_files_are_those_in_memory(most, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MOST", most)
    shelf = Shelf(tmp_path)
    for part in PARTS:
        shelf.add(part)
    found = shelf.arrays()
    assert isinstance(found["x"], np.memmap) == (most < 10**9)
    for name in ("x", "n"):
        want = np.concatenate([part[name] for part in PARTS])
        np.testing.assert_array_equal(found[name], want)
        assert found[name].dtype == want.dtype
    assert list(tmp_path.iterdir()) == []  # files without a name: nothing to clean after a kill


def test_nothing_added_is_nothing_found():
    assert Shelf().arrays() == {}


def test_a_full_disk_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MOST", 0)

    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(module.tempfile, "TemporaryFile", lambda dir: Full())
    with pytest.raises(RunError, match=rf"could not be written to {tmp_path}: No space left on device. Make room"):
        Shelf(tmp_path).add(PARTS[0])


def test_rows_of_another_shape_are_told(monkeypatch):
    monkeypatch.setattr(module, "MOST", 0)
    shelf = Shelf()
    shelf.add(PARTS[0])
    with pytest.raises(RunError, match=r"'x' with rows of shape \(4,\) \(float32\) after rows of shape \(3,\)"):
        shelf.add({"x": np.zeros((1, 4), np.float32), "n": np.zeros(1, np.int64)})
