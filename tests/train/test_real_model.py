"""The engine under the built-in model: three modalities, missing rows, shared passes, masks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from real_training import ROWS, real_batch, real_model
from safetensors.torch import load_file
from toy_training import plain_losses

from vtp.train import TrainConfig
from vtp.train.parallel import Parallel
from vtp.train.precision import Precision
from vtp.train.step import Step

HERE = Path(__file__).parent


def reference() -> dict[str, torch.Tensor]:
    model = real_model()
    losses = plain_losses(model, real_batch(model))
    sum(model.weights[name] * out.loss for name, out in losses.items()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    largest = max(float(g.norm()) for g in want.values())
    for name, gradient in want.items():
        error = (got[name] - gradient).norm() / (gradient.norm() + 1e-3 * largest)
        assert error < 2e-5, (name, float(error))


@pytest.mark.parametrize("accumulation", [2, 3, 8])
def test_micro_batches_give_the_gradient_of_the_whole_batch(accumulation):
    model = real_model()
    config = TrainConfig(steps=1, global_batch=ROWS, accumulation=accumulation)
    Step(Parallel(model, config, torch.device("cpu")), Precision("fp32", torch.device("cpu")), accumulation)(
        real_batch(model)
    )
    assert_same({n: p.grad for n, p in model.named_parameters() if p.grad is not None}, reference())


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_the_whole_batch(tmp_path, two_ranks):
    """Rank 1 has no sound at all, and its rows hold other numbers of answers and masked words."""
    two_ranks([str(HERE / "real_training.py")], {"out": str(tmp_path)})
    files = sorted(tmp_path.glob("*.safetensors"))
    assert [f.stem for f in files] == ["ddp1", "ddp2", "fsdp21", "fsdp22"]
    want = reference()
    for file in files:
        assert_same(load_file(file), want)
