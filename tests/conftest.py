"""What every test sees: one thread per process, no network, and where the sample data lies."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vtp.testing.environment import prepare, seeded  # noqa: F401 (a fixture)

prepare()  # before torch, OpenMP or tokenizers are imported

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


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on sys.path to install plugins into; modules imported from it are forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for variable in ("VTP_BLOCK_PLUGINS", "VTP_LOAD_PLUGINS", "VTP_STRICT_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    before = set(sys.modules)
    yield folder
    for module in set(sys.modules) - before:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(folder)):
            del sys.modules[module]


@pytest.fixture
def take_step() -> Callable[..., dict[str, Any]]:
    """``take_step(model, batch, accumulation=1)``: a step of the engine in so many micro-batches; objective -> loss,
    weight, metrics. The gradient of the weighted sum lies in the parameters afterwards.
    """
    import torch

    from vtp.train import TrainConfig
    from vtp.train.parallel import Parallel
    from vtp.train.precision import Precision
    from vtp.train.step import Step

    def take(model: Any, batch: Any, accumulation: int = 1) -> dict[str, Any]:
        cpu = torch.device("cpu")
        model.zero_grad()
        config = TrainConfig(steps=1, global_batch=len(batch), accumulation=accumulation)
        step = Step(Parallel(model, config, cpu), Precision("fp32", cpu), accumulation)
        return {seen.name: seen for seen in step(batch)}

    return take
