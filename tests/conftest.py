"""What every test sees: one thread per process, no network, and where the sample data lies."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch, OpenMP or tokenizers are imported: sums come out the same on every machine, and forked workers do not warn.
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}.items():
    os.environ.setdefault(_name, _value)

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(path: Path, what: str) -> Path:
    if not path.is_dir():
        pytest.skip(f"{what} is not at {path}")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Sample clips, annotations and vocabularies (``../shared/data`` beside the repository); skips where they are absent."""
    return _folder(SHARED / "data", "the sample data")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Recorded outputs of the original implementations (``../shared/golden``); skips where they are absent."""
    return _folder(SHARED / "golden", "the golden files")


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """Seed the global generators of whatever is imported already, so that a test does not depend on the ones before it."""
    import random
    import sys

    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
