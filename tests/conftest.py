"""What every test sees: one thread per process, no network, and where the sample data lies."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

# Before torch, OpenMP or tokenizers are imported: sums come out the same everywhere, and forked workers do not warn.
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}.items():
    os.environ.setdefault(_name, _value)

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(path: Path, what: str) -> Path:
    if not path.is_dir():
        pytest.skip(f"{what} is not at {path}")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Sample clips, annotations and vocabularies in ``../shared/data``; skips where they are absent."""
    return _folder(SHARED / "data", "the sample data")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Recorded outputs of the original implementations in ``../shared/golden``; skips where they are absent."""
    return _folder(SHARED / "golden", "the golden files")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed the global generators of what is imported already: a test must not depend on the ones before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
