"""Transforms of plugins, as ``data.transforms`` names them: which are chosen, and what they make of frames, sound and
texts. They run in loader workers; a run without any never comes here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from vtp.components import Choice, choose, find
from vtp.contracts import Transform, member
from vtp.errors import PluginError
from vtp.faults import title
from vtp.types import MODALITIES, Modality

__all__ = ["OwnTransforms", "Step", "chosen_transforms", "own_transforms"]

Frames = npt.NDArray[np.uint8]
Draw = Callable[[str], np.random.Generator | None]  # of a name: the generator of this row, None in evaluation


def chosen_transforms(node: Mapping[str, Any], problems: list[str]) -> dict[Modality, list[Choice]]:
    """The transforms of every modality that has some, looked up and checked.

    Args:
        node: ``data.transforms``: modality -> names, ``[one, {name: other, p: 0.3}]`` or ``{one: {p: 0.3}}``.
        problems: takes what is wrong, a line each.
    """
    from vtp.plugins import host

    found: dict[Modality, list[Choice]] = {}
    for modality in MODALITIES:
        where = f"data.transforms.{modality}"
        for options in _entries(where, node.get(modality), problems):
            kind = f"transform/{modality}"
            choice = choose(where, options, find(host().registry, kind), problems, kind=kind, given=("spec",))
            if choice is not None:
                found.setdefault(modality, []).append(choice)
    return found


def _entries(where: str, given: Any, problems: list[str]) -> list[Mapping[str, Any]]:
    """What is written below a modality as a list of mappings with a name."""
    if isinstance(given, Mapping) and not isinstance(given.get("name"), str):
        if wrong := [name for name, options in given.items() if not isinstance(options or {}, Mapping)]:
            problems.append(f"{where}.{wrong[0]}: expected a mapping of options, got {given[wrong[0]]!r}")
            return []
        return [{"name": str(name), **(options or {})} for name, options in given.items()]
    entries = list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]
    found = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
    for entry in found:
        if not (isinstance(entry, Mapping) and isinstance(entry.get("name"), str)):
            problems.append(f"{where}: expected names, or options with a name, {{name: ..., p: 0.3}}; got {entry!r}")
    return [entry for entry in found if isinstance(entry, Mapping) and isinstance(entry.get("name"), str)]


@dataclass(frozen=True)
class Step:
    """A transform, and what its randomness is keyed by: its name, and which of that name it is."""

    name: str
    key: str
    apply: Any


@dataclass(frozen=True)
class OwnTransforms:
    """The transforms of one modality, in the order in which they are named.

    Attributes:
        modality: video, audio or text.
        steps: those that run.
    """

    modality: Modality
    steps: Sequence[Step]

    def frames(self, clips: Frames, draw: Draw, *, before_crop: bool) -> Frames:
        """(..., T, H, W, 3) uint8 -> the same; clip by clip, where there are several, each with the same draws.

        Args:
            clips: left as they are.
            draw: gives the generator of a transform.
            before_crop: those that want the picture as it was decoded, whose size they may change, or the others.
        """
        steps = [step for step in self.steps if member(step.apply, Transform, "before_crop") == before_crop]
        if not steps:
            return clips
        found = clips.copy()  # they may write into what they are given, and decoded frames may be used again
        for step in steps:
            made = [self._frames(step, clip, draw, before_crop) for clip in found.reshape(-1, *found.shape[-4:])]
            found = made[0] if found.ndim == 4 else np.stack(made).reshape(*found.shape[:-4], *made[0].shape)
        return found

    def _frames(self, step: Step, clip: Frames, draw: Draw, before_crop: bool) -> Frames:
        made = step.apply(clip, generator=draw(step.key))
        fits = isinstance(made, np.ndarray) and made.dtype == np.uint8 and made.ndim == 4
        if not fits or (made.shape[0], made.shape[3]) != (clip.shape[0], 3) or 0 in made.shape:
            self._refuse(step, made, f"uint8 ({len(clip)}, height, width, 3)")
        if not before_crop and made.shape != clip.shape:
            self._refuse(step, made, f"uint8 {clip.shape}, the size that the encoder takes")
        frames: Frames = made
        return frames

    def waveform(self, sound: npt.NDArray[np.float32], draw: Draw) -> npt.NDArray[np.float32]:
        """(S,) float32 -> (S',); what is longer than the encoder takes is cut."""
        for step in self.steps:
            made = step.apply(sound, generator=draw(step.key))
            if not isinstance(made, np.ndarray) or made.dtype != np.float32 or made.ndim != 1 or not len(made):
                self._refuse(step, made, "float32 (samples,)")
            sound = made
        return sound

    def text(self, text: str, draw: Draw) -> str:
        """The text that is tokenised."""
        for step in self.steps:
            made = step.apply(text, generator=draw(step.key))
            if not isinstance(made, str):
                self._refuse(step, made, "a string")
            text = made
        return text

    def _refuse(self, step: Step, made: Any, expected: str) -> NoReturn:
        got = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
        raise PluginError(f"{title(f'transform.{self.modality}', step.name)} returned {got}, expected {expected}.")


def own_transforms(
    chosen: Mapping[Modality, Sequence[Choice]], specs: Mapping[Modality, Any], *, train: bool
) -> dict[Modality, OwnTransforms]:
    """Build what was chosen.

    Args:
        chosen: by :func:`chosen_transforms`.
        specs: of the encoders; a constructor with a parameter ``spec`` gets that of its modality.
        train: with random augmentation; otherwise only those with ``evaluation`` run.

    Returns:
        Modality -> :class:`OwnTransforms`, of modalities where one runs.
    """
    found: dict[Modality, OwnTransforms] = {}
    for modality, choices in chosen.items():
        steps = list(_numbered(modality, choices, specs[modality]))
        steps = [step for step in steps if train or member(step.apply, Transform, "evaluation")]
        if steps:
            found[modality] = OwnTransforms(modality, steps)
    return found


def _numbered(modality: str, choices: Sequence[Choice], spec: Any) -> Iterator[Step]:
    seen: dict[str, int] = {}
    for choice in choices:
        number = seen[choice.name] = seen.get(choice.name, 0) + 1
        yield Step(choice.name, f"transform/{modality}/{choice.name}/{number}", choice.build(spec=spec))
