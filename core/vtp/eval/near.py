"""Clips that look the same although their files differ: encoded again, scaled, or cut a little otherwise.

A fingerprint is a few frames over the whole clip, each averaged to a grid of colours, less their mean and divided by
their norm: what is left when size, bit rate, brightness and contrast are taken away. The product of two of them is
their similarity, 1 of equal clips. It knows no mirror images, no crops and no frames around the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FRAMES", "NEAR", "fingerprint", "pairs_alike"]

FRAMES = 8  # of a clip, evenly spaced
SIDE = 16  # cells of the grid along each side
NEAR = 0.99  # similarity from which two clips look the same
_PLAIN = 1.5  # standard deviation, of 255, below which a clip shows nothing that could be compared
_BLOCK = 4096  # fingerprints compared at a time


def fingerprint(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16] | None:
    """float16 (FRAMES * SIDE * SIDE * 3,) of unit length, from frames uint8 (T, H, W, 3); None of a clip without
    frames, or in a single colour."""
    if not len(frames):
        return None
    chosen = frames[np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)].astype(np.float32)
    for axis in (1, 2):
        length = chosen.shape[axis]
        ends = np.linspace(0, length, SIDE + 1).round().astype(int)
        parts = [np.arange(a, max(a + 1, b)).clip(max=length - 1) for a, b in zip(ends[:-1], ends[1:], strict=True)]
        chosen = np.stack([chosen.take(part, axis=axis).mean(axis) for part in parts], axis)
    if float(chosen.std()) < _PLAIN:
        return None
    flat = (chosen - chosen.mean()).reshape(-1)
    mark: npt.NDArray[np.float16] = (flat / np.linalg.norm(flat)).astype(np.float16)
    return mark


def pairs_alike(
    tests: Mapping[str, npt.NDArray[Any]], trains: Mapping[str, npt.NDArray[Any]], least: float = NEAR
) -> list[tuple[str, str, float]]:
    """(test clip, the training clip that is most like it, similarity), for every test clip that has one from ``least``
    on; the most alike first. A clip is not compared with one of its own name."""
    found: dict[str, tuple[str, float]] = {}
    for asking, asked in product(_blocks(tests), _blocks(trains)):
        similar = (
            np.stack([tests[name] for name in asking]).astype(np.float32)
            @ np.stack([trains[name] for name in asked]).astype(np.float32).T
        )
        places = {name: place for place, name in enumerate(asked)}
        for test, row in zip(asking, similar, strict=True):
            if test in places:
                row[places[test]] = -1.0
            best = int(row.argmax())
            if row[best] >= least and row[best] > found.get(test, ("", -1.0))[1]:
                found[test] = asked[best], float(row[best])
    return sorted(((test, *one) for test, one in found.items()), key=lambda pair: (-pair[2], pair[0]))


def _blocks(names: Iterable[str]) -> list[list[str]]:
    every = list(names)
    return [every[start : start + _BLOCK] for start in range(0, len(every), _BLOCK)]
