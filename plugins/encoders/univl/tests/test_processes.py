"""Two processes with four and two rows compute what one computes with six: negatives and hard videos of all processes,
losses, gradients, queues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from objective_models import build, gradients, random_batch, take_step

from vtp.contracts import offers
from vtp.train.parallel import full_tensor
from vtp.types import StepDone

MINED = ("objectives.vtm.negatives_from=gathered", "objectives.vtm.block=3", "objectives.vtm.dropout=0")
ATTENTIVE = ("objectives.mlm.attentive_masking=1", "encoder.text.depth=2")  # FSDP2 shards layers of a list alone
MOCO = ("objectives.vtc.queue_size=32",)
CASES: list[tuple[str, list[str], tuple[str, ...]]] = [
    ("base", ["univl/vtc", "univl/vtm", "univl/itm", "univl/mlm"], ("objectives.vtm.masked=[text]",)),
    ("base", ["univl/moco", "univl/hsm", "univl/mlm_text"], (*MINED, *MOCO)),
    ("simvtp", ["univl/moco", "univl/hsm"], (*MINED, *MOCO)),
    ("univl", ["univl/moco", "univl/hsm", "univl/itm", "univl/mlm"], (*MINED, *MOCO, *ATTENTIVE)),
]


def step_of(case: int, rows: tuple[int, int], strategy: str) -> dict[str, Any]:
    """Losses, gradients and queues of one step."""
    name, objectives, options = CASES[case]
    model = build(name, objectives, *options)
    out = take_step(model, random_batch(model, 6, video=[1]).rows(*rows), strategy=strategy)
    for objective in model.objectives.values():
        if offers(objective, "after_step"):
            objective.after_step(StepDone(1, 10))  # type: ignore[operator]
    found: dict[str, Any] = {f"loss {seen.name}": seen.loss for seen in out.values()}
    found |= {f"weight {seen.name}": seen.weight.float() for seen in out.values()}
    found |= {f"state {n}": b.clone() for n, b in model.named_buffers() if "queue" in n}
    return found | {n: full_tensor(g) for n, g in gradients(model).items()}


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for case in range(len(CASES)):
        for strategy in ("ddp", "fsdp2"):
            found = step_of(case, (0, 4) if rank == 0 else (4, 6), strategy)
            torch.save(found, f"{folder}/{strategy}{case}.{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    mp.spawn(one_of_two, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    for case in range(len(CASES)):
        want = step_of(case, (0, 6), "auto")
        for strategy in ("ddp", "fsdp2"):
            ranks = [torch.load(tmp_path / f"{strategy}{case}.{rank}.pt", weights_only=True) for rank in (0, 1)]
            assert set(ranks[0]) >= set(want)
            for name in want:
                if name.startswith("weight "):
                    continue
                if name.startswith("loss ") and name != "loss vtc":  # of the own items
                    weights = [rank[f"weight {name[5:]}"] for rank in ranks]
                    got = sum(w * rank[name] for w, rank in zip(weights, ranks, strict=True)) / sum(weights)
                    torch.testing.assert_close(got, want[name], msg=f"{strategy} {case} {name}")
                    continue
                for rank in ranks[:1] if strategy == "fsdp2" and " " not in name else ranks:
                    torch.testing.assert_close(
                        rank[name], want[name], atol=1e-5, rtol=1e-4, msg=f"{strategy} {case} {name}"
                    )
