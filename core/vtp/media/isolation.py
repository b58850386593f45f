"""placeholder while the loaders are integrated"""

from __future__ import annotations

from typing import Any

from vtp.media.pyav import PyavDecoder
from vtp.types import Clip, MediaRef


class MediaReader:
    def __init__(
        self, backend: str = "auto", timeout_s: float = 30.0, isolate: bool = True, memory_mb: int = 4096
    ) -> None:
        self.decoder = PyavDecoder()

    def read(self, ref: MediaRef, **kw: Any) -> Clip:
        return self.decoder.read(ref, **kw)
