"""What every encoder promises, checked for every encoder that is registered."""

from __future__ import annotations

import pytest
import torch

from vtp.types import AudioSpec, Tokens, VideoSpec
from vtp_encoders.plugin import vtp_register_encoders

NAMES = [
    ("text", "tiny"),
    ("text", "transformers"),
    ("video", "tiny"),
    ("video", "timm"),
    ("video", "timm patch"),
    ("video", "timm vit"),
    ("video", "timm clip"),
    ("video", "videomae"),
    ("audio", "tiny"),
    ("audio", "ast"),
    ("fusion", "concat"),
]
UNIMODAL = [pair for pair in NAMES if pair[0] != "fusion"]
MASKED = [("video", "tiny"), ("video", "videomae"), ("audio", "tiny"), ("audio", "ast")]
each = pytest.mark.parametrize("slot, name", NAMES)
each_unimodal = pytest.mark.parametrize("slot, name", UNIMODAL)


def row(arguments, index):
    """One row of the arguments of an encoder."""
    if "tokens" in arguments:
        return {"tokens": {m: t.take(torch.tensor([index])) for m, t in arguments["tokens"].items()}}
    return {name: tensor[index : index + 1] for name, tensor in arguments.items()}


def outputs(slot, out):
    """Real tokens, and the pooled vector of a fusion encoder."""
    if slot != "fusion":
        return [out.x[out.attention_mask]]
    return [out.pooled] + [t.x[t.attention_mask] for t in out.tokens.values()]


def test_every_registered_encoder_is_tested():
    registered = []
    vtp_register_encoders(lambda name, target, slot: registered.append((slot, name)))
    assert {(slot, name.split()[0]) for slot, name in NAMES} == set(registered)


@each_unimodal
def test_tokens_have_the_declared_shape(build, inputs, slot, name):
    encoder = build(slot, name).eval()
    tokens = encoder(**getattr(inputs, slot)(encoder, 3))
    assert isinstance(tokens, Tokens) and tokens.x.dtype == torch.float32
    assert tokens.x.shape == (*tokens.attention_mask.shape, encoder.width) and tokens.x.isfinite().all()
    assert tokens.attention_mask.dtype == torch.bool and tokens.attention_mask.any(1).all()
    assert tokens.index is None
    if tokens.grid is not None:
        assert torch.Size(tokens.grid).numel() == tokens.x.shape[1]
    if slot == "video":
        assert isinstance(encoder.spec, VideoSpec)
    if slot == "audio":
        assert isinstance(encoder.spec, AudioSpec)
        assert not tokens.attention_mask.all()  # the second row is half as long


@each
def test_gradients_reach_every_parameter(build, inputs, slot, name):
    encoder = build(slot, name).train()
    torch.stack(
        [x.square().sum() for x in outputs(slot, encoder(**getattr(inputs, slot)(encoder, 3)))]
    ).sum().backward()
    trained = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.isfinite().all()] == []
    assert len(trained) > 0.9 * len(list(encoder.parameters()))


