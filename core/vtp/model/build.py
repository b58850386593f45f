"""From a model specification to a model, and the errors on the way::

    spec = {
        "encoders": {"text": {"name": "tiny", "width": 128}, "video": {...}, "fusion": {"name": "concat"}},
        "objectives": {"qa": {"name": "qa", "weight": 1.0}},
        "masks": {"video": {"kind": "tube", "ratio": 0.9}, "text": {"probability": 0.15}},
        "variant": None,
        "answers": ["red", "two", ...],
    }

The specification is plain JSON: it is stored beside the weights, and building it again gives the same model. All errors
that can be found without building anything are reported together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol

from vtp.components import Choice, check_options, choose, refuse
from vtp.contracts import Encoder, Fusion, Part, member, offers
from vtp.errors import ConfigError
from vtp.model.masking import MASKS, AudioMask, Masker, VideoMask, WordMask, default_masks, whole_word_problems
from vtp.model.model import SLOTS, VTPModel
from vtp.model.objective import Objective
from vtp.options import nameless
from vtp.ranges import Range
from vtp.registry import Registry, did_you_mean
from vtp.values import fits, spell

__all__ = ["BuildContext", "Lookup", "build_model", "lookup_in", "shape_problem", "spec_problems"]


class Lookup(Protocol):
    """Finds a class: ``lookup("encoder", "tiny", slot="text")``, ``lookup("objective", "vtc", slot=None)``."""

    def __call__(self, kind: str, name: str, slot: str | None) -> type: ...


def _no_texts() -> Iterable[str]:
    raise ConfigError(
        "a tokenizer is to be built from the training texts, but this command has no training data; "
        "give a checkpoint with its assets"
    )


@dataclass
class BuildContext:
    """What a constructor may ask for beyond its own options: a parameter named ``context`` receives it.

    Attributes:
        texts: gives all captions and questions of the training data, for a tokenizer built from scratch. Not called
            when ``assets`` is set.
        answers: answers of a question-answering task, most frequent in training first.
        variant: ``released`` where the model is to compute as the released code of its method does, whatever is wrong
            with that; None otherwise. A class whose numerics depend on it says so: ``variants = ("released",)``.
        encoders: modules built so far: text, video and audio when the fusion encoder is built, all when objectives are.
        masks: masker per modality that the model will have. An objective that brings a mask of its method (words that
            get attention, words that mean something) puts it in here, and all objectives share it.
        assets: folder with the files that a checkpoint keeps beside its tensors (tokenizer, configuration), when one is
            being restored.
    """

    texts: Callable[[], Iterable[str]] = _no_texts
    answers: tuple[str, ...] = ()
    variant: str | None = None
    encoders: dict[str, Any] = field(default_factory=dict)
    masks: dict[str, Masker] = field(default_factory=default_masks)
    assets: Path | None = None

    def assets_of(self, part: str) -> Path | None:
        """Folder of what ``save_assets`` of one part wrote, ``"encoders/text"`` or ``"objectives/snps3"``; None when
        nothing is being restored.
        """
        return None if self.assets is None else self.assets / part

    def pooled_width(self, modality: str) -> int:
        """D of ``ctx.pooled(modality)``: width of the fusion encoder where that is unimodal, else of the encoder's
        pooled feature.
        """
        fusion = self.encoders.get("fusion")
        owner = fusion if member(fusion, Fusion, "unimodal") else self.encoders[modality]
        return int(member(owner, Encoder, "pooled_width"))


def lookup_in(registry: Registry) -> Lookup:
    """The lookup that :func:`build_model` wants, over a plugin registry."""

    def lookup(kind: str, name: str, slot: str | None) -> type:
        found: type = registry.get(kind if slot is None else f"{kind}/{slot}", name).load()
        return found

    return lookup


def build_model(
    spec: Mapping[str, Any], lookup: Lookup, context: BuildContext | None = None, *, seed: int = 0
) -> VTPModel:
    """Build the model that ``spec`` describes.

    Args:
        spec: ``encoders`` (slot -> options with ``name``, or None), ``objectives`` (name -> options with ``name`` and
            ``weight``), ``masks`` (modality -> options of its class in :mod:`vtp.model.masking`), ``variant``,
            ``answers``.
        lookup: finds a class; :func:`lookup_in` makes one from a registry.
        context: what constructors may ask for; its ``answers`` are stored in the model's spec, and taken from there
            when it has none.
        seed: key of random masks.

    Raises:
        ConfigError: with everything that is wrong with the specification, one line each.
    """
    if wrong := shape_problem(spec):
        raise ConfigError(wrong)
    context = context or BuildContext()
    context.answers = tuple(context.answers) or tuple(spec.get("answers") or ())
    context.variant = spec.get("variant")
    problems: list[str] = []
    encoder_options, objective_options = _sections(spec, problems)
    encoders, objectives = _choose(encoder_options, objective_options, lookup, problems)
    masks = _masks(spec.get("masks") or {}, problems)
    context.masks = dict(masks)
    problems += _variant_problems(context.variant, [*encoders.values(), *objectives.values()]) if not problems else []
    refuse(problems, "the model")

    for slot in SLOTS:
        if slot in encoders and (slot != "fusion" or not problems):
            module = encoders[slot].build(problems, context=context)
            if module is not None:
                context.encoders[slot] = module
    problems += _fusion_problems(context.encoders)
    if "text" in context.encoders and isinstance(mask := masks["text"], WordMask) and mask.whole_words:
        problems += whole_word_problems(member(context.encoders["text"], Encoder, "spec"))
    refuse(problems, "the model")

    built: dict[str, Objective] = {}
    for name, choice in objectives.items():
        if lacking := _lacking(choice.target, context.encoders):
            problems.append(f"objectives.{name}: {lacking}")
        elif (objective := choice.build(problems, context=context)) is not None:
            if lacking := _lacking(objective, context.encoders):  # it may know better once it is built
                problems.append(f"objectives.{name}: {lacking}")
            built[name] = objective
    refuse(problems, "the model")

    stored = {
        "encoders": {slot: _plain(encoder_options.get(slot)) for slot in SLOTS},
        "objectives": {name: _plain(options) for name, options in objective_options.items()},
        "masks": {m: asdict(mask) for m, mask in masks.items()},
        "variant": context.variant,
        "answers": list(context.answers),
    }
    weights = {name: float(options.get("weight", 1.0)) for name, options in objective_options.items()}
    return VTPModel(context.encoders, built, weights, json.loads(json.dumps(stored)), seed, context.masks)


def spec_problems(spec: Mapping[str, Any], lookup: Lookup) -> list[str]:
    """What is wrong with a specification, a line each, as far as that can be told without building anything."""
    if wrong := shape_problem(spec):
        return [wrong]
    problems: list[str] = []
    encoders, objectives = _choose(*_sections(spec, problems), lookup, problems)
    _masks(spec.get("masks") or {}, problems)
    if not problems:
        needing = {name: _lacking(choice.target, encoders) for name, choice in objectives.items()}
        problems += [f"objectives.{name}: {lacking}" for name, lacking in needing.items() if lacking]
    return problems or _variant_problems(spec.get("variant"), [*encoders.values(), *objectives.values()])


def shape_problem(spec: Any) -> str:
    """What a specification has in place of the dicts and lists of words that it consists of; "" if nothing."""
    if not isinstance(spec, Mapping):
        return f"model: expected a dict with {', '.join(_KEYS)}, got {_short(spec)}"
    for key in ("encoders", "objectives", "masks"):
        if not isinstance(spec.get(key) or {}, Mapping):
            return f"model: {key} must be a dict, got {_short(spec[key])}"
    answers, variant = spec.get("answers") or (), spec.get("variant")
    if not isinstance(answers, (list, tuple)) or not all(isinstance(answer, str) for answer in answers):
        return f"model: answers must be a list of strings, got {_short(answers)}"
    if not isinstance(variant, (str, type(None))):
        return f"model: variant must be a string or null, got {_short(variant)}"
    return ""


def _short(value: Any) -> str:
    text = type(value).__name__ if isinstance(value, (dict, list)) else repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."


def _sections(
    spec: Mapping[str, Any], problems: list[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Options per filled slot and per objective; an empty slot is None or has ``name: null``."""
    problems += [
        f"model: no key {key!r}.{did_you_mean(key, _KEYS)} Known: {', '.join(_KEYS)}."
        for key in spec
        if key not in _KEYS
    ]
    encoders = dict(spec.get("encoders") or {})
    problems += [
        f"encoder: no slot {slot!r}.{did_you_mean(slot, SLOTS)} Slots: {', '.join(SLOTS)}."
        for slot in encoders
        if slot not in SLOTS
    ]
    filled = {}
    for slot in SLOTS:
        options = encoders.get(slot)
        if options is not None and not isinstance(options, Mapping):
            problems.append(
                f"encoder.{slot}: expected options with a name, got {options!r}. Write {{name: {options}}}."
            )
        elif options and options.get("name") is not None:
            filled[slot] = dict(options)
        elif options and set(options) - {"name"}:
            problems.append(
                f"encoder.{slot}: has options ({', '.join(sorted(set(options) - {'name'}))}) but no name. "
                f"Choose one: encoder/{slot}=..., whose option file has a line `name: ...`"
            )
    objectives = {}
    for name, options in dict(spec.get("objectives") or {}).items():
        if not isinstance(options, Mapping):
            problems.append(
                f"objectives.{name}: expected options with a name, got {options!r}. Choose it with objective=[{name}]."
            )
        elif options.get("name") is None:
            problems.append(
                f"objectives.{name}: has options but no name, so it was not chosen. "
                f"{nameless('objective', name) or f'Add it with objective=[{name},...].'}".rstrip()
            )
        else:
            objectives[name] = dict(options)
    return filled, objectives


