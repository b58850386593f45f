from __future__ import annotations

import os

from vtp.testing import environment


def test_variables_are_set_where_they_are_not(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("VTP_SOMETHING", raising=False)
    environment.prepare(VTP_SOMETHING="1")
    assert (os.environ["OMP_NUM_THREADS"], os.environ["HF_HUB_OFFLINE"], os.environ["VTP_SOMETHING"]) == ("3", "1", "1")
    monkeypatch.delenv("VTP_SOMETHING")
