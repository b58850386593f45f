"""Two gloo processes against one: gradients, whole runs, checkpoints across strategies, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import ToyLoader, evaluate, history, plain_losses, toy_batch, toy_model

from vtp.storage import verify_directory
from vtp.train import TrainConfig, Trainer

HERE = Path(__file__).parent

# What each of two ranks runs: gradients for every strategy and accumulation, written by rank 0.
GRADIENTS = """
import json, os, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from toy_training import toy_batch, toy_model
from vtp import distributed
from vtp.train import TrainConfig
from vtp.train.parallel import Parallel, full_tensor
from vtp.train.precision import Precision
from vtp.train.step import Step

torch.set_num_threads(1)
out = Path(json.loads(os.environ["TOY"])["out"])
device = distributed.setup("cpu")
rank = distributed.rank()
for strategy in ("ddp", "fsdp2"):
    for accumulation in (1, 3):
        config = TrainConfig(steps=1, global_batch=12, accumulation=accumulation, strategy=strategy)
        model = toy_model(seed=rank)  # rank 1 starts from other weights: those of rank 0 must win
        if accumulation == 3:
            assert model.gradient_checkpointing_enable() == []
        parallel = Parallel(model, config, device)
        assert parallel.name == strategy
        step = Step(parallel, Precision("fp32", device), accumulation)
        for repeat in range(2):  # DDP complains about a wrong first step in the second one
            model.zero_grad()
            step(toy_batch(list(range(1 + 6 * rank, 7 + 6 * rank)), 6 * rank, 12))
        grads = {n: full_tensor(p.grad) for n, p in parallel.parameters}
        if rank == 0:
            save_file(grads, out / f"{strategy}{accumulation}.safetensors")

