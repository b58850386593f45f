"""The options of training, ``train.*`` on the command line. Imports no torch: it is the schema that hydra checks
against.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec

from vtp.components import check_options, refuse
from vtp.errors import ConfigError
from vtp.ranges import Seed
from vtp.registry import did_you_mean

__all__ = ["Lora", "TrainConfig"]

# Parts of a parameter name (between dots) that never decay, beside all parameters of at most one dimension and biases:
# positions and learned tokens, as SimVTP, VideoMAE and BEiT leave them out.
_NO_DECAY = (
    "pos_embed",
    "position_embeddings",
    "positions",
    "cls_token",
    "mask_token",
    "dist_token",
    "relative_position_bias_table",
)

_CHOICES = {
    "schedule": ("cosine", "linear", "constant", "step"),
    "precision": ("fp32", "bf16", "fp16"),
    "strategy": ("auto", "ddp", "fsdp2"),
    "monitor_mode": ("max", "min"),
}


@dataclass
class Lora:
    """Low-rank adapters in linear layers of the encoders, ``train.lora={rank: 8}``; the weights themselves stay."""

    rank: int = 8  # of an adapter: rank * (in + out) parameters per layer
    alpha: float | None = None  # adapters are scaled by alpha / rank; null: rank, that is, 1
    dropout: float = 0.0  # of what an adapter takes in
    targets: list[str] = field(default_factory=list)  # parts of names: [query, value], [encoders.text]; []: all linear
    heads: list[str] = field(default_factory=lambda: ["objectives"])  # prefixes of parameters that are trained whole
    merge: bool = False  # checkpoints hold the merged model as well, loadable without its base

    @property
    def scale(self) -> float:
        """What adapters are multiplied by."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def problems(self) -> Iterable[str]:
        """What is wrong, in words."""
        if find_spec("peft") is None:
            yield "lora needs the package peft, which is not installed: pip install peft"
        if self.rank < 1:
            yield f"lora.rank={self.rank}: expected at least 1."
        if self.alpha is not None and not (self.alpha > 0 and math.isfinite(self.alpha)):
            yield f"lora.alpha={self.alpha}: expected more than 0 (null: the rank)."
        if not 0 <= self.dropout < 1:
            yield f"lora.dropout={self.dropout}: expected at least 0 and below 1."
        for name in ("targets", "heads"):
            if not all(part.strip(".") for part in getattr(self, name)):
                yield f"lora.{name}={getattr(self, name)}: expected names of layers, and one is empty."


