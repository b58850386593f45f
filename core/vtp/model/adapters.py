"""Adapters on disk: what low-rank adaptation (LoRA, arXiv:2106.09685) trained, apart from the weights it left alone.

    checkpoints/
      base/model.safetensors              the frozen weights, once per run
      step_00000120/adapters.safetensors  adapters, trained heads and buffers
      step_00000120/adapters.json         options, scale per layer, names and hash of the frozen weights

Whoever reads the folder gets plain weights, W + scale * B A, so nothing here needs peft; training does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtp.errors import DataError

__all__ = [
    "ADAPTERS",
    "BASE",
    "DESCRIPTION",
    "Adapted",
    "described",
    "merged",
    "on_disk",
    "read_description",
    "weights_hash",
    "without_adapters",
]

ADAPTERS = "adapters.safetensors"
DESCRIPTION = "adapters.json"
BASE = "base"  # beside the checkpoints
_FORMAT = 1


@dataclass
class Adapted:
    """What was done to a model.

    Attributes:
        options: of ``train.lora``.
        scales: layer -> factor of its B A.
        transposed: layers whose weight is (in, out) instead of (out, in).
        frozen: names in the model of parameters that are not trained.
        sha256: :func:`weights_hash` of those.
        merge: whether checkpoints hold merged weights as well.
    """

    options: dict[str, Any]
    scales: dict[str, float]
    transposed: list[str]
    frozen: frozenset[str]
    sha256: str
    merge: bool = False

    def trained(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is not frozen of a state dict of the model, under its names on disk."""
        return {on_disk(name): tensor for name, tensor in state.items() if name not in self.frozen}

    def base(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is frozen of it, under the names that it had before."""
        return {on_disk(name): tensor for name, tensor in state.items() if name in self.frozen}

    def description(self) -> dict[str, Any]:
        """The content of adapters.json."""
        return {
            "format": _FORMAT,
            "lora": self.options,
            "scales": self.scales,
            "transposed": self.transposed,
            "base": {"sha256": self.sha256, "names": sorted(map(on_disk, self.frozen))},
        }


def on_disk(name: str) -> str:
    """``x.base_layer.weight`` -> ``x.weight``, ``x.lora_A.default.weight`` -> ``x.lora_A.weight``."""
    name = name.replace(".base_layer.", ".")
    return name.replace(".lora_A.default.", ".lora_A.").replace(".lora_B.default.", ".lora_B.")


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and values, in the order of the names; equal for equal weights, wherever they
    lie."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def described(file: Path) -> bool:
    """Whether a file of tensors holds adapters alone: it, or its average, lies beside adapters.json."""
    return file.name != "model.safetensors" and (file.parent / DESCRIPTION).is_file()


def read_description(folder: Path) -> dict[str, Any]:
    """The content of adapters.json.

    Raises:
        DataError: it cannot be read, or is none of ours.
    """
    file = folder / DESCRIPTION
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        whole = found["format"] == _FORMAT and all(isinstance(s, (int, float)) for s in found["scales"].values())
        whole = whole and isinstance(found["base"]["sha256"], str) and isinstance(found["lora"], dict)
        whole = whole and all(isinstance(n, str) for n in [*found["base"]["names"], *found["transposed"]])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{file} cannot be read ({error}). Copy the adapters again.") from error
    if not whole:
        raise DataError(f"{file} describes no adapters of this version. Copy them again, or install a newer vtp.")
    return dict(found)


def merged(
    base: Mapping[str, Tensor], own: Mapping[str, Tensor], about: Mapping[str, Any], file: Path
) -> dict[str, Tensor]:
    """Plain weights: W + scale * B A, in float32, for each adapted layer; heads and buffers as they are.

    Args:
        base: the frozen weights.
        own: the content of adapters.safetensors.
        about: of adapters.json.
        file: for messages.

    Raises:
        DataError: an adapter fits no weight, or a weight lacks one.
    """
    found = {**base, **own}
    transposed = set(about["transposed"])
    for layer, scale in about["scales"].items():
        down, up = found.pop(f"{layer}.lora_A.weight", None), found.pop(f"{layer}.lora_B.weight", None)
        weight = found.get(f"{layer}.weight")
        if down is None or up is None or weight is None:
            raise DataError(f"{file}: the adapter of {layer}, or the weight that it belongs to, is not there.")
        try:
            change = up.float() @ down.float()
            change = change.T if layer in transposed else change
            found[f"{layer}.weight"] = (weight.float() + float(scale) * change).to(weight.dtype)
        except RuntimeError as error:
            shapes = f"{tuple(up.shape)} x {tuple(down.shape)} for {tuple(weight.shape)}"
            raise DataError(f"{file}: the adapter of {layer} does not fit its weight ({shapes}).") from error
    return found


def without_adapters(tensors: Mapping[str, Tensor], layers: Collection[str]) -> dict[str, Tensor]:
    """The tensors without the adapters of ``layers``."""
    adapters = {f"{layer}.lora_{side}.weight" for layer in layers for side in "AB"}
    return {name: tensor for name, tensor in tensors.items() if name not in adapters}
