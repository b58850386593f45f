"""The crossformer: its sequence, and running it without padding."""

from __future__ import annotations

import pytest
import torch
from fusions import assert_same, build, real, some_tokens, without

from vtp.model.blocks import Blocks
from vtp.types import MODALITIES
from vtp_crossformer.packing import Packing, run_packed


def test_packed_gives_what_padded_gives_with_all_gradients() -> None:
    given = without(some_tokens(), {"audio": [0, 2], "video": [3]})
    packed, padded = build("crossformer", packed=True), build("crossformer", packed=False)
    for fusion in (packed, padded):
        out = fusion(given)
        (out.pooled.square().sum() + sum(t.x.pow(3).sum() for t in out.tokens.values())).backward()
    for row in range(4):
        assert_same(real(packed(given), row), real(padded(given), row))
    for (name, left), right in zip(packed.named_parameters(), padded.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("packed", [True, False])
def test_it_is_the_transformer_over_joint_token_video_sound_and_text(packed: bool) -> None:
    """Written out for one row, from the parts."""
    fusion, tokens = build("crossformer", packed=packed).eval(), some_tokens()
    row = 2
    parts = [fusion.joint[None]]
    for m in MODALITIES:
        t = tokens[m]
        x = fusion.projections.proj[m](t.x[row]) + fusion.projections.modality[m]
        places = torch.arange(t.x.shape[1]) if t.index is None else t.index[row]
        x = x + fusion.projections.gain[m] * _table(t.grid or (t.x.shape[1],), fusion.width)[places]
        parts.append(x[t.attention_mask[row]])
    want = fusion.norm(fusion.blocks(torch.cat(parts)[None]))[0]
    out = fusion(tokens)
    torch.testing.assert_close(out.pooled[row], want[0], rtol=0, atol=1e-5)
    found = torch.cat([out.tokens[m].x[row][out.tokens[m].attention_mask[row]] for m in MODALITIES])
    torch.testing.assert_close(found, want[1:], rtol=0, atol=1e-5)
    assert all(not t.x[~t.attention_mask].any() for t in out.tokens.values())


def _table(grid: tuple[int, ...], width: int) -> torch.Tensor:
    """sin and cos of place / 10000^(2 i / w) on each axis of more than one place, side by side."""
    axes = [axis for axis, size in enumerate(grid) if size > 1]
    share = width // (2 * len(axes)) * 2
    rows = []
    for place in torch.cartesian_prod(*(torch.arange(size) for size in grid)).reshape(-1, len(grid)):
        row: list[float] = []
        for number, axis in enumerate(axes):
            w = width - share * (len(axes) - 1) if number == len(axes) - 1 else share
            for i in range(w):
                angle = place[axis] / 10000 ** (2 * (i // 2) / w)
                row.append(float(angle.sin() if i % 2 == 0 else angle.cos()))
        rows.append(row)
    return torch.tensor(rows)


def test_only_real_tokens_run_through_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    fusion = build("crossformer", packed=True)
    tokens = without(some_tokens(), {"audio": [0, 1, 2]})
    seen: list[int] = []
    fusion.blocks[0].mlp.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].shape[0]))
    fusion(tokens)
    assert seen == [4 + sum(int(t.attention_mask.sum()) for t in tokens.values())]


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("lengths", [[[1]], [[3, 1, 3, 2]], [[2, 2], [2]], [[1, 5, 1, 5, 4], [1, 1], [4, 2]]])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_sequences_of_any_lengths_are_what_they_are_alone(
    depth: int, lengths: list[list[int]], checkpointing: bool
) -> None:
    """Rows of several passes, with all gradients."""
    blocks = Blocks(8, depth, 2)
    blocks.checkpointing = checkpointing
    masks = [torch.arange(max(sizes)) < torch.tensor(sizes)[:, None] for sizes in lengths]
    given = [torch.randn(*mask.shape, 8, requires_grad=True) for mask in masks]
    packing = Packing(masks)
    x = torch.cat([x.flatten(0, 1)[cells] for x, cells in zip(given, packing.cells, strict=True)])
    firsts, others = run_packed(blocks, x, packing)
    (sum(one.pow(3).sum() for one in (*firsts, *others))).backward()
    got = [x.grad for x in given] + [p.grad for p in blocks.parameters()]
    for leaf in (*given, *blocks.parameters()):
        leaf.grad = None
    wants = []
    for x, mask, rows, first, other in zip(given, masks, packing.rows, firsts, others, strict=True):
        alone = [blocks(x[row, mask[row]][None])[0] for row in rows.tolist()]
        torch.testing.assert_close(first, torch.stack([one[0] for one in alone]), rtol=0, atol=1e-6)
        torch.testing.assert_close(other, torch.cat([one[1:] for one in alone]), rtol=0, atol=1e-6)
        wants.append(sum(one.pow(3).sum() for one in alone))
    sum(wants).backward()
    for found, leaf in zip(got, (*given, *blocks.parameters()), strict=True):
        torch.testing.assert_close(found, leaf.grad, rtol=1e-4, atol=1e-5)


def test_a_pass_of_which_the_joint_token_alone_is_read_costs_less_in_the_backward_pass() -> None:
    """Of the last layer nothing is propagated to its other tokens."""
    fusion, tokens = build("crossformer"), some_tokens()
    rows: list[int] = []
    fusion.blocks[-1].mlp.register_full_backward_hook(lambda _, inputs, outputs: rows.append(len(outputs[0])))
    both = fusion([tokens, tokens])
    (both[0].pooled.sum() + both[1].pooled.sum() + both[1].tokens["text"].x.sum()).backward()
    assert sorted(rows) == [8, sum(int(t.attention_mask.sum()) for t in tokens.values())]


def test_several_passes_run_as_one() -> None:
    fusion, tokens = build("crossformer").eval(), some_tokens()
    calls: list[int] = []
    fusion.blocks[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    fusion([tokens, {"video": tokens["video"]}])
    assert len(calls) == 1
    assert not build("crossformer", dropout=0.1).takes_many
