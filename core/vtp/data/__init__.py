"""From tables of samples to batches: pipelines, collation, loaders and the list of bad files."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtp.data.bad import BadFiles as BadFiles
    from vtp.data.batching import Example as Example
    from vtp.data.batching import collate as collate
    from vtp.data.eval_loader import EvalLoader as EvalLoader
    from vtp.data.keys import keyed_generator as keyed_generator
    from vtp.data.pipeline import Pipeline as Pipeline
    from vtp.data.train_loader import TrainLoader as TrainLoader

_LAZY = {
    "BadFiles": "vtp.data.bad",
    "EvalLoader": "vtp.data.eval_loader",
    "Example": "vtp.data.batching",
    "Pipeline": "vtp.data.pipeline",
    "TrainLoader": "vtp.data.train_loader",
    "collate": "vtp.data.batching",
    "keyed_generator": "vtp.data.keys",
}

__all__ = [
    "BadFiles",
    "EvalLoader",
    "Example",
    "Pipeline",
    "TrainLoader",
    "collate",
    "keyed_generator",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vtp.data' has no attribute {name!r}")
