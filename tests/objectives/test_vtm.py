from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from vtp.errors import ConfigError
from vtp.model.masking import WordMask
from vtp_objectives.vtc import VTC
from vtp_objectives.vtm import VTM


@pytest.fixture
def matching(context):
    return VTM(context=context)


def test_uniform_logits_cost_ln_2(matching, make_model, make_batch, run):
    with torch.no_grad():
        matching.head[0].weight.zero_()
        matching.head[0].bias.zero_()
    out = matching(run(make_model(vtm=matching), make_batch(5)))
    assert out.loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert int(out.weight) == 10


def test_loss_is_over_positives_and_negatives(matching, make_model, make_batch, run):
    model = make_model(vtm=matching)
    batch = make_batch(6)
    out = matching(run(model, batch))
    ctx = run(model, batch)
    other = matching._negative_rows(ctx)
    swapped = run(model, make_batch(6))
    for name, tensor in swapped.batch.inputs["text"].items():
        swapped.batch.inputs["text"][name] = tensor[other]  # the same pairs, made by hand
    logits = torch.cat([matching.match_logits(ctx), matching.match_logits(swapped)]).double()
    labels = torch.tensor([1] * 6 + [0] * 6)
    assert out.loss.item() == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-6)
    assert out.metrics["accuracy"].item() == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert sorted(other.tolist()) == list(range(6)) and (other != torch.arange(6)).all()


def test_duplicates_and_missing_rows_are_no_negatives(matching, make_model, load, clips, run):
    batch = load(clips("a", "a", "b", "c", "d", None, texts=["7", "8", "9 9", "9 9", "10", "11"]))
    allowed = matching._allowed(run(make_model(vtm=matching), batch))
    forbidden = {(0, 1), (1, 0), (2, 3), (3, 2)}
    for i in range(6):
        for j in range(6):
            assert allowed[i, j].item() == (i != j and 5 not in (i, j) and (i, j) not in forbidden)


@pytest.mark.parametrize("rows, same", [(1, False), (3, True)])
def test_without_negatives_there_is_no_loss(matching, make_model, load, clips, run, take_step, rows, same):
    model = make_model(vtm=matching)
    batch = load(clips(*(["a"] * rows if same else "abc"[:rows])))
    assert int(matching.count(run(model, batch))) == 0
    out = take_step(model, batch)["vtm"]
    assert out.loss.item() == 0.0 and int(out.weight) == 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and (parameter.grad == 0).all(), name


def test_positives_share_the_clean_pass(matching, make_model, make_batch, run):
    model = make_model(vtm=matching)
    passes = []
    model.encoders["fusion"].register_forward_hook(lambda *a: passes.append(1))
    model.encoders["video"].register_forward_hook(lambda *a: passes.append(2))
    matching(run(model, make_batch(4)))
    assert sorted(passes) == [1, 1, 2]


def test_sound_may_go_with_the_text(context, make_model, make_batch, run):
    objective = VTM(context=context, swap=["text", "audio"])
    model = make_model(vtm=objective)
    calls = []
    fused = model.encoders["fusion"].forward
    model.encoders["fusion"].forward = lambda tokens: calls.append({m: t.x for m, t in tokens.items()}) or fused(tokens)
    objective(run(model, make_batch(4)))
    positive, negative = calls
    assert torch.equal(positive["video"], negative["video"])
    assert not torch.equal(positive["audio"], negative["audio"])
    where = [next(j for j in range(4) if torch.equal(positive["audio"][j], row)) for row in negative["audio"]]
    assert torch.equal(positive["text"][where], negative["text"])  # from the same rows


def test_hard_negatives_are_the_similar_ones(context, make_model, make_batch, run):
    vtc = VTC(context=context, temperature=0.01)
    objective = VTM(context=context, negatives_draw="hard")
    model = make_model(vtc=vtc, vtm=objective)
    ctx = run(model, make_batch(6))
    allowed = objective._allowed(ctx)
    sim = vtc.similarity(ctx, "video", "text").detach().masked_fill(~allowed, -torch.inf)
    expected = sim.softmax(1)
    counts = torch.zeros(6, 6)
    for step in range(300):
        ctx.batch.step = step
        counts[torch.arange(6), objective._negative_rows(ctx)] += 1
    assert (counts[~allowed] == 0).all()
    assert ((counts / 300 - expected).abs() < 4 * (expected * (1 - expected) / 300).sqrt() + 1e-3).all()


def test_hard_negatives_need_vtc(context, make_model, make_batch, run):
    objective = VTM(context=context, negatives_draw="hard")
    with pytest.raises(ConfigError, match=r"negatives_draw=hard needs.*objective=\[vtc,vtm"):
        objective(run(make_model(vtm=objective), make_batch(3)))


def test_mining_does_not_cut_gradients_of_shared_passes(context, make_model, make_batch, run):
    objective = VTM(context=context, negatives_draw="hard")
    model = make_model(vtm=objective, vtc=VTC(context=context))
    objective(run(model, make_batch(4))).loss.backward()
    assert (model.encoders["text"].words.weight.grad != 0).any()


def test_draws_are_repeatable_and_change_with_the_step(matching, make_model, make_batch, run):
    model = make_model(vtm=matching)
    partners = []
    for step in (0, 0, 1):
        ctx = run(model, make_batch(9))
        ctx.batch.step = step
        partners.append(matching._negative_rows(ctx).tolist())
    assert partners[0] == partners[1] != partners[2]


