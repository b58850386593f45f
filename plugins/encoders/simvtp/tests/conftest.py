"""What every test of this package sees: one thread per process, no network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vtp.testing.environment import prepare, seeded  # noqa: F401 (a fixture)

prepare(TRITON_INTERPRET="1")  # before torch, tokenizers or triton are imported; attention by the kernels, on the CPU

sys.path.insert(0, str(Path(__file__).parent))  # simvtp_models.py


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    """A vocab.txt with the 120 ids of the recorded step."""
    from simvtp_models import vocab_file

    return vocab_file(tmp_path)


@pytest.fixture
def recorded(vocab: Path) -> object:
    """The recorded pre-training step and our released model with its weights."""
    from simvtp_models import GOLDEN, Recorded

    if not GOLDEN.is_file():
        pytest.skip(f"the recorded step of the released code is not at {GOLDEN}")
    return Recorded.load(vocab)
