"""A few steps on the real clips of MSR-VTT and MSVD: retrieval, questions and captions, with the official test sets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[4]
DATA = ROOT.parent / "shared" / "data"
TINY = ["model=univl", "encoder.text.preset=tiny", "encoder.video.preset=tiny", "encoder.text.tokenizer=texts"]
SHORT = ["train.steps=2", "train.global_batch=8", "train.epochs=null", "train.tensorboard=false", "threads=1"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.data,
    pytest.mark.skipif(not (DATA.is_dir() and (ROOT / "tools").is_dir()), reason="the sample clips are not there"),
]

# What the official test set holds, and what of it the clips that are here answer: 48 questions are about the two clips
# of MSR-VTT, 23 about two clips of MSVD with 28 and 33 captions.
CASES = {
    "msrvtt_retrieval": (1_000, 2, {"videos": (1_000, 2)}),
    "msrvtt_qa": (72_821, 48, {}),
    "msvd_retrieval": (27_763, 61, {"videos": (670, 2)}),
    "msvd_qa": (13_157, 23, {}),
    "msvd_captioning": (670, 2, {}),
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    for name in ("msrvtt", "msvd"):
        tool = [sys.executable, str(ROOT / "tools" / f"{name}_sample_root.py"), str(DATA), str(folder / name)]
        subprocess.run(tool, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("task", CASES)
def test_a_few_steps_and_an_honest_ledger(roots: Path, task: str) -> None:
    options = [f"task={task}", f"dataset.root={task.partition('_')[0]}", f"run_dir={task}", "data.on_leak=stamp"]
    options += ["task.selection=last", "data.allow_incomplete=true"]
    command = [sys.executable, "-m", "vtp", "run", *options, *TINY, *SHORT]
    done = subprocess.run(command, cwd=roots, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((roots / task / "report.json").read_text())
    expected, evaluated, others = CASES[task]
    ledgers = {"": report["ledger"], **{name: report["ledgers"][name] for name in others}}
    for name, (wanted, found) in {"": (expected, evaluated), **others}.items():
        ledger = ledgers[name]
        assert (ledger["expected"], ledger["evaluated"]) == (wanted, found)
        assert ledger["reasons"] == {"no such file": wanted - found}
    assert report["protocol"]["official"] and not report["protocol"]["unverified"]
    assert report["leaks"]["leak"] == task.startswith("msrvtt")  # whose two clips are all there is to train on
    right = report["metrics"].get("accuracy", report["metrics"].get("t2v/r1", 0.0))
    assert right <= 100 * evaluated / expected + 1e-9  # what is missing is a miss
    assert f"{evaluated:,} of {expected:,} " in done.stdout
