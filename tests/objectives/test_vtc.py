from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from vtp.errors import ConfigError
from vtp.model.losses import MAX_LOGIT_SCALE
from vtp.model.masking import WordMask
from vtp.types import Space
from vtp_objectives.vtc import VTC


def features(one, two, rows=None, scale=0.0, **more):
    rows = torch.ones(len(one), dtype=torch.bool) if rows is None else rows
    return {"video_embedding": one, "text_embedding": two, "rows": rows, "logit_scale": torch.tensor([scale]), **more}


@pytest.fixture
def plain(context):
    return VTC(context=context, mask_duplicates=False)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_uniform_similarity_costs_ln_of_the_batch(plain, batch):
    same = normalize(torch.ones(batch, 4), dim=1)
    out = plain.loss_from_features(features(same, same, scale=3.0))
    assert out.loss.item() == pytest.approx(math.log(batch), abs=1e-5)
    assert int(out.weight) == batch


def test_loss_is_the_cross_entropy_of_both_directions(plain):
    video, text = (normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    out = plain.loss_from_features(features(video, text, scale=1.5))
    sim = math.exp(1.5) * text.double() @ video.double().T
    labels = torch.arange(5)
    expected = (cross_entropy(sim, labels) + cross_entropy(sim.T, labels)) / 2
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert out.metrics["t2v_r1"].item() == pytest.approx((sim.argmax(1) == labels).double().mean().item())
    assert out.metrics["v2t_r1"].item() == pytest.approx((sim.argmax(0) == labels).double().mean().item())


def test_directions_are_not_swapped(plain):
    """Permuting both sides alike, not by an involution, leaves the loss; permuting one of them does not."""
    video, text = (normalize(torch.randn(3, 8), dim=1) for _ in range(2))
    cycle = torch.tensor([1, 2, 0])
    loss = plain.loss_from_features(features(video, text)).loss
    torch.testing.assert_close(plain.loss_from_features(features(video[cycle], text[cycle])).loss, loss)
    assert not torch.allclose(plain.loss_from_features(features(video[cycle], text)).loss, loss)


def test_missing_rows_take_no_part(plain):
    video, text = (normalize(torch.randn(6, 8), dim=1).requires_grad_() for _ in range(2))
    rows = torch.tensor([True, False, True, True, False, True])
    out = plain.loss_from_features(features(video, text, rows))
    alone = plain.loss_from_features(features(video[rows], text[rows]))
    torch.testing.assert_close(out.loss, alone.loss)
    assert {k: v.item() for k, v in out.metrics.items()} == pytest.approx(
        {k: v.item() for k, v in alone.metrics.items()}
    )
    assert int(out.weight) == 4
    gradients = torch.autograd.grad(out.loss, (video, text))
    assert all((g[~rows] == 0).all() and g.isfinite().all() and (g[rows] != 0).any() for g in gradients)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_rows_or_one_row_is_no_loss(plain, rows):
    video = normalize(torch.randn(3, 4), dim=1).requires_grad_()
    out = plain.loss_from_features(features(video, video.detach(), torch.arange(3) < rows))
    assert out.loss.item() == 0.0 and int(out.weight) == rows
    out.loss.backward()
    assert video.grad.isfinite().all()


def test_duplicates_are_not_negatives(context):
    objective = VTC(context=context)
    video, text = (normalize(torch.randn(4, 8), dim=1) for _ in range(2))
    identities = {"video_identity": torch.tensor([1, 2, 3, 1]), "text_identity": torch.tensor([7, 7, 8, 9])}
    out = objective.loss_from_features(features(video, text, **identities))
    sim = text.double() @ video.double().T
    for i, j in [(0, 1), (1, 0), (0, 3), (3, 0)]:  # the same caption, the same video
        sim[i, j] = -torch.inf
    labels = torch.arange(4)
    assert out.loss.item() == pytest.approx(
        ((cross_entropy(sim, labels) + cross_entropy(sim.T, labels)) / 2).item(), rel=1e-6
    )


def test_equal_captions_are_found_in_the_batch(context, make_model, make_batch, run):
    objective = VTC(context=context)
    batch = make_batch(7)  # rows 0 and 6 have the same length
    batch.inputs["text"]["token_ids"][6] = batch.inputs["text"]["token_ids"][0]
    identity = objective.features(run(make_model(vtc=objective), batch))["text_identity"]
    assert identity[0] == identity[6] and len(identity.unique()) == 6


def test_the_loss_of_a_step_is_that_of_its_features(context, make_model, make_batch, run, take_step):
    objective = VTC(context=context)
    model = make_model(vtc=objective)
    batch = make_batch(6, missing={"text": [2], "video": [4]})
    whole = take_step(model, batch)["vtc"]
    parts = [objective.features(run(model, batch.rows(a, b))) for a, b in [(0, 1), (1, 4), (4, 6)]]
    joined = objective.loss_from_features({k: torch.cat([p[k] for p in parts]) for k in parts[0]})
    torch.testing.assert_close(joined.loss, whole.loss)
    assert int(joined.weight) == int(whole.weight) == 4


def test_gradient_of_the_temperature_through_features_equals_the_direct_one(
    context, make_model, make_batch, run, take_step
):
    objective = VTC(context=context)
    model = make_model(vtc=objective)
    batch = make_batch(6)
    take_step(model, batch)
    direct = objective.logit_scale.grad.clone()
    objective.logit_scale.grad = None
    parts = [objective.features(run(model, batch.rows(a, a + 2))) for a in (0, 2, 4)]
    objective.loss_from_features({k: torch.cat([p[k] for p in parts]) for k in parts[0]}).loss.backward()
    torch.testing.assert_close(objective.logit_scale.grad, direct)
    assert direct.abs() > 0 and objective.logit_scale.shape == (1,)


def test_the_sigmoid_loss_is_that_of_every_pair(context):
    """SigLIP, algorithm 1: -sum log sigmoid(z * logits) / N; duplicates and rows that lack one are asked nothing."""
    objective = VTC(context=context, loss="sigmoid")
    video, text = (normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    same = {"video_identity": torch.tensor([1, 2, 3, 4, 1]), "text_identity": torch.tensor([5, 6, 6, 7, 8])}
    rows = torch.tensor([True, True, True, False, True])
    out = objective.loss_from_features(features(video, text, rows, 5.0, logit_bias=torch.tensor([-3.0, -1.0]), **same))
    total = 0.0
    for i in (0, 1, 2, 4):
        for j in (0, 1, 2, 4):
            logit = math.exp(5.0) * float(text[i].double() @ video[j].double()) - 2.0  # the mean of both copies
            asked = (i, j) not in [(0, 4), (4, 0), (1, 2), (2, 1)]
            total += math.log1p(math.exp(-logit if i == j else logit)) if asked else 0.0
    assert out.loss.item() == pytest.approx(total / 4, rel=1e-5) and int(out.weight) == 4
    assert out.metrics["logit_bias"].item() == -2.0


def test_the_sigmoid_loss_starts_from_the_temperature_and_bias_of_the_towers(context, make_model, make_batch, run):
    for encoder in context.encoders.values():
        encoder.space = Space("towers", 0.005, -12.0)
    objective = VTC(context=context, loss="sigmoid", width=None)
    assert objective.logit_scale.item() == pytest.approx(math.log(200)) and objective.logit_bias.item() == -12.0
    found = objective.features(run(make_model(vtc=objective), make_batch(3)))
    assert found["logit_scale"].exp().item() == pytest.approx(200)  # a softmax would end at 100
    given = VTC(context=context, loss="sigmoid", width=None, bias=-1.0, temperature=0.5, learn_temperature=False)
    assert given.logit_bias.item() == -1.0 and not list(given.parameters())
    assert not hasattr(VTC(context=context, width=None), "logit_bias")
    for encoder in context.encoders.values():
        encoder.space = None
    assert VTC(context=context, loss="sigmoid").logit_bias.item() == -10.0


def test_embeddings_have_unit_length(context, make_model, make_batch, run):
    objective = VTC(context=context, width=5, modalities=["audio", "text"])
    embeddings = objective.embeddings(run(make_model(vtc=objective), make_batch(4)))
    assert list(embeddings) == ["audio_embedding", "text_embedding"]
    for embedding in embeddings.values():
        assert embedding.shape == (4, 5) and embedding.dtype == torch.float32
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(4))


def test_similarity_is_what_the_loss_sees(context, make_model, make_batch, run):
    objective = VTC(context=context, temperature=0.5)
    ctx = run(make_model(vtc=objective), make_batch(4))
    embeddings = objective.embeddings(ctx)
    expected = 2.0 * embeddings["text_embedding"] @ embeddings["video_embedding"].T
    torch.testing.assert_close(objective.similarity(ctx, "text", "video"), expected)


def test_temperature_is_bounded_but_can_come_back(context, make_model, make_batch, run):
    objective = VTC(context=context)
    with torch.no_grad():
        objective.logit_scale.fill_(9.0)
    scale = objective.features(run(make_model(vtc=objective), make_batch(3)))["logit_scale"]
    assert scale.item() == pytest.approx(MAX_LOGIT_SCALE)
    (up,) = torch.autograd.grad(-scale.sum(), objective.logit_scale, retain_graph=True)
    (down,) = torch.autograd.grad(scale.sum(), objective.logit_scale)
    assert up.item() == 0.0 and down.item() == 1.0
    assert VTC(context=context).logit_scale.item() == pytest.approx(2.6593, abs=1e-4)  # ln(1 / 0.07)


def test_a_fixed_temperature_is_not_trained(context):
    objective = VTC(context=context, learn_temperature=False)
    assert "logit_scale" not in {*dict(objective.named_parameters()), *objective.state_dict()}
    assert objective.logit_scale.item() == pytest.approx(2.6593, abs=1e-4)


@pytest.mark.parametrize("modalities", [["video"], ["video", "video"], ["video", "txt"], ["video", "audio", "text"]])
def test_a_pair_is_needed(context, modalities):
    with pytest.raises(ConfigError, match="must be two different ones of video, audio, text"):
        VTC(context=context, modalities=modalities)


def test_empty_slots(context):
    del context.encoders["audio"]
    with pytest.raises(ConfigError, match=r"needs an encoder for audio.*objectives.vtc.modalities=\[video,text\]"):
        VTC(context=context, modalities=["video", "audio"])


def test_the_sum_of_both_directions_is_twice_their_mean(context, plain):
    video, text = (normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    both = VTC(context=context, mask_duplicates=False, directions="sum")
    given = features(video, text)
    torch.testing.assert_close(both.loss_from_features(given).loss, 2 * plain.loss_from_features(given).loss)


def test_local_negatives_stay_inside_their_process(context, make_model, make_batch, run):
    local = VTC(context=context, mask_duplicates=False, negatives_from="local")
    assert local.features(run(make_model(vtc=local), make_batch(3)))["group"].tolist() == [0, 0, 0]
    video, text = (normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    out = local.loss_from_features(features(video, text, group=torch.tensor([0, 0, 0, 1, 1])))
    parts = [
        local.loss_from_features(features(video[i], text[i], group=torch.zeros(len(i)))) for i in ([0, 1, 2], [3, 4])
    ]
    torch.testing.assert_close(out.loss, (3 * parts[0].loss + 2 * parts[1].loss) / 5)


def test_without_projection_features_are_compared_as_they_are(context, make_model, make_batch, run):
    objective = VTC(context=context, width=None)
    ctx = run(make_model(vtc=objective), make_batch(4))
    assert [name for name, _ in objective.named_parameters()] == ["logit_scale"]
    torch.testing.assert_close(objective.embed(ctx, "text"), normalize(ctx.pooled("text"), dim=1))
    context.encoders["text"].width = 7
    with pytest.raises(ConfigError, match=r"must have one width, and they have 6 \(video\), 7 \(text\)"):
        VTC(context=context, width=None)


def test_training_looks_at_masked_versions_and_evaluation_at_clean_ones(context, make_model, make_batch, run):
    objective = VTC(context=context, masked=["text"])
    ctx = run(make_model({"text": WordMask(0.9, "mask")}, vtc=objective), make_batch(4))
    seen = objective.features(ctx)["text_embedding"]
    torch.testing.assert_close(seen, objective.embed(ctx, "text", "mask0.9"))
    assert not torch.allclose(seen, objective.embeddings(ctx)["text_embedding"])
