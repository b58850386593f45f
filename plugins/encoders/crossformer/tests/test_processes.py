"""Two processes, one of which never sees a sound, compute what one process does; and every parameter has its gradient
on both, whatever is missing where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from trimodal_models import batch_of, build

from vtp.train import TrainConfig
from vtp.train.parallel import Parallel, full_tensor
from vtp.train.precision import Precision
from vtp.train.step import Step

RECIPE = "experiment=crossformer/tiny_pretrain"
OBJECTIVES = "mlm,mvm,mam,crossformer/match,crossformer/joint,crossformer/vt,crossformer/at,crossformer/av"
MATCHED = f"objective=[{OBJECTIVES}]"
ALONE = MATCHED.replace("crossformer/match,", "")  # match draws partners within each process
MISSING = {"audio": [1, 4, 5], "video": [2], "text": [3]}  # rows 4 and 5 are those of the second process
CASES = [("ddp", 1, ALONE), ("ddp", 2, ALONE), ("fsdp2", 1, ALONE), ("ddp", 1, MATCHED)]


def losses_and_gradients(rows: tuple[int, int], strategy: str, accumulation: int, options: str) -> dict[str, Any]:
    model = build(RECIPE, options).eval()
    batch = batch_of(model, 6, **MISSING).rows(*rows)
    device = torch.device("cpu")
    config = TrainConfig(steps=1, global_batch=6, strategy=strategy, accumulation=accumulation)
    done = Step(Parallel(model, config, device), Precision("fp32", device), accumulation)(batch)
    found = {seen.name: seen.loss for seen in done}
    return found | {n: full_tensor(p.grad) for n, p in model.named_parameters() if p.grad is not None}


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for number, case in enumerate(CASES):
        torch.save(losses_and_gradients((0, 4) if rank == 0 else (4, 6), *case), f"{folder}/{number}.{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    mp.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    for number, (strategy, accumulation, options) in enumerate(CASES):
        want = losses_and_gradients((0, 6), "auto", 1, options)
        first, second = (torch.load(tmp_path / f"{number}.{rank}.pt", weights_only=True) for rank in (0, 1))
        assert first.keys() == second.keys() == want.keys()
        trained = {n for n, p in build(RECIPE, options).named_parameters() if p.requires_grad}
        assert trained <= want.keys()
        for name in sorted(trained):
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, msg=name)
            assert first[name].isfinite().all()
            if options == ALONE:
                what = f"{strategy} {accumulation} {name}"
                torch.testing.assert_close(first[name], want[name], rtol=1e-4, atol=1e-5, msg=what)
