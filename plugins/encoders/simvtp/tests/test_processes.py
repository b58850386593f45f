"""Two processes with half of the batch each compute what one process computes: gathered negatives, losses,
gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from simvtp_models import build, random_batch, spec

from vtp.model.context import ForwardContext

CHOSEN = {
    "simvtp_vtc": {"mask_duplicates": False},
    "simvtp_vtm": {},
}


def losses_and_gradients(vocab: Path, rows: tuple[int, int]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = build(spec(vocab, objectives=CHOSEN), seed=3).eval()
    batch = random_batch(6).rows(*rows)
    out = model.losses(ForwardContext(model, batch))
    sum(o.loss for o in out.values()).backward()
    found = {name: o.loss.detach() for name, o in out.items()}
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
        torch.testing.assert_close(rank["simvtp_vtc"], want["simvtp_vtc"])
    mean = (4 * ranks[0]["simvtp_vtm"] + 2 * ranks[1]["simvtp_vtm"]) / 6
    torch.testing.assert_close(mean, want["simvtp_vtm"])


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_one(vocab, tmp_path, monkeypatch):
    monkeypatch.delitem(CHOSEN, "simvtp_vtm")
    want = losses_and_gradients(vocab, (0, 6))
    mp.spawn(only_vtc, (str(tmp_path), vocab), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, value in want.items():
        if name not in CHOSEN:
            mean = (ranks[0][name] + ranks[1][name]) / 2  # what DDP does
            torch.testing.assert_close(mean, value, atol=1e-5, rtol=1e-4)


def only_vtc(rank: int, folder: str, vocab: Path) -> None:
    CHOSEN.pop("simvtp_vtm")
    one_of_two(rank, folder, vocab)
