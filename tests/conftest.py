"""What every test sees: one thread per process, no network, and where the sample data lies."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


@pytest.fixture
def take_step() -> Callable[..., dict[str, Any]]:
    """``take_step(model, batch)``: a step of the engine in one micro-batch; objective -> loss, weight, metrics. The
    gradient of the weighted sum lies in the parameters afterwards.
    """
    import torch

    from vtp.train import TrainConfig
    from vtp.train.parallel import Parallel
    from vtp.train.precision import Precision
    from vtp.train.step import Step

    def take(model: Any, batch: Any) -> dict[str, Any]:
        cpu = torch.device("cpu")
        model.zero_grad()
        step = Step(Parallel(model, TrainConfig(steps=1, global_batch=len(batch)), cpu), Precision("fp32", cpu), 1)
        return {seen.name: seen for seen in step(batch)}

    return take
