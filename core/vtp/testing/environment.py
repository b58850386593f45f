"""What every test process of vtp and of its plugins sees: one thread, no network, the same random numbers.

# conftest.py, before anything else is imported
from vtp.testing.environment import prepare, seeded  # seeded is a fixture that every test gets

prepare(TRITON_INTERPRET="1")
"""

from __future__ import annotations

import os
import random
import sys

import pytest

__all__ = ["prepare", "seeded"]


def prepare(**more: str) -> None:
    """Set environment variables where they are not set. Before torch, OpenMP, tokenizers or triton are imported: sums
    come out the same everywhere, forked workers do not warn, and nothing is downloaded.

    Args:
        more: further variables, such as ``TRITON_INTERPRET="1"`` for kernels on the CPU or ``VTP_CACHE=folder``.
    """
    variables = {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    for name, value in (variables | more).items():
        os.environ.setdefault(name, value)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed the global generators of what is imported already: a test must not depend on the ones before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
