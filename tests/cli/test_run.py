"""`vtp run` as people use it: a real process, a generated data set, and nothing that depends on luck."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

VTP = [sys.executable, "-m", "vtp", "run", "task=msrvtt_qa", "dataset=shapes", "dataset.size=tiny", "threads=1"]
SHORT = ["train.steps=12", "train.global_batch=8", "train.log_every=1", "train.eval_every=0", "train.tensorboard=false"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> str:
    return f"dataset.root={tmp_path_factory.mktemp('shapes') / 'tiny'}"


def run(cwd: Path, *arguments: str, processes: int = 1) -> subprocess.CompletedProcess:
    launch = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--rdzv-backend=c10d"]
    command = VTP if processes == 1 else [sys.executable, *launch, "--rdzv-endpoint=localhost:0", *VTP[1:]]
    return subprocess.run([*command, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def accuracy(folder: Path) -> float:
    return json.loads((folder / "report.json").read_text())["metrics"]["accuracy"]


def test_kill_and_resume_continue_exactly(tmp_path, world):
    """kill -9 in mid-epoch, with augmentation and two workers: every later loss is that of the whole run."""
    options = [
        world,
        *SHORT,
        "data.augment=true",
        "data.workers=2",
        "data.group=3",
        "train.save_every=3",
        "train.steps=24",
    ]
    whole = run(tmp_path, *options, "run_dir=whole")
    assert whole.returncode == 0, whole.stderr
    with open(tmp_path / "killed.log", "w") as log:
        process = subprocess.Popen([*VTP, *options, "run_dir=parts"], cwd=tmp_path, stdout=log, stderr=log)
        until = time.monotonic() + 200
        while not list(tmp_path.glob("parts/checkpoints/step_00000009")) and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = max(int(p.name[5:]) for p in (tmp_path / "parts/checkpoints").glob("step_*"))
    assert 9 <= before < 24
    resumed = run(tmp_path, *options, "run_dir=parts", "resume=auto")
    assert resumed.returncode == 0, resumed.stderr
    assert f"step {before} of 24" in resumed.stderr
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert accuracy(tmp_path / "parts") == accuracy(tmp_path / "whole")


def test_resume_auto_finds_the_run_of_the_same_command(tmp_path, world):
    options = [world, *SHORT, "train.save_every=4"]
    process = subprocess.Popen([*VTP, *options], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 200
    while not list(tmp_path.glob("outputs/*/*/checkpoints/step_*")) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    other = run(tmp_path, *options, "seed=1", "resume=auto")
    assert "no unfinished run of this configuration" in other.stderr
    resumed = run(tmp_path, *options, "resume=auto")
    assert resumed.returncode == 0 and "resume=auto: going on in" in resumed.stderr, resumed.stderr


def test_a_truncated_checkpoint_falls_back_to_the_one_before(tmp_path, world):
    options = [world, *SHORT, "train.save_every=6", "run_dir=run"]
    assert run(tmp_path, *options).returncode == 0
    newest = tmp_path / "run/checkpoints/step_00000012/model.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    again = run(tmp_path, *options, "resume=auto")
    assert again.returncode == 0, again.stderr
    assert "step_00000012 is damaged" in again.stderr and "step 6 of 12" in again.stderr


def test_results_do_not_depend_on_workers_or_processes(tmp_path, world):
    common = [world, *SHORT, "data.augment=true", "data.group=2"]
    runs = {
        "none": run(tmp_path, *common, "data.workers=0", "run_dir=none"),
        "two": run(tmp_path, *common, "data.workers=2", "run_dir=two"),
        "processes": run(tmp_path, *common, "data.workers=0", "run_dir=processes", processes=2),
    }
    for name, result in runs.items():
        assert result.returncode == 0, f"{name}: {result.stderr}"
    alone = losses(tmp_path / "none")
    assert losses(tmp_path / "two") == alone
    assert losses(tmp_path / "processes") == pytest.approx(alone, rel=1e-4)
    assert accuracy(tmp_path / "none") == accuracy(tmp_path / "two") == accuracy(tmp_path / "processes")


def test_evaluation_of_a_finished_run_gives_its_numbers_again(tmp_path, world):
    assert run(tmp_path, world, *SHORT, "run_dir=run").returncode == 0
    again = run(tmp_path, world, "mode=eval", "checkpoint=run", "run_dir=again")
    assert again.returncode == 0, again.stderr
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("run", "again"))
    assert first["metrics"] == second["metrics"] and first["checkpoint"]["sha256"] == second["checkpoint"]["sha256"]
    predicted = run(tmp_path, world, "mode=predict", "checkpoint=run", "run_dir=predicted")
    assert predicted.returncode == 0, predicted.stderr
    lines = (tmp_path / "predicted/predictions.jsonl").read_text().splitlines()
    assert len(lines) == first["ledger"]["expected"]


def test_sigterm_saves_and_says_how_to_go_on(tmp_path, world):
    options = [world, *SHORT, "train.steps=100000", "run_dir=run"]
    process = subprocess.Popen([*VTP, *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 200
    while not (tmp_path / "run/metrics.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 143 and "resume=auto" in said
    assert list(tmp_path.glob("run/checkpoints/step_*"))


@pytest.mark.data
def test_the_real_clips_train_and_evaluate(tmp_path, shared_data):
    tool = Path(__file__).resolve().parents[2] / "tools" / "msrvtt_sample_root.py"
    subprocess.run(
        [sys.executable, str(tool), str(shared_data), str(tmp_path / "root")], check=True, capture_output=True
    )
    for task, expected in (("msrvtt_qa", 72_821), ("msrvtt_retrieval", 1_000)):
        command = [sys.executable, "-m", "vtp", "run", f"task={task}", "dataset.root=root", "train.steps=3"]
        options = ["train.global_batch=8", "data.on_leak=stamp", f"run_dir={task}", "data.allow_incomplete=true"]
        options += ["task.ablate=false"]
        options = options if task == "msrvtt_qa" else options[:-1]
        done = subprocess.run(
            [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / task / "report.json").read_text())
        assert report["ledger"]["expected"] == expected and report["leaks"]["leak"]
        assert report["ledger"]["evaluated"] == (48 if task == "msrvtt_qa" else 2)
        refused = subprocess.run([*command, "run_dir=x"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert refused.returncode == 2 and "LEAK" in refused.stderr and "data.on_leak=stamp" in refused.stderr
