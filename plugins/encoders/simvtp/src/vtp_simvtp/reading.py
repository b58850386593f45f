"""Checkpoint files of other programs, read without unpickling anything but tensors and plain containers.

    .pth .pt .bin   {"model": ...}, {"module": ...}, {"state_dict": ...} or the bare dict
    .safetensors
    folder          of DeepSpeed (mp_rank_00_model_states.pt, also below checkpoint-best/ or the tag in `latest`) or of
                    transformers (config.json with model.safetensors or pytorch_model.bin)

``argparse.Namespace``, in which training scripts keep their options, is allow-listed. Anything else that would have to
be executed is refused: a checkpoint can carry a program.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtp.errors import DataError

__all__ = ["Checkpoint", "read_checkpoint"]

CONTAINERS = ("model", "module", "state_dict")
DEEPSPEED = "mp_rank_00_model_states.pt"
HUGGING_FACE = ("model.safetensors", "pytorch_model.bin")


@dataclass(slots=True)
class Checkpoint:
    """What was found in a file.

    Attributes:
        file: where the tensors were.
        tensors: by name, floating ones as float32.
        config: ``config.json`` beside a transformers model, else {}.
        notes: what was done to the names and values.
        dropped: entries that are no tensors, with the reason.
    """

    file: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Find and read the tensors below ``path``.

    Raises:
        DataError: there is no such file, it cannot be read safely, or it holds no tensors.
    """
    file = _file(Path(path).expanduser())
    notes: list[str] = []
    loaded = _safetensors(file) if file.suffix == ".safetensors" else _pickle(file)
    state, where = _state(loaded, file)
    if where:
        notes.append(f"tensors under {where!r}")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    dropped = {str(name): "not a tensor" for name, value in state.items() if not isinstance(value, Tensor)}
    if not tensors:
        raise DataError(f"{file} holds no tensors (keys: {_some(loaded)}). Give a file with the weights of a model.")
    for prefix in ("_orig_mod.", "module."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
            notes.append(f"prefix {prefix!r} removed")
    kinds = {value.dtype for value in tensors.values() if value.is_floating_point()} - {torch.float32}
    if kinds:
        notes.append(f"{', '.join(sorted(str(kind).removeprefix('torch.') for kind in kinds))} converted to float32")
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    return Checkpoint(file, tensors, _config(file), notes, dropped)


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path} does not exist. Give a checkpoint file, or the folder of DeepSpeed or transformers.")
    latest = path / "latest"
    tag = latest.read_text(encoding="utf-8").strip() if latest.is_file() else ""
    candidates = [path / DEEPSPEED, *(path / name for name in HUGGING_FACE)]
    candidates += [path / tag / DEEPSPEED] if tag else []
    candidates.append(path / "checkpoint-best" / DEEPSPEED)
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        below = sorted(str(p.relative_to(path)) for p in path.glob(f"*/{DEEPSPEED}"))
        hint = f" There are several below it: {', '.join(below)}; give the folder of one." if below else ""
        raise DataError(f"{path} holds neither {DEEPSPEED} nor {' nor '.join(HUGGING_FACE)}.{hint}")
    return found


def _pickle(file: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        text = str(error)
        unsafe = re.search(r"Unsupported global: GLOBAL (\S+)|Unsupported class (\S+)", text)
        if unsafe:
            name = unsafe[1] or unsafe[2]
            raise DataError(
                f"{file} holds the Python object {name}, which would have to be executed to be read; vtp does not do "
                f"that. "
                "Where you trust the file, load it with the program that wrote it and save its tensors alone: "
                "torch.save(model.state_dict(), 'weights.pth')."
            ) from error
        reason = " ".join(text.split())[:200]
        raise DataError(
            f"{file} is not a checkpoint that PyTorch can read ({type(error).__name__}: {reason})."
        ) from error


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file} is not a readable safetensors file ({error}). Copy it again.") from error


def _state(loaded: Any, file: Path) -> tuple[Mapping[str, Any], str]:
    """The dict of tensors inside what was loaded, and under which key it lay."""
    if not isinstance(loaded, Mapping):
        raise DataError(f"{file} holds a {type(loaded).__name__}, expected a dict of tensors.")
    for key in CONTAINERS:
        inner = loaded.get(key)
        if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
            return inner, key
    return loaded, ""


def _config(file: Path) -> dict[str, Any]:
    config = file.parent / "config.json"
    if not config.is_file() or file.name not in HUGGING_FACE:
        return {}
    try:
        found: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{config} is not valid JSON ({error}).") from error
    return found


def _some(mapping: Any) -> str:
    names = [str(name) for name in mapping]
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") or "none"
