from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import gelu, layer_norm

from vtp.errors import ConfigError
from vtp.model.blocks import Blocks, Layout, Transformer, connected_zero, layer_of_blocks, sincos_table, visible_index


def test_sincos_table_is_the_formula():
    table = sincos_table(1568, 96)
    for pos, j in [(0, 0), (0, 1), (1, 0), (7, 5), (1567, 94), (1567, 95)]:
        angle = pos / 10000 ** (2 * (j // 2) / 96)
        assert table[pos, j].item() == pytest.approx(math.sin(angle) if j % 2 == 0 else math.cos(angle), abs=1e-7)


def test_sincos_table_equals_the_original(golden):
    recorded = torch.load(golden / "simvtp_pretrain.pt", weights_only=True)["buffers"]
    for name in ("encoder_pos_embed", "decoder_pos_embed"):
        expected = recorded[name][0]
        torch.testing.assert_close(sincos_table(*expected.shape), expected, rtol=0, atol=1e-6)


def test_padding_reaches_nobody_and_rows_are_independent():
    transformer = Transformer(16, depth=2, heads=2).eval()
    x = torch.randn(3, 5, 16)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, 3:] = False
    out = transformer(x, mask)
    other = x.clone()
    other[1, 3:] = 1e3
    torch.testing.assert_close(transformer(other, mask)[mask], out[mask])
    torch.testing.assert_close(transformer(x[1:2, :3]), out[1:2, :3])


def test_checkpointing_changes_neither_loss_nor_gradients():
    transformer = Transformer(16, depth=3, heads=4)
    x = torch.randn(2, 5, 16)  # needs no gradient: reentrant checkpointing would give the blocks none
    mask = torch.rand(2, 5) < 0.7
    gradients = []
    for checkpointing in (False, True):
        transformer.blocks.checkpointing = checkpointing
        transformer.zero_grad()
        loss = transformer(x, mask).square().mean()
        loss.backward()
        gradients.append([loss.detach()] + [p.grad.clone() for p in transformer.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_visible_index_lists_what_is_not_hidden():
    mask = torch.tensor([[True, False, True, False, False], [False, False, False, True, True]])
    assert visible_index(mask).tolist() == [[1, 3, 4], [0, 1, 2]]


def test_unequal_masks_are_refused():
    with pytest.raises(ValueError, match=r"same number.*\[1, 2\]"):
        visible_index(torch.tensor([[True, True, False], [True, False, False]]))


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="width=10 must be a multiple of heads=4"):
        Transformer(10, depth=1, heads=4)


@pytest.mark.parametrize(
    "name, layer",
    [
        ("words.weight", 0),
        ("stem.0.weight", 0),
        ("transformer.blocks.0.mlp.0.weight", 1),
        ("transformer.blocks.11.norm1.bias", 12),
        ("transformer.norm.weight", 13),
    ],
)
def test_layer_of_blocks(name, layer):
    assert layer_of_blocks(name, 12) == layer


def test_connected_zero_gives_zero_gradients():
    linear = torch.nn.Linear(3, 2)
    connected_zero(linear.parameters(), torch.zeros(())).backward()
    assert (linear.weight.grad == 0).all() and (linear.bias.grad == 0).all()


def test_layer_scale_takes_the_mask():
    """The released code calls attention without its mask in this branch."""
    blocks = Blocks(8, 1, 2, init_values=0.5)
    x = torch.randn(2, 5, 8)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    short = blocks(x[1:, :3])
    torch.testing.assert_close(blocks(x, mask)[1:, :3], short)


def test_batches_run_together_give_what_each_gives_alone():
    blocks = Blocks(8, 2, 2)
    parts = [torch.randn(2, 5, 8), torch.randn(3, 4, 8), torch.randn(1, 7, 8)]
    masks = [torch.tensor([[True] * 5, [True] * 3 + [False] * 2]), None, torch.ones(1, 7, dtype=torch.bool)]
    for together, part, mask in zip(blocks.run(parts, masks), parts, masks, strict=True):
        torch.testing.assert_close(together, blocks(part, mask))


def beit(name):
    """The name of a block's parameter in BEiT."""
    return name.replace("attention.", "attn.").replace("mlp.0.", "mlp.fc1.").replace("mlp.2.", "mlp.fc2.")


@pytest.mark.parametrize("names", ["vtp", "beit"])
def test_parameters_keep_their_names(names):
    """Checkpoints hold them: those of vtp's own encoders, and those that released ViTs share."""
    found = {name: tuple(p.shape) for name, p in Blocks(4, 1, 2, init_values=0.1, names=names)[0].named_parameters()}
    sizes = {"norm1": (4,), "norm2": (4,), "attn.proj": (4, 4), "mlp.fc1": (16, 4), "mlp.fc2": (4, 16)}
    want = {f"{name}.weight": size for name, size in sizes.items()}
    want |= {f"{name}.bias": size[:1] for name, size in sizes.items()}
    want |= {"gamma_1": (4,), "gamma_2": (4,), "attn.qkv.weight": (12, 4)}
    want |= {"attn.q_bias": (4,), "attn.v_bias": (4,)} if names == "beit" else {"attn.qkv.bias": (12,)}
    assert {beit(name): size for name, size in found.items()} == want
    assert any(name != beit(name) for name in found) == (names == "vtp")


def block_by_formula(p, heads, x, mask):
    """One block in plain tensor operations, for one batch (B, N, D); parameters under the names of BEiT."""
    rows, length, width = x.shape
    y = layer_norm(x, (width,), p["norm1.weight"], p["norm1.bias"], 1e-6)
    if "attn.q_bias" in p:
        bias = torch.cat([p["attn.q_bias"], torch.zeros_like(p["attn.q_bias"]), p["attn.v_bias"]])
    else:
        bias = p["attn.qkv.bias"]
    q, k, v = (y @ p["attn.qkv.weight"].T + bias).reshape(rows, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    logits = (q @ k.mT * (width // heads) ** -0.5).masked_fill(~mask[:, None, None], -torch.inf)
    y = (logits.softmax(-1) @ v).transpose(1, 2).reshape(rows, length, width)
    x = x + y @ p["attn.proj.weight"].T + p["attn.proj.bias"]
    y = layer_norm(x, (width,), p["norm2.weight"], p["norm2.bias"], 1e-6)
    y = gelu(y @ p["mlp.fc1.weight"].T + p["mlp.fc1.bias"])
    return x + y @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"]


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("checkpointing, names", [(False, "vtp"), (False, "beit"), (True, "vtp")])
def test_blocks_and_their_gradients_are_the_formula(first, checkpointing, names):
    """Outputs and every gradient: sequences of several lengths, neighbours of one length with and without a mask, and
    a last block that serves the tokens from ``first`` on alone."""
    blocks = Blocks(12, 2, 3, names=names)
    blocks.checkpointing = checkpointing
    for p in blocks.parameters():
        torch.nn.init.normal_(p, std=0.4)
    sizes = [(2, 5), (3, 5), (2, 5), (1, 7), (2, 4)]
    parts = [torch.randn(*size, 12, requires_grad=True) for size in sizes]
    masks = [torch.tensor([[True] * 5, [True] * 3 + [False] * 2]), torch.rand(3, 5) < 2, None, None, None]
    masks[1][2, 4] = False
    weights = [torch.randn(rows, length - first, 12) for rows, length in sizes]
    out = blocks.run(parts, masks, first)
    sum((o * w).sum() for o, w in zip(out, weights, strict=True)).backward()

    exact = [{beit(n): p.detach().double().requires_grad_() for n, p in block.named_parameters()} for block in blocks]
    inputs = [part.detach().double().requires_grad_() for part in parts]
    total = 0
    for found, x, mask, weight in zip(out, inputs, masks, weights, strict=True):
        mask = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        want = block_by_formula(exact[1], 3, block_by_formula(exact[0], 3, x, mask), mask)[:, first:]
        torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-5)
        total = total + (want * weight).sum()
    total.backward()
    for part, x in zip(parts, inputs, strict=True):
        torch.testing.assert_close(part.grad.double(), x.grad, rtol=1e-5, atol=2e-5)
    for block, wanted in zip(blocks, exact, strict=True):
        for name, p in block.named_parameters():
            torch.testing.assert_close(p.grad.double(), wanted[beit(name)].grad, rtol=1e-5, atol=1e-4, msg=name)


def test_a_decoder_without_blocks_still_leaves_out_what_nobody_wants():
    x = torch.randn(2, 5, 8)
    assert torch.equal(Blocks(8, 0, 2)(x, first=2), x[:, 2:])


def test_layers_put_into_the_feed_forward_part_take_part():
    """LoRA, quantisation and hooks replace or watch these modules: they must be called, not read."""
    blocks = Blocks(8, 1, 2, names="beit")
    x = torch.randn(1, 3, 8, requires_grad=True)
    called = []
    for name in ("fc1", "fc2"):
        getattr(blocks[0].mlp, name).register_forward_hook(lambda module, inputs, output: called.append(module))
    blocks(x)
    assert called == [blocks[0].mlp.fc1, blocks[0].mlp.fc2]


def test_the_projection_with_a_bias_is_called():
    blocks = Blocks(8, 1, 2)
    called = []
    blocks[0].attention.qkv.register_forward_hook(lambda module, inputs, output: called.append(module))
    blocks(torch.randn(1, 3, 8))
    assert called == [blocks[0].attention.qkv]


def test_drop_path_drops_rows_and_keeps_the_mean():
    blocks = Blocks(8, 3, 2, drop_path=0.5)
    assert [block.drop_path for block in blocks] == [0.0, 0.25, 0.5]
    layout = Layout([(1500, 2), (500, 4)], [None, None])
    branch = blocks[2].train()._branch(torch.ones(5000, 1), None, layout)
    assert set(branch.unique().tolist()) == {0.0, 2.0} and abs(branch.mean() - 1) < 0.1
    one, two = layout.split(branch)
    assert (one.view(1500, 2).std(1) == 0).all() and (two.view(500, 4).std(1) == 0).all()
    assert torch.equal(blocks.eval()[2]._branch(torch.ones(5000, 1), None, layout), torch.ones(5000, 1))
