"""check_transform finds what a transform must not do."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from vtp.testing import ContractError, check_transform


class Good:
    def __init__(self, *, share: float = 0.5) -> None:
        self.share = share

    def __call__(self, value: Any, *, generator: Any) -> Any:
        value[generator.random(len(value)) < self.share] = 0
        return value


class Shout:
    evaluation = True

    def __call__(self, text: str, *, generator: Any) -> str:
        return text.upper()


class Larger:
    before_crop = True

    def __call__(self, frames: Any, *, generator: Any) -> Any:
        return frames.repeat(2, axis=1)


def test_a_good_one_passes() -> None:
    check_transform(Good, {"share": 0.2}, modality="audio")
    check_transform(Good, modality="video")
    check_transform(Shout, modality="text")
    check_transform(Larger, modality="video")


class Global(Good):
    def __call__(self, value: Any, *, generator: Any) -> Any:
        return (value * random.random()).astype(value.dtype)


class Counting(Good):
    calls = 0

    def __call__(self, value: Any, *, generator: Any) -> Any:
        self.calls += 1
        return value + np.float32(self.calls)


class Double(Good):
    def __call__(self, value: Any, *, generator: Any) -> Any:
        return value.astype(np.float64)


class Needs(Good):
    evaluation = True  # and draws all the same


class Local(Good):
    def __init__(self) -> None:
        super().__init__()
        self.how = lambda value: value


class Misspelt(Good):
    evalution = True


@pytest.mark.parametrize(
    ("cls", "modality", "words"),
    [
        (Global, "audio", r"draws[\w, ]*: it must draw from `generator` alone"),
        (Counting, "audio", r"determinism[\w, ]*: .*no memory of earlier calls"),
        (Double, "audio", r"values[\w, ]*: given float32 \(400,\), it returned float64 \(400,\), expected float32"),
        (Larger, "audio", r"members: before_crop is about frames"),
        (Needs, "audio", r"evaluation[\w, ]*: it raised AttributeError"),
        (Local, "audio", r"workers: it must travel to loader workers by pickle"),
        (Misspelt, "audio", r"members: it has `evalution`, which nothing reads. Is it meant to be `evaluation`"),
        (Good, "text", r"values[\w, ]*: it raised TypeError"),
    ],
)
def test_what_it_must_not_do_is_named(cls: Any, modality: Any, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        check_transform(cls, modality=modality)
