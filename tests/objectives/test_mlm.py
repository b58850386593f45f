from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from vtp.errors import ConfigError
from vtp.model.masking import VideoMask, WordMask
from vtp_objectives.mlm import MLM

MASK, VOCABULARY = 4, 30
HALF = {"text": WordMask(0.5)}  # every second word


@pytest.fixture
def objective(context):
    return MLM(context=context)


def test_loss_is_the_mean_over_selected_words(objective, make_model, make_batch, run):
    model = make_model(HALF, mlm=objective)
    batch = make_batch(6)
    out = objective(run(model, batch))
    ctx = run(model, batch)
    view = objective.view(ctx)
    fused = ctx.fused({"video": "", "audio": "", "text": "bert0.5"}).tokens["text"].x
    expected = cross_entropy(objective.head(fused).double().flatten(0, 1), view["labels"].flatten(), ignore_index=-100)
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert int(out.weight) == int((view["labels"] != -100).sum()) == int(objective.count(run(model, batch))) > 3


def test_only_selected_positions_reach_the_vocabulary(objective, make_model, make_batch, run):
    seen = []
    objective.head[-1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    out = objective(run(make_model(HALF, mlm=objective), make_batch(6)))
    assert seen == [(int(out.weight), VOCABULARY)]


def test_token_weighted_micro_batches_equal_the_whole(objective, make_model, make_batch, run):
    model = make_model(HALF, mlm=objective)
    batch = make_batch(6)
    whole = objective(run(model, batch))
    parts = [objective(run(model, batch.rows(a, b))) for a, b in [(0, 1), (1, 6)]]
    total = sum(p.loss * p.weight for p in parts) / sum(p.weight for p in parts)
    torch.testing.assert_close(total, whole.loss)


def test_nothing_selected_is_a_connected_zero(objective, make_model, make_batch, take_step):
    model = make_model(HALF, mlm=objective)
    out = take_step(model, make_batch(3, missing={"text": [0, 1, 2]}))["mlm"]
    assert out.loss.item() == 0.0 and int(out.weight) == 0 and out.metrics["accuracy"].item() == 0.0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and (parameter.grad == 0).all(), name


def test_on_text_needs_no_fusion(context, make_model, make_batch, run):
    del context.encoders["fusion"]
    objective = MLM(context=context, tokens="text")
    model = make_model({"text": WordMask(0.75, "mask")}, mlm=objective)
    assert not objective.needs_fusion
    objective(run(model, make_batch(3))).loss.backward()
    view = objective.view(run(model, make_batch(3)))
    assert (view["token_ids"][view["labels"] != -100] == MASK).all()
    with pytest.raises(ConfigError, match="tokens=fused needs a fusion encoder"):
        MLM(context=context)


def test_a_tokenizer_without_a_mask_token_is_refused(context):
    context.encoders["text"].spec = replace(context.encoders["text"].spec, mask_id=-1)
    with pytest.raises(ConfigError, match=r"no \[MASK\] token"):
        MLM(context=context)


@pytest.mark.parametrize(
    "options, fused",
    [
        ({}, {"video": "", "audio": "", "text": "bert0.5"}),
        ({"fuse": []}, {"text": "bert0.5"}),
        ({"fuse": ["video"], "masked": ["video"]}, {"video": "frame0.5", "text": "bert0.5"}),
    ],
)
def test_what_words_are_fused_with_is_a_choice(context, make_model, make_batch, run, options, fused):
    context.encoders["video"].grid = (2, 1, 1)
    forward = context.encoders["video"].forward
    context.encoders["video"].forward = lambda video, mask=None: forward(video)
    objective = MLM(context=context, **options)
    ctx = run(make_model(HALF | {"video": VideoMask("frame", 0.5)}, mlm=objective), make_batch(4))
    asked = []
    original = ctx.fused
    ctx.fused = lambda views, rows=None: asked.append(views) or original(views, rows)
    objective(ctx)
    assert asked == [fused]


def test_a_linear_head_is_one_layer(context):
    head = MLM(context=context, head="linear", head_init="xavier").head
    assert [type(layer) for layer in head] == [torch.nn.Linear] and (head[0].bias == 0).all()
