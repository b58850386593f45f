"""Announced fusion passes are made at once by a fusion encoder that can, and one by one by others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.model.objective import Objective
from vtp.types import AudioSpec, Batch, Fused, LossOutput, Tokens, VideoSpec


class Frames(nn.Module):
    width = 3
    spec = VideoSpec(frames=2, size=4, layout="uint8")

    def forward(self, video: Tensor) -> Tokens:
        x = video.float().mean(dim=(2, 3))
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool))


class Fusion(nn.Module):
    width = 3
    calls: list[int]

    def __init__(self, takes_many: bool) -> None:
        super().__init__()
        self.takes_many = takes_many
        self.calls = []

    def forward(self, given):
        requests = given if isinstance(given, list) else [given]
        self.calls.append(len(requests))
        out = [Fused(dict(r), r["video"].pooled()) for r in requests]
        return out if isinstance(given, list) else out[0]


class Pair(Objective):
    """Needs the clips in order and in a fixed other order."""

    def others(self, ctx):
        return ctx.once("others", lambda: torch.tensor([1, 2, 0]))

    def plan(self, ctx):
        ctx.plan({"video": ""})
        ctx.plan({"video": ""}, {"video": self.others(ctx)})

    def forward(self, ctx):
        same, other = ctx.fused({"video": ""}), ctx.fused({"video": ""}, {"video": self.others(ctx)})
        return LossOutput((same.pooled[[1, 2, 0]] - other.pooled).abs().sum(), torch.tensor(3))


@pytest.fixture
def batch() -> Batch:
    frames = torch.randint(0, 256, (3, 2, 4, 4, 3), dtype=torch.uint8)
    return Batch(["a", "b", "c"], {"video": {"frames": frames}}, {"video": torch.ones(3, dtype=torch.bool)})


@pytest.mark.parametrize("takes_many, calls", [(True, [2]), (False, [1, 1])])
def test_announced_passes(batch, takes_many, calls):
    model = VTPModel({"video": Frames(), "fusion": Fusion(takes_many)}, {"a": Pair(), "b": Pair()})
    ctx = ForwardContext(model, batch)
    for objective in model.objectives.values():
        objective.plan(ctx)
    assert [objective(ctx).loss for objective in model.objectives.values()] == [0, 0]
    assert model.encoders["fusion"].calls == calls


def test_a_pass_that_was_not_announced_runs_alone(batch):
    model = VTPModel({"video": Frames(), "fusion": Fusion(True)}, {"a": Pair()})
    ctx = ForwardContext(model, batch)
    model.objectives["a"].plan(ctx)
    ctx.fused({"video": ""}, {"video": torch.tensor([0])})
    assert model.encoders["fusion"].calls == [1]
    model.objectives["a"](ctx)
    assert model.encoders["fusion"].calls == [1, 2]


def test_asking_without_gradients_does_not_make_the_others_so(batch):
    model = VTPModel({"video": Frames(), "fusion": Fusion(True)}, {"a": Pair()})
    ctx = ForwardContext(model, batch)
    model.objectives["a"].plan(ctx)
    with torch.no_grad():
        ctx.fused({"video": ""})
    model.objectives["a"](ctx)
    assert model.encoders["fusion"].calls == [1, 2]


class Colours(nn.Module):
    """Like Frames, with a parameter; also stands for audio."""

    width = 3

    def __init__(self, spec: object) -> None:
        super().__init__()
        self.spec = spec
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, **inputs: Tensor) -> Tokens:
        (x,) = (t for t in inputs.values() if t.ndim > 1)
        x = self.scale * x.float().flatten(1)[:, None, :3]
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool))


class Quiet(Objective):
    """Announces two passes and asks for the one without sound."""

    def plan(self, ctx):
        ctx.plan({"video": "", "audio": ""})
        ctx.plan({"video": ""})

    def forward(self, ctx):
        return LossOutput(ctx.fused({"video": ""}).pooled.sum(), torch.tensor(3))


def test_a_pass_that_nobody_asks_for_leaves_no_parameter_without_a_gradient(batch, take_step):
    sound = AudioSpec(sample_rate=8, seconds=1.0)
    encoders = {"video": Colours(Frames.spec), "audio": Colours(sound), "fusion": Fusion(True)}
    model = VTPModel(encoders, {"quiet": Quiet()})
    batch.inputs["audio"] = {"waveform": torch.randn(3, 8), "lengths": torch.full((3,), 8)}
    batch.present["audio"] = torch.ones(3, dtype=torch.bool)
    take_step(model, batch)
    assert model.encoders["fusion"].calls == [2]
    assert model.encoders["video"].scale.grad != 0 and model.encoders["audio"].scale.grad == 0
