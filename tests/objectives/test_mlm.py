from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from vtp.errors import ConfigError
from vtp_objectives.mlm import MLM, mask_words

MASK, VOCABULARY = 4, 30


def by_brute_force(ids, may, draws, probability, share_masked, ordinary):
    """Token by token, as BERT's paper words it."""
    masked, labels = [row[:] for row in ids], [[-100] * len(ids[0]) for _ in ids]
    for b, row in enumerate(ids):
        for k, token in enumerate(row):
            select, action, word = (draws[b][c][k] for c in range(3))
            if not may[b][k] or select >= probability:
                continue
            labels[b][k] = token
            if action < share_masked:
                masked[b][k] = MASK
            elif action < share_masked + (1 - share_masked) / 2:
                masked[b][k] = ordinary[math.floor(word * len(ordinary))]
    return masked, labels


@pytest.mark.parametrize("probability, share_masked", [(0.15, 0.8), (0.75, 1.0), (0.5, 0.2)])
def test_masking_equals_the_loop(probability, share_masked):
    ids = torch.randint(5, VOCABULARY, (40, 12))
    may = torch.rand(40, 12) < 0.8
    draws = torch.rand(40, 3, 12)
    ordinary = torch.tensor([5, 6, 9, 28])
    before = ids.clone()
    masked, labels = mask_words(ids, may, draws, probability, MASK, ordinary, share_masked)
    expected = by_brute_force(ids.tolist(), may.tolist(), draws.tolist(), probability, share_masked, ordinary.tolist())
    assert masked.tolist() == expected[0] and labels.tolist() == expected[1]
    assert torch.equal(ids, before)


def test_shares_are_those_of_bert():
    n = 200_000
    ids = torch.full((1, n), 5)
    ordinary = torch.arange(6, VOCABULARY)  # without 5, so that a random word shows
    masked, labels = mask_words(ids, torch.ones(1, n) > 0, torch.rand(1, 3, n), 0.15, MASK, ordinary, 0.8)
    selected = (labels != -100).sum().item()
    for count, of, share in [
        (selected, n, 0.15),
        ((masked == MASK).sum().item(), selected, 0.8),
        ((masked > 5).sum().item(), selected, 0.1),
    ]:
        assert abs(count / of - share) < 4 * math.sqrt(share * (1 - share) / of)
    assert masked[masked > 5].unique().tolist() == ordinary.tolist()


def test_the_largest_draw_stays_inside_the_vocabulary():
    ids = torch.full((1, 1), 5)
    draws = torch.tensor([[[0.0], [0.85], [1 - 2**-24]]])  # the largest float32 below 1
    masked, _ = mask_words(ids, ids > 0, draws, 0.15, MASK, torch.arange(6, VOCABULARY), 0.8)
    assert masked.item() == VOCABULARY - 1


@pytest.fixture
def half(context):
    return MLM(context=context, probability=0.5)


def test_loss_is_the_mean_over_selected_words(half, make_model, make_batch, run):
    model = make_model(mlm=half)
    batch = make_batch(6)
    out = model(batch)["mlm"]
    ctx = run(model, batch)
    view = half.view(ctx)
    fused = ctx.fused({"video": "", "audio": "", "text": "mlm"}).tokens["text"].x
    expected = cross_entropy(half.head(fused).double().flatten(0, 1), view["labels"].flatten(), ignore_index=-100)
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert int(out.weight) == int((view["labels"] != -100).sum()) == int(half.count(run(model, batch))) > 3


def test_only_selected_positions_reach_the_vocabulary(half, make_model, make_batch):
    seen = []
    half.head[-1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    out = make_model(mlm=half)(make_batch(6))["mlm"]
    assert seen == [(int(out.weight), VOCABULARY)]


def test_special_and_padded_positions_and_missing_texts_are_never_selected(context, make_model, make_batch, run):
    objective = MLM(context=context, probability=0.999)
    batch = make_batch(6, missing={"text": [2]})
    batch.inputs["text"]["token_ids"][0, 1] = 1  # an unknown word
    ctx = run(make_model(mlm=objective), batch)
    labels = objective.view(ctx)["labels"]
    ids, mask = batch.inputs["text"]["token_ids"], batch.inputs["text"]["attention_mask"]
    assert (labels[(ids < 5) | ~mask] == -100).all() and (labels[2] == -100).all()
    assert (labels != -100).sum() == (mask & (ids >= 5)).sum()
    assert torch.equal(ctx.inputs("text")["token_ids"], ids)  # clean ids stay clean


def test_masks_depend_on_neither_padding_nor_micro_batches(half, make_model, make_batch, run):
    model = make_model(mlm=half)
    batch = make_batch(6)
    whole = half.view(run(model, batch))
    parts = [half.view(run(model, batch.rows(a, b))) for a, b in [(0, 2), (2, 6)]]
    for name in ("token_ids", "labels"):
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
    batch.inputs["text"] = {k: v[:, :5] for k, v in batch.inputs["text"].items()}  # as if the longest had 5 tokens
    assert torch.equal(half.view(run(model, batch))["labels"], whole["labels"][:, :5])
    batch.step = 1
    assert not torch.equal(half.view(run(model, batch))["labels"], whole["labels"][:, :5])


def test_token_weighted_micro_batches_equal_the_whole(half, make_model, make_batch):
    model = make_model(mlm=half)
    batch = make_batch(6)
    whole = model(batch)["mlm"]
    parts = [model(batch.rows(a, b))["mlm"] for a, b in [(0, 1), (1, 6)]]
    total = sum(p.loss * p.weight for p in parts) / sum(p.weight for p in parts)
    torch.testing.assert_close(total, whole.loss)


def test_nothing_selected_is_a_connected_zero(half, make_model, make_batch):
    model = make_model(mlm=half)
    out = model(make_batch(3, missing={"text": [0, 1, 2]}))["mlm"]
    assert out.loss.item() == 0.0 and int(out.weight) == 0 and out.metrics["accuracy"].item() == 0.0
    out.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and (parameter.grad == 0).all(), name


def test_on_text_needs_no_fusion(context, make_model, make_batch, run):
    del context.encoders["fusion"]
    objective = MLM(context=context, tokens="text", replace="mask", probability=0.75)
    model = make_model(mlm=objective)
    assert not objective.needs_fusion
    model(make_batch(3))["mlm"].loss.backward()
    view = objective.view(run(model, make_batch(3)))
    assert (view["token_ids"][view["labels"] != -100] == MASK).all()
    with pytest.raises(ConfigError, match="tokens=fused needs a fusion encoder"):
        MLM(context=context)


def test_wrong_options(context):
    with pytest.raises(ConfigError, match="probability=15 must lie between 0 and 1"):
        MLM(context=context, probability=15)
    context.encoders["text"].spec = replace(context.encoders["text"].spec, mask_id=-1)
    with pytest.raises(ConfigError, match=r"no \[MASK\] token"):
        MLM(context=context)
