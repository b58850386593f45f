from __future__ import annotations

import pytest
import torch
from torch import nn

from vtp.errors import ConfigError, PluginError
from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.model.objective import ContrastiveObjective, Objective, masked_mean
from vtp.types import LossOutput


class Length(Objective):
    """Mean square of the pooled video feature."""

    needs = frozenset({"video"})

    def forward(self, ctx):
        return LossOutput(masked_mean(ctx.pooled("video").square().mean(1), self.rows(ctx)), self.rows(ctx).sum())


class Sounding(Length):
    needs = frozenset({"audio"})

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 1)

    def forward(self, ctx):
        return LossOutput(masked_mean(self.head(ctx.pooled("audio"))[:, 0], self.rows(ctx)), self.rows(ctx).sum())


class Spread(ContrastiveObjective):
    """Variance of text features over all rows."""

    needs = frozenset({"text"})

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def features(self, ctx):
        return {"text": ctx.pooled("text"), "scale": self.scale * 1.0}

    def loss_from_features(self, features):
        text = features["text"]
        return LossOutput(features["scale"].mean() * text.var(0).sum(), torch.tensor(len(text)))


@pytest.fixture
def trained(stubs):
    torch.manual_seed(0)
    encoders = {"text": stubs.Words(), "video": stubs.Frames(), "audio": stubs.Sound(), "fusion": stubs.Sum()}
    objectives = {"length": Length(), "sounding": Sounding(), "spread": Spread()}
    return VTPModel(encoders, objectives, {"spread": 0.5})


def test_features_of_micro_batches_give_the_loss_of_the_whole(trained, make_batch, take_step):
    batch, spread = make_batch(4), trained.objectives["spread"]
    whole = take_step(trained, batch)
    assert {name: int(seen.weight) for name, seen in whole.items()} == {"length": 4, "sounding": 3, "spread": 4}
    halves = [spread.features(ForwardContext(trained, batch.rows(a, a + 2))) for a in (0, 2)]
    joined = {name: torch.cat([half[name] for half in halves]) for name in halves[0]}
    torch.testing.assert_close(spread.loss_from_features(joined).loss, whole["spread"].loss)


def test_a_function_sees_the_context(trained, make_batch):
    out = trained(make_batch(), run=lambda ctx: {"video": ctx.pooled("video"), "n": len(ctx.batch)})
    assert out["video"].shape == (3, 4) and out["n"] == 3


def test_weighted_counts_make_micro_batches_equal_to_the_whole(trained, make_batch):
    batch, sounding = make_batch(6), trained.objectives["sounding"]
    whole = sounding(ForwardContext(trained, batch))
    parts = [sounding(ForwardContext(trained, batch.rows(a, b))) for a, b in [(0, 1), (1, 2), (2, 6)]]
    assert [int(part.weight) for part in parts] == [1, 0, 4]
    total = sum(part.loss * part.weight for part in parts) / sum(part.weight for part in parts)
    torch.testing.assert_close(total, whole.loss)


@pytest.mark.parametrize("run", ["step", "function"])
def test_every_parameter_gets_a_gradient_whatever_is_used(trained, make_batch, take_step, run):
    batch = make_batch(1)
    batch.present["audio"][:] = False
    if run == "step":
        del trained.objectives["length"], trained.objectives["spread"]
        loss = take_step(trained, batch)["sounding"].loss  # needs what is not there
        others = list(trained.parameters())
    else:
        loss = trained(batch, run=lambda ctx: {"n": 3, "out": ctx.pooled("audio").sum() * 0})["out"]
        others = list(trained.encoders.parameters())
        loss.backward()
    assert loss.item() == 0.0
    for parameter in others:
        assert parameter.grad is not None and (parameter.grad == 0).all()


def test_unused_parts_do_not_change_the_loss(trained, make_batch, take_step):
    alone = VTPModel({"video": trained.encoders["video"]}, {"length": trained.objectives["length"]})
    one, other = (take_step(model, make_batch())["length"].loss for model in (trained, alone))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_evaluation_functions_get_their_result_untouched(trained, make_batch):
    trained.eval()
    out = trained(make_batch(), run=lambda ctx: {"x": ctx.pooled("video").detach()})
    assert not out["x"].requires_grad


def test_an_unknown_slot_is_refused(stubs):
    with pytest.raises(ConfigError, match="no slot named vidoe; the slots are video, audio, text, fusion"):
        VTPModel({"vidoe": stubs.Frames()})


def test_bytes_reach_an_encoder_that_wants_them(model, make_batch):
    from dataclasses import replace

    model.encoders["video"].spec = replace(model.encoders["video"].spec, layout="uint8")
    frames = make_batch().inputs["video"]["frames"]
    assert model.normalize_video(frames) is frames


def test_checkpointing_names_the_encoders_that_cannot(model):
    model.encoders["text"].gradient_checkpointing_enable = lambda: None
    assert model.gradient_checkpointing_enable() == ["video", "audio", "fusion"]


def test_masked_mean():
    values = torch.tensor([1.0, float("inf"), 3.0], requires_grad=True)
    assert masked_mean(values, torch.tensor([True, False, True])).item() == 2.0
    nothing = masked_mean(values, torch.zeros(3, dtype=torch.bool))
    nothing.backward()
    assert nothing.item() == 0.0 and (values.grad == 0).all()


def test_an_objective_must_say_what_it_does(model, make_batch):
    ctx = ForwardContext(model, make_batch())
    with pytest.raises(NotImplementedError, match=r"Objective must define forward\(ctx\)"):
        Objective()(ctx)
    with pytest.raises(NotImplementedError, match=r"must define features\(ctx\)"):
        ContrastiveObjective().features(ctx)


class Told(Length):
    def __init__(self, origin):
        super().__init__()
        self.origin = lambda: origin


def test_parts_tell_what_they_were_made_of(stubs):
    encoders = {"video": stubs.Frames(), "text": stubs.Words()}
    encoders["text"].origin = lambda: {"vocabulary": "ab12"}
    objectives = {"length": Length(), "told": Told({"table": {"words": (1, 2)}})}
    found = VTPModel(encoders, objectives).origins()
    assert found == {"encoders.text": {"vocabulary": "ab12"}, "objectives.told": {"table": {"words": [1, 2]}}}


@pytest.mark.parametrize(
    "origin, problem",
    [
        ({"size": torch.ones(2)}, "gave no plain JSON: Object of type Tensor"),
        ([1], r"gave \[1\], expected a dict"),
        (None, "gave None, expected a dict"),
    ],
)
def test_what_no_record_can_keep_is_refused(stubs, origin, problem):
    model = VTPModel({"video": stubs.Frames()}, {"told": Told(origin)})
    with pytest.raises(PluginError, match=rf"objectives\.told: origin\(\) of Told {problem}"):
        model.origins()
