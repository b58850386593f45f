"""Weights on disk: a folder that can be copied, read without unpickling, and loaded without the data it was trained on.

    model.safetensors   parameters and buffers, each tensor once; names that share a tensor are in the file's metadata
    config.json         the specification that the model is built from again, vtp's version, the plugins it needs
    provenance.json     whatever the run recorded about itself
    assets/             what parts keep beside tensors, for example assets/encoders/text/tokenizer.json

Loading is strict: everything that is missing, unknown or of another shape is listed, and nothing is skipped silently.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

import vtp
from vtp.contracts import Part, member
from vtp.errors import ConfigError, DataError, UserError
from vtp.model.adapters import (
    ADAPTERS,
    BASE,
    DESCRIPTION,
    described,
    merged,
    read_description,
    weights_hash,
    without_adapters,
)
from vtp.model.build import BuildContext, Lookup, build_model, shape_problem
from vtp.model.model import VTPModel
from vtp.model.vocabulary import misplaced

__all__ = [
    "LoadReport",
    "fill",
    "load_model",
    "load_weights",
    "read_config",
    "read_tensors",
    "save_description",
    "save_tensors",
    "save_weights",
]

log = logging.getLogger("vtp.model")

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
PROVENANCE = "provenance.json"
ASSETS = "assets"
_FORMAT = 1
_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar", ".th")


@dataclass(slots=True)
class LoadReport:
    """What :func:`load_weights` did.

    Attributes:
        loaded: names in the model that got a value.
        missing: names in the model that kept theirs, because the file has none (or, where allowed, one of another
            shape).
        unused: names in the file, after renaming, that the model does not have.
        reshaped: those of ``missing`` whose value in the file has another shape, with both shapes.
    """

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    reshaped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        parts += [f"{len(self.missing)} kept their own values: {_some(self.missing)}"] if self.missing else []
        parts += [f"{len(self.unused)} in the file not used: {_some(self.unused)}"] if self.unused else []
        return "; ".join(parts)


def save_weights(
    directory: Path | str,
    model: VTPModel,
    provenance: Mapping[str, Any] | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model into a folder. Not atomic by itself: write inside a :class:`vtp.storage.DirectoryTransaction`.

    Args:
        directory: made if it is not there.
        model: gives specification and assets, and the tensors unless ``state_dict`` is given.
        provenance: JSON-able facts about the run.
        state_dict: the whole tensors, where those of ``model`` are shards. Names that share a tensor are written once.
    """
    directory = Path(directory)
    save_description(directory, model, provenance)
    save_tensors(directory / WEIGHTS, model.state_dict() if state_dict is None else state_dict)


def save_tensors(file: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors into a file, those that are shared once."""
    tensors, aliases = _unshare(state)
    # One key: safetensors writes several in random order, and equal weights must be equal files.
    save_file(tensors, file, metadata={"aliases": json.dumps(aliases)} if aliases else {"format": "pt"})


def save_description(directory: Path, model: VTPModel, provenance: Mapping[str, Any] | None = None) -> None:
    """What :func:`save_weights` writes beside the tensors."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {"format": _FORMAT, "vtp": vtp.__version__, "plugins": _plugins(model), "spec": model.spec}
    _write(directory / CONFIG, config)
    _write(directory / PROVENANCE, dict(provenance or {}))
    for name, part in model.parts():
        save_assets = member(part, Part, "save_assets")
        if save_assets is not None:
            folder = directory / ASSETS / name.replace(".", "/", 1)
            folder.mkdir(parents=True, exist_ok=True)
            save_assets(folder)


def read_config(directory: Path | str) -> dict[str, Any]:
    """The content of ``config.json``.

    Raises:
        DataError: there is none, or it is not one of ours.
    """
    path = _folder(Path(directory)) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{path.parent} holds no {CONFIG}, so it is not a vtp checkpoint. Give the folder that holds {WEIGHTS} and "
            f"{CONFIG} (outputs/.../checkpoints/best); foreign checkpoints are converted with `vtp import`."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}). Copy the checkpoint again.") from error
    if not isinstance(config, dict) or not isinstance(config.get("spec"), dict):
        raise DataError(f"{path} has no model specification; it was not written by vtp.")
    if config.get("format") != _FORMAT:
        raise DataError(
            f"{path} has format {config.get('format')!r}, this vtp {vtp.__version__} reads format {_FORMAT}. "
            f"It was written by vtp {config.get('vtp')}: install that version."
        )
    encoders = config["spec"].get("encoders")
    wrong = shape_problem(config["spec"])
    if not wrong and not (isinstance(encoders, dict) and all(isinstance(e or {}, dict) for e in encoders.values())):
        wrong = "model: encoders must be a dict with the options of each"
    if wrong:
        raise DataError(f"{path} is damaged, or was not written by vtp: {wrong}.")
    return config


