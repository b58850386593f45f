"""``model=PATH``: the model that a checkpoint describes, as an option of the group ``model``.

Sizes, masks and variant come from the specification in the checkpoint's config.json; the tokenizer and the answers from
the checkpoint itself (the key ``model_from``). Its weights are not read: ``init_from=PATH`` does that, and
``checkpoint=PATH`` goes on with all of it. Which objectives are trained is chosen anew, as for any other model.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vtp.errors import DataError
from vtp.plugins import addon_hint
from vtp.run.start import checkpoint_folder

__all__ = ["as_option", "same_text_encoder"]


def as_option(arguments: Sequence[str], known: Sequence[str]) -> list[str]:
    """Arguments of ``vtp run``, in which a folder behind ``model=`` has become the name of an option that hydra knows.

    Args:
        arguments: of the command line.
        known: options of the group ``model``; they go before a folder of that name.

    Raises:
        DataError: there is no such folder, or it holds no checkpoint.
    """
    slots = [match.group(1) for a in arguments if (match := re.match(r"encoder/(\w+)=", a))]
    return [f"model={_stored(a[6:], slots)}" if _is_folder(a, known) else a for a in arguments]


def _is_folder(argument: str, known: Sequence[str]) -> bool:
    key, _, value = argument.partition("=")
    if key != "model" or value in known:
        return False
    return Path(value).expanduser().is_dir() or (os.sep in value and not addon_hint(value))


def _stored(given: str, chosen: Sequence[str]) -> str:
    """Put the option into hydra's store and give its name; slots that the command line fills are left to it."""
    from hydra.core.config_store import ConfigStore

    from vtp.model.weights import read_config

    path = Path(given).expanduser()
    if not path.is_dir():
        raise DataError(f"model={given}: no such folder. Give a run, a checkpoint, or one of `vtp list model`.")
    if not any((path / name).exists() for name in ("checkpoints", "config.json", "manifest.json")):
        raise DataError(f"model={given}: no checkpoint is in it. Give a run folder, or one like .../checkpoints/best.")
    folder = checkpoint_folder(path)
    spec = read_config(folder)["spec"]
    encoders = {slot: options for slot, options in spec["encoders"].items() if slot not in chosen}
    node: dict[str, Any] = {"encoder": encoders, "model_from": str(folder)}
    node |= {key: spec[key] for key in ("masks", "variant") if key in spec}
    name = f"from_checkpoint_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    ConfigStore.instance().store(group="model", name=name, node=node, package="_global_")
    return name


def same_text_encoder(folder: Path, encoders: dict[str, Any]) -> bool:
    """Whether a model has the text encoder of a checkpoint, so that its tokenizer fits."""
    from vtp.model.weights import read_config

    theirs = (read_config(folder)["spec"]["encoders"].get("text") or {}).get("name")
    return bool((encoders.get("text") or {}).get("name") == theirs)
