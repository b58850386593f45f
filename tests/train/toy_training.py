"""A model of a few thousand parameters with every trait that training cares about, and a loader with a position.

Not a test module: tests and the processes that they start import it by name (conftest.py puts this folder on the path).
"""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from toy_moco import MoCo

from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.model.objective import ContrastiveObjective, Objective, masked_mean
from vtp.types import AudioSpec, Batch, LossOutput, Tokens

WIDTH = 16


class ToyEncoder(nn.Module):
    """Waveform (B, S) -> 4 tokens; layers in a list, a position that must not decay, dropout on demand."""

    def __init__(self, samples: int = 32, dropout: float = 0.0, depth: int = 2) -> None:
        super().__init__()
        self.width, self.depth, self.spec = WIDTH, depth, AudioSpec(sample_rate=16, seconds=samples / 16)
        self.embed_in = nn.Linear(samples // 4, WIDTH)
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, WIDTH))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Dropout(dropout))
            for _ in range(depth)
        )
        self.checkpointing = False

    def gradient_checkpointing_enable(self) -> None:
        self.checkpointing = True

    def layer_of(self, name: str) -> int:
        return int(name.split(".")[1]) + 1 if name.startswith("layers.") else 0

    def forward(self, waveform, lengths):
        x = self.embed_in(waveform.view(len(waveform), 4, -1)) + self.pos_embed
        for layer in self.layers:
            if self.checkpointing and self.training:
                x = x + torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
            else:
                x = x + layer(x)
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))


class ToyContrastive(ContrastiveObjective):
    """Two noisy copies of the clip against each other."""

    needs = frozenset({"audio"})

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 8), nn.Linear(WIDTH, 8)
        self.logit_scale = nn.Parameter(torch.full((1,), 2.0))

    def features(self, ctx):
        pooled = ctx.pooled("audio")
        return {
            "a": functional.normalize(self.a(pooled), dim=1),
            "b": functional.normalize(self.b(pooled), dim=1),
            "present": ctx.present("audio"),
            "scale": self.logit_scale * 1.0,
        }

    def loss_from_features(self, features):
        keep = features["present"]
        sim = features["scale"].mean().exp() * features["a"][keep] @ features["b"][keep].T
        target = torch.arange(len(sim), device=sim.device)
        loss = (functional.cross_entropy(sim, target) + functional.cross_entropy(sim.T, target)) / 2
        return LossOutput(loss, weight=keep.sum(), metrics={"accuracy": (sim.argmax(1) == target).float().mean()})


class ToyClassify(Objective):
    """Which of 4 classes; rows with label -100 take no part, so micro-batches hold different numbers of items."""

    needs = frozenset({"audio"})

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 4)

    def count(self, ctx):
        return (ctx.batch.labels["answer"] >= 0).sum()

    def forward(self, ctx):
        logits, label = self.head(ctx.pooled("audio")), ctx.batch.labels["answer"]
        taking = label >= 0
        errors = functional.cross_entropy(logits.float(), label, ignore_index=-100, reduction="none")
        hits = masked_mean((logits.argmax(1) == label).float(), taking)
        return LossOutput(masked_mean(errors, taking), weight=taking.sum(), metrics={"accuracy": hits})


