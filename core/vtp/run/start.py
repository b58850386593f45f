"""The checkpoint that ``checkpoint=`` names, and what it says about the task."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vtp.errors import VtpError
from vtp.run.stages import configuration

__all__ = ["checkpoint_folder", "read_spec", "seed_everything", "take_objective"]

log = logging.getLogger("vtp")

_KEYS = ("objective", "rerank_objective", "embed_objective")


def checkpoint_folder(given: str | Path) -> Path:
    """The folder of the weights: of a run folder the best checkpoint, which its own report was about, or else the last.

    Raises:
        DataError: there is none, it is damaged, or ``best`` points at one that is not there: another one would give
            other numbers.
    """
    from vtp.train.checkpoint import locate

    best = Path(given) / "checkpoints" / "best"
    return locate(best if best.exists() or best.is_symlink() else given)


def take_objective(config: dict[str, Any], overrides: Sequence[str]) -> None:
    """Take ``task.objective`` (and ``task.rerank_objective``) from the configuration that the checkpoint was trained
    with, where the user names none: the objective of a model need not have the name that a task begins with.

    What the user says goes first: on the command line, or by an experiment, if the model has that objective.

    Args:
        config: resolved; changed in place.
        overrides: of the command line.
    """
    task = config.get("task")
    if config.get("checkpoint") is None or not isinstance(task, dict):
        return
    objectives, trained = _recorded(config["checkpoint"])
    zero_shot = trained.get("zero_shot")
    tasks = [trained, zero_shot if isinstance(zero_shot, dict) else {}]
    same = next((one for one in tasks if one.get("name") == task.get("name")), {})
    by_experiment = any(override.lstrip("+").startswith("experiment=") for override in overrides)
    for key in _KEYS:
        given = any(override.lstrip("+").startswith(f"task.{key}=") for override in overrides)
        kept = by_experiment and task.get(key) in objectives
        wanted = same.get(key)
        if key in task and not given and not kept and wanted in objectives and wanted != task[key]:
            log.info("task.%s=%s, as the checkpoint was trained", key, wanted)
            task[key] = wanted


def _recorded(checkpoint: str | Path) -> tuple[Sequence[str], dict[str, Any]]:
    """Objectives of the model and the node ``task`` that it was trained with; nothing where that cannot be read, which
    is told when the weights are."""
    from vtp.model.weights import read_config

    try:
        folder = checkpoint_folder(checkpoint)
        objectives = read_config(folder)["spec"].get("objectives") or {}
    except VtpError:
        return [], {}
    task = configuration(folder).get("task")
    return list(objectives), task if isinstance(task, dict) else {}


def read_spec(checkpoint: Path) -> dict[str, Any]:
    """The model specification of a checkpoint."""
    from vtp.model.weights import read_config

    spec: dict[str, Any] = read_config(checkpoint)["spec"]
    return spec


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
