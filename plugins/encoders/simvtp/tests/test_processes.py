"""Two processes with four and two rows compute what one computes with six: gathered negatives, losses, gradients, with
fusion passes made together, under both strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from simvtp_models import build, random_batch, spec, take_step

from vtp.train.parallel import full_tensor

PAIRS: dict[str, Any] = {"vtc": {"mask_duplicates": False}, "vtm": {}}
MASKED: dict[str, Any] = {
    "vtc": {"mask_duplicates": False},
    "mvm": {},
    "mlm": {},
}  # for micro-batches: vtm draws in each
CASES = [("ddp", 1, PAIRS), ("ddp", 2, MASKED), ("fsdp2", 1, PAIRS), ("fsdp2", 2, MASKED)]


def losses_and_gradients(
    vocab: Path, rows: tuple[int, int], chosen: dict[str, Any], accumulation: int = 1, strategy: str = "auto"
) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = build(spec(vocab, objectives=chosen), seed=3).eval()
    out = take_step(model, random_batch(6).rows(*rows), accumulation, strategy)
    found = {name: o.loss for name, o in out.items()}
    return found | {n: full_tensor(p.grad) for n, p in model.named_parameters() if p.grad is not None}


def one_of_two(rank: int, folder: str, vocab: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for strategy, accumulation, chosen in CASES:
        found = losses_and_gradients(vocab, (0, 4) if rank == 0 else (4, 6), chosen, accumulation, strategy)
        torch.save(found, f"{folder}/{strategy}{accumulation}.{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(vocab, tmp_path):
    mp.spawn(one_of_two, (str(tmp_path), vocab), nprocs=2)
    for strategy, accumulation, chosen in CASES:
        want = losses_and_gradients(vocab, (0, 6), chosen)
        ranks = [torch.load(tmp_path / f"{strategy}{accumulation}.{rank}.pt", weights_only=True) for rank in (0, 1)]
        for rank in ranks:  # of all rows on every process
            torch.testing.assert_close(rank["vtc"], want["vtc"])
        if "vtm" in chosen:  # of the own rows, four and two of them
            torch.testing.assert_close((4 * ranks[0]["vtm"] + 2 * ranks[1]["vtm"]) / 6, want["vtm"])
        assert set(ranks[0]) == set(want)
        for name in want.keys() - chosen.keys():
            torch.testing.assert_close(ranks[0][name], want[name], atol=1e-5, rtol=1e-4, msg=f"{strategy} {name}")
