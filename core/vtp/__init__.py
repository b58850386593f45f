"""vtp: a plugin-based framework for models of video, text and audio.

    import vtp

    model = vtp.load("outputs/DATE/TIME")  # or "model=...", or a folder, or "organisation/name"
    found = model.encode(videos=["a.mp4", ("b.mp4", 2.0, 4.5)], texts=["a dog runs"])
    print(model.similarity(found.texts, found.videos))

Importing this package imports nothing heavy: what it offers is loaded when it is first asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, whose import would be a third of the time of `vtp --help`
if TYPE_CHECKING:
    from typing import Any

    from vtp.hookspecs import hookimpl as hookimpl
    from vtp.use.loading import load as load
    from vtp.use.model import Answer as Answer
    from vtp.use.model import Encoded as Encoded
    from vtp.use.model import Model as Model

__version__ = "0.1.0"
# Raised when a hook parameter or a contract is removed or renamed; a plugin may declare the one it was written for.
VTP_API = 1

__all__ = ["VTP_API", "Answer", "Encoded", "Model", "__version__", "hookimpl", "load"]

_LAZY = {  # name -> module: `vtp --help` must not pay for pluggy (24 ms), nor anybody for torch who does not use it
    "hookimpl": "vtp.hookspecs",
    "load": "vtp.use.loading",
    "Answer": "vtp.use.model",
    "Encoded": "vtp.use.model",
    "Model": "vtp.use.model",
}


if not TYPE_CHECKING:  # to a type checker, a module with this has every attribute, misspelt ones too

    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            from importlib import import_module

            return getattr(import_module(_LAZY[name]), name)
        raise AttributeError(f"module 'vtp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
