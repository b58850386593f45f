"""Training: the loop, its options, what it writes, and how it is continued. See docs/training.md."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtp.train.callbacks import Callback as Callback
    from vtp.train.config import TrainConfig as TrainConfig
    from vtp.train.trainer import Interrupted as Interrupted
    from vtp.train.trainer import Trainer as Trainer
    from vtp.train.trainer import TrainResult as TrainResult

__all__ = ["Callback", "Interrupted", "TrainConfig", "TrainResult", "Trainer"]

_LAZY = {  # the configuration schema must not import torch
    "Callback": "vtp.train.callbacks",
    "Interrupted": "vtp.train.trainer",
    "TrainConfig": "vtp.train.config",
    "TrainResult": "vtp.train.trainer",
    "Trainer": "vtp.train.trainer",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vtp.train' has no attribute {name!r}")
