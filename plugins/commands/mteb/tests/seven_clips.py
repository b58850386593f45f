"""Seven clips of a colour each, with a caption and a sound."""

from __future__ import annotations

__all__ = ["CAPTIONS", "COLOURS"]

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (90, 90, 90), (240, 120, 0), (20, 20, 60)]
CAPTIONS = ["a red ball", "two blue stars", "what colour is the ball", "blue ball", "two red stars", "a star", "is two"]
