"""The evaluation ledger: what had to be scored, what was, and why the rest was not. No score leaves vtp without it.

The policy is fixed: an item that is missing counts as a miss and a gallery keeps its size. That is what can be counted,
and no guarantee: a missing candidate stands in nobody's way, so a score may rise. What can be guaranteed are the bounds
beside it (:mod:`vtp.eval.bounds`). Numbers over the evaluated items alone exist as a separate row that says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.errors import ConfigError, DataError, RunError

__all__ = ["EVALUATED_ONLY", "Ledger", "count_or_share"]

EVALUATED_ONLY = "evaluated items only, not comparable"  # label of the row that leaves missing items out


@dataclass(frozen=True, slots=True)
class Ledger:
    """Expected items and the reasons of those that were not evaluated.

    Attributes:
        expected: ids in the order of the table, unique.
        missing: id -> reason, a subset of ``expected``.
        what: plural noun for messages, such as ``questions``.
        present: modality -> number of evaluated items that had it.

    Raises:
        RunError: ids repeat, or a missing id was never expected. Both are faults of the data set or the loader, not of
            the user.
    """

    expected: tuple[str, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    what: str = "items"
    present: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = set(self.expected)
        if len(ids) != len(self.expected):
            twice = [name for name, count in Counter(self.expected).items() if count > 1]
            raise RunError(
                f"{len(twice)} ids of the {self.what} to evaluate occur more than once (first: {twice[0]!r}); ids "
                "must be unique."
            )
        if strangers := [name for name in self.missing if name not in ids]:
            raise RunError(
                f"{len(strangers)} {self.what} were reported missing but never expected (first: {strangers[0]!r})."
            )

    @property
    def evaluated(self) -> int:
        return len(self.expected) - len(self.missing)

    @property
    def coverage(self) -> float:
        """Share of the expected items that was evaluated, in [0, 1]; 0 when nothing was expected."""
        return self.evaluated / len(self.expected) if self.expected else 0.0

    @property
    def complete(self) -> bool:
        return bool(self.expected) and not self.missing

    def mask(self) -> npt.NDArray[np.bool_]:
        """bool (expected,), True = evaluated."""
        return np.array([name not in self.missing for name in self.expected], dtype=bool)

    def modality_coverage(self) -> dict[str, float]:
        """Share of the evaluated items that had each modality, in [0, 1]."""
        return {modality: count / self.evaluated if self.evaluated else 0.0 for modality, count in self.present.items()}

    def line(self) -> str:
        """One line that stands beside every score, for example ``2,989 of 2,990 videos evaluated (99.97 %), 1 missing
        counted as misses``."""
        share = "" if self.complete else f" ({_percent(self.coverage)})"
        text = f"{self.evaluated:,} of {len(self.expected):,} {self.what} evaluated{share}"
        if self.missing:
            text += f", {len(self.missing):,} missing counted as miss{'es' if len(self.missing) > 1 else ''}"
        return text

    def check(self, max_missing: int | float | None) -> None:
        """Refuse a result with too many missing items.

        Args:
            max_missing: most items that may be missing: a count (1 and above, or 0), a share (below 1), or None for
                any number.

        Raises:
            ConfigError: ``max_missing`` is neither.
            DataError: more are missing; names the first and its reason.
        """
        if max_missing is None:
            return
        allowed = count_or_share(max_missing, len(self.expected), "data.max_missing", zero=True)
        if len(self.missing) > allowed:
            name, reason = next(iter(self.missing.items()))
            raise DataError(
                f"{len(self.missing):,} of {len(self.expected):,} {self.what} could not be evaluated (first: {name}: "
                f"{reason}), and data.max_missing={max_missing:g} allows {allowed:,}. Restore them, or accept them as "
                f"misses with data.max_missing={len(self.missing)}."
            )

    def record(self) -> dict[str, Any]:
        """What report.json stores: counts, every missing id with its reason, reasons by frequency, modality
        coverage."""
        return {
            "what": self.what,
            "expected": len(self.expected),
            "evaluated": self.evaluated,
            "missing": len(self.missing),
            "coverage": self.coverage,
            "policy": "a missing item counts as a miss and the gallery keeps its size",
            "reasons": dict(Counter(self.missing.values()).most_common()),
            "missing_items": dict(self.missing),
            "modality_coverage": self.modality_coverage(),
        }


def count_or_share(value: int | float, total: int, key: str, *, zero: bool = False) -> int:
    """Read a limit that is a count from 1 up and a share below 1: ``5`` or ``5.0`` is five items, ``0.5`` is half of
    ``total``.

    Raises:
        ConfigError: a negative or broken number, or 0 where ``zero`` is not allowed; ``key`` names the option.
    """
    whole = value < 1 or float(value).is_integer()
    if isinstance(value, bool) or not whole or value < 0 or (value == 0 and not zero):
        raise ConfigError(
            f"{key}={value} must be null, a whole number of items from 1 up, or a share below 1 such as 0.1."
        )
    # a share of 0.3 of 10 items is 2.9999999999999996 in floating point
    return int(value) if value >= 1 else int(value * total + 1e-9)


def _percent(share: float) -> str:
    """Never rounds an incomplete share up to 100 or a small one down to 0."""
    digits = 2 if 0.0001 <= share <= 0.9999 or share in (0.0, 1.0) else 4
    return f"{100 * share:.{digits}f} %"
