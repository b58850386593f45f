"""benchmarks/data.py runs from the clips to the table; the numbers of a tiny run mean nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "data.py"


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.exists(), reason="the wheel has no benchmarks")
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processor time of workers is read from /proc")
def test_a_tiny_run_measures_every_provider_after_checking_its_frames(tmp_path):
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny", "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (suite,) = json.loads(out.read_text())["suites"]
    states = {row["provider"]: row["status"] for row in suite["rows"]}
    assert len(states) == 10 and "wrong" not in states.values()
    for name in ("pyav", "transcode cache", "JPEG cache", "raw cache", "shards of mp4", "shards of frames"):
        assert states[name] == "ok"
    assert f"| {suite['baseline']} |" in done.stdout