@pytest.mark.parametrize("swap", [[], ["video", "text"], ["audio"], ["text", "txt"]])
def test_swap_must_move_one_side(context, swap):
    with pytest.raises(ConfigError, match="must hold exactly one of modalities"):
        VTM(context=context, swap=swap)


def test_two_modalities_are_needed(context):
    with pytest.raises(ConfigError, match="must be two different ones"):
        VTM(context=context, modalities=["video"])


def drawn(objective, model, batch, run):
    """How often row j was the negative of row i."""
    seen = torch.zeros(len(batch), len(batch))
    for step in range(200):
        batch.step = step
        seen[torch.arange(len(batch)), objective._negative_rows(run(model, batch))] += 1
    return seen


def test_random_negatives_are_any_row_that_shows_and_says_something_else(
    context, make_model, make_batch, load, clips, run
):
    """Clips a, a, b, none, c, d; b and c with one text."""
    objective = VTM(context=context, negatives_draw="random", swap=["video"])
    model = make_model(vtm=objective)
    batch = load(clips("a", "a", "b", None, "c", "d", texts=["5 6", "6 7", "7 8", "8 9", "7 8", "9 5"]))
    assert int(objective.count(run(model, batch))) == 10
    allowed = {0: {2, 4, 5}, 1: {2, 4, 5}, 2: {0, 1, 5}, 4: {0, 1, 5}, 5: {0, 1, 2, 4}}
    seen = drawn(objective, model, batch, run)
    assert all({j for j in range(6) if seen[i, j]} == want for i, want in allowed.items())
    assert all((seen[i][seen[i] > 0] > 200 / len(want) / 2).all() for i, want in allowed.items())  # each as often
    same = load(clips("a", "a", "a"))
    assert int(objective.count(run(model, same))) == 0 == int(objective(run(model, same)).weight)


def test_any_negatives_are_any_other_row(context, make_model, make_batch, load, clips, run):
    """Equal texts and clips of one video too, as released code draws them; rows that lack a modality are left out."""
    objective = VTM(context=context, negatives_draw="any", swap=["video"])
    model = make_model(vtm=objective)
    batch = load(clips("a", "a", "a", None, "a"))
    assert int(objective.count(run(model, batch))) == 8
    seen = drawn(objective, model, batch, run)
    rows = [0, 1, 2, 4]
    assert all((seen[i, j] > 0) == (i != j and j != 3) for i in rows for j in range(5))
    assert int(objective.count(run(model, make_batch(1)))) == 0


def test_training_looks_at_masked_versions_and_scoring_at_clean_ones(context, make_model, make_batch, run):
    objective = VTM(context=context, masked=["text"])
    model = make_model({"text": WordMask(0.9, "mask")}, vtm=objective)
    passes = []
    model.encoders["text"].register_forward_pre_hook(
        lambda module, args, given: passes.append(given["token_ids"]), with_kwargs=True
    )
    ctx = run(model, make_batch(4))
    objective(ctx)
    assert len(passes) == 1 and (passes[0] == 4).any()
    objective.match_logits(ctx)
    assert len(passes) == 2 and not (passes[1] == 4).any()


def test_a_pass_of_its_own_sees_the_same_words(context, make_model, make_batch, run):
    objective = VTM(context=context, masked=["text"], reuse_joint=False)
    ctx = run(make_model({"text": WordMask(0.9, "mask")}, vtm=objective), make_batch(4))
    views = objective._views(ctx)
    assert views["text"] != ctx.masked("text") and views["video"] == ""
    assert torch.equal(
        ctx.inputs("text", views["text"])["token_ids"], ctx.inputs("text", ctx.masked("text"))["token_ids"]
    )


@pytest.mark.parametrize("options", [{}, {"negatives_draw": "random"}, {"negatives_draw": "any"}])
def test_what_is_announced_is_what_is_asked_for(context, make_model, make_batch, run, options):
    objective = VTM(context=context, **options)
    model = make_model(vtm=objective)
    fusion, calls = model.encoders["fusion"], []
    fusion.takes_many, one = True, fusion.forward
    fusion.forward = lambda given: calls.append(len(given)) or [one(tokens) for tokens in given]
    ctx = run(model, make_batch(4))
    objective.plan(ctx)
    objective(ctx)
    assert calls == [2]


def test_xavier_starts_the_head_with_biases_of_zero(context):
    head = VTM(context=context, hidden=5, head_init="xavier").head
    for layer in (head[0], head[2]):
        bound = math.sqrt(6 / sum(layer.weight.shape))
        assert (layer.bias == 0).all() and layer.weight.abs().max() <= bound
        assert layer.weight.abs().max() > 0.5 * bound


@pytest.mark.parametrize("options", [{"negatives_draw": "derange", "swap": ["video"]}, {"negatives_draw": "random"}])
def test_gathered_negatives_are_any_other_clip(context, options):
    with pytest.raises(ConfigError, match="negatives_from=gathered needs negatives_draw=random and swap="):
        VTM(context=context, negatives_from="gathered", **options)


def test_masked_names_modalities(context):
    with pytest.raises(ConfigError, match="masked=.* names no modality 'txt'"):
        VTM(context=context, masked=["txt"])
    with pytest.raises(ConfigError, match="Video has no attribute grid"):
        VTM(context=context, masked=["video"])
