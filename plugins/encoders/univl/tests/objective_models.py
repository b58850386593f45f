"""Models of several kinds with the objectives of this package, random batches for them, and a step of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import torch
import yaml
from torch import Tensor

from vtp.cli.run import compose
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.model import VTPModel
from vtp.plugins import host
from vtp.testing.inputs import batch_for
from vtp.train.config import TrainConfig
from vtp.train.parallel import Parallel
from vtp.train.precision import Precision
from vtp.train.step import Observation, Step
from vtp.types import Batch

TEXTS = ["a red cube rolls to the left", "two green balls stand still", "a man walks his old dog", "what moves here"]
SIMVTP = ["encoder.video.preset=tiny", "encoder.video.size=32", "encoder.video.frames=4", "encoder.video.patch=8"]
SIMVTP += ["encoder.video.width=32", "encoder.fusion.depth=1", "encoder.fusion.heads=2", "encoder.text.tokenizer=texts"]
SIMVTP += ["encoder.text.positions=32", "encoder.text.max_length=32", "encoder.text.dropout=0"]
BASE = [f"encoder.{slot}.width=32" for slot in ("video", "text", "audio", "fusion")]
BASE += ["encoder.video.size=32", "encoder.video.frames=4", "encoder.fusion.depth=1", "encoder.fusion.heads=2"]
UNIVL = ["encoder.text.preset=tiny", "encoder.text.width=32", "encoder.text.depth=1", "encoder.text.heads=2"]
UNIVL += ["encoder.text.tokenizer=texts", "encoder.text.positions=32", "encoder.text.dropout=0"]
UNIVL += ["encoder.text.attention_dropout=0", "encoder/video=univl", "encoder.video.preset=tiny"]
UNIVL += ["encoder.video.width=32", "encoder.video.frames=4", "encoder.video.size=32"]
SIZES = {"base": BASE, "simvtp": SIMVTP, "univl": UNIVL}


# Composing takes longer than most tests, so that these are composed together and taken one by one.
TOGETHER = ("caption", *(f"univl/{name}" for name in ("vtc", "vtm", "itm", "mlm", "mlm_text", "clip_order", "dmae")))


@cache
def _composed(model: str, objectives: tuple[str, ...], released: bool) -> dict[str, Any]:
    chosen = f"objective=[{','.join(objectives)}]"
    found = compose([f"model={model}", chosen, f"variant={'released' if released else 'null'}", *SIZES[model]])
    return {key: found[key] for key in ("encoder", "objectives", "masks", "variant")}


def _config(model: str, objectives: Sequence[str], released: bool) -> dict[str, Any]:
    """What ``objective=[...]`` composes to: option files of objectives say nothing about each other."""
    found = deepcopy(_composed(model, TOGETHER, released))
    nodes: dict[str, Any] = {}
    for name in objectives:
        if name in TOGETHER:
            own = name.rpartition("/")[2]
            nodes[own] = found["objectives"][own]
        else:
            nodes |= deepcopy(_composed(model, (name,), released)["objectives"])
    return found | {"objectives": nodes}


def _set(found: dict[str, Any], option: str) -> None:
    """``a.b=value`` without composing again; no other value depends on it."""
    key, _, value = option.partition("=")
    *parents, last = key.split(".")
    for parent in parents:
        found = found[parent]
    assert last in found, option
    found[last] = yaml.safe_load(value)


def build(
    model: str, objectives: Sequence[str], *options: str, released: bool = False, encoders: Any = None, seed: int = 3
) -> VTPModel:
    """A small model by the names on a command line, in evaluation mode: no dropout.

    Args:
        model: base, simvtp or univl.
        encoders: specifications of encoders in place of the model's.
    """
    found = _config(model, objectives, released)
    for option in options:
        _set(found, option)
    spec = {
        "encoders": encoders or found["encoder"],
        "objectives": found["objectives"],
        "masks": found["masks"],
        "variant": found["variant"],
    }
    torch.manual_seed(0)
    return build_model(spec, lookup_in(host().registry), BuildContext(texts=lambda: TEXTS), seed=seed).eval()


def random_batch(model: VTPModel, rows: int = 6, **missing: Sequence[int]) -> Batch:
    """Random clips and texts, all different but for chance; ``video=[1]`` says that row 1 has no video."""
    return batch_for(model.specs(), rows, {}, missing)


def take_step(model: VTPModel, batch: Batch, accumulation: int = 1, strategy: str = "auto") -> dict[str, Observation]:
    """What each objective showed last. The gradient lies in the parameters afterwards."""
    cpu = torch.device("cpu")
    model.zero_grad()
    config = TrainConfig(steps=1, global_batch=len(batch), accumulation=accumulation, strategy=strategy)
    step = Step(Parallel(model, config, cpu), Precision("fp32", cpu), accumulation)
    return {seen.name: seen for seen in step(batch)}


def gradients(model: VTPModel) -> dict[str, Tensor]:
    """By parameter, of those that have one."""
    return {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}
