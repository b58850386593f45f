"""Masks: the published Philox vectors, the same bits from kernel and fallback, and independence of how the batch is
divided."""

import pytest
import torch

from vtp_kernels import grid_index, masking, tube_keep_ids

# Random123 (github.com/DEShawResearch/random123, tests/kat_vectors): philox4x32, 10 rounds: counter, key, result
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize("counter, key, want", VECTORS)
def test_philox_gives_the_published_words(counter, key, want):
    words = masking.philox(tuple(torch.tensor([c]) for c in counter), key[0] | key[1] << 32)
    assert tuple(word.item() for word in words) == want


@pytest.mark.parametrize(
    "n_space, n_keep, seed, step, offset",
    [
        (196, 20, 5, 7, 3),
        (1, 1, 0, 0, 0),
        (1, 0, 0, 0, 0),
        (11, 0, 1, 0, 0),
        (11, 11, 1, 0, 0),
        (300, 77, 2**62 + 12345, 2**40 + 3, 2**31 - 1),
        (8, 2, 2**63 - 1, 0, 10**6),
    ],
)
def test_kernel_and_fallback_draw_the_same_bits(n_space, n_keep, seed, step, offset):
    drawn = [
        tube_keep_ids(2, n_space, n_keep, seed=seed, step=step, offset=offset, backend=b) for b in ("triton", "torch")
    ]
    for got, want in zip(*drawn, strict=True):
        assert got.dtype == torch.int32 and torch.equal(got, want)
    keep, drop = drawn[0]
    assert torch.equal(
        torch.cat([keep, drop], 1).sort(1).values, torch.arange(n_space, dtype=torch.int32).expand(2, -1)
    )
    assert (keep.diff() > 0).all() and (drop.diff() > 0).all()


def test_ids_follow_from_the_words():
    """The definition by hand: the positions of the K smallest words."""
    lane, zero = torch.arange(7), torch.zeros(7, dtype=torch.int64)
    words = masking.philox((lane, zero + 5, zero + 9, zero), 3)[0].tolist()
    want = sorted(sorted(range(7), key=words.__getitem__)[:3])
    assert tube_keep_ids(1, 7, 3, seed=3, step=9, offset=5)[0].tolist() == [want]


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_of_equal_words_the_first_is_kept(backend):
    """Found by search: with seed 11, two positions of this sample draw the same word, and n_keep cuts between them."""
    row, rank, first, second = 1000, 1162, 1030, 1127
    keep, drop = tube_keep_ids(1, 4096, rank + 1, seed=11, offset=row, backend=backend)
    assert first in keep[0] and second in drop[0]


def test_masks_do_not_depend_on_how_the_batch_is_divided():
    whole = tube_keep_ids(6, 50, 10, seed=1, step=4)
    parts = [tube_keep_ids(3, 50, 10, seed=1, step=4, offset=offset) for offset in (0, 3)]
    for i in (0, 1):
        assert torch.equal(whole[i], torch.cat([part[i] for part in parts]))


@pytest.mark.parametrize("change", [{"seed": 2}, {"step": 1}, {"step": 2**32}, {"offset": 1}])
def test_seed_step_and_sample_all_matter(change):
    base = {"seed": 1, "step": 0, "offset": 0}
    assert not torch.equal(tube_keep_ids(1, 50, 10, **base)[0], tube_keep_ids(1, 50, 10, **{**base, **change})[0])


def test_step_may_be_a_tensor_on_the_device():
    step = torch.tensor(5)
    assert torch.equal(tube_keep_ids(2, 20, 5, seed=1, step=step)[0], tube_keep_ids(2, 20, 5, seed=1, step=5)[0])


def test_every_position_is_kept_equally_often():
    keep, _ = tube_keep_ids(4000, 16, 4, seed=0)
    count = torch.bincount(keep.flatten(), minlength=16)
    assert (count - 1000).abs().max() < 5 * (4000 * 0.25 * 0.75) ** 0.5  # five standard deviations of a binomial


def test_grid_index_counts_tokens_with_time_slowest():
    grid = (2, 2, 3)
    ids = torch.tensor([[1, 5]])
    assert grid_index(ids, grid, "tube").tolist() == [[1, 5, 7, 11]]
    assert grid_index(ids, grid, "token").tolist() == [[1, 5]]
    assert grid_index(torch.tensor([[1]]), grid, "frame").tolist() == [[6, 7, 8, 9, 10, 11]]
    with pytest.raises(ValueError, match="kind='cube'"):
        grid_index(ids, grid, "cube")


def test_operator_is_registered_soundly():
    for backend in ("triton", "torch"):
        torch.library.opcheck(masking._tube_keep_ids, (torch.tensor(3), 2, 12, 4, 7, 0, backend))
    compiled = torch.compile(
        lambda step: tube_keep_ids(2, 12, 4, seed=7, step=step), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(torch.tensor(3))[0], tube_keep_ids(2, 12, 4, seed=7, step=3)[0])


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="n_keep=5"):
        tube_keep_ids(1, 4, 5, seed=0)
    with pytest.raises(ValueError, match="seed=-1"):
        tube_keep_ids(1, 4, 2, seed=-1)
