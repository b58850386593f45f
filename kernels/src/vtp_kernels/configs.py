"""Launch configurations: data, looked up by kernel, chip, element size, head dimension and length. No kernel tunes itself at run time, so the first
step is as fast as the others and a run never depends on what a timing said.

Every row passes the compile gate (``python -m vtp_kernels.compile_gate``: no spills, shared memory within the chip's limit); the table that it writes
is ``RESOURCES.md``. ``kernels/tools/search_configs.py`` times the candidates on a GPU and prints the rows to put here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

__all__ = ["ACCELERATORS", "HEAD_DIMS", "SHORT", "Config", "attention_config", "attention_rows", "pixel_warps"]


class Config(NamedTuple):
    """A launch of an attention kernel.

    Attributes:
        rows: tokens that a program owns: queries in the forward and dq kernels, keys in the dkdv kernel.
        cols: tokens that it reads per iteration.
        warps, stages: ``num_warps`` and ``num_stages`` of Triton.
    """

    rows: int
    cols: int
    warps: int
    stages: int


ACCELERATORS = ("sm_80", "sm_90", "gfx942")
HEAD_DIMS = (32, 64, 128, 256)  # a head dimension uses the row of the next larger one
SHORT = 512  # up to this length, blocks are small: at 160 tokens 128 x 64 tiles would compute 1.9 times what is needed

# (kernel, bits per element, head dimension) -> configuration for short and for long sequences, on sm_80 and sm_90
_NVIDIA: dict[tuple[str, int, int], tuple[Config, Config]] = {
    ("forward", 16, 32): (Config(64, 64, 4, 2), Config(128, 64, 4, 3)),
    ("forward", 16, 64): (Config(64, 64, 4, 2), Config(128, 64, 8, 3)),
    ("forward", 16, 128): (Config(64, 64, 4, 2), Config(128, 64, 8, 2)),
    ("forward", 16, 256): (Config(64, 32, 8, 2), Config(64, 32, 8, 2)),
    ("forward", 32, 32): (Config(32, 32, 4, 2), Config(64, 32, 4, 2)),
    ("forward", 32, 64): (Config(32, 32, 4, 2), Config(64, 32, 4, 2)),
    ("forward", 32, 128): (Config(32, 32, 8, 2), Config(64, 32, 8, 2)),
    ("forward", 32, 256): (Config(32, 32, 8, 1), Config(32, 32, 8, 1)),
    ("dkdv", 16, 32): (Config(64, 64, 4, 2), Config(128, 64, 8, 2)),
    ("dkdv", 16, 64): (Config(64, 64, 4, 2), Config(128, 64, 8, 2)),
    ("dkdv", 16, 128): (Config(64, 64, 8, 2), Config(64, 64, 8, 2)),
    ("dkdv", 16, 256): (Config(64, 32, 8, 1), Config(64, 32, 8, 1)),
    ("dkdv", 32, 32): (Config(32, 32, 4, 2), Config(64, 32, 4, 2)),
    ("dkdv", 32, 64): (Config(32, 32, 4, 2), Config(64, 32, 8, 2)),
    ("dkdv", 32, 128): (Config(32, 32, 8, 1), Config(32, 32, 8, 1)),
    ("dkdv", 32, 256): (Config(32, 32, 8, 1), Config(32, 32, 8, 1)),
    ("dq", 16, 32): (Config(64, 64, 4, 2), Config(128, 64, 8, 2)),
    ("dq", 16, 64): (Config(64, 64, 4, 2), Config(128, 64, 8, 2)),
    ("dq", 16, 128): (Config(64, 64, 8, 2), Config(64, 64, 8, 2)),
    ("dq", 16, 256): (Config(64, 32, 8, 1), Config(64, 32, 8, 1)),
    ("dq", 32, 32): (Config(32, 32, 4, 2), Config(64, 32, 4, 2)),
    ("dq", 32, 64): (Config(32, 32, 4, 2), Config(64, 32, 8, 2)),
    ("dq", 32, 128): (Config(32, 32, 8, 1), Config(32, 32, 8, 1)),
    ("dq", 32, 256): (Config(32, 32, 8, 1), Config(32, 32, 8, 1)),
}
_AMD: dict[tuple[str, int, int], tuple[Config, Config]] = {}  # where a chip with 64 KB of shared memory needs another one

INTERPRETER = Config(32, 32, 4, 1)  # small, so that short test sequences still span several blocks


def attention_config(kernel: str, accelerator: str, dtype: torch.dtype, head_dim: int, length: int) -> Config:
    """Configuration of ``kernel`` (forward, dkdv or dq) for the longer of the two sequence lengths."""
    if accelerator == "interpreter":
        return INTERPRETER
    key = (kernel, dtype.itemsize * 8, next(d for d in HEAD_DIMS if head_dim <= d))
    short, long = _AMD.get(key, _NVIDIA[key]) if accelerator == "gfx942" else _NVIDIA[key]
    return short if length <= SHORT else long


def attention_rows(accelerator: str) -> Iterator[tuple[str, int, int, Config]]:
    """All distinct (kernel, bits, head dimension, configuration) of a chip, for the compile gate."""
    for key, nvidia in _NVIDIA.items():
        pair = _AMD.get(key, nvidia) if accelerator == "gfx942" else nvidia
        for config in dict.fromkeys(pair):
            yield (*key, config)


def pixel_warps(lanes: int) -> int:
    """Warps for a program that holds ``lanes`` values, about 8 to 16 per thread."""
    return 1 if lanes <= 256 else 2 if lanes <= 512 else 4 if lanes <= 2048 else 8
