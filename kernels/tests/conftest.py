"""Runs the kernels in Triton's interpreter, and fills every uninitialised buffer with NaN, so that a value nobody
wrote is seen."""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before the import: `triton.jit` reads it when it decorates

import pytest
import torch

TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.2e-2,
}  # measured: 4e-7, 4e-4, 6e-3 (bf16 stores truncate)


def pytest_configure(config):
    """Triton 3.6's interpreter uses a conversion that numpy 2 deprecates."""
    config.addinivalue_line(
        "filterwarnings", "ignore:Conversion of an array with ndim:DeprecationWarning:triton.runtime.interpreter"
    )


@pytest.fixture(autouse=True)
def nan_filled_memory():
    """``torch.empty`` gives NaN (the largest number for integers)."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


@pytest.fixture
def relative_error():
    """|got - want| / max(|want|, floor) in the L2 norm; |got| where both are 0."""

    def error(got: torch.Tensor, want: torch.Tensor, floor: float = 0.0) -> float:
        got, want = got.detach().double(), want.detach().double()
        assert got.shape == want.shape
        return (got - want).norm().item() / (max(want.norm().item(), floor) or 1.0)

    return error


@pytest.fixture
def tolerance():
    """Largest relative error that rounding explains, per type."""
    return TOLERANCE
