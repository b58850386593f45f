"""What every transform of frames, sound or texts promises."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from vtp.contracts import Transform, member
from vtp.data.transforms import OwnTransforms, Step
from vtp.errors import PluginError
from vtp.testing.checks import Check, ContractError, construct, expect, keeps_members, run
from vtp.testing.inputs import TEXTS
from vtp.types import AudioSpec, Modality, TextSpec, VideoSpec

__all__ = ["check_transform"]


def check_transform(
    cls: Callable[..., Any],
    options: Mapping[str, Any] | None = None,
    *,
    modality: Modality,
    spec: VideoSpec | AudioSpec | TextSpec | None = None,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check a transform.

    Args:
        cls: the class.
        options: keyword arguments.
        modality: with which it is registered.
        spec: of the encoder; None is a small one.
        skip: checks to leave out, with the reason.

    Checks: members, values, determinism, draws, evaluation, workers.

    Raises:
        ContractError: with every check that failed.

    Example::

        def test_my_transform():
            check_transform(HideStretches, {"share": 0.5}, modality="audio")
    """
    trial = _Transform(cls, options or {}, modality, _SPECS[modality] if spec is None else spec)
    checks: dict[str, Check] = {
        "members": trial.members,
        "values": trial.values,
        "determinism": trial.determinism,
        "draws": trial.draws,
        "evaluation": trial.evaluation,
        "workers": trial.workers,
    }
    run(f"{cls.__module__}.{cls.__name__}", checks, skip)


_SPECS: dict[Modality, VideoSpec | AudioSpec | TextSpec] = {
    "video": VideoSpec(frames=4, size=16),
    "audio": AudioSpec(sample_rate=800, seconds=0.5),
    "text": TextSpec(lambda texts: [[2, *map(len, text.split()), 3] for text in texts], 0, 4, 2, 3, (0, 2, 3), 99, 9),
}


class _Transform:
    """A transform and values for it."""

    def __init__(self, cls: Callable[..., Any], options: Mapping[str, Any], modality: Modality, spec: Any) -> None:
        self.cls = cls
        self.options = options
        self.modality = modality
        self.spec = spec

    def made(self) -> Any:
        return construct(self.cls, self.options, spec=self.spec)

    def inputs(self) -> list[Any]:
        """Values as the pipeline gives them: long ones and short ones."""
        drawn = np.random.default_rng(1)
        if self.modality == "text":
            return [*TEXTS, "word", ""]
        if self.modality == "audio":
            return [drawn.uniform(-1, 1, size).astype(np.float32) for size in (self.spec.samples, 3, 1)]
        size = self.spec.size
        square = (self.spec.frames, size, size, 3)
        decoded = [(self.spec.frames, size + 9, size + 2, 3), (1, size, 2 * size + 1, 3)]
        before = member(self.made(), Transform, "before_crop")
        return [drawn.integers(256, size=shape, dtype=np.uint8) for shape in (decoded if before else [square])]

    def outcome(self, transform: Any, seed: int | None = 0) -> list[Any]:
        """What becomes of :meth:`inputs`.

        Raises:
            ContractError: something else than the pipeline can use.
        """
        own = OwnTransforms(self.modality, [Step(self.cls.__name__, "", transform)])
        before = member(transform, Transform, "before_crop")
        found: list[Any] = []
        for value in self.inputs():

            def draw(name: str) -> np.random.Generator | None:
                return None if seed is None else np.random.default_rng(seed)

            try:
                if self.modality == "video":
                    found.append(own.frames(value, draw, before_crop=before))
                else:
                    found.append((own.text if self.modality == "text" else own.waveform)(copy.copy(value), draw))
            except PluginError as error:
                raise ContractError(f"given {_told(value)}, it {str(error).partition(' ')[2]}") from None
        return found

    def members(self) -> None:
        transform = self.made()
        keeps_members(transform, Transform)
        for name in ("evaluation", "before_crop"):
            value = member(transform, Transform, name)
            expect(isinstance(value, bool), f"{name} must be True or False, got {value!r}")
        frames = self.modality == "video" or not member(transform, Transform, "before_crop")
        expect(frames, f"before_crop is about frames; of {self.modality} there is no crop")

    def values(self) -> None:
        self.outcome(self.made())

    def determinism(self) -> None:
        transform = self.made()
        same = _equal(self.outcome(transform), self.outcome(transform)) and _equal(
            self.outcome(transform), self.outcome(self.made())
        )
        expect(same, "equal values and equal draws must give equal results: it must keep no memory of earlier calls")

    def draws(self) -> None:
        found = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            found.append(self.outcome(self.made()))
        expect(
            _equal(*found),
            "it must draw from `generator` alone, and from no generator of Python, numpy or torch",
        )

    def evaluation(self) -> None:
        transform = self.made()
        if member(transform, Transform, "evaluation"):
            expect(
                _equal(self.outcome(transform, None), self.outcome(transform, None)),
                "in evaluation, where generator is None, nothing may be random",
            )

    def workers(self) -> None:
        transform = self.made()
        try:
            again = pickle.loads(pickle.dumps(transform))
        except Exception as error:
            raise ContractError(f"it must travel to loader workers by pickle ({error})") from None
        expect(_equal(self.outcome(transform), self.outcome(again)), "it must do the same in a loader worker")


def _told(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else repr(value)


def _equal(one: list[Any], two: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
