"""AttnLayout against masks written out by hand, and its block lists against those masks."""

import pytest
import torch

from vtp_kernels import PAD, AttnLayout, layout
from vtp_kernels.configs import INTERPRETER


def block_lists(visits: torch.Tensor) -> list[list[tuple[set[int], set[int]]]]:
    """Per sample and block of rows: columns without a mask, columns with one."""

    def read(row: list[int]) -> tuple[set[int], set[int]]:
        free, masked, *columns = row
        return set(columns[:free]), set(columns[len(columns) - masked :])

    return [[read(row) for row in sample] for sample in visits.tolist()]


@pytest.mark.parametrize("packed", [False, True])
def test_block_lists_name_exactly_the_blocks_with_an_allowed_pair(packed):
    """And call a block free of masks exactly if all its pairs are allowed."""
    torch.manual_seed(0)
    lengths, rules = [100, 0, 70, 1], [[0, 1], [1], [], [0, 2, 3]]
    drawn = torch.randint(0, 4, (4, 100), dtype=torch.uint8).sort(1).values
    drawn[2, 20:40] = PAD
    if packed:
        within = AttnLayout.from_lengths(lengths, packed=True)
        flat = torch.cat([row[:n] for row, n in zip(drawn, lengths, strict=True)])
        made = AttnLayout.from_segments(flat, rules, within=within)
        allowed = [made.dense_mask()[a:b, a:b] for a, b in zip(made.cu_q[:-1], made.cu_q[1:], strict=True)]
    else:
        made = AttnLayout.from_segments(drawn, rules)
        allowed = list(made.dense_mask())
    size = INTERPRETER.rows
    for kernel in ("forward", "dkdv"):
        lists = block_lists(made.visits(kernel, 32, torch.float32, "triton"))
        for sample, mask in zip(lists, allowed, strict=True):
            mask = mask.T if kernel == "dkdv" else mask
            n_rows, n_cols = mask.shape
            for i, (free, masked) in enumerate(sample):
                tiles = [mask[i * size : (i + 1) * size, j * size : (j + 1) * size] for j in range(len(sample))]
                # a key tile cut by the end needs a mask; queries past the end do not matter
                whole = [(t.shape[1] if kernel == "forward" else t.shape[0]) == size for t in tiles]
                assert free == {j for j, t in enumerate(tiles) if t.numel() and bool(t.all()) and whole[j]}
                assert masked == {j for j, t in enumerate(tiles) if bool(t.any())} - free


def test_block_lists_longer_than_a_chunk(monkeypatch):
    monkeypatch.setattr(layout, "VISIT_CHUNK", 2)
    mask = torch.tensor([[1, 0, 1, 1, 0]]).repeat_interleave(32, 1).bool()
    mask[0, 70] = False
    lists = block_lists(AttnLayout.from_key_mask(mask).visits("forward", 32, torch.float32, "triton"))
    assert lists == [[({0, 3}, {2})] * 5]


def test_lengths_need_no_lists():
    assert AttnLayout.from_lengths([3, 4], packed=True).visits("forward", 32, torch.float32, "triton") is None


def test_padded_lengths():
    mask = AttnLayout.from_lengths([1, 2], [2, 0], packed=False, max_q=2, max_k=3).dense_mask()
    assert mask.int().tolist() == [[[1, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]


def test_packed_lengths():
    assert AttnLayout.from_lengths([1, 0, 2], packed=True).dense_mask().int().tolist() == [
        [1, 0, 0],
        [0, 1, 1],
        [0, 1, 1],
    ]


def test_tri_modal_rules():
    """Sample 0 has text and video, sample 1 only audio; text sees text, video sees text and video, audio sees audio."""
    rules = {"text": ["text"], "video": ["text", "video"], "audio": ["audio"]}
    made = AttnLayout.tri_modal([1, 0], [2, 0], [0, 1], rules)
    assert made.dense_mask().int().tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    assert made.max_q == 3


def test_tri_modal_needs_a_rule_per_modality():
    with pytest.raises(ValueError, match="one entry for each of"):
        AttnLayout.tri_modal(1, 1, 1, {"text": ["text"]})


def test_all_32_segments_are_distinct():
    segments = torch.arange(32, dtype=torch.uint8)[None]
    made = AttnLayout.from_segments(segments, [[i, (i + 1) % 32] for i in range(32)])
    want = torch.eye(32).bool() | torch.eye(32).bool().roll(1, 1)
    assert torch.equal(made.dense_mask()[0], want)
    with pytest.raises(ValueError, match="32 bits"):
        AttnLayout.from_segments(segments, [[0]] * 33)
    with pytest.raises(ValueError, match="outside 0..31"):
        AttnLayout.from_segments(segments, [[32]])


def test_pack_and_back():
    mask = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 1]]).bool()
    x = torch.arange(9.0).view(3, 3, 1)
    made, index = AttnLayout.pack(mask, torch.tensor([[0, 1, 1]] * 3, dtype=torch.uint8), [[0], [0, 1]])
    packed = x.flatten(0, 1)[index]
    assert packed.flatten().tolist() == [0, 2, 7, 8]
    assert made.cu_q.tolist() == [0, 2, 2, 4]
    assert made.dense_mask().int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert torch.equal(x.new_zeros(9, 1).index_copy(0, index, packed).view(3, 3, 1), x * mask[:, :, None])


def test_wrong_masks_are_refused():
    with pytest.raises(ValueError, match="4-D mask"):
        AttnLayout.from_key_mask(torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match="within"):
        AttnLayout.from_segments(torch.zeros(3, dtype=torch.uint8), [[0]])
    with pytest.raises(ValueError, match="must both be"):
        AttnLayout.from_lengths([1, 2], [1], packed=True)
