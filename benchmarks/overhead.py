"""What the training engine costs per step over a bare loop: same model, same batches, taken in turns within one run.

    python benchmarks/overhead.py [--steps 200] [--step-ms 50] [--threads 1]

The bare loop is the least that trains this model: forward, weighted sum of losses, backward, clip, AdamW. The engine
does the same with everything that is on by default: counting, metrics.jsonl and progress every 10 steps, TensorBoard,
signals, the learning rate. A bare step runs whenever the engine asks for a batch, so both see the same machine,
whatever else it does. The number of rows is chosen so that a bare step takes about ``--step-ms``.

Prints the ratio engine / bare over pairs of neighbouring steps (median, 20th and 80th percentile), in wall-clock time
and in processor time (which other programs on a shared machine disturb less), and writes
``benchmarks/results/overhead-<date>.json``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

from vtp.model.build import BuildContext, build_model
from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.model.objective import ContrastiveObjective
from vtp.train import TrainConfig, Trainer
from vtp.train.parameters import build_optimizer
from vtp.types import Batch
from vtp_encoders.concat import Concat
from vtp_encoders.tiny_audio import TinyAudio
from vtp_encoders.tiny_text import TinyText
from vtp_encoders.tiny_video import TinyVideo
from vtp_objectives.mlm import MLM
from vtp_objectives.qa import QA
from vtp_objectives.vtc import VTC

CLASSES = {
    ("encoder", "text"): TinyText,
    ("encoder", "video"): TinyVideo,
    ("encoder", "audio"): TinyAudio,
    ("encoder", "fusion"): Concat,
    ("objective", "mlm"): MLM,
    ("objective", "qa"): QA,
    ("objective", "vtc"): VTC,
}
SPEC = {
    "encoders": {
        "text": {"name": "tiny", "width": 64},
        "video": {"name": "tiny", "width": 64, "frames": 4, "size": 32},
        "audio": {"name": "tiny", "width": 64, "seconds": 0.5},
        "fusion": {"name": "concat", "width": 64, "depth": 2, "heads": 4},
    },
    "objectives": {name: {"name": name} for name in ("qa", "vtc", "mlm")},
}
TEXTS = [f"what {shape} moves {way} after the {colour} one" for shape in ("ring", "box") for way in ("up", "left")
         for colour in ("red", "blue", "green")]  # fmt: skip
OPTIONS = {"lr": 1e-3, "weight_decay": 0.05, "clip_norm": 1.0}


def make_model() -> VTPModel:
    torch.manual_seed(0)
    context = BuildContext(texts=lambda: TEXTS, answers=("red", "blue", "green"))
    return build_model(SPEC, lambda kind, name, slot: CLASSES[kind, slot or name], context)


def make_batch(model: VTPModel, rows: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    specs: dict[str, Any] = dict(model.specs())
    ids = specs["text"].tokenize([TEXTS[(seed + i) % len(TEXTS)] for i in range(rows)])
    video, samples = specs["video"], specs["audio"].samples
    shape = (rows, video.frames, video.size, video.size, 3)
    return Batch(
        ids=[str(i) for i in range(rows)],
        inputs={
            "video": {"frames": torch.randint(256, shape, generator=generator, dtype=torch.uint8)},
            "audio": {
                "waveform": torch.randn(rows, samples, generator=generator),
                "lengths": torch.full((rows,), samples),
            },
            "text": {
                "token_ids": torch.tensor(ids),
                "attention_mask": torch.ones(len(ids), len(ids[0]), dtype=torch.bool),
            },
        },
        present={m: torch.ones(rows, dtype=torch.bool) for m in ("video", "audio", "text")},
        labels={"answer": torch.randint(3, (rows,), generator=generator)},
    )


class BareLoop:
    """The least that trains the model."""

    def __init__(self, model: VTPModel, config: TrainConfig) -> None:
        self.model = model.train()
        self.optimizer = build_optimizer(model, config)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    def step(self, batch: Batch) -> None:
        self.model(batch, run=self._total)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, OPTIONS["clip_norm"])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _total(self, ctx: ForwardContext) -> dict[str, torch.Tensor]:
        terms = []
        for name, objective in self.model.objectives.items():
            contrastive = isinstance(objective, ContrastiveObjective)
            out = objective.loss_from_features(objective.features(ctx)) if contrastive else objective(ctx)
            terms.append(self.model.weights[name] * out.loss)
        return {"loss": torch.stack(terms).sum()}


class InTurns:
    """A loader that runs one bare step whenever the engine asks for a batch, and times both."""

    steps_per_epoch = 10**9

    def __init__(self, bare: BareLoop, batches: list[Batch]) -> None:
        self.bare, self.batches = bare, batches
        self.bare_ms: list[tuple[float, float]] = []  # (wall clock, processor)
        self.engine_ms: list[tuple[float, float]] = []

    def __iter__(self) -> Iterator[Batch]:
        for number in range(sys.maxsize):
            batch = self.batches[number % len(self.batches)]
            batch.step = number
            start = clocks()
            self.bare.step(batch)
            self.bare_ms.append(since(start))
            start = clocks()
            yield batch
            self.engine_ms.append(since(start))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError("a benchmark is not continued")


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    wall, processor = clocks()
    return 1000 * (wall - start[0]), 1000 * (processor - start[1])


def rows_for(step_ms: float, config: TrainConfig) -> int:
    """Rows with which a bare step takes about ``step_ms``."""
    rows = 8
    for _ in range(3):
        loop = BareLoop(make_model(), config)
        batch = make_batch(loop.model, rows, 0)
        times = []
        for _ in range(8):
            start = clocks()
            loop.step(batch)
            times.append(since(start)[1])
        rows = max(2, round(rows * step_ms / float(np.median(times[2:]))))
    return rows


def spread(values: Any) -> dict[str, float]:
    low, middle, high = np.percentile(values, [20, 50, 80])
    return {"median": round(float(middle), 4), "p20": round(float(low), 4), "p80": round(float(high), 4)}


def compare(bare: Any, engine: Any) -> dict[str, Any]:
    """Milliseconds of both, and the ratio: per pair of neighbours, and of the sums (which rare costs enter, too)."""
    return {
        "bare_ms": spread(bare),
        "engine_ms": spread(engine),
        "ratio": spread(engine / bare),
        "ratio_of_sums": round(float(engine.sum() / bare.sum()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="pairs of steps, after 10 to warm up")
    parser.add_argument("--step-ms", type=float, default=50.0, help="length of a bare step to aim at")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder of the JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)

    warm = 10
    config = TrainConfig(steps=arguments.steps + warm + 1, eval_every=0, save_every=0, **OPTIONS)
    rows = rows_for(arguments.step_ms, config)
    config.global_batch = rows
    bare = BareLoop(make_model(), config)
    loader = InTurns(bare, [make_batch(bare.model, rows, seed) for seed in range(4)])
    with tempfile.TemporaryDirectory() as run_dir:
        Trainer(make_model(), loader, config, run_dir, device="cpu").fit()

    bare_ms = np.array(loader.bare_ms[warm : warm + arguments.steps])
    engine_ms = np.array(loader.engine_ms[warm : warm + arguments.steps])
    result = {name: compare(bare_ms[:, i], engine_ms[:, i]) for i, name in enumerate(("wall_clock", "processor"))}
    for name, part in result.items():
        ratio = part["ratio"]
        print(
            f"{name:10}  bare {part['bare_ms']['median']:.2f} ms  engine {part['engine_ms']['median']:.2f} ms  "
            f"ratio {ratio['median']:.3f} (p20 {ratio['p20']:.3f}, p80 {ratio['p80']:.3f})  "
            f"of sums {part['ratio_of_sums']:.3f}"
        )
    print(f"{len(engine_ms)} pairs of steps with {rows} rows")
    record.save(
        arguments.out / f"overhead-{datetime.now(UTC):%Y-%m-%d}.json",
        "engine over bare loop, per step",
        rows=rows,
        pairs=len(engine_ms),
        threads=arguments.threads,
        **result,
    )


if __name__ == "__main__":
    main()
