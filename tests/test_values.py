"""Types with ranges: what fits, and how it is said."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import pytest

from vtp.ranges import Count, Natural, Range, Seed, Share
from vtp.values import converted, fits, misfits, spell


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, (0, -3, 2**63 - 1), (2**63, 1.0, True, "1", None, math.nan)),
        (float, (0, -0.5, 1e300), (math.nan, math.inf, -math.inf, 10**20, True, "1")),
        (Count, (1, 7), (0, -1, 1.5, True)),
        (Natural, (0, 1), (-1,)),
        (Share, (0, 0.5), (-0.1, 1, math.nan)),
        (Seed, (0, 2**32 - 1), (-1, 2**32)),
        (Annotated[float, Range(above=0, below=1)], (0.5,), (0, 1, 0.0, 1.0)),
        (Count | None, (None, 3), (0, "auto")),
        (list[Count], ([], [1, 2]), ([0], [1, "a"], 1)),
        (dict[str, Share], ({}, {"a": 0}), ({"a": 2}, {1: 0.5}, [])),
        (Literal["a", 1], ("a", 1), ("b", True, 1.0)),
    ],
    ids=str,
)
def test_what_fits(hint, good, bad):
    assert [value for value in good if not fits(value, hint)] == []
    assert [value for value in bad if fits(value, hint)] == []


def test_ranges_are_said():
    assert spell(Count) == "int (at least 1)"
    assert spell(Annotated[float, Range(above=0, below=1)]) == "float (above 0, below 1)"
    assert spell(Seed | None) == "int (at least 0, below 4,294,967,296) or null"
    told = misfits("data.", {"workers": None, "flip": True, "other": 3}, {"workers": Count, "flip": Share})
    assert list(told.values()) == [
        "data.workers: expected int (at least 1), got null",
        "data.flip: expected float (at least 0, below 1), got true",
    ]


def test_numbers_take_the_declared_type():
    assert repr(converted(3, float | None)) == "3.0" and repr(converted(3, int)) == "3"
    assert converted(2024, str | None) == "2024" and converted(True, str) is True
    assert repr(converted({"a": 1}, dict[str, float])) == "{'a': 1.0}" and repr(converted([1], list[float])) == "[1.0]"
    assert converted(10**20, float) == 10**20  # refused afterwards, not rounded
