"""What every test of this package sees: one thread per process, no network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from vtp.testing.environment import prepare, seeded  # noqa: F401 (a fixture)

prepare()  # before torch or tokenizers are imported

import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))

_GOLDEN = Path(__file__).resolve().parents[5] / "shared" / "golden" / "antmmf_losses.pt"


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Inputs and outputs of the released loss functions; skips where the file is absent."""
    if not _GOLDEN.is_file():
        pytest.skip("needs ../shared/golden/antmmf_losses.pt, beside the repository")
    groups: dict[str, Any] = torch.load(_GOLDEN, weights_only=True)
    return groups
