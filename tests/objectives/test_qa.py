from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp_objectives.qa import QA


def test_uniform_logits_cost_ln_of_the_answers(context, make_model, make_batch, run):
    objective = QA(context=context)
    with torch.no_grad():
        objective.head[-1].weight.zero_()
        objective.head[-1].bias.zero_()
    out = objective(run(make_model(qa=objective), make_batch(4, answer=[0, 1, 2, 0])))
    assert out.loss.item() == pytest.approx(math.log(3), abs=1e-6)
    assert int(out.weight) == 4
    assert out.metrics["accuracy"].item() == 0.5  # ties go to the first answer, which is right twice


def test_rows_without_an_answer_of_the_list_or_without_question_take_no_part(context, make_model, make_batch, run):
    objective = QA(context=context)
    model = make_model(qa=objective)
    batch = make_batch(6, missing={"text": [3]}, answer=[0, -100, 2, 1, 1, -100])
    out = objective(run(model, batch))
    rows = [0, 2, 4]
    logits = objective.logits(run(model, batch)).double()
    assert logits.shape == (6, 3)
    expected = cross_entropy(logits[rows], batch.labels["answer"][rows])
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert int(out.weight) == 3 == int(objective.count(run(model, batch)))
    expected_accuracy = (logits[rows].argmax(1) == batch.labels["answer"][rows]).double().mean().item()
    assert out.metrics["accuracy"].item() == pytest.approx(expected_accuracy)


@pytest.mark.parametrize("labels", [{}, {"answer": [-100, -100]}])
def test_no_answers_is_a_connected_zero(context, make_model, make_batch, take_step, labels):
    model = make_model(qa=QA(context=context))
    out = take_step(model, make_batch(2, **labels))["qa"]
    assert out.loss.item() == 0.0 and int(out.weight) == 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and (parameter.grad == 0).all(), name


def test_missing_sound_or_picture_is_used_where_it_is(context, make_model, make_batch, run):
    objective = QA(context=context)
    model = make_model(qa=objective)
    full = objective.logits(run(model, make_batch(3)))
    without = objective.logits(run(model, make_batch(3, missing={"audio": [1], "video": [2]})))
    torch.testing.assert_close(without[0], full[0])
    assert not torch.allclose(without[1], full[1]) and not torch.allclose(without[2], full[2])
    assert without.isfinite().all()


def test_the_head(context):
    assert len(QA(context=context, hidden=0).head) == 2
    assert QA(context=context, hidden=7).head[0].out_features == 7


def test_without_an_answer_list_it_says_where_one_comes_from(context):
    with pytest.raises(ConfigError, match="no answer list. It comes from the task"):
        QA(context=BuildContext(encoders=context.encoders))
