"""Parameter groups of AdamW: who decays, and with which multiple of the learning rate."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from vtp.contracts import Encoder, Part, member
from vtp.errors import ConfigError
from vtp.train.config import TrainConfig

__all__ = ["build_optimizer", "freeze", "parameter_groups"]

log = logging.getLogger("vtp.train")


def freeze(model: nn.Module, config: TrainConfig) -> list[str]:
    """Switch off the gradient of parameters with multiplier 0 and give their names. Before the model is wrapped."""
    prefixes = sorted(config.group_lr, key=len, reverse=True)
    frozen = []
    for name, parameter in model.named_parameters():
        if _group_factor(name, prefixes, config.group_lr) == 0:
            parameter.requires_grad_(False)
            frozen.append(name)
    return frozen


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Groups for ``torch.optim.AdamW``, one per (multiplier, weight decay) that occurs.

    No weight decay: parameters of at most one dimension, names that end in ``bias``, names with a part in
    ``config.no_decay``, and what a module lists in its ``no_weight_decay()`` (the convention of timm).

    Returns:
        dicts with ``params``, ``names`` (parallel to it), ``weight_decay`` and ``lr_scale``; the largest multiplier
        first. The learning rate of a group at a step is ``learning_rate(step) * lr_scale``.

    Raises:
        ConfigError: a prefix of ``group_lr`` fits no parameter, or ``layer_decay`` is set and no encoder can tell its
            layers.
    """
    exempt = set(_declared_no_decay(model))
    prefixes = sorted(config.group_lr, key=len, reverse=True)
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        if not any(_under(name, prefix) for name in names):
            tops = sorted({".".join(name.split(".")[:2]) for name in names})
            raise ConfigError(f"train.group_lr: no parameter starts with {prefix!r}. There are: {', '.join(tops)}.")
    layers = dict(_layer_factors(model, config.layer_decay))
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        plain = parameter.ndim <= 1 or name.endswith("bias") or name in exempt
        plain = plain or not set(config.no_decay).isdisjoint(name.split("."))
        decay = 0.0 if plain else config.weight_decay
        scale = _group_factor(name, prefixes, config.group_lr) * layers.get(name, 1.0)
        group = groups.setdefault(
            (-scale, decay), {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise ConfigError("Nothing to train: every parameter is frozen. Raise a multiplier in train.group_lr.")
    return [groups[key] for key in sorted(groups)]


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over :func:`parameter_groups`; the engine sets the learning rate before every step."""
    # fused: one kernel per group instead of a Python loop over parameters, on the CPU as well
    return torch.optim.AdamW(
        parameter_groups(model, config),
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        fused=True,
    )


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")


def _group_factor(name: str, prefixes: list[str], factors: dict[str, float]) -> float:
    return next((float(factors[prefix]) for prefix in prefixes if _under(name, prefix)), 1.0)


def _declared_no_decay(model: nn.Module) -> Iterator[str]:
    for path, module in model.named_modules():
        for name in member(module, Part, "no_weight_decay")():
            yield f"{path}.{name}" if path else name


def _layer_factors(model: nn.Module, decay: float) -> Iterator[tuple[str, float]]:
    """Per parameter of an encoder with ``depth`` and ``layer_of``: decay ** (depth + 1 - layer), 1 at the output."""
    if decay == 1.0:
        return
    unable = []
    own = {id(parameter): name for name, parameter in model.named_parameters()}
    encoders = dict(dict(model.named_children()).get("encoders", nn.ModuleDict()).named_children())
    for slot, encoder in encoders.items():
        depth, layer_of = (member(encoder, Encoder, name) for name in ("depth", "layer_of"))
        if depth is None or layer_of is None:
            unable.append(slot)
            continue
        for name, parameter in encoder.named_parameters():
            yield own[id(parameter)], math.pow(decay, depth + 1 - layer_of(name))
    if len(unable) == len(encoders):
        raise ConfigError(
            f"train.layer_decay={decay}: no encoder of this model can tell its layers (depth, layer_of). Use 1."
        )
    if unable:
        log.warning("train.layer_decay has no effect on encoder %s: no depth or layer_of", ", ".join(unable))
