"""The world of ``shapes``: what can happen in a clip, and what is said and asked about it. Pixels are drawn in
:mod:`vtp_datasets.shapes.render`.

A clip has a place, some white dots, a light that shines during one third of the time, and a character: a shape with a
face that crosses the picture in one of four directions and changes its color half-way. The sound has a timbre, a
rhythm, and one third of the time in which it is silent. Every factor is drawn independently of the others and, over the
clips of a split, each of its values equally often, so that

* no question can be answered better than by guessing among its possible answers without looking or listening, and
* the sound says nothing about the picture, and the picture nothing about the sound.

One clip in sixteen has no sound track at all; nothing is asked about its sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

__all__ = ["CATEGORIES", "KINDS", "Kind", "Question", "Scene", "captions", "questions", "scenes"]

COLORS = ("red", "green", "blue", "yellow", "purple")
SHAPES = ("circle", "square", "triangle", "star")
MOVES = ("left", "right", "up", "down")
NUMBERS = ("one", "two", "three", "four")
PLACES = ("sea", "snow", "desert", "night")
# how captions name a place
GROUNDS = {"sea": "over the sea", "snow": "in the snow", "desert": "through the desert", "night": "at night"}
THIRDS = ("beginning", "middle", "end")
SOUNDS = ("whistle", "hum", "hiss", "siren")
RHYTHMS = ("slow", "fast", "steady")

CATEGORIES = ("color", "shape", "motion", "count", "place", "order", "sound")  # `category_id` is an index into this
SILENT_EVERY = 16  # one clip in this many has no sound track


@dataclass(frozen=True, slots=True)
class Scene:
    """All that is decidable about one clip. ``colors`` holds the character's first and its last color."""

    colors: tuple[str, str]
    shape: str
    move: str
    count: str
    place: str
    light: str
    sound: str | None
    rhythm: str | None
    silence: str | None


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its answer, a single word, and the index of its category."""

    text: str
    answer: str
    category: int


def scenes(clips: int, rng: np.random.Generator) -> list[Scene]:
    """Draw ``clips`` scenes: each factor is a shuffled list in which every value appears equally often, give or take
    one."""

    def balanced(values: Any) -> list[Any]:
        values = list(values)
        start = int(rng.integers(len(values)))  # which values appear once more differs between factors and seeds
        return [values[(start + i) % len(values)] for i in rng.permutation(clips)]

    columns = {
        "colors": balanced(permutations(COLORS, 2)),
        "shape": balanced(SHAPES),
        "move": balanced(MOVES),
        "count": balanced(NUMBERS),
        "place": balanced(PLACES),
        "light": balanced(THIRDS),
        "sound": balanced(SOUNDS),
        "rhythm": balanced(RHYTHMS),
        "silence": balanced(THIRDS),
    }
    mute = dict.fromkeys(("sound", "rhythm", "silence"))
    has_sound = balanced([False] + [True] * (SILENT_EVERY - 1))
    rows = ({name: column[i] for name, column in columns.items()} for i in range(clips))
    return [Scene(**(row if heard else row | mute)) for row, heard in zip(rows, has_sound, strict=True)]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of question: ways to put it, and how to read the answer off the scene."""

    category: str
    texts: tuple[str, ...]
    answer: Callable[[Scene], str | None]
    answers: tuple[str, ...]


KINDS = (
    Kind("color", ("what color comes first?", "what is the first color?"), lambda s: s.colors[0], COLORS),
    Kind("color", ("what color comes last?", "what is the last color?"), lambda s: s.colors[1], COLORS),
    Kind("shape", ("who is there?", "who is moving?"), lambda s: s.shape, SHAPES),
    Kind("motion", ("how does it move?", "how is it moving?"), lambda s: s.move, MOVES),
    Kind("count", ("how many dots are there?", "how many white dots can be seen?"), lambda s: s.count, NUMBERS),
    Kind("place", ("where is it?", "where does this happen?"), lambda s: s.place, PLACES),
    Kind("order", ("when does the light shine?", "when is the light on?"), lambda s: s.light, THIRDS),
    Kind("sound", ("what is heard?", "what sound is playing?"), lambda s: s.sound, SOUNDS),
    Kind("sound", ("how is the rhythm of the sound?", "how does the sound play?"), lambda s: s.rhythm, RHYTHMS),
    Kind("sound", ("when is it silent?", "when does the sound stop?"), lambda s: s.silence, THIRDS),
)


def questions(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    """One question of every kind, in one of its wordings; none about a sound that is not there."""
    for kind in KINDS:
        wording, answer = int(rng.integers(len(kind.texts))), kind.answer(scene)
        if answer is not None:
            yield Question(kind.texts[wording], answer, CATEGORIES.index(kind.category))


def captions(scene: Scene) -> list[str]:
    """Five captions. The first names every factor, so that it tells one clip from nearly all others; the rest name a
    few each."""
    first, last = scene.colors
    dots = f"{scene.count} white dot{'' if scene.count == 'one' else 's'}"
    if scene.sound is None:
        heard, quiet = "and there is no sound", "a clip without sound"
    else:
        heard = f"and a {scene.rhythm} {scene.sound} is heard except at the {scene.silence}"
        quiet = f"a {scene.sound} with a {scene.rhythm} rhythm is silent at the {scene.silence}"
    return [
        f"a {scene.shape} that is {first} and then {last} moves {scene.move} {GROUNDS[scene.place]} with {dots}, the "
        f"light shines at the {scene.light}, {heard}",
        f"a {scene.shape} moves {scene.move} {GROUNDS[scene.place]}",
        f"a {first} {scene.shape} turns {last}",
        f"the light shines at the {scene.light} on {dots} and a {scene.shape}",
        quiet,
    ]
