"""What tasks of all kinds share: the options protocol and split."""

from __future__ import annotations

from typing import Any

from vtp.errors import ConfigError
from vtp.eval.protocol import Protocol

__all__ = ["find_protocol", "rule_for"]


def find_protocol(name: str | None, dataset: Any, kind: str) -> Protocol:
    """The protocol that a task is given by ``task.protocol``: a name, the path of a YAML file, or None for data of
    one's own.

    Raises:
        ConfigError: there is none of this name.
    """
    return Protocol.own(dataset.name, kind) if name is None else Protocol.find(name)


def rule_for(split: str, selection: str | None) -> str | None:
    """The selection rule when ``split`` (``task.split``) is what is reported: a report on the validation split must not
    choose the checkpoint by it without saying so.

    Raises:
        ConfigError: ``split=val`` with ``selection=val``.
    """
    if split == "val" and selection == "val":
        raise ConfigError(
            "task.split=val reports the split that task.selection=val chooses the checkpoint by. Use "
            "task.selection=last, or say so with task.selection='test(!)'."
        )
    return "last" if split == "val" and selection is None else selection