def load_model(directory: Path | str, lookup: Lookup) -> VTPModel:
    """Build the model of a checkpoint from its own files and fill it, strictly. Needs neither data nor network.

    Raises:
        DataError: the folder is damaged or incomplete, or a plugin that the model needs is not installed.
    """
    directory = _folder(Path(directory))
    config = read_config(directory)
    try:
        with _no_larger_than(_whole_file(directory)):
            model = build_model(config["spec"], lookup, BuildContext(assets=directory / ASSETS))
    except (UserError, RecursionError, TypeError, ValueError, OverflowError) as error:  # values of any kind, any depth
        written = config.get("plugins")
        plugins = [p for p in written if isinstance(p, dict)] if isinstance(written, list) else []
        wanted = ", ".join(f"{p.get('distribution')} {p.get('version')}" for p in plugins) or "nothing that it names"
        raise DataError(
            f"checkpoint {directory} cannot be built here (it was written with {wanted}): {error}"
        ) from error
    load_weights(directory, model)
    return model


def load_weights(
    directory: Path | str,
    model: VTPModel,
    *,
    init_map: Mapping[str, str] | None = None,
    allow_missing: Iterable[str] = (),
    allow_unused: Collection[str] = (),
    merge: bool = True,
) -> LoadReport:
    """Fill a model from a folder with ``model.safetensors``, or from such a file. Buffers count like parameters.

    Adapters (:mod:`vtp.model.adapters`) are merged into the weights that they were trained over: those beside them, or,
    where they came alone, those that the model has.

    Args:
        directory: the folder or file.
        model: filled in place; left untouched when an error is raised.
        init_map: prefix in the file -> prefix in the model, ``{"encoders.video": "encoders.image"}``; the longest that
            fits is taken. Onto ``""`` drops the prefix. Names without a fitting prefix keep theirs.
        allow_missing: patterns (``objectives.qa.*``) of names in the model that may keep their values, because the file
            lacks them or has another shape.
        allow_unused: patterns of names in the file that the model need not have; ``["*"]`` to take what fits from a
            larger model.
        merge: False leaves adapters out.

    Returns:
        What was loaded, missing and unused; also logged.

    Raises:
        DataError: the file is damaged, or anything is missing, unknown or of another shape beyond what was allowed;
            lists it. Or the words or answers behind the rows of a tensor are not those of the model, and the tensor is
            not among ``allow_missing``.
    """
    file = _weights_file(Path(directory))
    content = _over_base(file, model, merge) if described(file) else read_tensors(file)
    tensors = dict(_renamed(content, init_map or {}, file))
    allow_missing = list(allow_missing)
    for found in misplaced(model, file.parent, tensors):
        own = [names for names in found.names if any(_matches(name, allow_missing) for name in names)]
        if len(own) < len(found.names):
            rest = [names for names in found.names if names not in own]
            raise DataError(replace(found, names=rest).line("init_from"))
        tensors = {name: tensor for name, tensor in tensors.items() if not any(name in names for names in own)}
    advice = (
        "Load it into the model it was saved from; or, to start another model from it, rename with "
        "init_map={old: new} and accept new parts with init_allow_missing=[pattern]."
    )
    report = fill(model, tensors, file, allow_missing=allow_missing, allow_unused=allow_unused, advice=advice)
    log.info("%s: %s", file, report)
    return report


