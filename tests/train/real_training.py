"""The built-in tiny model under two processes, and the rows that it trains on. Not a test module."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from vtp.model.build import BuildContext, build_model
from vtp.model.model import VTPModel
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
SMALL = {"name": "tiny", "width": 16, "heads": 2, "depth": 2}
SPEC = {
    "encoders": {
        "text": {**SMALL, "max_length": 8},
        "video": {**SMALL, "frames": 2, "size": 32},
        "audio": {**SMALL, "seconds": 0.25},
        "fusion": {"name": "concat", "width": 16, "depth": 2, "heads": 2},
    },
    "objectives": {
        name: {"name": name, "weight": weight} for name, weight in (("qa", 1.0), ("vtc", 0.5), ("mlm", 2.0))
    },
}
TEXTS = [
    f"what {colour} {shape} moves {way}"
    for colour in ("red", "blue")
    for shape in ("ring", "box")
    for way in ("up", "")
]
ROWS = 8


def real_model() -> VTPModel:
    torch.manual_seed(0)
    context = BuildContext(texts=lambda: TEXTS, answers=("red", "blue", "up"))
    return build_model(SPEC, lambda kind, name, slot: CLASSES[kind, slot or name], context)


def real_batch(model: VTPModel, first: int = 0, last: int = ROWS) -> Batch:
    """Rows of one global batch. The last half has no sound, so rank 1 of two has none at all; row 1 has no picture."""
    generator = torch.Generator().manual_seed(0)
    ids = model.specs()["text"].tokenize(TEXTS)
    length = max(map(len, ids))
    token_ids = torch.tensor([row + [model.specs()["text"].pad_id] * (length - len(row)) for row in ids])
    samples = model.specs()["audio"].samples
    sound = torch.arange(ROWS) < ROWS // 2
    batch = Batch(
        ids=[str(i) for i in range(ROWS)],
        inputs={
            "video": {"frames": torch.randint(256, (ROWS, 2, 32, 32, 3), generator=generator, dtype=torch.uint8)},
            "audio": {"waveform": torch.randn(ROWS, samples, generator=generator), "lengths": sound * samples},
            "text": {
                "token_ids": token_ids,
                "attention_mask": torch.tensor([[i < len(row) for i in range(length)] for row in ids]),
            },
        },
        present={
            "video": torch.arange(ROWS) != 1,
            "audio": sound,
            "text": torch.ones(ROWS, dtype=torch.bool),
        },
        labels={"answer": torch.tensor([0, 1, 2, -100, 0, -100, -100, 1])},
        step=3,
    )
    return batch.rows(first, last)


def write_gradients(out: Path) -> None:
    """Gradient of one step for every strategy and accumulation, written by rank 0."""
    from safetensors.torch import save_file

    from vtp import distributed
    from vtp.train import TrainConfig
    from vtp.train.parallel import Parallel, full_tensor
    from vtp.train.precision import Precision
    from vtp.train.step import Step

    device = distributed.setup("cpu")
    rank, own = distributed.rank(), ROWS // distributed.world_size()
    for strategy in ("ddp", "fsdp2"):
        for accumulation in (1, 2):
            config = TrainConfig(steps=1, global_batch=ROWS, accumulation=accumulation, strategy=strategy)
            model = real_model()
            parallel = Parallel(model, config, device)
            step = Step(parallel, Precision("fp32", device), accumulation)
            for _ in range(2):
                model.zero_grad()
                step(real_batch(model, rank * own, (rank + 1) * own))
            grads = {n: full_tensor(p.grad) for n, p in parallel.parameters if p.grad is not None}
            if distributed.is_main():
                save_file(grads, out / f"{strategy}{accumulation}.safetensors")


if __name__ == "__main__":
    from vtp import distributed

    torch.set_num_threads(1)
    write_gradients(Path(json.loads(os.environ["TOY"])["out"]))
    distributed.shutdown()
