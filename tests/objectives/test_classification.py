from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp_objectives.classification import Classification


def test_uniform_logits_cost_ln_of_the_classes(context, make_model, make_batch, run):
    objective = Classification(context=context)
    with torch.no_grad():
        objective.head[-1].weight.zero_()
        objective.head[-1].bias.zero_()
    model = make_model(classification=objective)
    one = objective(run(model, make_batch(4, **{"class": [0, 1, 2, 0]})))
    assert one.loss.item() == pytest.approx(math.log(3), abs=1e-6) and int(one.weight) == 4
    several = objective(run(model, make_batch(2, **{"class": [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]})))
    assert several.loss.item() == pytest.approx(math.log(2), abs=1e-6) and int(several.weight) == 2


@pytest.mark.parametrize("features", ["fused", "pooled"])
def test_one_class_each(context, make_model, make_batch, run, features):
    objective = Classification(context=context, features=features, modalities=["audio", "video"], smoothing=0.1)
    model = make_model(classification=objective)
    batch = make_batch(6, missing={"video": [3], "text": [0]}, **{"class": [0, -100, 2, 1, 1, -100]})
    out, rows = objective(run(model, batch)), [0, 2, 4]
    logits = objective.logits(run(model, batch)).double()
    want = cross_entropy(logits[rows], batch.labels["class"][rows], label_smoothing=0.1)
    assert out.loss.item() == pytest.approx(want.item(), rel=1e-6)
    assert int(out.weight) == 3 == int(objective.count(run(model, batch)))
    right = (logits[rows].argmax(1) == batch.labels["class"][rows]).double().mean().item()
    assert out.metrics["accuracy"].item() == pytest.approx(right)


def test_several_classes_each(context, make_model, make_batch, run):
    nan = float("nan")
    labels = [[1.0, 1.0, 0.0], [nan] * 3, [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    objective = Classification(context=context)
    model = make_model(classification=objective)
    batch = make_batch(4, missing={"video": [3]}, **{"class": labels})
    out, rows = objective(run(model, batch)), [0, 2]
    logits = objective.logits(run(model, batch)).double()
    want = binary_cross_entropy_with_logits(logits[rows], batch.labels["class"][rows].double())
    assert out.loss.item() == pytest.approx(want.item(), rel=1e-6) and int(out.weight) == 2
    out.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_features(context, make_model, make_batch, run):
    """Fused features see the text, pooled ones the clip alone."""
    for features, sees in (("fused", True), ("pooled", False), (None, True)):
        objective = Classification(context=context, features=features)
        model = make_model(classification=objective)
        full, without = (objective.logits(run(model, make_batch(3, missing=m))) for m in ({}, {"text": [0, 1, 2]}))
        assert torch.allclose(full, without) != sees
    alone = BuildContext(answers=context.answers, encoders={"video": context.encoders["video"]})
    assert not Classification(context=alone).fused


def test_what_it_cannot_do_is_said(context):
    with pytest.raises(ConfigError, match="there are no classes"):
        Classification(context=BuildContext(encoders=context.encoders))
    with pytest.raises(ConfigError, match=r"modalities=\['picture'\] must be different ones"):
        Classification(context=context, modalities=["picture"])
    alone = BuildContext(answers=context.answers, encoders={"video": context.encoders["video"]})
    with pytest.raises(ConfigError, match="features=fused needs a fusion encoder"):
        Classification(context=alone, features="fused")
    with pytest.raises(ConfigError, match="needs an encoder for audio"):
        Classification(context=alone, modalities=["audio"])
