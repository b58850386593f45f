"""Models of whole commands at small size, and batches for them."""

from __future__ import annotations

from typing import Any

import torch

from vtp.cli.run import compose
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.model import VTPModel
from vtp.plugins import host
from vtp.testing.inputs import batch_for
from vtp.types import Batch

TEXTS = ["what is heard?", "a red square moves to the left and a tone is heard"]


def build(*options: str, seed: int = 0) -> VTPModel:
    """The model of a command, at small size."""
    found = compose([*options, "dataset=shapes"])
    spec: dict[str, Any] = {"encoders": found["encoder"], "objectives": found["objectives"], "masks": found["masks"]}
    sizes: dict[str, dict[str, Any]] = {
        "text": {"width": 32},
        "video": {"width": 24, "frames": 4, "size": 32},
        "audio": {"width": 16},
        "fusion": {"width": 32, "heads": 2, "depth": 2},
    }
    if found["encoder"]["video"]["patch"]:
        sizes["video"] |= {"patch": 16}
    for slot, node in sizes.items():
        spec["encoders"][slot] |= node
    torch.manual_seed(seed)
    context = BuildContext(texts=lambda: TEXTS, answers=("tone", "noise", "red"))
    return build_model(spec, lookup_in(host().registry), context)


def batch_of(model: VTPModel, rows: int, **missing: list[int]) -> Batch:
    return batch_for(model.specs(), rows, {"answer": [0, 1, 2]}, missing)