def fill(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    file: Path,
    *,
    allow_missing: Iterable[str] = (),
    allow_unused: Collection[str] = (),
    advice: str = "",
) -> LoadReport:
    """Fill a model strictly from tensors under its own names; arguments as for :func:`load_weights`.

    Args:
        file: where they come from, for messages.
        advice: what to do when they do not fit.

    Raises:
        DataError: as :func:`load_weights`; nothing was filled then.
    """
    report, pairs, problems = _match(tensors, model, list(allow_missing))
    unknown = [name for name in report.unused if not _matches(name, allow_unused)]
    problems += [f"{len(unknown)} tensors of the file are not in the model: {_some(unknown)}"] if unknown else []
    if problems:
        raise DataError("\n  ".join([f"{file} does not fit the model:", *problems]) + (advice and f"\n{advice}"))
    with torch.no_grad():
        for target, value in pairs:
            target.copy_(value)
    return report


def _match(
    tensors: Mapping[str, Tensor], model: nn.Module, allow_missing: list[str]
) -> tuple[LoadReport, list[tuple[Tensor, Tensor]], list[str]]:
    """Pair the tensors of a file with those of a model: report, (target, value) pairs to copy, what is wrong."""
    groups: dict[int, tuple[Tensor, list[str]]] = {}  # a tensor of the model and all its names
    for name, tensor in model.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), (tensor, []))[1].append(name)
    report = LoadReport()
    pairs: list[tuple[Tensor, Tensor]] = []
    problems: list[str] = []
    lacking: list[str] = []
    for target, names in groups.values():
        values = {name: tensors[name] for name in names if name in tensors}
        value = next(iter(values.values()), None)
        excused = any(_matches(name, allow_missing) for name in names)
        if value is None:
            report.missing += names
            lacking += [] if excused else names
        elif any(not torch.equal(value, other) for other in values.values()):
            problems.append(f"{' and '.join(values)} are one tensor in the model but differ in the file")
        elif value.shape == target.shape:
            pairs.append((target, value))
            report.loaded += names
        else:
            report.missing += names
            shapes = f"{tuple(value.shape)} in the file, {tuple(target.shape)} in the model"
            report.reshaped[names[0]] = shapes
            problems += [] if excused else [f"{names[0]} has shape {shapes}"]
    known = {name for _, names in groups.values() for name in names}
    report.unused = sorted(name for name in tensors if name not in known)
    problems += [f"{len(lacking)} tensors of the model are not in the file: {_some(lacking)}"] if lacking else []
    return report, pairs, problems


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a file on the CPU, under all their names."""
    try:
        with safe_open(file, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (safe_open is not a dict)
            aliases = json.loads((content.metadata() or {}).get("aliases", "{}"))
        if not isinstance(aliases, dict) or not all(isinstance(name, str) for name in aliases.values()):
            raise ValueError("its list of aliases is no dict of names")
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        size = file.stat().st_size if file.exists() else 0
        raise DataError(
            f"{file} ({size} bytes) cannot be read: {error}. It is truncated or no safetensors file; "
            "copy it again, or take an earlier checkpoint."
        ) from error
    tensors |= {alias: tensors[name] for alias, name in aliases.items() if name in tensors}
    return tensors


def _over_base(file: Path, model: nn.Module, merge: bool) -> dict[str, Tensor]:
    """The weights that adapters make of those that they were trained over."""
    about, own = read_description(file.parent), read_tensors(file)
    beside = file.parent.parent / BASE / WEIGHTS
    if beside.is_file():
        base, where = read_tensors(beside), str(beside)
    else:
        names = set(about["base"]["names"])
        base, where = {n: t for n, t in model.state_dict().items() if n in names}, "the weights of the model"
    found, wanted = weights_hash(base), str(about["base"]["sha256"])
    if found != wanted:
        raise DataError(
            f"{file} holds adapters, and {where} are not what they were trained over (sha256 {found[:12]}, expected "
            f"{wanted[:12]}). Put the folder {BASE}/ of their run at {beside.parent}, or start from the same weights."
        )
    log.info("%s: adapters over %s, the same that they were trained over (sha256 %s)", file, where, found[:12])
    return merged(base, own, about, file) if merge else without_adapters({**base, **own}, about["scales"])


@contextmanager
def _no_larger_than(file: Path) -> Iterator[None]:
    """Stop building a model that has many times the parameters of ``file``, while they are only asked for.

    A specification may say anything, such as ten million layers; the file that must fill the model says what there is.
    Much more is allowed, because some encoders build a whole model and keep a part of it.
    """
    try:
        with safe_open(file, framework="pt") as content:
            sizes = [math.prod(content.get_slice(name).get_shape()) for name in content.keys()]  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, OverflowError):  # told when it is read
        yield
        return
    most, largest = 16 * len(sizes) + 10_000, 16 * sum(sizes) + (1 << 27)
    made = values = 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal made, values
        if tensor is not None:
            made, values = made + 1, values + tensor.numel()
        if made > most or values > largest:
            raise ConfigError(
                f"its specification asks for over {made - 1:,} parameters with {values:,} numbers, and {file.name} has "
                f"{len(sizes):,} with {sum(sizes):,}. It is damaged, or meant to use up the memory."
            )

    handles = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _renamed(tensors: Mapping[str, Tensor], init_map: Mapping[str, str], file: Path) -> Iterator[tuple[str, Tensor]]:
    prefixes = sorted(init_map, key=len, reverse=True)
    used: set[str] = set()
    taken: dict[str, str] = {}
    for name, tensor in tensors.items():
        new = name
        for prefix in prefixes:
            rest = name.removeprefix(prefix)
            if prefix and rest != name and (rest == "" or rest[0] == "." or prefix.endswith(".")):
                used.add(prefix)
                new = (init_map[prefix] + rest).lstrip(".")
                break
        if new in taken:
            raise DataError(f"init_map gives {taken[new]} and {name} of {file} the same name {new}")
        taken[new] = name
        yield new, tensor
    idle = [prefix for prefix in prefixes if prefix not in used]
    if idle:
        heads = sorted({".".join(name.split(".")[:2]) for name in tensors})
        raise DataError(
            f"init_map: nothing in {file} starts with {', '.join(repr(p) for p in idle)}. "
            f"Names there start with: {_some(heads)}"
        )


def _unshare(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """One name per tensor, and other name -> that name. Tensors that merely overlap in memory become copies."""
    first: dict[tuple[Any, ...], str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    storages: set[int] = set()
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, str(tensor.device))
        if tensor.numel() and key in first:
            aliases[name] = first[key]
            continue
        first[key] = name
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.detach().clone() if storage in storages else tensor.detach().contiguous()
        storages.add(storage)
    return tensors, aliases


def _weights_file(path: Path) -> Path:
    if path.suffix in _PICKLES:
        raise DataError(
            f"{path} is a pickle by its name, and vtp never unpickles. Convert it with `vtp import NAME {path} FOLDER` "
            "(`vtp list importer` shows the formats)."
        )
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise DataError(f"{path}: there is no such file.")
        return path
    file = _folder(path) / WEIGHTS
    if not file.is_file() and (path / DESCRIPTION).is_file():
        file = path / ADAPTERS
    if not file.is_file():
        found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise DataError(f"{path} holds no {WEIGHTS} (it holds: {found}). Give the folder of one checkpoint.")
    return file


def _whole_file(folder: Path) -> Path:
    """The file that has about as many numbers as the model: of adapters that of their base."""
    file = _weights_file(folder)
    return folder.parent / BASE / WEIGHTS if described(file) else file


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder. A checkpoint is a folder with {WEIGHTS} and {CONFIG}.")
    return path


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _some(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _plugins(model: VTPModel) -> list[dict[str, str]]:
    """Distributions that the parts of a model come from."""
    packages = sorted({type(part).__module__.partition(".")[0] for _, part in model.parts()})
    found = {name: _distribution(name) for name in packages}
    return [{"package": name, "distribution": dist, "version": version} for name, (dist, version) in found.items()]


@lru_cache
def _distribution(package: str) -> tuple[str, str]:
    names = metadata.packages_distributions().get(package, [])
    if names:
        return names[0], metadata.version(names[0])
    if package.startswith("vtp_"):  # an editable install lists no files: built-in packages come with vtp itself
        return "vtp-core", vtp.__version__
    return package, "unknown"
