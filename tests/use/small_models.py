"""Small models without training: a dual encoder of text, video and sound, and one that answers and writes; and clips
to use them with."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.weights import save_weights
from vtp.plugins import host
from vtp.storage import DirectoryTransaction

__all__ = ["DUAL", "FUSED", "write_clips", "write_model"]

TINY = {"name": "tiny", "width": 16, "depth": 1, "heads": 2}
VIDEO = {**TINY, "frames": 2, "size": 32}
DUAL = {
    "encoders": {"text": TINY, "video": VIDEO, "audio": {"name": "tiny", "width": 16, "depth": 1, "heads": 2}},
    "objectives": {
        "vtc": {"name": "vtc", "width": 8, "weight": 1.0},
        "atc": {"name": "vtc", "width": 8, "modalities": ["audio", "text"], "weight": 1.0},
    },
}
FUSED = {
    "encoders": {
        "text": TINY,
        "video": VIDEO,
        "fusion": {"name": "concat", "width": 16, "depth": 1, "heads": 2},
    },
    "objectives": {
        "qa": {"name": "qa", "weight": 1.0},
        "caption": {"name": "caption", "depth": 1, "heads": 2, "weight": 1.0},
    },
    "answers": ["red", "two", "blue"],
}
TEXTS = ["a red ball", "two blue stars", "what colour is the ball"]


def write_model(folder: Path, spec: dict[str, Any], provenance: dict[str, Any] | None = None) -> Path:
    """A checkpoint of random weights, always the same."""
    torch.manual_seed(3)
    model = build_model(spec, lookup_in(host().registry), BuildContext(texts=lambda: TEXTS))
    with DirectoryTransaction(folder, 1 << 20) as inside:
        save_weights(inside, model, provenance or {})
    return folder


def write_clips(folder: Path) -> Path:
    """a.mp4 and b.mp4, four seconds at 4 pictures a second that grow lighter; tone.wav, two seconds; broken.mp4."""
    import av

    for name, first in (("a", 0), ("b", 120)):
        with av.open(str(folder / f"{name}.mp4"), "w") as file:
            stream = file.add_stream("libx264", rate=4, options={"preset": "ultrafast", "threads": "1"})
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            for value in range(16):
                picture = np.full((32, 32, 3), first + 8 * value, np.uint8)
                picture[:16, :, 0] = 200
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            file.mux(stream.encode(None))
    with wave.open(str(folder / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", "not compressed"))
        file.writeframes((8000 * np.sin(np.arange(32000) / 9)).astype("<i2").tobytes())
    (folder / "broken.mp4").write_bytes(b"\0" * 1000)
    return folder
