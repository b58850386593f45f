"""What every test of this package sees: one thread per process, no network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from vtp.testing.environment import prepare, seeded  # noqa: F401 (a fixture)

prepare()  # before torch or tokenizers are imported

UNIVL = Path(__file__).resolve().parents[3] / "encoders" / "univl" / "tests"
sys.path[:0] = [str(Path(__file__).parent), str(UNIVL)]  # small models, and the recorded losses


class _Golden:
    """The groups of the recorded losses by name, read when the first is asked for."""

    def __getitem__(self, name: str) -> Any:
        from golden import group

        return group(name)


@pytest.fixture(scope="session")
def golden() -> _Golden:
    """Inputs and outputs of the released loss functions; skips where the file is absent."""
    return _Golden()