_KEYS = ("encoders", "objectives", "masks", "variant", "answers")
_WEIGHT = Annotated[float, Range(least=0)]  # of an objective


def _choose(
    encoders: Mapping[str, Mapping[str, Any]],
    objectives: Mapping[str, Mapping[str, Any]],
    lookup: Lookup,
    problems: list[str],
) -> tuple[dict[str, Choice], dict[str, Choice]]:
    """The encoders by slot and the objectives by name, looked up and checked."""
    given = ("context",)
    slots, named = {}, {}
    for slot, options in encoders.items():
        find = partial(lookup, "encoder", slot=slot)
        slots[slot] = choose(f"encoder.{slot}", options, find, problems, kind=f"encoder/{slot}", given=given)
    for name, options in objectives.items():
        where, find = f"objectives.{name}", partial(lookup, "objective", slot=None)
        arguments = {key: value for key, value in options.items() if key != "weight"}
        named[name] = choose(where, arguments, find, problems, kind="objective", given=given)
        if not fits(weight := options.get("weight", 1.0), _WEIGHT):
            problems.append(f"{where}.weight: expected {spell(_WEIGHT)}, got {weight!r}")
        if (found := named[name]) and not (isinstance(found.target, type) and issubclass(found.target, Objective)):
            problems.append(f"{where}: {found.name} is no subclass of vtp.model.objective.Objective, which it must be")
    return {s: choice for s, choice in slots.items() if choice}, {n: choice for n, choice in named.items() if choice}