class ToyPoison(Objective):
    """Fine until a step, NaN from then on."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, ctx):
        value = self.scale.sum() * (float("nan") if ctx.batch.step >= self.at else 0.0)
        return LossOutput(value, weight=torch.tensor(float(len(ctx.batch)), device=ctx.device))


def toy_model(
    *, dropout: float = 0.0, objectives: tuple[str, ...] = ("vtc", "qa"), poison: int | None = None, seed: int = 0
) -> VTPModel:
    torch.manual_seed(seed)
    encoder = ToyEncoder(dropout=dropout)
    context = BuildContext(encoders={"audio": encoder})
    known = {"vtc": ToyContrastive, "qa": ToyClassify, "moco": partial(MoCo, context=context)}
    built = {name: known[name]() for name in objectives}
    if poison is not None:
        built["poison"] = ToyPoison(poison)
    weights = {"vtc": 0.7, "qa": 1.3}
    spec = {"encoders": {"audio": {"name": "toy"}}, "objectives": {n: {"name": n} for n in built}, "answers": []}
    return VTPModel({"audio": encoder}, built, {n: weights.get(n, 1.0) for n in built}, spec)


def plain_losses(model: VTPModel, batch: Batch) -> dict[str, LossOutput]:
    """Loss per objective on the whole batch in one pass, without the engine."""
    ctx = ForwardContext(model, batch)
    return {
        name: objective.loss_from_features(objective.features(ctx)) if objective.contrastive else objective(ctx)
        for name, objective in model.objectives.items()
    }


def toy_batch(indices: list[int], offset: int, total: int, step: int = 0) -> Batch:
    rows, labels = [], []
    for index in indices:
        generator = torch.Generator().manual_seed(index)
        label = index % 4
        rows.append(torch.randn(32, generator=generator) + 0.5 * label)
        labels.append(-100 if index % 3 == 0 else label)
    n = len(indices)
    return Batch(
        ids=[str(i) for i in indices],
        inputs={"audio": {"waveform": torch.stack(rows), "lengths": torch.full((n,), 32)}},
        present={"audio": torch.tensor([i % 5 != 0 for i in indices])},
        labels={"answer": torch.tensor(labels)},
        row_offset=offset,
        global_rows=total,
        step=step,
    )


class ToyLoader:
    """A shuffled table of ``table`` samples; this rank's rows of each step, from any position."""

    def __init__(self, table: int = 64, global_batch: int = 16, rank: int = 0, world_size: int = 1, delay: float = 0.0):
        self.table, self.global_batch, self.rank, self.world_size = table, global_batch, rank, world_size
        self.steps_per_epoch = table // global_batch
        self.delay = delay
        self.samples = 0

    def __iter__(self):
        own = self.global_batch // self.world_size
        while True:
            step = self.samples // self.global_batch
            epoch, place = divmod(step, self.steps_per_epoch)
            order = torch.randperm(self.table, generator=torch.Generator().manual_seed(1000 + epoch)).tolist()
            start = place * self.global_batch + self.rank * own
            self.samples += self.global_batch
            time.sleep(self.delay)
            yield toy_batch(order[start : start + own], self.rank * own, self.global_batch, step)

    def state_dict(self):
        return {"samples": self.samples}

    def load_state_dict(self, state):
        self.samples = state["samples"]


def evaluate(model: VTPModel) -> dict[str, float]:
    """Accuracy on 32 clips that were not trained on; draws from the global generator on purpose: it must not matter."""
    from vtp import distributed

    torch.rand(3)
    batch = toy_batch(list(range(1000, 1032)), 0, 32)
    device = next(model.parameters()).device
    with torch.no_grad():
        for _ in range(1 + distributed.rank()):  # processes may run different numbers of batches
            out = model(batch.to(device), run=lambda ctx: {"logits": model.objectives["qa"].head(ctx.pooled("audio"))})
    kept = batch.labels["answer"] >= 0
    return {"accuracy": float((out["logits"].argmax(1).cpu() == batch.labels["answer"])[kept].float().mean())}


def launch(
    run_dir: str,
    resume: str | None = None,
    delay: float = 0.0,
    dropout: float = 0.0,
    full: bool = False,
    objectives: tuple[str, ...] = ("vtc", "qa"),
    **options,
) -> int:
    """Train the toy model as one process of a run; gives the exit code that ``vtp run`` would.

    Args:
        resume: as for ``Trainer.resume``.
        delay: seconds that the loader takes per batch.
        full: the disk is full from the start.
    """
    from vtp import distributed
    from vtp.errors import VtpError
    from vtp.train import TrainConfig, Trainer, checkpoint

    def refuse(tensors, path):
        raise OSError(28, "No space left on device")

    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    device = distributed.setup("cpu")
    config = TrainConfig(**{"global_batch": 16, "tensorboard": False, "log_every": 1, **options})
    loader = ToyLoader(rank=distributed.rank(), world_size=distributed.world_size(), delay=delay)
    trainer = Trainer(
        toy_model(dropout=dropout, objectives=tuple(objectives)), loader, config, run_dir,
        evaluate=evaluate, monitor=("accuracy", "max"), device=device,
    )  # fmt: skip
    save_file, code, message = checkpoint.save_file, 0, ""
    try:
        if full:
            checkpoint.save_file = refuse
        if resume:
            trainer.resume(resume)
        (folder / "started").write_text(str(trainer.step))
        trainer.fit()
    except VtpError as error:
        code, message = error.exit_code, str(error)
    finally:
        checkpoint.save_file = save_file
    (folder / f"end{distributed.rank()}").write_text(json.dumps([code, message]))
    distributed.barrier()  # torchrun kills the others as soon as one has failed
    return code


def history(run_dir) -> list[dict]:
    """metrics.jsonl without what may differ between two equal runs."""
    lines = [json.loads(line) for line in Path(run_dir, "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("timing", None)
    return lines


if __name__ == "__main__":  # one run or a list of them, in one process: importing torch takes longer than they do
    from vtp import distributed

    torch.set_num_threads(1)
    distributed.setup("cpu")
    runs = json.loads(os.environ["TOY"])
    codes = [launch(**options) for options in (runs if isinstance(runs, list) else [runs])]
    distributed.shutdown()
    raise SystemExit(codes[-1])
