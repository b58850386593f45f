"""Launch configurations: data, looked up by kernel, chip, element size, head dimension and length. No kernel tunes
itself at run time, so the first step is as fast as the others and a run never depends on what a timing said.

Every row passes the compile gate (``python -m vtp_kernels.compile_gate``: no spills, shared memory within the chip's
limit); the table that it writes is ``RESOURCES.md``. ``kernels/tools/search_configs.py`` finds the rows: without a GPU
the first candidate that passes the gate, with ``--time`` the fastest on the GPU at hand. All rows below are of the
first sort: none was timed yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

__all__ = [
    "ACCELERATORS",
    "HEAD_DIMS",
    "SHORT",
    "Config",
    "attention_config",
    "attention_rows",
    "largest_head_dim",
    "pixel_warps",
]


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
HEAD_DIMS = {16: (32, 64, 128, 256), 32: (32, 64, 128)}  # bits per element: a head dimension uses the next larger row
SHORT = 512  # up to this length, blocks are small: at 160 tokens 128 x 64 tiles would compute 1.9 times what is needed

Rows = dict[tuple[str, int, int], tuple[Config, Config]]

# (kernel, bits per element, head dimension) -> configuration for short and for long sequences
_SM_90: Rows = {
    ("forward", 16, 32): (Config(64, 64, 4, 2), Config(128, 64, 8, 3)),
    ("forward", 16, 64): (Config(64, 64, 4, 2), Config(128, 64, 8, 3)),
    ("forward", 16, 128): (Config(64, 64, 4, 2), Config(128, 64, 8, 3)),
    ("forward", 16, 256): (Config(64, 64, 8, 2), Config(128, 32, 8, 2)),
    ("forward", 32, 32): (Config(32, 32, 4, 2), Config(64, 32, 4, 2)),
    ("forward", 32, 64): (Config(32, 32, 4, 2), Config(64, 32, 4, 2)),
    ("forward", 32, 128): (Config(32, 32, 4, 2), Config(32, 32, 4, 2)),
    ("dkdv", 16, 32): (Config(64, 64, 4, 2), Config(128, 64, 8, 3)),
    ("dkdv", 16, 64): (Config(64, 64, 4, 2), Config(128, 64, 8, 3)),
    ("dkdv", 16, 128): (Config(64, 64, 8, 2), Config(128, 32, 8, 2)),
    ("dkdv", 16, 256): (Config(32, 32, 4, 1), Config(32, 32, 4, 1)),
    ("dkdv", 32, 32): (Config(32, 16, 4, 2), Config(32, 16, 4, 2)),
    ("dkdv", 32, 64): (Config(32, 32, 8, 2), Config(32, 32, 8, 2)),
    ("dkdv", 32, 128): (Config(16, 16, 4, 1), Config(16, 16, 4, 1)),
    ("dq", 16, 32): (Config(64, 64, 4, 2), Config(128, 64, 8, 2)),
    ("dq", 16, 64): (Config(64, 64, 4, 2), Config(128, 64, 8, 2)),
    ("dq", 16, 128): (Config(64, 64, 8, 2), Config(64, 64, 8, 2)),
    ("dq", 16, 256): (Config(32, 32, 4, 1), Config(32, 32, 4, 1)),
    ("dq", 32, 32): (Config(32, 16, 4, 2), Config(32, 16, 4, 2)),
    ("dq", 32, 64): (Config(32, 32, 8, 2), Config(32, 32, 8, 2)),
    ("dq", 32, 128): (Config(16, 16, 4, 1), Config(16, 16, 4, 1)),
}
_SM_80: Rows = _SM_90 | {
    ("forward", 16, 32): (Config(64, 32, 4, 2), Config(128, 64, 8, 3)),
    ("forward", 16, 256): (Config(64, 64, 8, 2), Config(64, 64, 8, 2)),
    ("forward", 32, 64): (Config(32, 32, 4, 2), Config(64, 16, 4, 1)),
    ("dkdv", 16, 64): (Config(64, 32, 4, 2), Config(128, 32, 8, 2)),
    ("dkdv", 16, 128): (Config(64, 64, 8, 2), Config(64, 64, 8, 2)),
    ("dkdv", 16, 256): (Config(64, 16, 8, 1), Config(64, 16, 8, 1)),
    ("dkdv", 32, 64): (Config(32, 32, 4, 2), Config(32, 32, 4, 2)),
    ("dq", 16, 256): (Config(64, 32, 8, 1), Config(64, 32, 8, 1)),
}
_GFX942: Rows = {  # 64 KB of shared memory, 64 threads per warp
    ("forward", 16, 32): (Config(64, 64, 4, 1), Config(128, 64, 4, 1)),
    ("forward", 16, 64): (Config(64, 64, 4, 1), Config(128, 64, 8, 1)),
    ("forward", 16, 128): (Config(64, 32, 4, 1), Config(64, 32, 4, 1)),
    ("forward", 16, 256): (Config(32, 32, 4, 1), Config(32, 32, 4, 1)),
    ("forward", 32, 32): (Config(32, 32, 4, 1), Config(64, 32, 4, 1)),
    ("forward", 32, 64): (Config(32, 32, 4, 1), Config(32, 32, 4, 1)),
    ("forward", 32, 128): (Config(32, 16, 4, 1), Config(32, 16, 4, 1)),
    ("dkdv", 16, 32): (Config(64, 32, 4, 1), Config(64, 32, 4, 1)),
    ("dkdv", 16, 64): (Config(64, 32, 4, 1), Config(64, 32, 4, 1)),
    ("dkdv", 16, 128): (Config(32, 32, 4, 1), Config(32, 32, 4, 1)),
    ("dkdv", 16, 256): (Config(32, 16, 4, 1), Config(32, 16, 4, 1)),
    ("dkdv", 32, 32): (Config(32, 16, 4, 1), Config(32, 16, 4, 1)),
    ("dkdv", 32, 64): (Config(32, 16, 4, 1), Config(32, 16, 4, 1)),
    ("dkdv", 32, 128): (Config(16, 16, 4, 1), Config(16, 16, 4, 1)),
    ("dq", 16, 32): (Config(64, 32, 4, 1), Config(64, 32, 4, 1)),
    ("dq", 16, 64): (Config(64, 32, 4, 1), Config(64, 32, 4, 1)),
    ("dq", 16, 128): (Config(32, 32, 4, 1), Config(32, 32, 4, 1)),
    ("dq", 16, 256): (Config(32, 16, 4, 1), Config(32, 16, 4, 1)),
    ("dq", 32, 32): (Config(32, 16, 4, 1), Config(32, 16, 4, 1)),
    ("dq", 32, 64): (Config(32, 16, 4, 1), Config(32, 16, 4, 1)),
    ("dq", 32, 128): (Config(16, 16, 4, 1), Config(16, 16, 4, 1)),
}
_TABLES = {"sm_80": _SM_80, "sm_90": _SM_90, "gfx942": _GFX942}

INTERPRETER = Config(32, 32, 4, 1)  # small, so that short test sequences still span several blocks


def largest_head_dim(dtype: torch.dtype) -> int:
    """Head dimension up to which the table has rows; float32 tiles beyond do not fit the registers."""
    return HEAD_DIMS[min(dtype.itemsize * 8, 32)][-1]


def attention_config(kernel: str, accelerator: str, dtype: torch.dtype, head_dim: int, length: int) -> Config:
    """Configuration of ``kernel`` (forward, dkdv or dq) for the longer of the two sequence lengths."""
    if accelerator == "interpreter":
        return INTERPRETER
    bits = dtype.itemsize * 8
    short, long = _TABLES[accelerator][kernel, bits, next(d for d in HEAD_DIMS[bits] if head_dim <= d)]
    return short if length <= SHORT else long


def attention_rows(accelerator: str) -> Iterator[tuple[str, int, int, Config]]:
    """All distinct (kernel, bits, head dimension, configuration) of a chip, for the compile gate."""
    for key, pair in _TABLES[accelerator].items():
        for config in dict.fromkeys(pair):
            yield (*key, config)


def pixel_warps(lanes: int) -> int:
    """Warps for a program that holds ``lanes`` values, about 8 to 16 per thread."""
    return 1 if lanes <= 256 else 2 if lanes <= 512 else 4 if lanes <= 2048 else 8
