"""A run with queues that is killed and continued is the unbroken one, step by step."""

from __future__ import annotations

from pathlib import Path

import pytest
from killed_runs import is_the_unbroken_one

OPTIONS = ["model=univl", "objective=[univl/moco,univl/hscl,univl/mlm]"]
OPTIONS += ["objectives.vtm.change_iter=2", "objectives.vtm.change_rate=0.5"]
OPTIONS += ["objectives.vtc.queue_size=64", "objectives.vtc.momentum=0.9"]


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    weights = is_the_unbroken_one(tmp_path, OPTIONS)
    names = [name for name in weights if "queue" in name or "key_encoders" in name]
    assert any(name.endswith("text_queue_ptr") for name in names) and len(names) > 20
