"""Inputs and outputs of the loss functions of the released code."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

FILE = Path(__file__).resolve().parents[5] / "shared" / "golden" / "antmmf_losses.pt"


@cache
def _groups() -> dict[str, Any]:
    found: dict[str, Any] = torch.load(FILE, weights_only=True)
    return found


def group(name: str) -> Any:
    """One group of cases; the test is skipped where there is no such file."""
    if not FILE.is_file():
        pytest.skip(f"the recorded losses of the released code are not at {FILE}")
    return _groups()[name]
