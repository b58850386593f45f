"""A good objective passes, and for every check there is a faulty one that it catches."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from vtp.distributed import world_size
from vtp.model.build import BuildContext
from vtp.model.objective import ContrastiveObjective, Objective, masked_mean
from vtp.testing import ContractError, check_objective
from vtp.types import Field, LossOutput


class Count(Objective):
    """Regresses the row number from the picture."""

    needs = frozenset({"video"})

    def __init__(self, *, context: BuildContext) -> None:
        super().__init__()
        self.head = nn.Linear(context.pooled_width("video"), 1)

    def error(self, ctx):
        return (self.head(ctx.pooled("video"))[:, 0] - ctx.uniform("count", 1)[:, 0]).square()

    def forward(self, ctx):
        rows = self.rows(ctx)
        error = self.error(ctx)
        return LossOutput(masked_mean(error, rows), rows.sum(), {"error": masked_mean(error.detach(), rows)})


class Pair(ContrastiveObjective):
    """Pictures against texts."""

    needs = frozenset({"video", "text"})

    def __init__(self, *, context: BuildContext) -> None:
        super().__init__()
        self.proj = nn.ModuleDict({m: nn.Linear(context.pooled_width(m), 4) for m in sorted(self.needs)})

    def features(self, ctx):
        return {m: self.proj[m](ctx.pooled(m)) for m in self.proj} | {"rows": self.rows(ctx)}

    def loss_from_features(self, features):
        rows = features["rows"]
        sim = features["text"] @ features["video"].T
        sim = sim.masked_fill((~rows[None] | ~rows[:, None]) & ~torch.eye(len(sim), dtype=torch.bool), -torch.inf)
        return LossOutput(masked_mean(sim.logsumexp(1) - sim.diagonal(), rows), rows.sum())


class NotAnObjective(nn.Module):
    def __init__(self) -> None:
        super().__init__()


class Cut(Count):
    def forward(self, ctx):
        out = super().forward(ctx)
        return LossOutput(out.loss.detach(), out.weight)


class CountsAll(Count):
    def count(self, ctx):
        return torch.tensor(len(ctx.batch))


class CountsByEncoding(Count):
    def count(self, ctx):
        return (ctx.tokens("video").x[:, 0, 0] > -torch.inf).sum() * 0 + super().count(ctx)


class Rolls(Count):
    def error(self, ctx):
        return super().error(ctx) * torch.rand(len(ctx.batch)).add(0.5) * next(_MORE)


_MORE = iter(range(1, 10_000))


class Spare(Count):
    def __init__(self, *, context):
        super().__init__(context=context)
        self.spare = nn.Linear(2, 2)


class Writes(Count):
    def forward(self, ctx):
        ctx.batch.inputs["video"]["frames"][:] = 3
        return super().forward(ctx)


class CountsTheMissing(Count):
    def error(self, ctx):
        return super().error(ctx) + self.rows(ctx).float().mean()


class Disconnected(Count):
    def forward(self, ctx):
        if not self.rows(ctx).any():
            return LossOutput(torch.zeros(()), torch.tensor(0))
        return super().forward(ctx)


class Summed(Count):
    def forward(self, ctx):
        out = super().forward(ctx)
        return LossOutput(out.loss * out.weight, out.weight)


class Forgets(Count):
    def __init__(self, *, context):
        super().__init__(context=context)
        self.shift = float(torch.rand(()))

    def error(self, ctx):
        return super().error(ctx) + self.shift * self.head.weight.sum()


class TellsAList(Count):
    def origin(self):
        return ["words"]


@pytest.mark.parametrize(
    "check, cls, words",
    [
        ("members", NotAnObjective, "must be a subclass of vtp.model.objective.Objective"),
        ("loss", Cut, "loss must be connected to the graph"),
        ("count", CountsAll, "count.ctx. must equal the weight with 2 rows without video: 6 and 4"),
        ("count", CountsByEncoding, "count must not run an encoder; it ran video"),
        ("determinism", Rolls, "draw with ctx.uniform"),
        ("gradients", Spare, "none reaches spare.weight, spare.bias"),
        ("inputs", Writes, "must not write into the video of the batch"),
        ("missing", CountsTheMissing, "a row without video must take no part"),
        ("nothing", Disconnected, "zero that is connected to the graph"),
        ("micro-batches", Summed, "three micro-batches must give the gradient of the whole batch"),
        ("restore", Forgets, "must compute the same"),
        ("restore", TellsAList, r"origin\(\) must be a dict, got list"),
    ],
)
def test_a_faulty_objective_is_caught(check, cls, words):
    with pytest.raises(ContractError) as error:
        check_objective(cls)
    assert re.search(rf"^  (?:[\w, -]+, )?{check}(?:, [\w, -]+)?: .*{words}", str(error.value), re.M), str(error.value)


@pytest.mark.parametrize("cls", [Count, Pair])
def test_good_objectives_pass(cls):
    check_objective(cls)


class Scored(Count):
    """Weighs rows by a number of the sample."""

    reads = {"score": Field()}

    def error(self, ctx):
        assert ctx.batch.fields["score.present"].all() and "score" not in ctx.batch.extra
        return super().error(ctx) * ctx.batch.fields["score"]


def test_fields_come_as_the_loader_makes_them():
    check_objective(Scored, extra={"score": [1.0, 2.0, 0.5]})
    with pytest.raises(ContractError, match=r"loss[\w, -]*: it raised DataError: sample 'clip1': 'score' holds"):
        check_objective(Scored, extra={"score": [1.0, [2.0], 0.5]})


class ComparesHalf(Pair):
    def loss_from_features(self, features):
        rows = len(features["rows"]) // world_size()
        return super().loss_from_features({name: value[:rows] for name, value in features.items()})


@pytest.mark.slow
def test_several_processes_are_compared_with_one():
    check_objective(Pair, processes=2)
    with pytest.raises(ContractError, match="processes: 2 processes must give the gradient of one"):
        check_objective(ComparesHalf, processes=2)