@dataclass
class TrainConfig:
    """How a model is trained. "Step" is always one update of the optimizer."""

    steps: int | None = None  # length in steps; exactly one of steps and epochs is given
    epochs: float | None = None  # length in passes over the training table
    global_batch: int = 32  # samples per step: micro_batch = global_batch / (processes * accumulation)
    accumulation: int = 1  # micro-batches per step and process; the result is that of the whole batch
    seed: Seed = 0  # of dropout and all else that torch draws while training; process r uses seed + r

    lr: float = 1e-4  # learning rate after warm-up, for parameters without a multiplier
    min_lr: float = 0.0  # learning rate that schedule=cosine and linear end at
    warmup: float = 0.05  # below 1 a share of all steps, from 1 on a number of steps; 0 is none
    warmup_lr: float | None = None  # learning rate of the very first step; null: lr / warm-up steps
    schedule: str = "cosine"  # after warm-up: cosine, linear, constant, or step (times lr_decay at lr_milestones)
    lr_milestones: list[int] = field(default_factory=list)  # steps at which schedule=step lowers it
    lr_decay: float = 0.1  # factor of schedule=step at each milestone
    group_lr: dict[str, float] = field(default_factory=dict)  # {encoders.video: 0.1}: by longest prefix; 0 freezes
    layer_decay: float = 1.0  # factor per layer from an encoder's output down to its input: 0.75 slows early ones

    weight_decay: float = 0.05  # of AdamW; never for biases, norms, other one-dimensional parameters, and no_decay
    no_decay: list[str] = field(default_factory=lambda: list(_NO_DECAY))  # parts (between dots) of names without it
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])  # of AdamW
    eps: float = 1e-8  # of AdamW
    clip_norm: float | None = 1.0  # largest global norm of the gradient; null does not clip

    precision: str = "fp32"  # fp32, bf16 or fp16 (autocast; weights and optimizer stay in fp32); fp16 needs a GPU
    strategy: str = "auto"  # with several processes: ddp (auto) copies the model to each, fsdp2 shards it over them
    find_unused_parameters: bool = True  # ddp: allow steps that leave parameters without gradient; walks the graph
    sync_batchnorm: bool = False  # ddp on GPUs: BatchNorm normalises by the micro-batches of all processes together
    gradient_checkpointing: bool = False  # recompute activations in the backward pass: less memory, a third more time
    lora: Lora | None = None  # {rank: 8, targets: [query, value]}: train adapters and heads alone; null: all weights
    ema_decay: float | None = None  # moving average of the weights, evaluated and saved (ema.safetensors); null is off

    eval_every: int | None = None  # every so many steps and at the end; null: after every epoch; 0: only at the end
    save_every: int | None = None  # every so many steps, beside those at evaluations and the end; 0: none at all
    keep: int | None = 2  # checkpoints beside the best one; null: all. With 2, one broken file never loses the run
    monitor: str | None = None  # metric that decides which checkpoint is best; null: the task's own
    monitor_mode: str = "max"  # whether the best value of monitor is the largest (max) or the smallest (min)
    patience: int | None = None  # stop early after so many evaluations without a better monitor; null: never
    min_delta: float = 0.0  # by how much monitor must improve to count as better for patience

    log_every: int = 10  # a line of metrics.jsonl every so many steps; in between, nothing waits for the device
    progress_every_s: float = 10.0  # seconds between two lines of progress when the output is not a terminal
    tensorboard: bool = True  # write TensorBoard files into the run folder

    def __post_init__(self) -> None:
        if self.lora is not None and not isinstance(self.lora, Lora):
            if not isinstance(self.lora, dict):
                raise ConfigError(f"train.lora={self.lora}: expected options, such as {{rank: 8}}, or null.")
            wrong: list[str] = []
            check_options("train.lora", "it", Lora, self.lora, wrong)
            refuse(wrong, "train.lora")
            self.lora = Lora(**self.lora)

    def validate(self, world_size: int = 1) -> list[str]:
        """Everything that is wrong, in words; ``world_size`` processes share ``global_batch``."""
        wrong = [*self._length(), *self._ranges(), *self._choices(), *self._batch(world_size), *self._relations()]
        return [f"train.{line}" for line in wrong]

    def _length(self) -> Iterable[str]:
        if (self.steps is None) == (self.epochs is None):
            yield f"steps={_show(self.steps)} and train.epochs={_show(self.epochs)}: give exactly one of them."
        if self.steps is not None and self.steps < 1:
            yield f"steps={self.steps}: expected at least 1."
        if self.epochs is not None and not self.epochs > 0:
            yield f"epochs={self.epochs}: expected more than 0."

    def _ranges(self) -> Iterable[str]:
        for name in ("global_batch", "accumulation", "log_every", "keep", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name}={value}: expected at least 1."
        for name in ("eval_every", "save_every", "min_lr", "warmup", "warmup_lr", "weight_decay", "min_delta"):
            value = getattr(self, name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                yield f"{name}={value}: expected 0 or more."
        for name in ("lr", "eps", "clip_norm", "lr_decay", "progress_every_s"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                yield f"{name}={value}: expected more than 0" + (
                    " (null switches it off)." if name == "clip_norm" else "."
                )
        if not 0 < self.layer_decay <= 1:
            yield f"layer_decay={self.layer_decay}: expected more than 0 and at most 1 (1 is off)."
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            yield f"ema_decay={self.ema_decay}: expected at least 0 and below 1, for example 0.999 (null is off)."
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            yield f"betas={list(self.betas)}: expected two numbers in [0, 1)."
        for prefix, factor in self.group_lr.items():
            if not (factor >= 0 and math.isfinite(factor)):
                yield f"group_lr.{prefix}={factor}: expected 0 (frozen) or more."

    def _choices(self) -> Iterable[str]:
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                yield f"{name}={value}: expected one of {', '.join(known)}.{did_you_mean(str(value), known)}"

    def _batch(self, world_size: int) -> Iterable[str]:
        parts = world_size * self.accumulation
        if self.global_batch >= 1 and self.accumulation >= 1 and self.global_batch % parts:
            nearest = max(1, round(self.global_batch / parts)) * parts
            yield (
                f"global_batch={self.global_batch} must be a multiple of {parts} = {world_size} process(es) * "
                f"accumulation {self.accumulation}. Nearest valid: global_batch={nearest}."
            )

    def _relations(self) -> Iterable[str]:
        yield from () if self.lora is None else self.lora.problems()
        if self.min_lr > self.lr:
            yield f"min_lr={self.min_lr} is above train.lr={self.lr}: expected at most the learning rate."
        if self.warmup >= 1 and not float(self.warmup).is_integer():
            yield f"warmup={self.warmup}: from 1 on it is a number of steps, expected a whole one."
        if self.steps is not None and self.warmup >= 1 and self.warmup > self.steps:
            yield f"warmup={self.warmup:g} is longer than train.steps={self.steps}."
        if self.schedule == "step" and not self.lr_milestones:
            yield "schedule=step needs train.lr_milestones=[step, ...]."
        if self.schedule != "step" and self.lr_milestones:
            milestones = list(self.lr_milestones)
            yield f"lr_milestones={milestones} has no effect with train.schedule={self.schedule}: use schedule=step."
        if list(self.lr_milestones) != sorted(set(self.lr_milestones)) or any(step < 1 for step in self.lr_milestones):
            yield f"lr_milestones={list(self.lr_milestones)}: expected steps in rising order."
        if self.sync_batchnorm and self.strategy == "fsdp2":
            yield "sync_batchnorm=true needs train.strategy=ddp (or auto): it does not go with fsdp2."

    def as_dict(self) -> dict[str, object]:
        """All options as plain values, in the order of this file."""
        return asdict(self)

    def fingerprint(self) -> str:
        """Hash of the options that decide the weights of a later step: equal fingerprints continue exactly."""
        decisive = {k: v for k, v in self.as_dict().items() if k not in _NOT_DECISIVE}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, saved: dict[str, object]) -> dict[str, tuple[object, object]]:
        """Decisive options that differ from ``saved`` (:meth:`as_dict` of another run): name -> (saved, now). What an
        older vtp did not have yet was at its default."""
        now, before = self.as_dict(), TrainConfig().as_dict() | saved
        return {k: (before[k], v) for k, v in now.items() if k not in _NOT_DECISIVE and before[k] != v}


# What may change between two parts of one run without changing any later weight.
_NOT_DECISIVE = frozenset(
    {
        "strategy",
        "find_unused_parameters",
        "gradient_checkpointing",
        "eval_every",
        "save_every",
        "keep",
        "log_every",
        "progress_every_s",
        "tensorboard",
        "monitor",
        "monitor_mode",
        "patience",
        "min_delta",
    }
)


def _show(value: object) -> str:
    return "null" if value is None else str(value)
