"""Checkpoints of a run with ``train.lora``: what is trained in each, the frozen weights once beside them.

:mod:`vtp.model.adapters` has the format, :mod:`vtp.train.checkpoint` everything that checkpoints have in common.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vtp.errors import DataError
from vtp.model.adapters import (
    ADAPTERS,
    BASE,
    DESCRIPTION,
    Adapted,
    merged,
    on_disk,
    read_description,
    weights_hash,
)
from vtp.storage import DirectoryTransaction
from vtp.train.parallel import Parallel

if TYPE_CHECKING:
    from vtp.model.model import VTPModel

__all__ = ["SLACK", "load_adapters", "save_adapters", "save_base", "size_of", "some"]

log = logging.getLogger("vtp.train")
SLACK = 1 << 20  # bytes for the small files: configuration, tokenizer, generators


def save_base(folder: Path, adapted: Adapted, state: Mapping[str, Tensor]) -> None:
    """Write the frozen weights, unless they are there."""
    from vtp.model.weights import WEIGHTS, save_tensors

    base = adapted.base(state)
    told = folder / BASE / "sha256"
    if told.is_file() and told.read_text(encoding="utf-8") == adapted.sha256 and (folder / BASE / WEIGHTS).is_file():
        return
    with DirectoryTransaction(folder / BASE, expected_bytes=size_of(base) + SLACK) as temporary:
        save_tensors(temporary / WEIGHTS, base)
        (temporary / "sha256").write_text(adapted.sha256, encoding="utf-8")


def save_adapters(
    folder: Path, model: VTPModel, adapted: Adapted, state: Mapping[str, Tensor], provenance: dict[str, Any]
) -> None:
    """Write what is trained, and with train.lora.merge the whole model as well."""
    from vtp.model.weights import WEIGHTS, save_description, save_tensors

    own, about = adapted.trained(state), adapted.description()
    save_description(folder, model, provenance)
    save_tensors(folder / ADAPTERS, own)
    (folder / DESCRIPTION).write_text(json.dumps(about, indent=2), encoding="utf-8")
    if adapted.merge:
        save_tensors(folder / WEIGHTS, merged(adapted.base(state), own, about, folder / ADAPTERS))


def load_adapters(path: Path, parallel: Parallel, averaged: bool = False) -> None:
    """Fill a model that has adapters with those of a checkpoint, strictly, and its frozen weights with those that they
    were trained over.

    Raises:
        DataError: names what is missing, superfluous or of another shape, or the base is not there and not the model's.
    """
    from vtp.model.weights import WEIGHTS, read_tensors

    adapted = parallel.model.adapted
    assert adapted is not None
    if not (path / DESCRIPTION).is_file():
        raise DataError(
            f"{path} was trained without train.lora, and this run has it. Resume with the options of the run that "
            "wrote it, or start a new run from it with init_from."
        )
    file = path / ("ema.safetensors" if averaged else ADAPTERS)
    about, own, base = read_description(path), read_tensors(file), path.parent / BASE / WEIGHTS
    wanted = about["base"]["sha256"]
    if others := [name for name, s in adapted.scales.items() if name in about["scales"] and s != about["scales"][name]]:
        raise DataError(
            f"{file} belongs to another model: its adapters were trained times {about['scales'][others[0]]:g} (alpha / "
            f"rank), and here they count times {adapted.scales[others[0]]:g}. Resume with train.lora.alpha of the run "
            "that wrote it, or start a new run from it with init_from."
        )
    frozen: dict[str, Tensor] = {}
    if adapted.sha256 != wanted:
        if not base.is_file() or weights_hash(frozen := read_tensors(base)) != wanted:
            raise DataError(
                f"{file}: the frozen weights of the model are not those that the adapters were trained over (sha256 "
                f"{adapted.sha256[:12]}, expected {wanted[:12]}), and {base} does not hold them."
            )
        log.info("%s: its frozen weights come from %s", file, base)
        adapted.sha256 = wanted
    names = {name: on_disk(name) for name in parallel.model.state_dict(keep_vars=True)}
    try:
        tensors = {**frozen, **own}
        missing = parallel.load_full_state(lambda name: tensors.get(names[name]))
    except ValueError as error:
        raise DataError(f"{file} belongs to another model: {error}.") from error
    missing = [name for name in missing if frozen or name not in adapted.frozen]
    superfluous = sorted(set(own) - set(names.values()))
    if missing or superfluous:
        raise DataError(
            f"{file} belongs to another model: {some(missing)} missing there, {some(superfluous)} unknown here. "
            "Resume with the options of the run that wrote it, or start a new run with init_from."
        )


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of tensors, each counted once."""
    return sum(t.numel() * t.element_size() for t in {id(t): t for t in tensors.values()}.values())


def some(names: list[str]) -> str:
    """The first of many names."""
    if not names:
        return "nothing"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
