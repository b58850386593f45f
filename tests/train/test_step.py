"""The gradient of a step against plain autograd on the whole batch, written out here without the engine."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toy_training import ToyContrastive, plain_losses, toy_batch, toy_model

from vtp.errors import ConfigError
from vtp.train.config import TrainConfig
from vtp.train.history import Window
from vtp.train.parallel import Parallel
from vtp.train.precision import Precision
from vtp.train.step import Step

CPU = torch.device("cpu")


def run_step(model, batch, accumulation: int, precision: str = "fp32"):
    config = TrainConfig(steps=1, global_batch=len(batch), accumulation=accumulation)
    step = Step(Parallel(model, config, CPU), Precision(precision, CPU), accumulation)
    return step, step(batch)


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def reference(model, batch) -> dict[str, torch.Tensor]:
    losses = plain_losses(model, batch)
    sum(model.weights[name] * out.loss for name, out in losses.items()).backward()
    return gradients(model)


def assert_same(got, want, tolerance):
    assert set(got) == set(want)
    for name in want:
        error = (got[name] - want[name]).norm() / want[name].norm().clamp(min=1e-12)
        assert error < tolerance, (name, float(error))


@pytest.mark.parametrize("accumulation", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("objectives", [("vtc", "qa"), ("qa",), ("vtc",)], ids="+".join)
def test_any_number_of_micro_batches_gives_the_gradient_of_the_whole_batch(accumulation, objectives):
    batch = toy_batch(list(range(1, 13)), 0, 12)
    want = reference(toy_model(objectives=objectives), batch)
    model = toy_model(objectives=objectives)
    run_step(model, batch, accumulation)
    assert_same(gradients(model), want, 2e-6)  # measured 5e-7
    if "vtc" in objectives:
        assert want["objectives.vtc.logit_scale"].abs() > 1e-3


def test_micro_batches_with_unequal_numbers_of_items_count_by_items():
    """3 of 4 micro-batches without a single label: their rows must not thin out the others."""
    batch = toy_batch(list(range(12)), 0, 12)
    batch.labels["answer"][:9] = -100
    want = reference(toy_model(objectives=("qa",)), batch)
    model = toy_model(objectives=("qa",))
    run_step(model, batch, 4)
    assert_same(gradients(model), want, 2e-6)


def test_a_step_without_any_item_gives_a_zero_gradient():
    batch = toy_batch(list(range(4)), 0, 4)
    batch.labels["answer"][:] = -100
    for accumulation in (1, 2):
        model = toy_model(objectives=("qa",))
        run_step(model, batch, accumulation)
        assert all(g.abs().max() == 0 for g in gradients(model).values())


def test_the_second_pass_repeats_the_dropout_of_the_first():
    """With dropout there is no whole-batch reference, but the features of both passes must be the same."""
    seen: list[torch.Tensor] = []

    class Spy(ToyContrastive):
        def features(self, ctx):
            out = super().features(ctx)
            seen.append(out["a"].detach().clone())
            return out

    model = toy_model(dropout=0.5, objectives=("qa", "vtc"))
    model.objectives["vtc"] = Spy()
    run_step(model, toy_batch(list(range(1, 9)), 0, 8), 4)
    first, second = seen[:4], seen[4:]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])


def test_gradcache_with_dropout_is_the_gradient_of_its_own_loss():
    """Dropout replaced by a mask that depends on the row alone, so that a whole-batch reference exists."""

    class RowMask(nn.Module):
        def forward(self, x):
            return x * (x.detach().sum((1, 2), keepdim=True) > 0)

    def build():
        model = toy_model()
        model.encoders["audio"].layers[0][3] = RowMask()
        return model

    batch = toy_batch(list(range(1, 9)), 0, 8)
    want = reference(build(), batch)
    model = build()
    run_step(model, batch, 4)
    assert_same(gradients(model), want, 2e-6)


def run_name(objective) -> str:
    return "features" if objective.contrastive else "forward"


@pytest.mark.parametrize(
    "accumulation, want",
    [
        (1, ["plan vtc", "plan qa", "vtc", "qa"]),
        (2, 2 * ["plan vtc", "vtc"] + 2 * ["plan vtc", "plan qa", "vtc", "qa"]),
    ],
)
def test_objectives_announce_before_the_first_one_runs(accumulation, want):
    """Contrastive ones first, and in the first pass of GradCache nobody else."""
    model, said = toy_model(objectives=("qa", "vtc")), []
    for name, objective in model.objectives.items():
        objective.plan = lambda ctx, name=name: said.append(f"plan {name}")
        run = run_name(objective)
        made = getattr(objective, run)
        setattr(objective, run, lambda ctx, name=name, made=made: said.append(name) or made(ctx))
    run_step(model, toy_batch(list(range(1, 5)), 0, 4), accumulation)
    assert said == want


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("idle", ["vtc", "qa"])
def test_an_objective_of_weight_0_is_not_computed(idle, accumulation):
    """Its parameters get zeros: all processes reduce the same gradients. A weight that is given later counts."""
    batch = toy_batch(list(range(1, 13)), 0, 12)
    model = toy_model()
    model.weights[idle] = 0.0
    want = {name: g for name, g in reference(model, batch).items() if idle not in name}
    assert len(want) > 5
    model.zero_grad()
    objective = model.objectives[idle]
    computed = getattr(objective, run_name(objective))
    setattr(objective, run_name(objective), None)
    step, seen = run_step(model, batch, accumulation)
    got = gradients(model)
    assert set(got) == {name for name, _ in model.named_parameters()}
    assert all(not g.any() for name, g in got.items() if idle in name)
    assert_same({name: g for name, g in got.items() if idle not in name}, want, 2e-6)
    assert {one.name for one in seen} == {"vtc", "qa"} - {idle}
    setattr(objective, run_name(objective), computed)
    model.weights[idle] = 0.5
    model.zero_grad()
    assert {one.name for one in step(batch)} == {"vtc", "qa"}
    assert all(g.any() for name, g in gradients(model).items() if idle in name)


def test_where_no_objective_has_a_weight_all_are_computed():
    model = toy_model()
    model.weights.update(vtc=0.0, qa=0.0)
    _, seen = run_step(model, toy_batch(list(range(1, 5)), 0, 4), 1)
    assert {one.name for one in seen} == {"vtc", "qa"}
    assert all(not g.any() for g in gradients(model).values())


def test_random_state_after_a_step_does_not_depend_on_what_the_passes_drew():
    states = []
    for dropout in (0.0, 0.5):
        model = toy_model(dropout=dropout)
        torch.manual_seed(7)
        run_step(model, toy_batch(list(range(8)), 0, 8), 4)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_logged_values_are_those_of_the_whole_batch(accumulation):
    batch = toy_batch(list(range(1, 13)), 0, 12)
    outputs = plain_losses(toy_model(), batch)
    step, seen = run_step(toy_model(), batch, accumulation)
    window = Window()
    window.add(1, 0.5, 12, seen, torch.tensor(3.0))
    (values,) = window.fetch()
    for name, out in outputs.items():
        assert values.losses[name] == pytest.approx(out.loss.item(), rel=1e-6)
        assert values.metrics[f"{name}/accuracy"] == pytest.approx(out.metrics["accuracy"].item(), rel=1e-6)
        assert values.items[name] == out.weight.item()
    total = sum(step.weights[name] * out.loss.item() for name, out in outputs.items())
    assert window.line(step.weights)["loss"] == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_bf16_follows_fp32(accumulation):
    batch = toy_batch(list(range(1, 13)), 0, 12)
    want = reference(toy_model(), batch)
    model = toy_model()
    run_step(model, batch, accumulation, "bf16")
    got = gradients(model)
    assert all(g.dtype == torch.float32 for g in got.values())
    flat = lambda grads: torch.cat([grads[n].flatten() for n in sorted(grads)])  # noqa: E731
    error = (flat(got) - flat(want)).norm() / flat(want).norm()
    assert 1e-4 < error < 0.03  # measured 0.008: really bf16, and nothing worse


def test_fp16_needs_a_gpu():
    with pytest.raises(ConfigError, match="bf16"):
        Precision("fp16", CPU)


def test_gradient_checkpointing_changes_nothing():
    batch = toy_batch(list(range(1, 9)), 0, 8)
    want = reference(toy_model(), batch)
    model = toy_model()
    assert model.gradient_checkpointing_enable() == []
    run_step(model, batch, 4)
    assert_same(gradients(model), want, 2e-6)
