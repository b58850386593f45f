"""One pre-training step of the released code, recorded with random weights: outputs, losses, gradients and three
updates."""

from __future__ import annotations

import pytest
import torch
from simvtp_models import Recorded, spec

from vtp.model import kernels as dispatch
from vtp.model.tubelets import Grid, normalised_pixels, pixels
from vtp.train.config import TrainConfig
from vtp.train.parameters import parameter_groups
from vtp_simvtp.keys import PRETRAIN

# Triton 3.6's interpreter uses a conversion that numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings(
    "ignore:Conversion of an array with ndim:DeprecationWarning:triton.runtime.interpreter"
)
LOSSES = {"mvm": "loss_v", "mlm": "loss_t", "vtc": "loss_vtc", "vtm": "loss_vtm"}


def explicit_softmax(q, k, v, key_mask, scale):
    """Attention as the released code writes it: an additive mask of -10000, not of minus infinity."""
    logits = (q * (scale or q.shape[-1] ** -0.5)) @ k.transpose(-1, -2)
    if key_mask is not None:
        logits = logits + (~key_mask)[:, None, None, :] * -10000.0
    return logits.softmax(dim=-1) @ v


@pytest.fixture(params=["torch", "explicit", pytest.param("triton", marks=pytest.mark.slow)])
def backend(request, monkeypatch):
    if request.param == "explicit":
        offer = dispatch.Backend(run=explicit_softmax, supports=lambda *_: True)
        monkeypatch.setitem(dispatch._backends, "explicit", offer)
    if request.param not in dispatch.backends():  # this package does not need vtp-kernels, nor do its tests
        pytest.skip(f"no attention backend {request.param} here")
    if request.param == "triton":
        kernels = pytest.importorskip("vtp_kernels.dispatch")
        if (reason := kernels.missing(torch.device("cpu"))) is not None:
            pytest.skip(f"the Triton kernels do not run here: {reason}")
    monkeypatch.setattr(dispatch, "_selected", request.param)
    return request.param


# The kernels are interpreted here, which takes minutes: by default they are held against the outputs alone.
IN_FULL = pytest.mark.parametrize(
    "backend", ["torch", "explicit", pytest.param("triton", marks=pytest.mark.slow)], indirect=True
)


def announced(recorded: Recorded):
    """A context in which every objective has made its views."""
    ctx = recorded.context()
    for objective in recorded.model.objectives.values():
        objective.plan(ctx)
    return ctx


