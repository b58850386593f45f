"""What a part does after every update: a MoCo objective is the same under every strategy and after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy_training import ToyLoader, evaluate, history, launch, toy_model

from vtp.errors import ConfigError
from vtp.model.momentum import Momentum
from vtp.model.objective import Objective
from vtp.train import TrainConfig, Trainer
from vtp.types import LossOutput, StepDone

HERE = Path(__file__).parent
OPTIONS = {"objectives": ["moco", "qa"], "steps": 8, "lr": 0.01, "keep": None, "save_every": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The same run on one process, with accumulation, and continued."""
    root = tmp_path_factory.mktemp("runs")
    launch(str(root / "one"), **OPTIONS)
    launch(str(root / "accumulation"), accumulation=2, **OPTIONS)
    launch(str(root / "resumed"), resume=str(root / "one" / "checkpoints" / "step_00000003"), **OPTIONS)
    return root


@pytest.fixture(scope="module")
def on_two(runs, two_ranks) -> Path:
    """And on two processes."""
    both = [{"run_dir": str(runs / strategy), "strategy": strategy, **OPTIONS} for strategy in ("ddp", "fsdp2")]
    two_ranks([str(HERE / "toy_training.py")], both)
    return runs


PROCESSES = [pytest.param(name, marks=pytest.mark.slow) for name in ("ddp", "fsdp2")]


@pytest.mark.parametrize("other", ["accumulation", *PROCESSES])
def test_moco_is_the_same_however_a_step_is_cut(runs, other, request):
    if other != "accumulation":
        request.getfixturevalue("on_two")
    one, two = history(runs / "one"), history(runs / other)
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for left, right in zip(one, two, strict=True):
        if "loss" in left:
            assert left["losses"] == pytest.approx(right["losses"], rel=1e-4)
    saved = [load_file(runs / run / "checkpoints" / "last" / "model.safetensors") for run in ("one", other)]
    for name, tensor in saved[0].items():
        torch.testing.assert_close(saved[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_moco_continues_bit_for_bit(runs):
    again = history(runs / "resumed")
    assert again == history(runs / "one")[-len(again) :] and again[0]["step"] == 4
    left, right = (load_file(runs / run / "checkpoints" / "last" / "model.safetensors") for run in ("one", "resumed"))
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    assert left["objectives.moco.queue"].shape == (32, 8)


def test_the_average_is_that_of_the_formula(runs):
    """From the weights of every step, which the checkpoints hold: a = m a + (1 - m) w, from a = w0."""
    torch.manual_seed(0)
    start = dict(toy_model(objectives=("moco", "qa")).named_parameters())
    want = {name: start[f"encoders.audio.{name}"].detach().clone() for name in ("pos_embed", "layers.1.1.weight")}
    head = start["objectives.moco.head.weight"].detach().clone()
    for step in range(1, 9):
        saved = load_file(runs / "one" / "checkpoints" / f"step_{step:08d}" / "model.safetensors")
        m = 0.6 + 0.4 * step / 8
        head = m * head + (1 - m) * saved["objectives.moco.head.weight"]
        torch.testing.assert_close(saved["objectives.moco.teacher_head.module.weight"], head)
        for name in want:
            want[name] = 0.6 * want[name] + 0.4 * saved[f"encoders.audio.{name}"]
            torch.testing.assert_close(saved[f"objectives.moco.teacher.module.{name}"], want[name])
        assert saved["objectives.moco.teacher.updates"] == step
        norms = saved["objectives.moco.prototypes"].norm(dim=1)
        torch.testing.assert_close(norms, torch.ones(5))


class Watch(Objective):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.told: list[StepDone] = []
        self.seen: list[tuple[int, int | None]] = []

    def forward(self, ctx):
        self.seen.append((ctx.step, ctx.total_steps))
        return LossOutput(self.scale.sum(), weight=torch.tensor(float(len(ctx.batch))))

    def after_step(self, done):
        assert not torch.is_grad_enabled()
        self.told.append(done)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_part_is_told_once_per_step_and_schedules_see_the_length(tmp_path, accumulation):
    model = toy_model(objectives=("qa",))
    model.objectives["watch"], model.weights["watch"] = (watch := Watch()), 1.0
    config = TrainConfig(steps=3, global_batch=16, accumulation=accumulation, tensorboard=False, save_every=0)
    Trainer(model, ToyLoader(), config, tmp_path, evaluate=evaluate, device="cpu").fit()
    assert watch.told == [StepDone(step, 3) for step in (1, 2, 3)]
    assert watch.seen == [(step, 3) for step in (0, 1, 2) for _ in range(accumulation)]


def test_an_average_starts_from_the_weights_that_training_starts_from(tmp_path):
    model = toy_model(objectives=("moco", "qa"))
    teacher = model.objectives["moco"].teacher
    with torch.no_grad():
        model.encoders["audio"].pos_embed.fill_(3.0)  # as init_from does, after the model was built
    config = TrainConfig(steps=1, lr=1e-12, global_batch=16, tensorboard=False, save_every=0)
    Trainer(model, ToyLoader(), config, tmp_path, evaluate=evaluate, device="cpu").fit()
    torch.testing.assert_close(teacher.module.pos_embed, torch.full((1, 4, 16), 3.0))


def test_an_average_has_no_gradient_no_dropout_and_the_buffers_of_its_source():
    source = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    average = Momentum(source, 0.5).train()
    assert not any(p.requires_grad for p in average.parameters()) and not average.module.training
    assert set(average.state_dict()) == {"updates", *(f"module.{name}" for name in source.state_dict())}
    source[1].running_mean.fill_(2.0)
    average.after_step(StepDone(1, 2))
    assert average.module[1].running_mean.tolist() == [2.0] * 3
    x = torch.ones(4, 3, requires_grad=True)
    assert not average(x).requires_grad and torch.equal(average(x), average(x))


def test_a_momentum_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"m=1.5 must be in \[0, 1\]"):
        Momentum(nn.Linear(1, 1), 1.5)
