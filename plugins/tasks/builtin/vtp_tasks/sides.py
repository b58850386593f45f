"""What searches and what is searched: two sides, each of one modality or of several together.

    text -> video    t2v    every text of a clip asks
    audio -> video   a2v    every clip asks once, with its sound
    audio+text -> video    at2v    every text asks together with the sound of its clip

Of a side of several an item may lack some; what is there speaks for it, and reports count and name such items. One that
lacks all of them is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vtp.contracts import Objective, member, offers
from vtp.errors import ConfigError, RunError
from vtp.eval.evaluator import Collected, Evaluator
from vtp.registry import did_you_mean
from vtp.types import MODALITIES, Modality, Sample

__all__ = [
    "Modalities",
    "Side",
    "Space",
    "compares_sides",
    "direction",
    "embed_side",
    "find_space",
    "read_side",
    "spell_side",
]

Side = tuple[Modality, ...]
Modalities = str | list[str]


def read_side(key: str, value: Modalities) -> Side:
    """``video``, ``[video, audio]`` or ``video+audio`` as modalities in their usual order: video, audio, text.

    Raises:
        ConfigError: a modality that there is not, one twice, or none; ``key`` names the option.
    """
    names = value.split("+") if isinstance(value, str) else list(value)
    if unknown := [name for name in names if name not in MODALITIES]:
        raise ConfigError(
            f"{key}: unknown modality {unknown[0]!r}.{did_you_mean(unknown[0], MODALITIES)} Expected "
            f"{', '.join(MODALITIES)}, or several of them such as [video,audio]."
        )
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{key}={value}: expected each modality once, and at least one of {', '.join(MODALITIES)}.")
    return tuple(m for m in MODALITIES if m in names)


def spell_side(side: Sequence[str]) -> str:
    """``video+audio``, as reports and protocols write it."""
    return "+".join(side)


def direction(asks: Sequence[str], found: Sequence[str]) -> str:
    """``t2va``: from text to picture and sound."""
    return f"{''.join(m[0] for m in asks)}2{''.join(m[0] for m in found)}"


@dataclass(frozen=True, slots=True)
class Space:
    """Where two sides are compared.

    Attributes:
        one, other: of each side the embeddings that make its vector, as (objective, what ``embed`` is asked for). Of
            several, the cosines of two items are averaged over pairs of modalities.
        beyond: what the objective would look at besides, and is not shown.
        unlike: how many modalities it reads for a side that are not of that side.
    """

    one: tuple[tuple[str, Modality], ...]
    other: tuple[tuple[str, Modality], ...]
    beyond: Side = ()
    unlike: int = 0

    @property
    def names(self) -> list[str]:
        """The objectives."""
        return list(dict.fromkeys(name for name, _ in self.one))


def _read_by(objective: Any) -> dict[Modality, set[str]]:
    """What an objective can embed -> the modalities that it reads for that."""
    if not offers(objective, "embed"):
        return {}
    embeds: Mapping[str, Sequence[str]] = member(objective, Objective, "embeds")
    needs = set(member(objective, Objective, "needs"))
    if embeds:
        return {m: set(embeds.get(m, (m,))) for m in MODALITIES if m in embeds or m == "text"}
    media = needs - {"text"} if "text" in needs else set()  # a clip as a whole; without text, one modality and another
    return {m: {m} if m == "text" or not media else media for m in MODALITIES if m in needs}


def find_space(task: str, objectives: Mapping[str, Any], name: str | None, one: Side, other: Side) -> Space:
    """Where two sides are compared: by the objective ``name``; with None by the one that is about exactly these, else
    by one that looks at more, else by objectives for all pairs of their modalities together.

    Raises:
        ConfigError: nothing in the model compares them.
    """
    asked = dict(objectives.items())
    given = asked if name is None else {name: asked[name]}
    whole = [space for key, objective in given.items() for space in _in_one(key, objective, one, other)]
    if whole:
        return min(whole, key=lambda space: space.unlike)
    if name is None and (together := _by_pairs(asked, one, other)) is not None:
        return together
    compared = {key: sorted(_read_by(objective)) for key, objective in given.items() if _read_by(objective)}
    wanted = f"{spell_side(one)} with {spell_side(other)}"
    sides = f"task.query and task.gallery ask for {wanted}"
    if name is None:
        found = "; ".join(f"{key}: {', '.join(some)}" for key, some in compared.items()) or "none"
        raise ConfigError(
            f"task {task}: {sides}, and no objective of the model compares these (what each embeds: {found}). Train "
            "one, such as objective=[crossformer/av] for video with audio, or change task.query or task.gallery."
        )
    embedded = compared.get(name, [])
    if len(embedded) < 2:
        lacking = next((m for m in (*one, *other) if m not in embedded and m != "text"), "video")
        raise ConfigError(
            f"task {task}: {sides}, and the objective {name!r} does not say that it embeds {lacking}: its class needs "
            f'the line embeds = {{"{lacking}": ("{lacking}",)}}, with all modalities that embed(ctx, "{lacking}") '
            "reads."
        )
    simple = len(one) == len(other) == 1
    pair = [m for m in MODALITIES if m in (*one, *other)]
    way = f"Set objectives.{name}.modalities=[{','.join(pair)}]," if simple else "Set"
    raise ConfigError(
        f"task {task}: the objective {name!r} compares {' with '.join(embedded)}, and {sides}. {way} task.objective "
        "(null = those of the model that compare them), task.query or task.gallery."
    )


def compares_sides(objective: Any, one: Side, other: Side) -> bool:
    """Whether an objective embeds both sides."""
    return any(_in_one("", objective, one, other))


def _in_one(name: str, objective: Any, one: Side, other: Side) -> Iterator[Space]:
    """The space of an objective that embeds both sides."""
    reads = _read_by(objective)
    first, second = (_asks_for(reads, side) for side in (one, other))
    if first is not None and second is not None:
        beyond = tuple(m for m in MODALITIES if m in (reads[first] | reads[second]) - {*one, *other})
        unlike = len(reads[first] - {*one}) + len(reads[second] - {*other})
        yield Space(((name, first),), ((name, second),), beyond, unlike)


def _asks_for(reads: Mapping[Modality, set[str]], side: Side) -> Modality | None:
    """What to ask ``embed`` for, so that it reads the whole side and as little else as can be."""
    able = [m for m in side if m in reads and set(side) <= reads[m]]
    return min(able, key=lambda m: len(reads[m]), default=None)


def _by_pairs(objectives: Mapping[str, Any], one: Side, other: Side) -> Space | None:
    first: list[tuple[str, Modality]] = []
    second: list[tuple[str, Modality]] = []
    for a in one:
        for b in other:
            found = [space for name, each in objectives.items() for space in _in_one(name, each, (a,), (b,))]
            if not found:
                return None
            best = min(found, key=lambda space: space.unlike)
            first += best.one
            second += best.other
    return Space(tuple(first), tuple(second))


def embed_side(
    evaluator: Evaluator,
    parts: Sequence[tuple[str, Modality]],
    side: Side,
    samples: Sequence[Sample],
    what: str,
    drop: Sequence[Modality] = (),
    label: str = "",
    *,
    strict: bool = True,
    views: int | None = None,
) -> Collected:
    """``embedding`` of every sample, (N, E) of unit length, or (N, n, E) where the objective gives n vectors for each,
    of the modalities of ``side`` less those of ``drop``; no other is read.

    With ``strict`` as :meth:`vtp.eval.evaluator.Evaluator.run` has it; withheld modalities are never strict. Of several
    parts it is their concatenation, what an item lacks being left out.

    Raises:
        RunError: of several parts one gives several vectors.
    """

    def of_all(ctx: Any) -> dict[str, Tensor]:
        objectives = ctx.model.objectives
        if len(parts) == 1:
            ((name, modality),) = parts
            return {"embedding": objectives[name].embed(ctx, modality)}
        found = []
        for name, modality in parts:
            vectors = objectives[name].embed(ctx, modality)
            if vectors.ndim != 2:
                raise RunError(
                    f"objective {name}: it embeds {modality} as several vectors, and those cannot be put together with "
                    "others. Choose modalities that one objective compares (task.query, task.gallery)."
                )
            found.append(vectors.float().masked_fill(~ctx.present(modality)[:, None], 0.0))
        return {"embedding": normalize(torch.cat(found, dim=1), dim=1)}

    withheld = tuple(m for m in MODALITIES if m in evaluator.modalities and (m not in side or m in drop))
    how: dict[str, Any] = {"strict": strict and not drop, "views": views}
    return evaluator.run(samples, of_all, drop=withheld, what=what, label=label, **how)
