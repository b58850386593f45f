"""A generated data set, and an MSR-VTT root from the two real clips; both are made once per session."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from vtp_datasets.shapes import Shapes

sys.path.insert(0, str(Path(__file__).parent))  # small_files.py

TOOL = Path(__file__).resolve().parents[2] / "tools" / "msrvtt_sample_root.py"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Shapes:
    """24 clips, rendered by two processes."""
    dataset = Shapes(size="tiny", root=tmp_path_factory.mktemp("shapes") / "tiny", workers=2)
    assert dataset.manifest["clips"] == 24
    return dataset


@pytest.fixture(scope="session")
def sample_tool():
    """The module ``tools/msrvtt_sample_root.py``."""
    spec = importlib.util.spec_from_file_location("msrvtt_sample_root", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def sample_root(shared_data, sample_tool, tmp_path_factory) -> Path:
    """The two real clips with official test lists, as ``dataset.root`` takes it."""
    root = tmp_path_factory.mktemp("msrvtt")
    assert sample_tool.build(shared_data, root) is None
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Tables that are kept for the next time are kept beside the test."""
    monkeypatch.setenv("VTP_CACHE", str(tmp_path / "vtp-cache"))
