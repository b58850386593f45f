"""Announced fusion passes are made at once by a fusion encoder that can, and one by one by others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.model.objective import Objective
from vtp.types import Batch, Fused, LossOutput, Tokens, VideoSpec


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


@pytest.mark.parametrize("takes_many, calls", [(True, [2]), (False, [1, 1])])
def test_announced_passes(takes_many, calls):
    model = VTPModel({"video": Frames(), "fusion": Fusion(takes_many)}, {"a": Pair(), "b": Pair()})
    frames = torch.randint(0, 256, (3, 2, 4, 4, 3), dtype=torch.uint8)
    batch = Batch(["a", "b", "c"], {"video": {"frames": frames}}, {"video": torch.ones(3, dtype=torch.bool)})
    batch.inputs["video"] = {"video": frames}
    with torch.no_grad():
        out = model.losses(ForwardContext(model, batch))
    assert out["a"].loss == out["b"].loss == 0
    assert model.encoders["fusion"].calls == calls


def test_a_pass_that_was_not_announced_runs_alone():
    model = VTPModel({"video": Frames(), "fusion": Fusion(True)}, {"a": Pair()})
    frames = torch.zeros(3, 2, 4, 4, 3, dtype=torch.uint8)
    batch = Batch(["a", "b", "c"], {"video": {"video": frames}}, {"video": torch.ones(3, dtype=torch.bool)})
    ctx = ForwardContext(model, batch)
    model.objectives["a"].plan(ctx)
    ctx.fused({"video": ""}, {"video": torch.tensor([0])})
    assert model.encoders["fusion"].calls == [1]
    model.objectives["a"](ctx)
    assert model.encoders["fusion"].calls == [1, 2]
