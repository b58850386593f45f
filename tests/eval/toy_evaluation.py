"""A model and a loader for the evaluator's tests. Not a test module: the processes of the two-rank test import it."""

from __future__ import annotations

import os
from types import SimpleNamespace

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from vtp import distributed
from vtp.eval.evaluator import Evaluator
from vtp.types import Batch, Sample


class ToyModel(nn.Module):
    """Answers with a number made from the id; ``norm`` has buffers, as DDP synchronises them in every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 4)
        self.norm = nn.BatchNorm1d(4)
        with torch.no_grad():
            self.linear.weight.fill_(1.0)
            self.linear.bias.zero_()

    def specs(self):
        return {"video": None, "audio": None}

    def forward(self, batch, run):
        return run(SimpleNamespace(batch=batch, model=self))


def outcome(ctx):
    x = torch.tensor([[float(name[1:])] for name in ctx.batch.ids])
    return {
        "value": ctx.model.norm(ctx.model.linear(x)),
        "number": torch.tensor([int(name[1:]) for name in ctx.batch.ids]),
        "train": torch.full((len(x),), ctx.model.training),
        "grad": torch.full((len(x),), torch.is_grad_enabled()),
    }


class ToyLoader:
    """Contiguous uneven shares; ids in ``broken`` are misses; odd ids have no sound."""

    def __init__(self, samples, drop=(), *, broken=(), size=2, rank=None, world=None):
        rank = distributed.rank() if rank is None else rank
        world = distributed.world_size() if world is None else world
        self.samples = samples[rank * len(samples) // world : (rank + 1) * len(samples) // world]
        self.drop, self.broken, self.size = drop, broken, size
        self.misses: dict[str, str] = {}

    def __iter__(self):
        self.misses = {s.id: "no video stream" for s in self.samples if s.id in self.broken}
        good = [s for s in self.samples if s.id not in self.broken]
        for start in range(0, len(good), self.size):
            ids = [s.id for s in good[start : start + self.size]]
            sound = torch.tensor([int(name[1:]) % 2 == 0 and "audio" not in self.drop for name in ids])
            yield Batch(ids, {}, {"video": torch.ones(len(ids), dtype=torch.bool), "audio": sound})


def table(count: int) -> list[Sample]:
    return [Sample(f"q{i}") for i in range(count)]


def evaluator(model: nn.Module, **options) -> Evaluator:
    broken = options.pop("broken", ())
    return Evaluator(model, lambda samples, drop: ToyLoader(samples, drop, broken=broken), **options)


def results(model: nn.Module, counts, broken=()) -> list[dict]:
    """Everything that a rank sees, as plain data."""
    found = []
    for count in counts:
        collected = evaluator(model, broken=broken).run(table(count), outcome, what="questions")
        arrays = {name: values.tolist() for name, values in collected.arrays.items()}
        present = {name: values.tolist() for name, values in collected.present.items()}
        found.append({"ids": collected.ids, "arrays": arrays, "misses": collected.misses, "present": present})
    return found


def run_rank(rank: int, folder: str, port: int, counts, broken) -> None:
    """One of two processes: evaluates with each kind of model and saves what it got."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.setup("cpu")
    found = {}
    for kind in ("plain", "ddp", "fsdp"):
        model: nn.Module = ToyModel()
        if kind == "ddp":
            model = nn.parallel.DistributedDataParallel(model)
        if kind == "fsdp":
            mesh = init_device_mesh("cpu", (2,))
            fully_shard(model.linear, mesh=mesh)
            fully_shard(model, mesh=mesh)
        found[kind] = results(model, counts, broken)
    torch.save(found, f"{folder}/rank{rank}.pt")
    distributed.shutdown()