@each
def test_a_row_never_sees_its_batch_neighbours(build, inputs, slot, name):
    encoder = build(slot, name).eval()
    arguments = getattr(inputs, slot)(encoder, 3)
    together, alone = encoder(**arguments), encoder(**row(arguments, 1))
    if slot == "fusion":
        torch.testing.assert_close(alone.pooled, together.pooled[1:2], rtol=1e-4, atol=1e-5)
        pairs = [(alone.tokens[m], t.take(torch.tensor([1]))) for m, t in together.tokens.items()]
    else:
        pairs = [(alone, together.take(torch.tensor([1])))]
    for one, other in pairs:
        real = one.attention_mask
        torch.testing.assert_close(one.x[real], other.x[real], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slot, name", [p for p in NAMES if p[0] != "video"])
def test_padding_has_no_influence(build, inputs, slot, name):
    encoder = build(slot, name).eval()
    arguments = getattr(inputs, slot)(encoder, 3)
    before = outputs(slot, encoder(**arguments))
    if slot == "text":
        arguments["token_ids"][~arguments["attention_mask"]] = 6
    elif slot == "audio":
        past = torch.arange(arguments["waveform"].shape[1]) >= arguments["lengths"][:, None]
        arguments["waveform"][past] = 0.7
    else:
        for tokens in arguments["tokens"].values():
            tokens.x[~tokens.attention_mask] = 1e3
    for a, b in zip(before, outputs(slot, encoder(**arguments)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@each_unimodal
def test_an_empty_row_stays_finite_forward_and_backward(build, inputs, slot, name):
    """What a loader gives for a modality that the row lacks: zeros and padding."""
    encoder = build(slot, name).train()
    arguments = {k: v.clone() for k, v in getattr(inputs, slot)(encoder, 3).items()}
    for tensor in arguments.values():
        tensor[1] = 0
    tokens = encoder(**arguments)
    assert tokens.x.isfinite().all()
    (tokens.x * tokens.attention_mask[..., None]).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
    if slot != "video":
        assert not tokens.attention_mask[1].any()


@pytest.mark.parametrize("slot, name", MASKED)
def test_a_mask_leaves_the_visible_tokens(build, inputs, slot, name):
    encoder = build(slot, name).eval()
    arguments = getattr(inputs, slot)(encoder, 3)
    everything = encoder(**arguments)
    n = everything.x.shape[1]
    mask = torch.stack([torch.randperm(n) < n // 2 for _ in range(3)])
    visible = encoder(**arguments, mask=mask)
    assert visible.x.shape == (3, n - n // 2, encoder.width)
    for b in range(3):
        assert visible.index[b].tolist() == [i for i in range(n) if not mask[b, i]]
    assert torch.equal(visible.attention_mask, everything.attention_mask.gather(1, visible.index))
    nothing_hidden = encoder(**arguments, mask=torch.zeros(3, n, dtype=torch.bool))
    real = everything.attention_mask
    torch.testing.assert_close(nothing_hidden.x[real], everything.x[real], rtol=1e-4, atol=1e-5)


@each
def test_weights_and_assets_restore_the_encoder(build, inputs, slot, name, tmp_path):
    encoder = build(slot, name).eval()
    folder = tmp_path / "encoders" / slot
    folder.mkdir(parents=True)
    if hasattr(encoder, "save_assets"):
        encoder.save_assets(folder)
    again = build(slot, name, assets=tmp_path, seed=5).eval()
    again.load_state_dict(encoder.state_dict(), strict=True)
    arguments = getattr(inputs, slot)(encoder, 3)
    if slot == "text":
        assert torch.equal(inputs.text(again, 3)["token_ids"], arguments["token_ids"])
        for fact in ("pad_id", "mask_id", "cls_id", "sep_id", "special_ids", "vocab_size", "max_length"):
            assert getattr(again.spec, fact) == getattr(encoder.spec, fact)
    for a, b in zip(outputs(slot, encoder(**arguments)), outputs(slot, again(**arguments)), strict=True):
        assert torch.equal(a, b)


@each
def test_checkpointing_changes_neither_output_nor_gradients(build, inputs, slot, name):
    arguments, results = None, []
    for checkpointing in (False, True):
        encoder = build(slot, name).train()
        for module in encoder.modules():  # HF models have dropout by default
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        arguments = arguments or getattr(inputs, slot)(encoder, 3)
        if checkpointing:
            encoder.gradient_checkpointing_enable()
        loss = torch.stack([x.square().mean() for x in outputs(slot, encoder(**arguments))]).sum()
        loss.backward()
        results.append((loss.detach(), {n: p.grad for n, p in encoder.named_parameters()}))
    torch.testing.assert_close(results[0][0], results[1][0])
    for n, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][n], gradient, rtol=1e-4, atol=1e-6, msg=n)


@each
def test_checkpointing_behind_a_frozen_embedding_still_trains_the_layers(build, inputs, slot, name):
    """Reentrant checkpointing gives a layer no gradient when its input needs none."""
    encoder = build(slot, name).train()
    encoder.gradient_checkpointing_enable()
    for n, p in encoder.named_parameters():
        p.requires_grad_(p.requires_grad and encoder.layer_of(n) > 0)
    out = encoder(**getattr(inputs, slot)(encoder, 3))
    torch.stack([x.square().sum() for x in outputs(slot, out)]).sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []


@each
def test_layers_are_numbered_from_the_input(build, slot, name):
    encoder = build(slot, name)
    layers = {n: encoder.layer_of(n) for n, _ in encoder.named_parameters()}
    assert set(layers.values()) <= set(range(encoder.depth + 2))
    assert min(layers.values()) == 0
    assert all(any(layer == i for layer in layers.values()) for i in range(1, encoder.depth + 1))


@each
def test_autocast_gives_finite_tokens(build, inputs, slot, name):
    encoder = build(slot, name).eval()
    with torch.autocast("cpu", torch.bfloat16):
        out = encoder(**getattr(inputs, slot)(encoder, 3))
    assert all(x.isfinite().all() for x in outputs(slot, out))
