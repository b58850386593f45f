"""A run of model=snps3 that is killed and continued is the unbroken one, step by step."""

from __future__ import annotations

from pathlib import Path

import pytest
from killed_runs import is_the_unbroken_one


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """With what is drawn in every step: masked words, their replacements, words that are matched."""
    weights = is_the_unbroken_one(tmp_path, ["model=snps3", "objectives.lvwm.stage=both", "objectives.lvwm.width=16"])
    assert {name.split(".")[1] for name in weights if name.startswith("objectives.")} == {"vtc", "mssm", "lvwm"}
