"""What every test of this package sees: one thread per process, no network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Before torch, tokenizers or triton are imported.
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRITON_INTERPRET": "1",  # attention by the Triton kernels, on the CPU
}.items():
    os.environ.setdefault(_name, _value)

sys.path.insert(0, str(Path(__file__).parent))  # simvtp_models.py


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)


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
