from __future__ import annotations

import math

import pytest
import torch

from vtp.model.blocks import Transformer, connected_zero, layer_of_blocks, sincos_table, visible_index


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
        transformer.checkpointing = checkpointing
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
    with pytest.raises(ValueError, match="width=10 must be a multiple of heads=4"):
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
