"""Small models and clips of :mod:`small_models`, each made once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import vtp
from vtp.config import MediaConfig

sys.path[:0] = [str(Path(__file__).parent)]

from small_models import DUAL, FUSED, write_clips, write_model  # noqa: E402


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    """:func:`write_model`."""
    return write_model


@pytest.fixture(scope="session")
def dual_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "dual", DUAL)


@pytest.fixture(scope="session")
def dual(dual_folder: Path) -> vtp.Model:
    return vtp.load(dual_folder, device="cpu", workers=0)


@pytest.fixture(scope="session")
def fused(tmp_path_factory: pytest.TempPathFactory) -> vtp.Model:
    return vtp.load(write_model(tmp_path_factory.mktemp("models") / "fused", FUSED), device="cpu", workers=0)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """:func:`write_clips`."""
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode in this process: starting another one costs a second, and tests/media tries that."""
    monkeypatch.setattr("vtp.use.model.MediaConfig", partial(MediaConfig, isolate=False))