# the collectives themselves, with unequal numbers of rows
x = torch.full((rank + 2, 3), rank + 1.0, requires_grad=True)
gathered = distributed.gather_with_grad(x)
assert gathered[:, 0].tolist() == [1.0, 1.0, 2.0, 2.0, 2.0]
(gathered * torch.arange(5.0)[:, None]).sum().backward()
assert x.grad[:, 0].tolist() == [[0.0, 2.0], [4.0, 6.0, 8.0]][rank]  # the sum over both ranks
assert distributed.gather_with_grad(torch.tensor([rank == 0] * (rank + 1))).tolist() == [True, False, False]
assert distributed.gather_with_grad(torch.tensor([rank])).tolist() == [0, 1]
assert distributed.gather_objects({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
assert distributed.broadcast_object(f"from {rank}") == "from 0"
assert distributed.sum_scalars(torch.tensor([1.0, rank])).tolist() == [2.0, 1.0]
assert [distributed.any_rank(rank == 1), distributed.any_rank(False)] == [True, False]
distributed.barrier()
distributed.shutdown()
"""


def trainer(run_dir, **options) -> Trainer:
    config = TrainConfig(
        **{"steps": 12, "lr": 0.01, "global_batch": 16, "tensorboard": False, "log_every": 1, **options}
    )
    return Trainer(
        toy_model(), ToyLoader(), config, run_dir, evaluate=evaluate, monitor=("accuracy", "max"), device="cpu"
    )


OPTIONS = {"steps": 12, "lr": 0.01, "ema_decay": 0.9, "accumulation": 2, "keep": None}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, two_ranks) -> Path:
    """Everything that two processes do, in one start of them. Also: a run of one process to compare with, ``one``."""
    root = tmp_path_factory.mktemp("runs")
    one = trainer(root / "one", **OPTIONS)
    one.fit()
    trainer(root / "continued", **{**OPTIONS, "steps": 4}).fit()
    wet = {"strategy": "fsdp2", "dropout": 0.3, "lr": 0.01, "steps": 8, "keep": None}
    two_ranks(
        [str(HERE / "toy_training.py")],
        [
            {"run_dir": str(root / "full"), "steps": 2, "full": True},
            {"run_dir": str(root / "ddp"), "strategy": "ddp", **OPTIONS},
            {"run_dir": str(root / "fsdp2"), "strategy": "fsdp2", **OPTIONS},
            {"run_dir": str(root / "continued"), "strategy": "fsdp2", "resume": "auto", **OPTIONS},
            {"run_dir": str(root / "wet"), **wet},
            {"run_dir": str(root / "again"), "resume": str(root / "wet" / "checkpoints" / "step_00000004"), **wet},
        ],
    )
    return root


def tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


def assert_close(left: list[dict], right: list[dict], tolerance: float = 2e-5) -> None:
    """The same lines up to the order of float sums."""
    assert [line["step"] for line in left] == [line["step"] for line in right]
    for one, two in zip(left, right, strict=True):
        if "loss" in one:
            assert one["losses"] == pytest.approx(two["losses"], rel=tolerance)
            assert one["metrics"] == pytest.approx(two["metrics"], rel=1e-6)
            assert one["items"] == two["items"]
            assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=10 * tolerance)
        else:
            assert one == two


def test_gradients_and_collectives_of_two_processes(tmp_path, two_ranks):
    two_ranks(["-c", GRADIENTS], {"out": str(tmp_path)})
    model = toy_model(seed=0)
    outputs = plain_losses(model, toy_batch(list(range(1, 13)), 0, 12))
    sum(model.weights[name] * out.loss for name, out in outputs.items()).backward()
    files = sorted(tmp_path.glob("*.safetensors"))
    assert [f.stem for f in files] == ["ddp1", "ddp3", "fsdp21", "fsdp23"]
    for file in files:
        got = load_file(file)
        assert set(got) == {name for name, _ in model.named_parameters()}
        for name, parameter in model.named_parameters():
            error = (got[name] - parameter.grad).norm() / parameter.grad.norm()
            assert error < 2e-6, (file.stem, name, float(error))  # measured 6e-7


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_run_of_two_processes_is_that_of_one(runs, strategy):
    assert_close(history(runs / "one"), history(runs / strategy))
    for name in ("model", "ema", "optimizer"):
        a, b = (tensors(runs / run / "checkpoints" / "last", name) for run in ("one", strategy))
        assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-4)  # 12 AdamW steps apart


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_hand_over_to_one(runs, tmp_path, strategy):
    halfway = runs / strategy / "checkpoints" / "step_00000008"
    assert json.loads((halfway / "trainer.json").read_text())["strategy"] == strategy
    one = trainer(tmp_path, **OPTIONS)
    assert one.resume(halfway)
    saved = tensors(halfway, "model")
    assert all(torch.equal(parameter, saved[name]) for name, parameter in one.model.named_parameters())
    one.fit()
    own = history(tmp_path)
    assert_close(history(runs / strategy)[-len(own) :], own)


def test_one_process_hands_over_to_two(runs):
    """The options differ in train.steps alone; the learning rate of the first four steps therefore too."""
    assert (runs / "continued" / "started").read_text() == "4"
    assert [line["step"] for line in history(runs / "continued") if "loss" in line] == list(range(1, 13))


def test_two_processes_continue_exactly_with_the_dropout_of_each(runs):
    again = history(runs / "again")
    assert [line["step"] for line in again] == [5, 6, 7, 8, 8]
    assert again == history(runs / "wet")[-5:]


def test_a_failure_of_rank_0_while_saving_is_raised_on_every_rank(runs):
    ends = [json.loads((runs / "full" / f"end{rank}").read_text()) for rank in range(2)]
    assert [code for code, _ in ends] == [1, 1]
    assert all("the disk is full" in message for _, message in ends)
    assert not list((runs / "full" / "checkpoints").glob("*"))


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both_and_saves(tmp_path):
    """Under the real torchrun: rank 1 alone is signalled, the ranks agree after the step, the checkpoint is whole."""
    options = {"run_dir": str(tmp_path), "steps": 1000, "delay": 0.05, "strategy": "fsdp2", "eval_every": 0}
    env = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parents[1] / 'core'}", "TOY": json.dumps(options)}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", str(HERE / "toy_training.py")]
    run = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while not (tmp_path / "metrics.jsonl").exists() and run.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        (pid,) = [p for p in children(run.pid) if environment(p).get("RANK") == "1"]
        os.kill(pid, signal.SIGTERM)
        assert run.wait(timeout=300) == 1  # torchrun's code for "a process failed"
    finally:
        run.kill()
    ends = [json.loads((tmp_path / f"end{rank}").read_text()) for rank in range(2)]
    assert [code for code, _ in ends] == [143, 143]
    assert all("Stopped by SIGTERM after step" in message for _, message in ends)
    assert verify_directory(tmp_path / "checkpoints" / "last") is None
    one = trainer(tmp_path)
    assert one.resume("auto") and 0 < one.step < 1000


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


# BatchNorm with momentum 1: the running statistics of a rank are those of its last batch.
STATISTICS = """
import json, os, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from vtp import distributed
from vtp.train import TrainConfig
from vtp.train.parallel import Parallel

out = Path(json.loads(os.environ["TOY"])["out"])
device = distributed.setup("cpu")
rank = distributed.rank()
for strategy in ("ddp", "fsdp2"):
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3, momentum=1.0, affine=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(3))
        model[0].bias.zero_()
    parallel = Parallel(model, TrainConfig(steps=1, global_batch=4, strategy=strategy), device)
    parallel.forward(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 9.0]]) * (1 + rank)).sum().backward()
    with parallel.evaluating():
        inside = {f"inside{rank}": model[1].running_mean.clone(), f"var{rank}": model[1].running_var.clone()}
    state = parallel.full_state()
    saved = {"saved": state["1.running_mean"]} if rank == 0 else {}
    save_file(inside | saved, out / f"{strategy}{rank}.safetensors")
distributed.shutdown()
"""


@pytest.mark.slow
def test_running_statistics_are_the_mean_of_all_ranks_where_they_are_evaluated_and_saved(tmp_path, two_ranks):
    """Rank 0 has the means 2, 2, 6 and the variances 2, 0, 18; rank 1 twice, and four times as much."""
    script = tmp_path / "script.py"
    script.write_text(STATISTICS)
    two_ranks([str(script)], {"out": str(tmp_path)})
    for strategy in ("ddp", "fsdp2"):
        both = load_file(tmp_path / f"{strategy}0.safetensors") | load_file(tmp_path / f"{strategy}1.safetensors")
        for name in ("inside0", "inside1", "saved"):
            torch.testing.assert_close(both[name], torch.tensor([3.0, 3.0, 9.0]), msg=f"{strategy} {name}")
        for name in ("var0", "var1"):
            torch.testing.assert_close(both[name], torch.tensor([5.0, 0.0, 45.0]), msg=f"{strategy} {name}")
