"""Decoders that do to their process what damaged files do to native libraries. Imported by the child, not by the
tests."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from vtp.media.info import MediaError
from vtp.media.request import EVERYTHING, Wanted
from vtp.types import Clip, MediaRef


class Hostile:
    """Does what the name of the file says; any other name is a clip of one frame that holds the process id."""

    name = "hostile"

    def probe(self, ref: MediaRef) -> Any:
        return self.read(ref)

    def read(self, ref: MediaRef, wanted: Wanted = EVERYTHING) -> Clip:
        match ref.path:
            case "hang":
                time.sleep(60)
            case "spin":  # holds the interpreter, as a native loop does
                while True:
                    pass
            case "abort":
                os.abort()
            case "exit":
                os._exit(7)
            case "memory":
                np.ones(1 << 31)
            case "kill":
                os.kill(os.getpid(), 9)
            case "raise":
                raise UnicodeDecodeError("utf-8", b"", 0, 1, "damaged header")
            case "refuse":
                raise MediaError("no video stream", "no_video")
            case "big":
                return Clip(frames=np.full((100, 512, 512, 3), 7, np.uint8), timestamps=np.zeros(100))
        frames = np.full((1, 2, 2, 3), 0, np.uint8)
        frames.reshape(-1)[:4] = list(os.getpid().to_bytes(4, "little"))
        return Clip(
            frames=frames, timestamps=np.zeros(1), waveform=np.arange(5, dtype=np.float32)[None], sample_rate=8000
        )


class Broken:
    """Its library is not there."""

    def __init__(self) -> None:
        raise ImportError("libnothing.so.6: cannot open shared object file")
