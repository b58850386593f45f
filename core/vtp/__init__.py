"""vtp: a plugin-based framework for models of video, text and audio.

Importing this package imports nothing heavy: ``hookimpl`` and the types are loaded when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtp.hookspecs import hookimpl as hookimpl

__version__ = "0.1.0"
# Raised when a hook parameter or a contract is removed or renamed; a plugin may declare the one it was written for.
VTP_API = 1

__all__ = ["VTP_API", "__version__", "hookimpl"]

_LAZY = {"hookimpl": "vtp.hookspecs"}  # name -> module: `vtp --help` must not pay for pluggy (24 ms)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vtp' has no attribute {name!r}")
