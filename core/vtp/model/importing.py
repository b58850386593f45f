"""What importers of foreign checkpoints share: reading without executing anything, renaming by prefix, and the report.

An importer is a function that ``vtp import NAME FILE OUT`` calls; the parameters behind the path are its options. It
writes down the names of its parts, reads the sizes off the tensors, and says what it is not sure of::

    KEYS = PrefixTable((
        ("visual.patch_embed.", "encoders.video.patch_embed."),
        ("visual.", "encoders.video."),
        ("itm_head.", "objectives.vtm.head."),
    ))

    def import_mine(path: Path, *, heads: int | None = None) -> Imported:
        found = read_checkpoint(path)
        found.drop((name for name in found.tensors if name.endswith(".num_batches")), "counts batches")
        width = found.need("visual.blocks.0.norm1.weight").shape[0]
        video = {
            "name": "mine",
            "width": width,
            "depth": found.depth("visual.blocks."),
            "heads": found.heads("heads", heads, width),
        }
        spec = {"encoders": {"video": video}, "objectives": {"vtm": {"name": "vtm"}}, "variant": "released"}
        return found.imported("pre-trained Mine", spec, KEYS, missing={"objectives.vtm.scale": "new"})

``vtp import`` then builds the model that ``spec`` describes and fills it strictly: a tensor without a place, a place
without a tensor that ``missing`` (patterns) does not excuse, or another shape, is an error that lists all of them.

Files that are read::

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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from vtp.errors import DataError

__all__ = ["Checkpoint", "Imported", "PrefixTable", "read_checkpoint", "renames"]

T = TypeVar("T")
Import = TypeVar("Import", bound=Callable[..., object])

Imported = tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]
"""What an importer gives: the specification of the model, its tensors by name, and the report (see
:meth:`Checkpoint.imported`)."""

CONTAINERS = ("model", "module", "state_dict")
DEEPSPEED = "mp_rank_00_model_states.pt"
HUGGING_FACE = ("model.safetensors", "pytorch_model.bin")
HEAD_WIDTH = 64  # of ViT-S, B and L and of BERT


def renames(**options: str) -> Callable[[Import], Import]:
    """Options that an importer had before, and what to write now: ``@renames(legacy="variant=released")``."""

    def decorate(importer: Import) -> Import:
        vars(importer)["renamed"] = options
        return importer

    return decorate


@dataclass(frozen=True, slots=True)
class PrefixTable:
    """Names of parameters: theirs on one side, those of a vtp model on the other.

    Attributes:
        pairs: (their prefix, ours); the first that fits counts. One that ends with a dot, and "", stand for every name
            that starts with them, another one for itself alone.
    """

    pairs: tuple[tuple[str, str], ...]

    def ours(self, name: str) -> str | None:
        """The vtp name of one of their tensors; None if it has no place."""
        return _replace(name, self.pairs)

    def theirs(self, name: str) -> str | None:
        """The way back."""
        # longest first: our prefixes may nest where theirs do not
        return _replace(name, sorted(((new, old) for old, new in self.pairs), key=lambda pair: -len(pair[0])))

    def to_ours(self, state: Mapping[str, T]) -> tuple[dict[str, T], list[str]]:
        """Rename a whole state_dict; also gives the names that have no place."""
        renamed = {name: self.ours(name) for name in state}
        return {new: state[name] for name, new in renamed.items() if new is not None}, _without(renamed)

    def to_theirs(self, state: Mapping[str, T]) -> tuple[dict[str, T], list[str]]:
        """The way back of a whole state_dict."""
        renamed = {name: self.theirs(name) for name in state}
        return {new: state[name] for name, new in renamed.items() if new is not None}, _without(renamed)


@dataclass(slots=True)
class Checkpoint:
    """What was found in a file, and what becomes of it.

    Attributes:
        file: where the tensors were.
        tensors: by name, floating ones as float32.
        config: ``config.json`` beside a transformers model, else {}.
        notes: what was done to the names and values.
        dropped: entries that are not used, with the reason.
    """

    file: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)

    def need(self, name: str) -> Tensor:
        """A tensor that must be there.

        Raises:
            DataError: it is not.
        """
        if name not in self.tensors:
            raise DataError(f"{self.file}: the checkpoint is not whole: it lacks {name}.")
        return self.tensors[name]

    def drop(self, names: Iterable[str], reason: str) -> None:
        """Leave tensors out; the report says why."""
        for name in list(names):
            del self.tensors[name]
            self.dropped[name] = reason

    def depth(self, prefix: str) -> int:
        """Number of blocks whose tensors are ``prefix`` (``encoder.blocks.``), a number and a dot; 0 for none."""
        numbers = (name.removeprefix(prefix).split(".")[0] for name in self.tensors if name.startswith(prefix))
        return 1 + max((int(number) for number in numbers if re.fullmatch("[0-9]{1,9}", number)), default=-1)

    def heads(self, option: str, given: int | None, width: int) -> int:
        """Number of attention heads, which shapes do not tell: as given, else 64 channels each.

        Args:
            option: name of the importer's option, for the message.
            given: its value, or what a configuration says.
            width: D.

        Raises:
            DataError: the width does not tell, or the heads do not divide it.
        """
        if given is None and width % HEAD_WIDTH:
            raise DataError(
                f"{self.file}: a width of {width} does not tell the number of attention heads ({HEAD_WIDTH} channels "
                f"each is the rule of ViT-S, B and L). Say it: {option}=..."
            )
        heads = int(given or width // HEAD_WIDTH)
        if width % heads:
            raise DataError(f"{self.file}: {option}={heads} does not divide the width {width}.")
        return heads

    def imported(
        self, kind: str, spec: dict[str, Any], keys: PrefixTable, missing: Mapping[str, str] | None = None
    ) -> Imported:
        """Rename what is left, and put the report together.

        Args:
            kind: what was recognised, in words.
            spec: the vtp model. A tensor of an encoder or objective that it does not have is dropped.
            keys: their names and ours.
            missing: patterns of our names that the file lacks, with the reason.

        Returns:
            ``spec``, tensors by our names, and the report: ``kind``, ``file``, ``used`` (theirs -> ours), ``dropped``
            and ``missing`` (with the reason), ``notes``.
        """
        used = {name: ours for name in self.tensors if (ours := keys.ours(name)) is not None and _in(spec, ours)}
        dropped = self.dropped | {name: "no part of the model" for name in self.tensors if name not in used}
        state = {ours: self.tensors[name] for name, ours in used.items()}
        report = {
            "kind": kind,
            "file": str(self.file),
            "used": used,
            "dropped": dropped,
            "missing": dict(missing or {}),
            "notes": self.notes,
        }
        return spec, state, report


def _in(spec: Mapping[str, Any], name: str) -> bool:
    """Whether the model has the part, ``encoders.video``, that a tensor belongs to."""
    section, part, _ = name.split(".", 2)
    return part in spec[section]


def _replace(name: str, pairs: Iterable[tuple[str, str]]) -> str | None:
    for old, new in pairs:
        if name == old or ((not old or old.endswith(".")) and name.startswith(old)):
            return new + name[len(old) :]
    return None


def _without(renamed: Mapping[str, str | None]) -> list[str]:
    return [name for name, new in renamed.items() if new is None]


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
    tag = _tag(latest) if latest.is_file() else ""
    candidates = [path / DEEPSPEED, *(path / name for name in HUGGING_FACE)]
    candidates += [path / tag / DEEPSPEED] if tag else []
    candidates.append(path / "checkpoint-best" / DEEPSPEED)
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        below = sorted(str(p.relative_to(path)) for p in path.glob(f"*/{DEEPSPEED}"))
        hint = f" There are several below it: {', '.join(below)}; give the folder of one." if below else ""
        raise DataError(f"{path} holds neither {DEEPSPEED} nor {' nor '.join(HUGGING_FACE)}.{hint}")
    return found


def _tag(latest: Path) -> str:
    """The folder beside it that DeepSpeed's ``latest`` names."""
    try:
        tag = latest.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise DataError(f"{latest} cannot be read ({error}). Give the folder that it should name.") from error
    if not tag or Path(tag).name != tag or not tag.isprintable() or len(tag) > 200:
        raise DataError(f"{latest} should name a folder beside it, and holds {tag[:80]!r}. Give that folder itself.")
    return tag


def _pickle(file: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        text = str(error)
        unsafe = re.search(r"GLOBAL (\S+)|Unsupported class (\S+)", text)  # torch has several sentences
        if unsafe:
            name = unsafe[1] or unsafe[2]
            raise DataError(
                f"{file} holds the Python object {name}, which would have to be executed to be read; vtp does not do "
                "that. Where you trust the file, load it with the program that wrote it and save its tensors alone: "
                "torch.save(model.state_dict(), 'weights.pth')."
            ) from error
        found = re.search(r"WeightsUnpickler error: ([^\n]*)", text)  # what precedes it advises to execute the file
        reason = " ".join((found[1] if found else text.partition("Weights only load failed")[0]).split())[:200]
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
        found = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{config} is not valid JSON ({error}).") from error
    if not isinstance(found, dict):
        raise DataError(f"{config} holds a {type(found).__name__}, expected a dict: the configuration of transformers.")
    return found


def _some(mapping: Any) -> str:
    names = [str(name) for name in mapping]
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") or "none"
