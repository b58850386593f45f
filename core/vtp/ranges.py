"""The numbers that an option takes, said where its type stands; whoever checks options checks them with the types::

    def __init__(self, *, width: Size = 96, depth: Depth = 1, top: Annotated[int, Range(least=1)] = 5): ...

answers ``encoder.text.width=0`` with "expected int (at least 1, at most 65,536), got 0".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

__all__ = ["Count", "Depth", "Natural", "Positive", "Processes", "Range", "SampleRate", "Seed", "Share", "Size"]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Finite numbers between bounds; None is no bound.

    Attributes:
        least, most: the smallest and the largest number that is allowed.
        above, below: numbers that every allowed one is larger or smaller than.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, number: float) -> bool:
        """Whether ``number`` lies within the bounds; NaN and infinity never do."""
        return (
            abs(number) < math.inf  # of any int, however long; isfinite makes a float of it
            and (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return ", ".join(f"{word} {bound:,}" for word, bound in bounds.items() if bound is not None) or "finite"


# A size (width, frames, side, length) or depth beyond these is a slip of the finger, or a checkpoint that is to use up
# the memory.
Size = Annotated[int, Range(least=1, most=65536)]
Depth = Annotated[int, Range(least=0, most=1000)]
Count = Annotated[int, Range(least=1)]
Natural = Annotated[int, Range(least=0)]
Processes = Annotated[int, Range(least=0, most=1024)]
Seed = Annotated[int, Range(least=0, below=2**32)]  # what every source of randomness takes
SampleRate = Annotated[int, Range(least=1000, most=384000)]  # Hz
Positive = Annotated[float, Range(above=0)]
Share = Annotated[float, Range(least=0, below=1)]
