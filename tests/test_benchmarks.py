"""Every script of benchmarks/ runs from end to end at its smallest size; the numbers of such a run mean nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vtp_datasets.shapes.render import write_clip

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the wheel has no benchmarks")

STEP = "--batch 2 --rounds 1 --device cpu --out out.json"
SMALLEST = {  # a script's arguments, and what its result file holds; "out" stands for that file
    "annotations_memory": ("--rows 2000 --workers 1", None),  # writes one from 2.5 million rows
    "cpu_attention": ("--rounds 1 --out out.json", "rows"),
    "data_turns": (
        f"--against {ROOT} --python {sys.executable} --videos clips --seconds 0.1 --only alone --out out.json", "rows"
    ),
    "embed": (
        "--videos clips --copies 1 --rounds 1 --threads 1 --width 64 --depth 1 --size 32 --out out.json",
        "times_as_fast",
    ),
    "fusions": ("--seeds 0 --fusions gate --size tiny --steps 2 --out out.json", "means"),
    "overhead": ("--steps 3 --step-ms 2 --out .", "wall_clock"),
    "retrieval": (
        "--items 300 --width 32 --rounds 1 --large 300 --times 0 --share 1e9 --out out.json", "times_as_fast"
    ),
    "search_million": ("--rows 600 --width 16 --topics 20 --queries 5 --exact 2 --out out.json", "index"),
    "simvtp_pretraining_helps": ("--seeds 0 --size tiny --steps 2 --finetune-steps 2 --out out.json", "difference"),
    "simvtp_step": (f"--preset tiny --text 4 {STEP}", "vtp_speedup_over"),
    "snps3_ablation": (
        "--seeds 0 --arms mlm both --size tiny --steps 2 --finetune-steps 2 --out out.json", "differences"
    ),
    "snps3_step": (f"--frames 1 --size 32 --depth 1 {STEP}", "added_over_mlm"),
    "startup": (f"--against {sys.executable} --rounds 1 --plugins 2 --out out.json", "rows"),
    "trimodal": (f"--frames 2 --size 32 --seconds 1 {STEP} --batch 6", "vtp_speedup_over"),
    "turns": (
        "--twins --pairs 1 --seconds 0.1 --warm 1 --out out.json task=msrvtt_qa dataset=shapes dataset.size=tiny",
        "ratios",
    ),
    "univl": (f"--frames 1 --size 32 --depth 1 {STEP}", "vtp_speedup_over"),
    "univl_retrieval": ("--preset tiny --texts 3 --clips 3 --plain 4 --batch 2 --out out.json", "vtp_speedup"),
    "univl_shapes": ("--tasks captioning --size tiny --steps 2 --out out.json", "rows"),
}  # fmt: skip
ELSEWHERE = {
    "data": "tests/data/test_benchmark.py",
    "mining": "plugins/objectives/snps3/tests/test_mining_benchmark.py",
    "run": "kernels/tests/test_benchmarks.py",
}
SHARED = {"harness", "pretrainings", "record", "step_pair"}


def test_no_script_goes_unrun():
    scripts = {file.stem for file in FOLDER.glob("*.py")}
    assert scripts == SMALLEST.keys() | ELSEWHERE.keys() | SHARED
    for name, test in ELSEWHERE.items():
        assert f'"{name}.py"' in (ROOT / test).read_text()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("script", sorted(SMALLEST))
def test_runs_at_its_smallest_size(script, tmp_path):
    if script in ("embed", "search_million"):
        pytest.importorskip("lancedb", reason="tables of embeddings need lancedb")
    arguments, measured = SMALLEST[script]
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "one.mp4", np.zeros((40, 64, 64, 3), np.uint8), None)
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{script}.py"), *arguments.split()],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    if measured is None:
        return
    (written,) = tmp_path.glob("*.json")
    result = json.loads(written.read_text())
    assert result[measured] and result["command"].startswith(f"python benchmarks/{script}.py ")
