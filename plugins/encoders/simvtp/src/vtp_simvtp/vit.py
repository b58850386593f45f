"""Sizes of SimVTP's vision transformers."""

from __future__ import annotations

from dataclasses import dataclass

from vtp.errors import ConfigError

__all__ = ["PRESETS", "Shape", "shape_of", "width_and_depth"]


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a vision transformer."""

    width: int
    depth: int
    heads: int


PRESETS = {
    "tiny": Shape(128, 4, 4),
    "small": Shape(384, 12, 6),
    "base": Shape(768, 12, 12),
    "large": Shape(1024, 24, 16),
}


def shape_of(preset: str, width: int | None, depth: int | None, heads: int | None) -> Shape:
    """The preset with the numbers that are given in place of its own.

    Raises:
        ConfigError: for an unknown preset, or a width that the heads do not divide.
    """
    given = width_and_depth(preset, width, depth)
    shape = Shape(*given, PRESETS[preset].heads if heads is None else heads)
    if shape.heads < 1 or shape.width % shape.heads:
        raise ConfigError(f"simvtp: width={shape.width} must be a multiple of heads={shape.heads}.")
    return shape


def width_and_depth(preset: str, width: int | None, depth: int | None) -> tuple[int, int]:
    """The same for a part without heads.

    Raises:
        ConfigError: for an unknown preset.
    """
    if preset not in PRESETS:
        raise ConfigError(f"simvtp: no preset {preset!r}. Choose one of: {', '.join(PRESETS)}.")
    chosen = PRESETS[preset]
    return chosen.width if width is None else width, chosen.depth if depth is None else depth