def _variant_problems(variant: Any, parts: Iterable[Choice]) -> list[str]:
    """A variant that no part of the model knows would change nothing, and the report would still name it."""
    known = sorted({name for part in parts for name in member(part.target, Part, "variants")})
    if variant is None or variant in known:
        return []
    if not known:
        return [f"variant={variant}: no part of this model has variants. Leave it out: variant=null."]
    return [
        f"variant={variant}: no part of this model knows it.{did_you_mean(str(variant), known)} "
        f"Choose {', '.join(known)} or null."
    ]


def _masks(options: Mapping[str, Any], problems: list[str]) -> dict[str, VideoMask | AudioMask | WordMask]:
    """The masker of every modality; a modality that ``options`` does not name gets that of the class's defaults."""
    problems += [
        f"masks: no modality {m!r}.{did_you_mean(m, MASKS)} Known: {', '.join(MASKS)}."
        for m in options
        if m not in MASKS
    ]
    masks = {}
    for modality, cls in MASKS.items():
        given = options.get(modality) or {}
        if not isinstance(given, Mapping):
            problems.append(f"masks.{modality}: expected options, got {given!r}")
            continue
        fitting: dict[str, Any] = {}
        for key, value in given.items():
            wrong: list[str] = []
            check_options(f"masks.{modality}", cls.__name__, cls, {key: value}, wrong)
            problems += wrong
            fitting |= {} if wrong else {key: value}
        try:
            masks[modality] = cls(**fitting)
        except ConfigError as error:  # a number out of range
            problems.append(str(error))
    return masks


def _fusion_problems(encoders: Mapping[str, Any]) -> list[str]:
    consumes: Mapping[str, str] = member(encoders.get("fusion"), Fusion, "consumes")
    return [
        f"encoder.fusion: it reads the output of the embedding layer of {modality}, but the encoder in that slot "
        f"({type(encoders[modality]).__name__}) has no embed(); "
        f"choose another encoder/{modality} or another encoder/fusion"
        for modality, stage in consumes.items()
        if stage == "embedded" and modality in encoders and not offers(encoders[modality], "embed")
    ]


def _lacking(objective: Any, encoders: Mapping[str, Any]) -> str:
    """What an objective, or its class, needs and the model does not have, as a sentence; "" if nothing."""
    slots = objective.needs if objective.slots is None else objective.slots
    needed = {*slots, *(["fusion"] if objective.needs_fusion else [])}
    lacking = [slot for slot in SLOTS if slot in needed and slot not in encoders]
    if not lacking:
        return ""
    return (
        f"needs an encoder for {' and '.join(lacking)}, and that slot is empty. "
        f"Fill it (encoder/{lacking[0]}=...), or leave the objective out."
    )


def _plain(value: Any) -> Any:
    """Tuples as lists, paths as strings, so that the specification is JSON."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