def test_outputs(recorded, backend):
    ctx = announced(recorded)
    model, want = recorded.model, recorded.data["outputs"]
    joint = ctx.fused({"video": "tube0.75", "text": "mask0.75"})
    logits, places = model.objectives["mlm"].word_logits(ctx)
    vtm = model.objectives["vtm"]
    views = vtm._views(ctx)
    pairs = torch.cat([ctx.fused(views).pooled, ctx.fused(views, vtm._swapped(ctx)).pooled])
    got = {
        "x_full": model.objectives["mvm"].predict(ctx),
        "v_feature": ctx.pooled("video", "tube0.75"),
        "t_feature": ctx.pooled("text", "mask0.75"),
        "vtm_logits": vtm.head(pairs),
        "encoder_joint": torch.cat([joint.tokens["video"].x, joint.tokens["text"].x], dim=1),
        "encoder_video_only": ctx.fused({"video": "tube0.75"}).tokens["video"].x,
        "encoder_text_only": ctx.fused({"text": "mask0.75"}).tokens["text"].x,
        "text_embedding": ctx.tokens("text", "mask0.75").x,
        "patch_embed": ctx.tokens("video").x - recorded.data["buffers"]["encoder_pos_embed"],
    }
    for name, value in got.items():
        torch.testing.assert_close(value, want[name], atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(logits, want["mlm_logits"][places[:, 0], places[:, 1]], atol=1e-5, rtol=0)


def test_position_tables(recorded):
    model, want = recorded.model, recorded.data["buffers"]
    assert torch.equal(model.encoders["video"].pos_embed, want["encoder_pos_embed"][0])
    assert torch.equal(model.objectives["mvm"].decoder.pos_embed, want["decoder_pos_embed"][0])


def test_masked_words_are_the_recorded_ones(recorded):
    ctx = announced(recorded)
    made = ctx.inputs("text", "mask0.75")
    assert torch.equal(made["token_ids"], recorded.data["inputs"]["input_ids"])
    assert torch.equal(made["labels"], recorded.data["inputs"]["mlm_labels"])


def test_pixel_targets(recorded):
    ctx = announced(recorded)
    video, hidden = ctx.inputs("video")["video"], ctx.inputs("video", "tube0.75")["hidden"]
    mvm = recorded.model.objectives["mvm"]
    values = pixels(video, hidden, Grid((2, 4, 4), 2, (8, 8)), mvm.mean, mvm.std)
    want = recorded.data["targets"]
    torch.testing.assert_close(values.flatten(2), want["pixel_labels_unnormalized"], atol=1e-6, rtol=0)
    torch.testing.assert_close(normalised_pixels(values).flatten(2), want["pixel_labels"], atol=1e-5, rtol=0)


@IN_FULL
def test_losses(recorded, backend):
    out = recorded.take_step()
    for name, key in LOSSES.items():
        want = recorded.data["losses"][key]
        assert out[name].loss.item() == pytest.approx(want, rel=1e-5), name
    total = sum(recorded.model.weights[name] * out[name].loss for name in LOSSES)
    assert total.item() == pytest.approx(recorded.data["losses"]["loss"], rel=1e-5)


def test_loss_against_plain_pixels(recorded):
    recorded.model.objectives["mvm"].normalise = False
    out = recorded.take_step()
    assert out["mvm"].loss.item() == pytest.approx(recorded.data["losses"]["loss_v_unnormalized_target"], rel=1e-5)


@IN_FULL
@pytest.mark.parametrize("reuse_joint", [False, True])
def test_gradients(recorded, backend, reuse_joint):
    recorded.model.objectives["vtm"].reuse_joint = reuse_joint
    recorded.take_step()
    grads, unknown = PRETRAIN.to_theirs({n: p.grad for n, p in recorded.model.named_parameters()})
    norms = recorded.data["grad_norms"]
    assert not unknown and set(grads) == set(norms)
    for name, grad in grads.items():
        assert grad.norm().item() == pytest.approx(norms[name], rel=1e-4), name
    for name, want in recorded.data["grads"].items():
        torch.testing.assert_close(grads[name], want, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("together", [True, False])
def test_passes_are_shared(recorded, together):
    """Joint, video, text and negatives: four passes of B rows where the released code makes five; in one call."""
    calls = []
    recorded.model.encoders["fusion"].takes_many = together
    recorded.model.objectives["vtm"].reuse_joint = True
    recorded.model.encoders["fusion"].register_forward_hook(lambda module, given, out: calls.append(given[0]))
    out = recorded.take_step()
    passes = [set(one) for call in calls for one in (call if isinstance(call, list) else [call])]
    assert sorted(map(sorted, passes)) == [["text"], ["text", "video"], ["text", "video"], ["video"]]
    assert len(calls) == (1 if together else 4)
    assert out["vtm"].loss.item() == pytest.approx(recorded.data["losses"]["loss_vtm"], rel=1e-5)


def test_only_visible_tubelets_are_embedded(recorded):
    seen = []
    embed = recorded.model.encoders["video"].patch_embed
    embed.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[1]))
    recorded.take_step()
    assert seen == [8]


def test_only_selected_words_reach_the_vocabulary_layer(recorded):
    seen = []
    recorded.model.objectives["mlm"].head[0].register_forward_hook(
        lambda module, given, out: seen.append(len(given[0]))
    )
    recorded.take_step()
    assert seen == [15]


def test_who_decays_and_three_updates(recorded):
    options = recorded.data["config"]["optim"]
    config = TrainConfig(
        steps=3,
        lr=options["lr"],
        betas=list(options["betas"]),
        eps=options["eps"],
        weight_decay=options["weight_decay"],
        no_decay=["pos_embed", "cls_token", "mask_token"],
    )
    groups = parameter_groups(recorded.model, config)
    decaying = {name for group in groups if group["weight_decay"] for name in group["names"]}
    names, _ = PRETRAIN.to_theirs(dict.fromkeys(decaying))
    assert set(names) == set(recorded.data["param_groups"]["decay"])

    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=tuple(config.betas), eps=config.eps)
    curve = recorded.data["loss_curve"]
    for want in curve:
        out = recorded.take_step()
        for name, key in LOSSES.items():
            assert out[name].loss.item() == pytest.approx(want[key], rel=1e-2), (name, want)
        optimizer.step()


def test_every_key_has_a_place_and_a_way_back(recorded):
    state = recorded.model.state_dict()
    original, unknown = PRETRAIN.to_theirs(state)
    assert not unknown
    want = recorded.data["state_dict"]
    assert set(original) == set(want)
    assert all(torch.equal(original[name], want[name]) for name in want)


def test_repaired_preset_differs_only_where_it_should(recorded, vocab):
    """Same weights, same masks: MVM and MLM are the same mathematics in both presets, VTC and VTM are not."""
    released = recorded.take_step()
    repaired = Recorded.load(vocab, released=False)
    repaired.model.objectives["vtm"].reuse_joint = True
    out = repaired.take_step()
    for name in ("mvm", "mlm"):
        assert out[name].loss.item() == pytest.approx(released[name].loss.item(), rel=1e-6)
    for name in ("vtc", "vtm"):
        assert abs(out[name].loss.item() - released[name].loss.item()) > 1e-3
    assert spec(vocab, released=True) != spec(vocab, released=False)
