"""``train.lora``: low-rank adaptation (LoRA, arXiv:2106.09685) of any encoder, over the layers of peft.

A chosen layer with frozen weight W computes (W + alpha / rank * B A) x, of which A (rank, in) and B (out, rank) are
trained; B begins at 0, so training starts from what the model was. Heads that are named are trained whole.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from vtp.errors import ConfigError
from vtp.model.adapters import DESCRIPTION, Adapted, read_description, weights_hash
from vtp.model.momentum import Momentum
from vtp.registry import did_you_mean
from vtp.train.callbacks import Callback
from vtp.train.config import Lora

if TYPE_CHECKING:
    from vtp.model.model import VTPModel
    from vtp.train.trainer import Trainer

__all__ = ["Unused", "adapt", "same_adapters"]

log = logging.getLogger("vtp.train")

# Modules of torch whose fast paths read the weights of their layers without calling them.
_READ_DIRECTLY = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def adapt(model: VTPModel, options: Lora) -> None:
    """Put adapters into the encoders of a model, and freeze everything but them and the named heads; before the model
    is moved or wrapped.

    Raises:
        ConfigError: peft is not installed, a name fits no layer or parameter, or an objective averages the encoders.
    """
    peft = _peft()
    if averaging := sorted({name.split(".")[1] for name, m in model.named_modules() if isinstance(m, Momentum)}):
        raise ConfigError(
            f"train.lora: objective {', '.join(averaging)} keeps a moving average of an encoder, which knows no "
            "adapters. Leave one of the two out."
        )
    chosen = _chosen(model, options.targets)
    weights = (dict(layer.named_parameters(recurse=False))["weight"] for layer in chosen.values())
    widest = max(min(weight.shape) for weight in weights)
    if options.rank > widest:
        raise ConfigError(
            f"train.lora.rank={options.rank}: no chosen layer is wider than {widest}, so a larger rank adds nothing "
            f"but memory. Expected at most {widest}, usually 4 to 64."
        )
    heads = dict(_heads(model, options.heads))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name in heads)
    scale = options.scale
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=scale * options.rank,
        lora_dropout=options.dropout,
        target_modules=list(chosen),
        bias="none",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a layer of GPT-2 has its weight the other way round, which it handles
        peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if name in heads:
            parameter.requires_grad_(heads[name])
    trained = {id(p): p for p in model.parameters() if p.requires_grad}
    state = model.state_dict(keep_vars=True)
    frozen = {n: t for n, t in state.items() if isinstance(t, nn.Parameter) and id(t) not in trained}
    adapted = Adapted(
        options=asdict(options),
        scales=dict.fromkeys(chosen, scale),
        transposed=[name for name, layer in chosen.items() if not isinstance(layer, nn.Linear)],
        frozen=frozenset(frozen),
        sha256="",
        merge=options.merge,
    )
    adapted.sha256 = weights_hash(adapted.base(frozen))
    model.adapted = adapted
    counted = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    low_rank = sum(count for name, count in counted.items() if ".lora_" in name)
    total = sum(p.numel() for p in model.parameters())
    slots = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) for name in chosen))
    log.info(
        "train.lora: rank %d on %d layers of %s; trainable: %s parameters of adapters and %s of heads, %.2f %% of %s",
        options.rank,
        len(chosen),
        slots,
        f"{low_rank:,}",
        f"{sum(counted.values()) - low_rank:,}",
        100 * sum(counted.values()) / total,
        f"{total:,}",
    )


class Unused(Callback):
    """Warns after the first step of adapters that were not called: the encoder does not use the layer, or reads its
    weight past it. They stay 0."""

    def __init__(self, model: VTPModel) -> None:
        self._waiting: set[str] = set()
        self._hooks: list[Any] = []
        layers = model.adapted.scales if model.adapted is not None else {}
        for name in layers:
            self._waiting.add(name)
            self._hooks.append(model.get_submodule(name).register_forward_hook(self._noting(name)))

    def _noting(self, name: str) -> Any:
        def note(*_: Any) -> None:
            self._waiting.discard(name)

        return note

    def on_step_end(self, trainer: Trainer, *, step: int, **facts: Any) -> None:
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        if self._waiting:
            names = sorted(self._waiting)
            trainer.warn(
                f"train.lora: {len(names)} adapters were not used in the first step, for example that of {names[0]}: "
                "the layer is not called. They learn nothing; leave them out of train.lora.targets."
            )


def same_adapters(source: Path, options: dict[str, Any]) -> Path | None:
    """The folder of adapters if ``source`` holds such as ``options`` ask for, to go on with; None to merge them."""
    folder = source if source.is_dir() else source.parent
    if not (folder / DESCRIPTION).is_file():
        return None
    decisive = ("rank", "alpha", "targets")
    before, now = read_description(folder)["lora"], asdict(Lora(**options))
    if source.is_dir() and all(before.get(key) == now[key] for key in decisive):
        log.info("init_from: training goes on with the adapters of %s", folder)
        return folder
    log.info("init_from: the adapters of %s are merged into the weights, and new ones begin over them", folder)
    return None


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            f"train.lora needs the package peft, which cannot be imported ({error}). Get it with: pip install peft"
        ) from error
    return peft


def _chosen(model: VTPModel, targets: list[str]) -> dict[str, nn.Module]:
    """The layers that get adapters, by their names in the model."""
    possible, impossible = _layers(model)
    if not possible:
        raise ConfigError("train.lora: the encoders of this model have no linear layer that can have an adapter.")
    found: set[str] = set() if targets else set(possible)
    for target in targets:
        fitting = {name for name in possible if _within(target, name)}
        if not fitting:
            reason = next((why for name, why in impossible.items() if _within(target, name)), None)
            if reason is not None:
                raise ConfigError(f"train.lora.targets: {target!r} {reason}. There are: {_known(possible)}.")
            last = {name.rsplit(".", 1)[1] for name in possible}
            raise ConfigError(
                f"train.lora.targets: no linear layer of the encoders has {target!r} in its name."
                f"{did_you_mean(target, last)} There are: {_known(possible)}."
            )
        found |= fitting
    return {name: layer for name, layer in possible.items() if name in found}


def _layers(model: VTPModel) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """The layers of the encoders that can have an adapter, and why others cannot."""
    users: dict[int, int] = {}  # of a parameter; a layer that has two names counts twice
    for _, module in model.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    inside = [f"{name}." for name, module in model.named_modules() if isinstance(module, _READ_DIRECTLY)]
    possible: dict[str, nn.Module] = {}
    impossible: dict[str, str] = {}
    for name, module in model.named_modules():
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if not name.startswith("encoders.") or weight is None:
            continue
        if not _is_linear(module):
            impossible[name] = f"is a {type(module).__name__}, and adapters are for linear layers"
        elif any(name.startswith(prefix) for prefix in inside):
            impossible[name] = "lies within a layer of torch that reads its weights without calling it"
        elif users[id(weight)] > 1:
            impossible[name] = "shares its weight with another layer"
        else:
            possible[name] = module
    return possible, impossible


def _is_linear(module: nn.Module) -> bool:
    kind = type(module)
    if isinstance(module, nn.Linear):
        return kind.forward is nn.Linear.forward
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


def _within(target: str, name: str) -> bool:
    """Whether the parts of ``target``, between dots, follow each other in ``name``."""
    return f".{target.strip('.')}." in f".{name}."


def _known(possible: dict[str, nn.Module]) -> str:
    """Per slot the last parts of the names."""
    slots: dict[str, dict[str, None]] = {}
    for name in possible:
        slots.setdefault(name.split(".")[1], {})[name.rsplit(".", 1)[1]] = None
    return "; ".join(
        f"{slot}: {', '.join(list(names)[:12])}{', ...' if len(names) > 12 else ''}" for slot, names in slots.items()
    )


def _heads(model: VTPModel, heads: list[str]) -> Iterator[tuple[str, bool]]:
    """Names of the parameters that are trained whole, each with whether it is trained at all."""
    for head in heads:
        under = [(n, p.requires_grad) for n, p in model.named_parameters() if n == head or n.startswith(f"{head}.")]
        if not under and head != "objectives":
            tops = sorted({".".join(name.split(".")[:2]) for name, _ in model.named_parameters()})
            raise ConfigError(f"train.lora.heads: no parameter starts with {head!r}. There are: {', '.join(tops)}.")
        yield from under
