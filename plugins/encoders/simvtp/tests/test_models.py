"""Sizes and names of the models, the two towers, and what the encoders promise."""

from __future__ import annotations

import pytest
import torch
from simvtp_models import ALL, build, dual_spec, random_batch, recipe, spec, take_step
from torch.nn.functional import gelu, layer_norm

from vtp.errors import ConfigError
from vtp.model.blocks import sincos_table
from vtp.model.context import ForwardContext
from vtp_simvtp.keys import DUAL, PRETRAIN
from vtp_simvtp.video import VideoTubelets


def block_keys(prefix, width):
    """One block in the specification's table: 13 tensors."""
    keys = {f"{prefix}.{norm}.{kind}": (width,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
    keys |= {f"{prefix}.attn.{bias}": (width,) for bias in ("q_bias", "v_bias")}
    keys |= {f"{prefix}.attn.qkv.weight": (3 * width, width), f"{prefix}.attn.proj.weight": (width, width)}
    keys |= {f"{prefix}.attn.proj.bias": (width,), f"{prefix}.mlp.fc1.weight": (4 * width, width)}
    keys |= {f"{prefix}.mlp.fc1.bias": (4 * width,), f"{prefix}.mlp.fc2.weight": (width, 4 * width)}
    return keys | {f"{prefix}.mlp.fc2.bias": (width,)}


def text_keys(prefix):
    tables = {"word": 30522, "position": 512, "token_type": 2}
    keys = {f"{prefix}.{name}_embeddings.weight": (rows, 768) for name, rows in tables.items()}
    return keys | {f"{prefix}.LayerNorm.weight": (768,), f"{prefix}.LayerNorm.bias": (768,)}


def embed_keys(prefix):
    return {f"{prefix}.proj.weight": (768, 3, 2, 16, 16), f"{prefix}.proj.bias": (768,)}


def pretrain_keys():
    keys = {"mask_token": (1, 1, 384)} | embed_keys("encoder.patch_embed")
    for i in range(12):
        keys |= block_keys(f"encoder.blocks.{i}", 768)
    for i in range(4):
        keys |= block_keys(f"decoder.blocks.{i}", 384)
    for part, width in (("encoder", 768), ("decoder", 384)):
        keys |= {f"{part}.norm.weight": (width,), f"{part}.norm.bias": (width,)}
    keys |= {"decoder.head.weight": (1536, 384), "decoder.head.bias": (1536,), "encoder_to_decoder.weight": (384, 768)}
    keys |= text_keys("text_embeddings")
    keys |= {"text_cls.weight": (30522, 768), "text_cls.bias": (30522,)}
    return keys | {"vtm_head.weight": (2, 768), "vtm_head.bias": (2,)}


def dual_keys():
    keys = {}
    for tower in ("video_encoder", "text_encoder"):
        keys |= embed_keys(f"{tower}.patch_embed") | text_keys(f"{tower}.text_embeddings")
        for i in range(12):
            keys |= block_keys(f"{tower}.blocks.{i}", 768)
        keys |= {f"{tower}.fc_norm.weight": (768,), f"{tower}.fc_norm.bias": (768,)}
    return keys


def base(vocab, dual):
    text = {"tokenizer": str(vocab), "vocabulary": 30522}
    if dual:
        return {
            "encoders": {
                "video": {"name": "simvtp_tower"},
                "text": {"name": "simvtp_tower"} | text,
            },
            **recipe(True, {"vtc": {"masked": []}}),
        }
    return {
        "encoders": {
            "video": {"name": "simvtp"},
            "text": {"name": "simvtp"} | text,
            "fusion": {"name": "simvtp"},
        },
        **recipe(True, {name: {} for name in ALL}),
    }


@pytest.mark.parametrize(
    "layout, keys, tensors, parameters",
    [("pretrain", pretrain_keys, 227, 141_521_084), ("dual", dual_keys, 330, 220_128_768)],
)
def test_base_has_the_tensors_of_the_released_code(layout, keys, tensors, parameters, vocab):
    with torch.device("meta"):
        model = build(base(vocab, layout == "dual"))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    table = DUAL if layout == "dual" else PRETRAIN
    original, unknown = table.to_theirs(model.state_dict())
    want = keys()
    assert not unknown and len(original) == tensors
    assert {name: tuple(value.shape) for name, value in original.items()} == want
    ours, unknown = table.to_ours(original)
    assert not unknown and set(ours) == set(model.state_dict())


def test_every_prefix_of_the_tables_is_unique_on_both_sides():
    for table in (PRETRAIN, DUAL):
        for side in zip(*table.pairs, strict=True):
            assert len(set(side)) == len(table.pairs)


def tower_by_formula(state, x, mask):
    """Section "fine-tuning model" of the specification, written out: blocks without a last norm, LN of the mean."""
    for i in range(2):
        w = {
            name.removeprefix(f"blocks.{i}."): value for name, value in state.items() if name.startswith(f"blocks.{i}.")
        }
        y = layer_norm(x, (96,), w["norm1.weight"], w["norm1.bias"], 1e-6)
        q, k, v = (y @ part.T for part in w["attn.qkv.weight"].split(96))
        q, v = q + w["attn.q_bias"], v + w["attn.v_bias"]
        q, k, v = (part.unflatten(-1, (4, 24)).transpose(1, 2) for part in (q, k, v))
        logits = (q * 24**-0.5) @ k.transpose(-1, -2) + (1 - mask.float())[:, None, None, :] * -10000
        y = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + y @ w["attn.proj.weight"].T + w["attn.proj.bias"]
        y = layer_norm(x, (96,), w["norm2.weight"], w["norm2.bias"], 1e-6)
        y = gelu(y @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"])
        x = x + y @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]
    return layer_norm(x.mean(1), (96,), state["fc_norm.weight"], state["fc_norm.bias"], 1e-6)


def test_released_towers_by_formula(vocab):
    """Features, loss and similarity of the two-tower model from its equations and the released code's tensor names."""
    model = build(dual_spec(vocab, released=True)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    state, _ = DUAL.to_theirs(model.state_dict())
    towers = {
        t: {n.removeprefix(f"{t}_encoder."): v for n, v in state.items() if n.startswith(t)} for t in ("video", "text")
    }
    batch = random_batch(4)
    ctx = ForwardContext(model, batch)

    w = towers["video"]
    frames = batch.inputs["video"]["frames"].permute(0, 4, 1, 2, 3) / 255.0
    mean, std = (torch.tensor(v)[:, None, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = torch.conv3d((frames - mean) / std, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], (2, 8, 8))
    x = x.flatten(2).transpose(1, 2) + sincos_table(32, 96)
    video = tower_by_formula(w, x, torch.ones(4, 32))

    w = {n.replace("text_embeddings.", ""): v for n, v in towers["text"].items()}
    ids, real = batch.inputs["text"].values()
    x = (
        w["word_embeddings.weight"][ids]
        + w["position_embeddings.weight"][: ids.shape[1]]
        + w["token_type_embeddings.weight"][0]
    )
    x = layer_norm(x, (96,), w["LayerNorm.weight"], w["LayerNorm.bias"], 1e-12)
    text = tower_by_formula(w, x, real)

    torch.testing.assert_close(ctx.pooled("video"), video, atol=1e-5, rtol=0)
    torch.testing.assert_close(ctx.pooled("text"), text, atol=1e-5, rtol=0)
    sim = torch.cosine_similarity(text[:, None], video[None], dim=-1) / 0.05
    labels = torch.arange(4)
    want = torch.nn.functional.cross_entropy(sim, labels) + torch.nn.functional.cross_entropy(sim.T, labels)
    got = take_step(model, batch)["vtc"].loss
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_repaired_towers_do_not_depend_on_padding(vocab):
    """The same text padded to two lengths: equal in the repaired model, not in the released one."""
    short, long = random_batch(2, length=10), random_batch(2, length=10)
    for name, tensor in long.inputs["text"].items():
        long.inputs["text"][name] = torch.cat([tensor, torch.zeros(2, 4, dtype=tensor.dtype)], dim=1)
    for make in (lambda released: dual_spec(vocab, released=released), lambda released: spec(vocab, released=released)):
        for released in (False, True):
            model = build(make(released)).eval()
            with torch.no_grad():
                one, two = (ForwardContext(model, batch).pooled("text") for batch in (short, long))
            assert torch.allclose(one, two, atol=1e-5) != released


def test_pretraining_and_fine_tuning_share_one_definition_of_a_feature(vocab):
    """mean(LN(x)) over real tokens in both, so that towers started from the encoder give its features."""
    from vtp_simvtp.dual import dual_from_pretrained

    shared, towers = build(spec(vocab)).eval(), build(dual_spec(vocab)).eval()
    towers.load_state_dict(dual_from_pretrained(shared.state_dict(), keep_norm=True), strict=True)
    batch = random_batch(3)
    with torch.no_grad():
        for modality in ("video", "text"):
            one, two = (ForwardContext(model, batch).pooled(modality) for model in (shared, towers))
            torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def test_unused_weights_are_not_trained(vocab):
    model = build(dual_spec(vocab, released=True))
    take_step(model, random_batch(3))
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without and all("unused" in name for name in without)
    assert all("unused" in name for name, p in model.named_parameters() if not p.requires_grad)


@pytest.mark.parametrize(
    "preset, width, depth, heads", [("small", 384, 12, 6), ("base", 768, 12, 12), ("large", 1024, 24, 16)]
)
def test_presets(preset, width, depth, heads, vocab):
    options = {"name": "simvtp", "preset": preset}
    text = options | {"tokenizer": str(vocab)}
    with torch.device("meta"):
        model = build(
            {"encoders": {"video": options, "text": text, "fusion": options}, "objectives": {"mvm": {"name": "mvm"}}}
        )
    fusion = model.encoders["fusion"]
    assert (fusion.width, len(fusion.blocks), fusion.blocks[0].attn.heads) == (width, depth, heads)
    decoder = model.objectives["mvm"].decoder
    assert (decoder.norm.normalized_shape, len(decoder.blocks)) == ((width // 2,), 4)
    assert decoder.blocks[0].attn.heads == width // 128


@pytest.mark.parametrize("kind", ["tower", "shared"])
def test_several_clips_of_a_video_are_encoded_alone_and_averaged(kind, vocab):
    model = build(dual_spec(vocab, released=True) if kind == "tower" else spec(vocab)).eval()
    one, two = random_batch(2, seed=1), random_batch(2, seed=2)
    both = random_batch(2)
    both.inputs["video"]["frames"] = torch.stack([b.inputs["video"]["frames"] for b in (one, two)], dim=1)
    with torch.no_grad():
        want = sum(ForwardContext(model, b).pooled("video") for b in (one, two)) / 2
        torch.testing.assert_close(ForwardContext(model, both).pooled("video"), want, atol=1e-5, rtol=0)


def test_bytes_and_normalised_frames_give_the_same_tokens():
    encoder = VideoTubelets(preset="tiny", frames=4, size=32, tubelet=2, patch=8)
    frames = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    spec_ = encoder.spec
    video = ((frames / 255 - torch.tensor(spec_.mean)) / torch.tensor(spec_.std)).permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(encoder(frames).x, encoder(video).x, atol=1e-5, rtol=0)
    conv = encoder.patch_embed.proj(video.transpose(1, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder(frames).x - encoder.pos_embed, conv, atol=1e-5, rtol=0)


@pytest.mark.parametrize("give", ["mask", "visible"])
def test_masked_clip_gives_the_visible_rows_of_the_whole_one(give):
    encoder = VideoTubelets(preset="tiny", frames=4, size=32, tubelet=2, patch=8)
    frames = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    mask = torch.zeros(2, 32, dtype=torch.bool)
    mask[0, :20] = True
    mask[1, 12:] = True
    visible = torch.stack([torch.arange(20, 32), torch.arange(12)])
    got = encoder(frames, mask, visible if give == "visible" else None)
    assert torch.equal(got.index, visible)
    torch.testing.assert_close(got.x, torch.stack([row[i] for row, i in zip(encoder(frames).x, visible, strict=True)]))


def test_layer_numbers_are_relative_to_the_tower(vocab):
    for model, depth in ((build(dual_spec(vocab)), 2), (build(spec(vocab)), 2)):
        for slot, encoder in model.encoders.items():
            layers = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
            assert encoder.depth == depth and set(layers.values()) <= set(range(depth + 2)), slot
            assert all(
                layer == int(name.partition("blocks.")[2][0]) + 1 for name, layer in layers.items() if "blocks." in name
            )
            assert all(layer == 0 for name, layer in layers.items() if "embedding" in name or "patch_embed" in name)
            assert all(layer == depth + 1 for name, layer in layers.items() if name.split(".")[-2] == "norm")


@pytest.mark.parametrize("model", ["shared", "towers"])
def test_gradient_checkpointing_changes_nothing(model, vocab):
    built = build(spec(vocab) if model == "shared" else dual_spec(vocab)).eval()
    batch = random_batch(3)
    grads = []
    for _ in range(2):
        take_step(built, batch)
        grads.append({n: p.grad.clone() for n, p in built.named_parameters() if p.grad is not None})
        assert built.gradient_checkpointing_enable() == []
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name])


@pytest.mark.parametrize(
    "change, words",
    [
        ({"frames": 15}, "Nearest valid: frames=16"),
        ({"size": 230}, "size=224"),
        ({"preset": "huge"}, "tiny, small, base, large"),
    ],
)
def test_wrong_sizes_are_explained(change, words):
    with pytest.raises(ConfigError, match=words):
        VideoTubelets(**change)


def test_a_clip_of_another_size_is_refused():
    encoder = VideoTubelets(preset="tiny", frames=4, size=32, tubelet=2, patch=8)
    for shape in [(1, 6, 32, 32, 3), (1, 4, 40, 32, 3), (1, 3, 32, 32, 3)]:
        with pytest.raises(ConfigError, match="tubelets|multiple"):
            encoder(torch.zeros(shape, dtype=torch.uint8))
