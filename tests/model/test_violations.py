"""Components of a model that break their contract: at the first use one line names the component and what was expected;
nothing is accepted in silence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from vtp.errors import PluginError, RunError
from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.model.objective import ContrastiveObjective, Objective, masked_mean
from vtp.testing.inputs import batch_for, tiny_encoders
from vtp.train import TrainConfig, Trainer
from vtp.train.parallel import Parallel
from vtp.train.precision import Precision
from vtp.train.step import Step
from vtp.types import Fused, LossOutput, Tokens

ROWS = 6
CPU = torch.device("cpu")


class Spoilt(nn.Module):
    """An encoder whose result is spoilt."""

    def __init__(self, inner: nn.Module, spoil) -> None:
        super().__init__()
        self.inner, self.spoil, self.width = inner, spoil, inner.width
        for name in ("spec", "grid"):
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))

    def forward(self, *arguments, **inputs):
        return self.spoil(self.inner(*arguments, **inputs))


class Fine(Objective):
    needs = frozenset({"video", "text"})
    needs_fusion = True

    def __init__(self, spoil=lambda out: out) -> None:
        super().__init__()
        self.spoil = spoil
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, ctx):
        fused = ctx.fused({"video": "", "text": ""})
        each = fused.pooled.square().mean(1) + ctx.pooled("text").mean(1) + fused.tokens["text"].pooled().mean(1)
        loss, rows = masked_mean(each * self.scale, self.rows(ctx)), self.rows(ctx).sum()
        return self.spoil(LossOutput(loss, rows, {"scale": self.scale.detach().sum()}))


class Compare(ContrastiveObjective):
    needs = frozenset({"video", "text"})

    def __init__(self, spoil=lambda features, objective: features, loss=None) -> None:
        super().__init__()
        self.spoil, self.loss = spoil, loss
        self.scale = nn.Parameter(torch.ones(1))

    def features(self, ctx):
        found = {m: ctx.pooled(m) for m in ("video", "text")}
        return self.spoil({**found, "scale": self.scale * 1.0}, self)

    def loss_from_features(self, features):
        if self.loss is not None:
            return self.loss(features, self)
        sim = features["scale"].mean() * features["video"] @ features["text"].T
        return LossOutput(nn.functional.cross_entropy(sim, torch.arange(len(sim))), torch.tensor(float(len(sim))))


def take_step(encoders, objective, accumulation=1, watch=False) -> Step:
    torch.manual_seed(0)
    spec = {
        "encoders": {"video": {"name": "swin3d"}, "text": {"name": "words"}, "fusion": {"name": "perceiver"}},
        "objectives": {"it": {"name": "siglip"}},
    }
    model = VTPModel(encoders, {"it": objective}, spec=spec)
    batch = batch_for(model.specs(), ROWS, {}, {"video": [1]})
    config = TrainConfig(steps=1, global_batch=ROWS, accumulation=accumulation)
    step = Step(Parallel(model, config, CPU), Precision("fp32", CPU), accumulation, watch=watch)
    step(batch)
    return step


def spoilt(slot: str, spoil) -> dict[str, nn.Module]:
    encoders = tiny_encoders()
    return {**encoders, slot: Spoilt(encoders[slot], spoil)}


ENCODERS = {
    "a tensor": (lambda t: t.x, "returned Tensor float32 (6, 8, 8), expected Tokens."),
    "a tuple": (lambda t: (t.x, t.attention_mask), "returned tuple, expected Tokens."),
    "none": (lambda t: None, "returned None, expected Tokens."),
    "x of two dimensions": (
        lambda t: replace(t, x=t.x.mean(1)),
        "returned Tokens.x as Tensor float32 (6, 8), expected float (6, N, 8).",
    ),
    "x of whole numbers": (
        lambda t: replace(t, x=t.x.long()),
        "returned Tokens.x as Tensor int64 (6, 8, 8), expected float (6, N, 8).",
    ),
    "another number of rows": (
        lambda t: replace(t, x=t.x[1:], attention_mask=t.attention_mask[1:]),
        "returned Tokens.x as Tensor float32 (5, 8, 8), expected float (6, N, 8).",
    ),
    "another width": (
        lambda t: replace(t, x=t.x[..., :4]),
        "returned Tokens.x as Tensor float32 (6, 8, 4), expected its width, 8, in the last dimension.",
    ),
    "a mask that broadcasts": (
        lambda t: replace(t, attention_mask=t.attention_mask[:, :1]),
        "returned Tokens.attention_mask as Tensor bool (6, 1), expected bool (6, 8), True = real.",
    ),
    "a mask of numbers": (
        lambda t: replace(t, attention_mask=t.attention_mask.float()),
        "returned Tokens.attention_mask as Tensor float32 (6, 8), expected bool (6, 8), True = real.",
    ),
    "no mask": (
        lambda t: replace(t, attention_mask=None),
        "returned Tokens.attention_mask as None, expected bool (6, 8), True = real.",
    ),
    "a grid of other size": (
        lambda t: replace(t, grid=(2, 2, 3)),
        "returned 8 tokens with Tokens.grid=(2, 2, 3), expected a grid of as many places, or None.",
    ),
    "an index of other shape": (
        lambda t: replace(t, index=torch.zeros(6, 3, dtype=torch.int64)),
        "returned Tokens.index as Tensor int64 (6, 3), expected int64 (6, 8), or None.",
    ),
}


@pytest.mark.parametrize("fault", ENCODERS)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_encoder_gives(fault, accumulation):
    spoil, words = ENCODERS[fault]
    if accumulation == 2:
        words = words.replace("(6,", "(3,").replace("(5,", "(2,")
        spoil = (lambda t: replace(t, index=torch.zeros(3, 3).long())) if "index" in fault else spoil
    with pytest.raises(PluginError) as caught:
        take_step(spoilt("video", spoil), Fine(), accumulation)
    assert str(caught.value) == f"encoder.video=swin3d {words}"


class Takes(nn.Module):
    """An encoder that was written for other inputs."""

    def __init__(self) -> None:
        super().__init__()
        inner = tiny_encoders()["video"]
        self.inner, self.width, self.spec = inner, inner.width, inner.spec

    def forward(self, frames):
        return self.inner(frames)


def test_an_encoder_takes_other_arguments():
    with pytest.raises(PluginError, match=r"encoder.video=swin3d has forward\(frames\), expected forward\(video\)"):
        take_step({**tiny_encoders(), "video": Takes()}, Fine())


def test_an_encoder_pools_to_another_width():
    encoders = tiny_encoders()
    encoders["text"].pool = lambda tokens: tokens.x
    with pytest.raises(PluginError, match=r"encoder.text=words returned Tensor .* from pool, expected float \(6, 8\)"):
        take_step(encoders, Fine())


def test_an_encoder_is_looked_at_once():
    """Whatever it gives afterwards costs one look into a set."""
    torch.manual_seed(0)
    encoders = tiny_encoders()
    model = VTPModel(encoders)
    batch = batch_for(model.specs(), ROWS, {}, {})
    ForwardContext(model, batch).tokens("video")
    assert model.checked == {("video", "encoded", False)}
    encoders["video"].forward = lambda video: Tokens(torch.zeros(ROWS, 1, 5), torch.ones(ROWS, 1, dtype=torch.bool))
    assert ForwardContext(model, batch).tokens("video").x.shape == (ROWS, 1, 5)


FUSION = {
    "a tensor": (lambda f: f.pooled, "returned Tensor float32 (6, 8), expected Fused."),
    "no tokens": (
        lambda f: Fused({}, f.pooled),
        "returned Fused.tokens of nothing, expected those of video, text as well, which it was given.",
    ),
    "tensors as tokens": (
        lambda f: Fused({m: t.x for m, t in f.tokens.items()}, f.pooled),
        "returned Tensor float32 (6, 8, 8) in Fused.tokens['video'], expected Tokens.",
    ),
    "nothing pooled": (lambda f: Fused(f.tokens, None), "returned Fused.pooled as None, expected float (6, D)."),
    "pooled tokens": (
        lambda f: Fused(f.tokens, f.tokens["video"].x),
        "returned Fused.pooled as Tensor float32 (6, 8, 8), expected float (6, D).",
    ),
}


@pytest.mark.parametrize("fault", FUSION)
def test_a_fusion_encoder_gives(fault):
    spoil, words = FUSION[fault]
    with pytest.raises(PluginError) as caught:
        take_step(spoilt("fusion", spoil), Fine())
    assert str(caught.value) == f"encoder.fusion=perceiver {words}"


def test_a_fusion_encoder_gives_one_result_for_two_passes():
    class Both(Objective):
        def plan(self, ctx):
            ctx.plan({"video": ""})
            ctx.plan({"text": ""})

        def forward(self, ctx):
            return LossOutput(ctx.fused({"video": ""}).pooled.mean(), torch.tensor(float(ROWS)))

    encoders = tiny_encoders()
    encoders["fusion"].takes_many = True
    encoders["fusion"].forward = lambda tokens: Fused({}, torch.zeros(ROWS, 8))
    with pytest.raises(PluginError, match="encoder.fusion=perceiver returned Fused for 2 passes, expected a list of"):
        take_step(encoders, Both())


OBJECTIVES = {
    "a tensor": (lambda o: o.loss, "returned Tensor float32 (), expected LossOutput(loss, weight)."),
    "nothing": (lambda o: None, "returned None, expected LossOutput(loss, weight)."),
    "a loss per row": (
        lambda o: replace(o, loss=o.loss.expand(6)),
        "returned LossOutput.loss as Tensor float32 (6,), expected a floating scalar, the mean over items.",
    ),
    "a float as loss": (
        lambda o: replace(o, loss=1.0),
        "returned LossOutput.loss as float, expected a floating scalar, the mean over items.",
    ),
    "a detached loss": (
        lambda o: replace(o, loss=o.loss.detach()),
        "returned a loss that is detached from the graph, so nothing would be learnt from it, expected a loss with a "
        "gradient.",
    ),
    "an int as weight": (
        lambda o: replace(o, weight=3),
        "returned LossOutput.weight as int, expected a scalar tensor, the number of items.",
    ),
    "another weight than count": (
        lambda o: replace(o, weight=o.weight + 2),
        "counts 5 items in count(ctx) and 7 in LossOutput.weight, expected the same number.",
    ),
    "floats as metrics": (
        lambda o: replace(o, metrics={"accuracy": 0.5}),
        "returned the metric 'accuracy' as float, expected a scalar tensor.",
    ),
    "a list of metrics": (
        lambda o: replace(o, metrics=[1]),
        "returned LossOutput.metrics as list, expected a dict of scalar tensors.",
    ),
}


@pytest.mark.parametrize("fault", OBJECTIVES)
def test_an_objective_gives(fault):
    spoil, words = OBJECTIVES[fault]
    with pytest.raises(PluginError) as caught:
        take_step(tiny_encoders(), Fine(spoil))
    assert str(caught.value) == f"objective=siglip {words}"


@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_objective_counts_with_an_int(accumulation):
    objective = Fine()
    objective.count = lambda ctx: 3
    with pytest.raises(PluginError, match=r"objective=siglip returned int from count\(ctx\), expected a scalar tensor"):
        take_step(tiny_encoders(), objective, accumulation)


def read_scale(features, objective):
    sim = objective.scale * features["video"] @ features["text"].T
    return LossOutput(nn.functional.cross_entropy(sim, torch.arange(len(sim))), torch.tensor(float(len(sim))))


CONTRASTIVE = {
    "a tensor": (
        {"spoil": lambda f, o: f["video"]},
        "returned Tensor float32 (6, 8) from features(ctx), expected a dict",
    ),
    "nothing": ({"spoil": lambda f, o: {}}, "returned dict from features(ctx), expected a dict of tensors."),
    "a list": ({"spoil": lambda f, o: {**f, "a": [1]}}, "returned list as features(ctx)['a'], expected a tensor."),
    "other rows": (
        {"spoil": lambda f, o: {**f, "video": f["video"][:4]}},
        "returned Tensor float32 (4, 8) as features(ctx)['video'], expected a row per row of the batch (6), or shape "
        "(1,) of which the mean counts.",
    ),
    "a number without dimension": (
        {"spoil": lambda f, o: {**f, "scale": f["scale"].sum()}},
        "returned Tensor float32 () as features(ctx)['scale'], expected a row per row of the batch",
    ),
    "a parameter": (
        {"spoil": lambda f, o: {**f, "scale": o.scale}},
        "returned a parameter itself as features(ctx)['scale'], which fails with several processes, expected "
        "parameter * 1.0.",
    ),
    "a parameter in the loss": (
        {"loss": read_scale},
        "reads the parameter scale in loss_from_features, which fails with several processes, expected scale * "
        "1.0, shape (1,), among the features.",
    ),
    "a tensor as loss": (
        {"loss": lambda f, o: f["video"].mean()},
        "returned Tensor float32 (), expected LossOutput(loss, weight).",
    ),
    "a detached loss": (
        {"loss": lambda f, o: LossOutput(f["video"].mean().detach(), torch.tensor(6.0))},
        "returned a loss that is detached from the graph",
    ),
}


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("fault", CONTRASTIVE)
def test_a_contrastive_objective_gives(fault, accumulation):
    options, words = CONTRASTIVE[fault]
    if accumulation == 2:
        words = words.replace("(6", "(3").replace("(4, 8)", "(3, 8)")
        if fault == "other rows":
            options = {"spoil": lambda f, o: {**f, "video": f["video"][:2]}}
            words = words.replace("(3, 8)", "(2, 8)")
    with pytest.raises(PluginError) as caught:
        take_step(tiny_encoders(), Compare(**options), accumulation)
    assert str(caught.value).startswith(f"objective=siglip {words}")


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("objective", [Fine, Compare])
def test_what_keeps_the_contract_is_left_alone(objective, accumulation):
    step = take_step(tiny_encoders(), objective(), accumulation, watch=True)
    assert step.culprit == "" and not step._first


def test_a_frozen_objective_may_have_a_loss_without_gradient():
    encoders = {slot: encoder.requires_grad_(False) for slot, encoder in tiny_encoders().items()}
    model = VTPModel(encoders, {"frozen": Fine().requires_grad_(False), "it": Fine()})
    config = TrainConfig(steps=1, global_batch=ROWS)
    Step(Parallel(model, config, CPU), Precision("fp32", CPU), 1)(batch_for(model.specs(), ROWS, {}, {}))


# -- what is not finite ------------------------------------------------------------------------------------------------


def poison(slot: str, at: int):
    calls = []

    def spoil(out):
        calls.append(1)
        if len(calls) <= at:
            return out
        if isinstance(out, Fused):
            return Fused({m: replace(t, x=t.x * math.nan) for m, t in out.tokens.items()}, out.pooled * math.nan)
        return replace(out, x=out.x * math.inf)

    return spoilt(slot, spoil)


NAMES = {"video": "swin3d", "text": "words", "fusion": "perceiver"}


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(
    "objective, slot", [(Fine, "video"), (Fine, "text"), (Fine, "fusion"), (Compare, "video"), (Compare, "text")]
)
def test_the_encoder_that_gave_nan_is_named(slot, objective, accumulation):
    step = take_step(poison(slot, 0), objective(), accumulation)
    assert step.culprit == f"encoder.{slot}={NAMES[slot]} gave tokens that are not finite"


def test_an_input_that_is_not_finite_is_named():
    torch.manual_seed(0)
    model = VTPModel(tiny_encoders(), {"it": Sound()})
    batch = batch_for(model.specs(), ROWS, {}, {})
    batch.inputs["audio"]["waveform"][2, 3] = math.nan
    step = Step(Parallel(model, TrainConfig(steps=1, global_batch=ROWS), CPU), Precision("fp32", CPU), 1)
    step(batch)
    assert step.culprit == "the waveform of audio in the batch is not finite"


class Sound(Objective):
    def forward(self, ctx):
        return LossOutput(ctx.pooled("audio").mean(), torch.tensor(float(len(ctx.batch))))


class Batches:
    """The same batch for ever."""

    steps_per_epoch = 4

    def __init__(self, batch) -> None:
        self.batch = batch

    def __iter__(self):
        while True:
            yield self.batch

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize("log_every", [1, 4])
def test_a_run_that_stops_at_nan_names_the_encoder(tmp_path, log_every):
    """Also where the step is fetched later: the weights are gone by then."""
    torch.manual_seed(0)
    model = VTPModel(poison("video", 2), {"it": Fine()}, spec={"encoders": {"video": {"name": "swin3d"}}})
    config = TrainConfig(steps=4, global_batch=ROWS, log_every=log_every, tensorboard=False, save_every=0)
    trainer = Trainer(model, Batches(batch_for(model.specs(), ROWS, {}, {})), config, tmp_path, device="cpu")
    with pytest.raises(RunError) as caught:
        trainer.fit()
    expected = "Step 3: the loss of objective it is nan (encoder.video=swin3d gave tokens that are not finite)."
    assert str(caught.value).replace("inf", "nan").startswith(expected)


def test_layer_decay_says_where_it_has_no_effect(caplog):
    from vtp.train.parameters import parameter_groups

    encoders = tiny_encoders()
    encoders["text"].depth, encoders["text"].layer_of = 1, lambda name: 0
    with caplog.at_level("WARNING"):
        parameter_groups(VTPModel(encoders), TrainConfig(steps=1, layer_decay=0.5))
    assert "train.layer_decay has no effect on encoder video, audio, fusion" in caplog.text
