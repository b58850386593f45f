"""Checkpoints: folders that hold everything a run needs to go on, found and read without unpickling anything.

    checkpoints/
      base/model.safetensors   frozen weights, with train.lora (vtp.model.adapters)
      step_00000120/
        model.safetensors config.json provenance.json assets/    the weights, loadable on their own (vtp.model.weights)
        ema.safetensors        averaged weights, with train.ema_decay
        optimizer.safetensors  "<parameter>.exp_avg", ... per parameter
        trainer.json           step, samples, options, evaluations, ...
        rng.json               generators per process
        manifest.json          size and sha256 of each file
      best -> step_00000080    link, or a one-line file where links are not possible
      last -> step_00000120

Tensors are whole whatever the strategy, so that any number of processes can read them.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vtp import distributed
from vtp.errors import DataError, RunError, VtpError
from vtp.model.adapters import ADAPTERS, BASE, DESCRIPTION, on_disk
from vtp.options import as_model
from vtp.storage import MANIFEST, DirectoryTransaction, clean_leftovers, verify_directory, write_text_atomic
from vtp.train.adapter_files import SLACK, load_adapters, save_adapters, save_base, size_of, some
from vtp.train.ema import Average
from vtp.train.parallel import Parallel, full_tensor, shard_like

__all__ = [
    "EVALUATIONS",
    "borrow",
    "dangling",
    "find",
    "folder_name",
    "later_than",
    "load",
    "load_weights",
    "locate",
    "mark",
    "newest",
    "prune",
    "read_evaluations",
    "read_rng",
    "restore_rng",
    "rng_state",
    "save",
    "set_aside",
    "unmark",
]

log = logging.getLogger("vtp.train")
EVALUATIONS = "evaluations.json"  # in the run folder: evaluations come after the checkpoint that they judge
_NAME = re.compile(r"^step_(\d{8,})$")
_PARTS = ("config.json", "optimizer.safetensors", "trainer.json", "rng.json")
_POINTER_BYTES = 4096


def folder_name(step: int) -> str:
    """Name of the checkpoint folder of a step."""
    return f"step_{step:08d}"


def save(
    folder: Path,
    parallel: Parallel,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    trainer: dict[str, Any],
    provenance: dict[str, Any],
) -> Path:
    """Write ``folder / step_...`` and point ``last`` at it. All ranks call it; rank 0 writes, and a failure there is
    raised on all.

    Raises:
        RunError: the disk is full or the new folder does not read back; what was there before is untouched.
    """
    generators = distributed.gather_objects(rng_state())
    state = parallel.full_state()
    averaged = parallel.full_state(average.tensors) if average is not None else None
    moments = _optimizer_tensors(parallel, optimizer)
    path = folder / folder_name(trainer["step"])
    failure: VtpError | None = None
    if distributed.is_main():
        from vtp.model.weights import save_weights

        adapted = parallel.model.adapted
        if adapted is not None and averaged is not None:
            averaged = adapted.trained(averaged)
        kept = state if adapted is None else adapted.trained(state)
        needed = sum(map(size_of, (kept, averaged or {}, moments))) + SLACK
        try:
            if adapted is not None:
                save_base(folder, adapted, state)
            with DirectoryTransaction(path, expected_bytes=needed) as temporary:
                if adapted is None:
                    save_weights(temporary, parallel.model, provenance, state_dict=state)
                else:
                    save_adapters(temporary, parallel.model, adapted, state, provenance)
                if averaged is not None:
                    save_file(_unshared(averaged), temporary / "ema.safetensors")
                save_file(moments, temporary / "optimizer.safetensors")
                (temporary / "trainer.json").write_text(json.dumps(trainer, indent=2), encoding="utf-8")
                (temporary / "rng.json").write_text(json.dumps(generators), encoding="utf-8")
            reason = verify_directory(path)
            if reason is not None:
                raise RunError(
                    f"checkpoint {path} does not read back: {reason}. Check the disk; earlier ones are untouched."
                )
            mark(folder, "last", path)
        except VtpError as error:
            failure = error
    failure = distributed.broadcast_object(failure)
    if failure is not None:
        raise failure
    return path


def load(path: Path, parallel: Parallel, optimizer: torch.optim.Optimizer, average: Average | None) -> dict[str, Any]:
    """Restore weights, optimizer and average from a verified folder; gives the content of trainer.json.

    Raises:
        DataError: the checkpoint belongs to another model, or lacks something. Nothing is skipped silently.
    """
    from vtp.model.vocabulary import misplaced

    try:
        trainer: dict[str, Any] = json.loads((path / "trainer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"checkpoint {path} holds no training state ({error}). "
            f"To start a new run from its weights, use init_from={path}."
        ) from error
    if found := misplaced(parallel.model, path, parallel.model.state_dict(keep_vars=True)):
        raise DataError(f"resume: {found[0].line('resume')}")
    load_weights(path, parallel)
    if average is not None:
        _load_average(path, parallel, average, trainer)
    _load_optimizer(path, parallel, optimizer)
    return trainer


def load_weights(path: Path, parallel: Parallel, averaged: bool = False) -> None:
    """Fill the model with the weights of a checkpoint, strictly; ``averaged`` takes ema.safetensors.

    Raises:
        DataError: names what is missing, superfluous or of another shape.
    """
    if parallel.model.adapted is not None:
        load_adapters(path, parallel, averaged)
        return
    if not averaged and (path / DESCRIPTION).is_file():
        raise DataError(
            f"{path} was trained with train.lora, and this run has none. Resume with the options of the run that wrote "
            "it, or start a new run from it with init_from."
        )
    file = path / ("ema.safetensors" if averaged else "model.safetensors")
    try:
        with safe_open(file, framework="pt") as tensors:
            names = set(tensors.keys())
            missing = parallel.load_full_state(lambda name: tensors.get_tensor(name) if name in names else None)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    except ValueError as error:
        raise DataError(f"{file} belongs to another model: {error}.") from error
    superfluous = sorted(names - set(parallel.model.state_dict(keep_vars=True)))
    if missing or superfluous:
        raise DataError(
            f"{file} belongs to another model: {some(missing)} missing there, {some(superfluous)} unknown here. "
            "Resume with the options of the run that wrote it, or start a new run with init_from."
        )


def locate(path: Path | str) -> Path:
    """The checkpoint folder that a user names: itself, a ``best``/``last`` pointer, a checkpoints folder or a run
    folder.

    Of a folder with several checkpoints the newest valid one is taken.

    Raises:
        DataError: there is none, or the named one is damaged.
    """
    given = Path(path)
    if given.is_file():
        given = _pointed_at(given)
    elif given.is_symlink() and not given.exists():
        raise DataError(dangling(given))
    for folder in (given / "checkpoints", given):
        if folder.is_dir() and _steps(folder):
            found = newest(folder)
            if found is None:
                raise DataError(f"{folder}: none of its checkpoints is complete.")
            return found
    if not given.is_dir():
        raise DataError(
            f"{given}: no such checkpoint. Give a run folder, or a folder like .../checkpoints/step_00000120."
        )
    reason = verify_directory(given)
    ours = (given / MANIFEST).exists() or (given / "provenance.json").exists()
    if not ours and (given / "config.json").is_file():
        raise DataError(
            f"{given} is no checkpoint of vtp (it has no {MANIFEST}). The folder of a model that transformers saved is "
            f"named as the model of an encoder: {as_model(given)}"
        )
    if not ours and not any(given.glob("*.safetensors")):
        raise DataError(f"{given}: no checkpoint is in it. Give a run folder, or one like .../checkpoints/best.")
    if reason is not None:
        raise DataError(f"checkpoint {given} is damaged: {reason}. resume=auto takes the newest complete one.")
    return given.resolve()


def _pointed_at(file: Path) -> Path:
    """The folder that a pointer names where links are not possible: a file of one line."""
    if file.suffix == ".safetensors":
        raise DataError(f"{file} is a file of weights alone. Give the folder that it lies in, or use init_from={file}.")
    text = file.read_bytes()[:_POINTER_BYTES].decode("utf-8", errors="replace").strip()
    target = file.parent / text
    if not text.isprintable() or len(text) >= _POINTER_BYTES or not text or not target.is_dir():
        raise DataError(
            f"{file} is a file: neither a checkpoint, which is a folder, nor a pointer to one. Give a run folder, or a "
            "folder like .../checkpoints/best."
        )
    return target


def dangling(pointer: Path) -> str:
    """What is said of ``best`` or ``last`` when the checkpoint that it names is not there."""
    there = ", ".join(path.name for _, path in sorted(_steps(pointer.parent).items())) or "none"
    return (
        f"{pointer} points at {os.readlink(pointer)}, which is not there: it was moved, deleted, or left where the run "
        f"was continued from. Name a checkpoint ({pointer.parent} holds: {there})."
    )


def find(folder: Path, wanted: Path | str) -> Path | None:
    """The checkpoint that a run goes on from. All ranks call it; rank 0 looks, and removes what killed writers left.

    Args:
        folder: of the run's own checkpoints.
        wanted: ``auto`` for the newest complete one there, or what :func:`locate` takes.

    Returns:
        None if ``auto`` finds none.

    Raises:
        DataError: the named one is damaged or not there; ``auto`` finds damaged ones alone.
    """
    found, error = None, None
    if distributed.is_main():
        try:
            clean_leftovers(folder)
            found = newest(folder, repair=True) if str(wanted) == "auto" else locate(wanted)
            if found is None and (broken := sorted(folder.glob("step_*.broken"))):
                raise DataError(
                    f"resume=auto: no checkpoint in {folder} is whole ({', '.join(path.name for path in broken)}). "
                    "Copy one back and take .broken off its name; to start from the beginning, choose another run_dir "
                    "or delete them."
                )
        except VtpError as failure:
            error = failure
    found, error = distributed.broadcast_object((found, error))
    if error is not None:
        raise error
    return found


def newest(folder: Path, repair: bool = False) -> Path | None:
    """The newest complete checkpoint in ``folder``, or None. Damaged ones on the way are named in a warning.

    Args:
        repair: rename damaged ones to ``*.broken``, so that they do not count among those that are kept. For the one
            process that writes into ``folder``.
    """
    for _, path in sorted(_steps(folder).items(), reverse=True):
        reason = verify_directory(path) or _lacking(path)
        if reason is None:
            return path
        log.warning("checkpoint %s is damaged: %s. Falling back to the one before it.", path, reason)
        if repair:
            set_aside(path, "broken")
    return None


def _lacking(path: Path) -> str | None:
    """What a whole checkpoint has and this one does not even list."""
    weights = ADAPTERS if (path / DESCRIPTION).is_file() else "model.safetensors"
    absent = [name for name in (weights, *_PARTS) if not (path / name).is_file()]
    return f"{absent[0]} is missing" if absent else None


def later_than(folder: Path, step: int) -> list[Path]:
    """Checkpoints in ``folder`` of later steps, in order."""
    return [path for number, path in sorted(_steps(folder).items()) if number > step]


def set_aside(path: Path, why: str) -> None:
    """Rename a checkpoint to ``<name>.<why>``: nothing is lost, and it counts no more."""
    aside = path.with_name(f"{path.name}.{why}")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(path, aside)


def borrow(folder: Path, step: int, origin: Path) -> bool:
    """Take the checkpoint of ``step`` over from another run, which may move or be pruned: by hard links, or as a copy
    where those are not possible. False if it is not there any more, or is damaged."""
    source, target = origin / folder_name(step), folder / folder_name(step)
    if not source.is_dir() and (origin / "best").resolve().name == source.name:  # itself taken from elsewhere
        source = (origin / "best").resolve()
    if target.exists() or verify_directory(source) is not None:
        return target.exists()
    half = folder / f".{target.name}.000000000000.tmp"
    shutil.rmtree(half, ignore_errors=True)
    try:
        shutil.copytree(source, half, copy_function=_linked)
    except OSError as error:
        shutil.rmtree(half, ignore_errors=True)
        log.warning("%s cannot be taken over: %s", source, error)
        return False
    os.rename(half, target)
    if (origin / BASE).is_dir() and not (folder / BASE).exists():
        shutil.copytree(origin / BASE, folder / BASE, copy_function=_linked)
    return True


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def mark(folder: Path, name: str, target: Path) -> None:
    """Point ``folder / name`` (best, last) at a checkpoint, atomically."""
    text = target.name if target.parent.resolve() == folder.resolve() else str(target.resolve())
    if (folder / name).is_dir() and not (folder / name).is_symlink():
        unmark(folder, name)
    temporary = folder / f".{name}.pointer"
    temporary.unlink(missing_ok=True)
    try:
        os.symlink(text, temporary)
    except OSError:  # a file system without links
        write_text_atomic(folder / name, text + "\n")
        return
    os.replace(temporary, folder / name)


def unmark(folder: Path, name: str) -> None:
    """Take a pointer away. A real folder in its place, left by a copy that followed the links, is set aside."""
    if (folder / name).is_dir() and not (folder / name).is_symlink():
        set_aside(folder / name, "copied")
    else:
        (folder / name).unlink(missing_ok=True)


def prune(folder: Path, keep: int | None, best: Path | None) -> None:
    """Delete all but the ``keep`` newest checkpoints and the best one. Call it when the newest has been verified."""
    if keep is None:
        return
    steps = _steps(folder)
    for step in sorted(steps, reverse=True)[keep:]:
        if best is None or steps[step].name != best.name:
            doomed = folder / f".{steps[step].name}.000000000000.tmp"  # half deleted it must not look like a checkpoint
            shutil.rmtree(doomed, ignore_errors=True)
            os.rename(steps[step], doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def _steps(folder: Path) -> dict[int, Path]:
    found = {}
    for entry in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.match(entry.name)
        if match and entry.is_dir() and not entry.is_symlink():
            found[int(match[1])] = entry
    return found


def rng_state() -> dict[str, Any]:
    """State of all generators of this process as JSON: torch on the CPU and the GPU, Python, NumPy."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {
        "torch": _encode(torch.get_rng_state()),
        "cuda": None if cuda is None else _encode(cuda),
        "python": [version, list(words), gauss],
        "numpy": [np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Put the generators of this process into a state of :func:`rng_state`."""
    torch.set_rng_state(_decode(state["torch"]))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(_decode(state["cuda"]))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))


def read_rng(path: Path) -> list[dict[str, Any]]:
    """State of the generators per process, as they were saved."""
    states: list[dict[str, Any]] = json.loads((path / "rng.json").read_text(encoding="utf-8"))
    return states


def read_evaluations(path: Path, trainer: dict[str, Any]) -> list[dict[str, Any]]:
    """Evaluations up to the step of a checkpoint: those it knew, and its own, which the run folder holds."""
    known: dict[int, dict[str, Any]] = {entry["step"]: entry for entry in trainer["evaluations"]}
    beside = path.parent.parent / EVALUATIONS
    try:
        for entry in json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else ():
            if entry["step"] == trainer["step"]:
                known[entry["step"]] = {"step": entry["step"], "metrics": dict(entry["metrics"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s cannot be read (%s); the evaluation of step %d is repeated", beside, error, trainer["step"])
    return [known[step] for step in sorted(known)]


def _encode(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _decode(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def _optimizer_tensors(parallel: Parallel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, parameter in parallel.parameters:
        for key, value in optimizer.state.get(parameter, {}).items():
            whole = full_tensor(value)
            if distributed.is_main():
                tensors[f"{name}.{key}"] = whole
    return tensors


def _load_optimizer(path: Path, parallel: Parallel, optimizer: torch.optim.Optimizer) -> None:
    file = path / "optimizer.safetensors"
    parameters = dict(parallel.parameters)
    optimizer.state.clear()
    try:
        with safe_open(file, framework="pt") as tensors:
            for full_name in tensors.keys():  # noqa: SIM118 (safe_open is not a dict)
                name, key = full_name.rsplit(".", 1)
                if name not in parameters:
                    raise DataError(
                        f"{file}: {name} was trained there and is not here (frozen, or another model). "
                        "Resume with the options of the run that wrote it, or start a new run with init_from."
                    )
                value = tensors.get_tensor(full_name)
                target = parameters[name]
                optimizer.state[target][key] = (
                    shard_like(value, target.detach()) if value.ndim else value.to(target.device)
                )
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def _load_average(path: Path, parallel: Parallel, average: Average, trainer: dict[str, Any]) -> None:
    file = path / "ema.safetensors"
    if not file.exists():
        raise DataError(
            f"{file} is missing, but train.ema_decay is set. Resume with train.ema_decay=null, as the run was started."
        )
    with safe_open(file, framework="pt") as tensors:
        for name, target in average.tensors.items():
            target.copy_(shard_like(tensors.get_tensor(on_disk(name)), target))
    average.updates = trainer["ema_updates"]


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with one name per tensor; safetensors refuses tensors that share memory."""
    first: dict[int, str] = {}
    return {name: tensor for name, tensor in state.items() if first.setdefault(id(tensor), name) == name}
