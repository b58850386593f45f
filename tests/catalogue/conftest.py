"""Tables that are kept for the next time are kept beside the test."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VTP_CACHE", str(tmp_path / "vtp-cache"))
