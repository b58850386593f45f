"""Two processes with half of the batch each compute what one process computes: gathered negatives, losses,
gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from simvtp_models import build, random_batch, spec, take_step

CHOSEN = {
    "vtc": {"mask_duplicates": False},
    "vtm": {},
}


def losses_and_gradients(vocab: Path, rows: tuple[int, int]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = build(spec(vocab, objectives=CHOSEN), seed=3).eval()
    out = take_step(model, random_batch(6).rows(*rows))
    found = {name: o.loss for name, o in out.items()}
    return found | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def one_of_two(rank: int, folder: str, vocab: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = losses_and_gradients(vocab, (0, 4) if rank == 0 else (4, 6))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(vocab, tmp_path):
    want = losses_and_gradients(vocab, (0, 6))
    mp.spawn(one_of_two, (str(tmp_path), vocab), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    # vtc is the loss of all rows on every process; vtm that of the own rows, four and two of them
    for rank in ranks:
        torch.testing.assert_close(rank["vtc"], want["vtc"])
    mean = (4 * ranks[0]["vtm"] + 2 * ranks[1]["vtm"]) / 6
    torch.testing.assert_close(mean, want["vtm"])
    for name in want.keys() - CHOSEN.keys():
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], want[name], atol=1e-5, rtol=1e-4)
