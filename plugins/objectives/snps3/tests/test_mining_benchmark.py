"""benchmarks/mining.py runs from end to end at its smallest size; the numbers of such a run mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mining import DATA, msvd_captions, use_nltk_data

SCRIPT = Path(__file__).resolve().parents[4] / "benchmarks" / "mining.py"


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.exists(), reason="the package has no benchmarks")
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from /proc")
def test_runs_at_its_smallest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_nltk_data(monkeypatch)
    pytest.importorskip("lemminflect")
    (tmp_path / "captions_msvd.json").write_text(json.dumps({"clip": msvd_captions(100)}))
    (tmp_path / "train_list.txt").write_text("clip\n")
    vocabulary = DATA / "vocabs" / "bert-base-uncased_vocab.txt"
    arguments = f"--root {tmp_path} --vocabulary {vocabulary} --rounds 1 --generated 200 --times 0 --out out.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments.split()],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["speedup"] and result["generated"]["captions"] == 200
    assert result["command"].startswith("python benchmarks/mining.py ")
