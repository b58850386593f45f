"""What was asked for, as it is written down: values of environment variables stay out of the files that people share.

environment = Environment.of(composed)
environment.asked(config)   the configuration with ``${oc.env:NAME}`` where it was written so
environment.hide(record)    any record with the same in place of the values
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["Environment", "changes"]

_SHORTEST = 4  # characters of a value that is looked for in texts: shorter ones are in every text
# Where it is computed and what is done afterwards, not what is trained.
_NO_CHANGE = (
    *("run_dir", "resume", "restart", "resume_other", "profile", "mode", "checkpoint", "model_from", "callbacks"),
    *("init_from", "init_map", "init_allow_missing", "init_allow_unused", "train"),  # the engine announces its own
    *("data.workers", "data.on_leak", "media.isolate", "media.timeout_s", "media.memory_mb"),
)


class Environment:
    """Values that a configuration takes from environment variables.

    Args:
        written: path of a key -> the text, or list of texts, that takes its value from the environment.
        values: value of a variable -> ``${oc.env:NAME}``.
    """

    def __init__(self, written: Mapping[tuple[Any, ...], Any] | None = None, values: Mapping[str, str] | None = None):
        self.written = dict(written or {})
        self.values = {value: name for value, name in (values or {}).items() if name and len(value) >= _SHORTEST}

    @classmethod
    def of(cls, composed: DictConfig) -> Environment:
        """Of a composed configuration whose interpolations all resolve."""
        from omegaconf import OmegaConf
        from omegaconf.resolvers import oc

        raw = OmegaConf.to_container(composed, resolve=False)
        leaves = [(path, text) for path, text in _leaves(raw) if "${" in str(text)]
        if not any("oc.env" in str(text) for _, text in leaves):
            return cls()
        used: dict[str, str] = {}

        def watched(key: str, *default: Any) -> Any:
            found = oc.env(key, *default)
            used[str(found)] = f"${{oc.env:{key}}}" if key in os.environ else ""
            return found

        written, values = {}, {}
        OmegaConf.register_new_resolver("oc.env", watched, replace=True)
        try:
            for path, text in leaves:
                used.clear()
                node: Any = composed
                for key in path:
                    node = node[key]
                if OmegaConf.is_config(node):
                    OmegaConf.to_container(node, resolve=True)
                if used:
                    written[path] = text
                    values.update(used)
        finally:
            OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
        return cls(written, values)

    def asked(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A resolved configuration as it was written, as far as the environment is concerned."""
        result: dict[str, Any] = self.hide(copy.deepcopy(dict(config)))
        for path, text in self.written.items():
            node: Any = result
            for key in path[:-1]:
                node = node[key] if isinstance(node, dict) and key in node else None
            if isinstance(node, dict) and path[-1] in node:
                node[path[-1]] = text
        return result

    def hide(self, record: Any) -> Any:
        """A text, or a record of dicts and lists, with names in place of values."""
        if not self.values:
            return record
        if isinstance(record, str):
            for value, name in self.values.items():
                record = record.replace(value, name)
            return record
        if isinstance(record, Mapping):
            return {self.hide(key): self.hide(value) for key, value in record.items()}
        return [self.hide(value) for value in record] if isinstance(record, list | tuple) else record


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What differs in two configurations and changes what is computed, but for the options of the engine:
    ``objectives.qa.weight was 1.0 and is 0.25 now``."""
    old, new = dict(_leaves(before)), dict(_leaves(now))
    for path in dict.fromkeys([*old, *new]):
        key = ".".join(map(str, path))
        if path[0] not in _NO_CHANGE and key not in _NO_CHANGE and old.get(path) != new.get(path):
            yield f"{key} was {_shown(old, path)} and is {_shown(new, path)} now"


def _shown(values: Mapping[tuple[Any, ...], Any], path: tuple[Any, ...]) -> str:
    if path not in values:
        return "not given"
    return "null" if values[path] is None else str(values[path])


def _leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Path and value of everything that is no mapping; an empty mapping is a value."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _leaves(value, (*path, key))
    elif path:
        yield path, node
