"""From a model specification to a model, and the errors on the way.

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

import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from vtp.contracts import Encoder, Fusion, member, offers
from vtp.errors import ConfigError, UserError
from vtp.model.masking import MASKS, AudioMask, VideoMask, WordMask
from vtp.model.model import SLOTS, VTPModel
from vtp.model.objective import Objective
from vtp.registry import Registry, did_you_mean
from vtp.types import MODALITIES

__all__ = ["BuildContext", "Lookup", "build_model", "lookup_in"]


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
        assets: folder with the files that a checkpoint keeps beside its tensors (tokenizer, configuration), when one is
            being restored.
    """

    texts: Callable[[], Iterable[str]] = _no_texts
    answers: tuple[str, ...] = ()
    variant: str | None = None
    encoders: dict[str, nn.Module] = field(default_factory=dict)
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
    context = context or BuildContext()
    context.answers = tuple(context.answers) or tuple(spec.get("answers", ()))
    context.variant = spec.get("variant")
    encoder_options, objective_options = _sections(spec)
    problems: list[str] = []
    encoder_classes = {
        slot: _find(f"encoder.{slot}", options, partial(lookup, "encoder", slot=slot), problems)
        for slot, options in encoder_options.items()
    }
    objective_classes = {
        name: _find(f"objectives.{name}", options, partial(lookup, "objective", slot=None), problems)
        for name, options in objective_options.items()
    }
    problems += _variant_problems(context.variant, [*encoder_classes.values(), *objective_classes.values()])
    _raise(problems)

    for slot in SLOTS:
        if slot in encoder_options and (slot != "fusion" or not problems):
            module = _construct(f"encoder.{slot}", encoder_classes[slot], encoder_options[slot], context, problems)
            if module is not None:
                context.encoders[slot] = module
    problems += _fusion_problems(context.encoders)
    masks = _masks(spec.get("masks") or {}, problems)
    _raise(problems)

    objectives: dict[str, Objective] = {}
    for name, options in objective_options.items():
        cls = objective_classes[name]
        if issubclass(cls, Objective) and (lacking := _lacking(cls.needs, cls.needs_fusion, context.encoders)):
            problems.append(f"objectives.{name}: {lacking}")
            continue
        objective = _construct(f"objectives.{name}", cls, options, context, problems)
        if isinstance(objective, Objective):
            if lacking := _lacking(objective.needs, objective.needs_fusion, context.encoders):
                problems.append(f"objectives.{name}: {lacking}")
            objectives[name] = objective
    _raise(problems)

    stored = {
        "encoders": {slot: _plain(encoder_options.get(slot)) for slot in SLOTS},
        "objectives": {name: _plain(options) for name, options in objective_options.items()},
        "masks": {m: asdict(mask) for m, mask in masks.items()},
        "variant": context.variant,
        "answers": list(context.answers),
    }
    weights = {name: float(options.get("weight", 1.0)) for name, options in objective_options.items()}
    return VTPModel(context.encoders, objectives, weights, json.loads(json.dumps(stored)), seed, masks)


def _sections(spec: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Options per filled slot and per objective; an empty slot is None or has ``name: null``."""
    problems = [
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
                f"Choose one: encoder/{slot}=..."
            )
    objectives = {}
    for name, options in dict(spec.get("objectives") or {}).items():
        if not isinstance(options, Mapping):
            problems.append(
                f"objectives.{name}: expected options with a name, got {options!r}. Choose it with objective=[{name}]."
            )
        elif options.get("name") is None:
            problems.append(
                f"objectives.{name}: has options but no name, so it was not chosen. Add it with objective=[{name},...]."
            )
        else:
            objectives[name] = dict(options)
    _raise(problems)
    return filled, objectives


_KEYS = ("encoders", "objectives", "masks", "variant", "answers")
_NOT_ARGUMENTS = ("name", "weight")


def _find(where: str, options: Mapping[str, Any], lookup: Callable[[str], type], problems: list[str]) -> type:
    """The class of a component; what is wrong with its options goes into ``problems``."""
    try:
        cls = lookup(str(options["name"]))
    except UserError as error:
        problems.append(f"{where}: {error}")
        return nn.Module
    parameters = {n: p for n, p in inspect.signature(cls).parameters.items() if n != "context"}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    hints = _hints(cls)
    for key, value in options.items():
        if key in _NOT_ARGUMENTS:
            if key == "weight" and (isinstance(value, bool) or not isinstance(value, (int, float))):
                problems.append(f"{where}.weight: expected a number, got {value!r}")
        elif key not in named:
            if not open_ended:
                problems.append(
                    f"{where}: {options['name']} has no option {key!r}.{did_you_mean(str(key), named)} "
                    f"Options: {', '.join(named) or 'none'}."
                )
        elif key in hints and not _fits(value, hints[key]):
            problems.append(f"{where}.{key}: expected {_spell(hints[key])}, got {value!r}")
    missing = [n for n in named if parameters[n].default is inspect.Parameter.empty and n not in options]
    if missing:
        problems.append(
            f"{where}: {options['name']} needs a value for {', '.join(missing)}. Give {where}.{missing[0]}=..."
        )
    return cls


def _construct(
    where: str, cls: type, options: Mapping[str, Any], context: BuildContext, problems: list[str]
) -> nn.Module | None:
    arguments = {k: v for k, v in options.items() if k not in _NOT_ARGUMENTS}
    if "context" in inspect.signature(cls).parameters:
        arguments["context"] = context
    try:
        module: nn.Module = cls(**arguments)
    except UserError as error:
        problems.append(f"{where}: {error}")
        return None
    return module


def _variant_problems(variant: Any, classes: Iterable[type]) -> list[str]:
    """A variant that no part of the model knows would change nothing, and the report would still name it."""
    known = sorted({name for cls in classes for name in getattr(cls, "variants", ())})
    if variant is None or variant in known or nn.Module in classes:  # the last: a class was not found
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
        hints = {field.name: typing.get_type_hints(cls)[field.name] for field in fields(cls)}
        fitting = {}
        for key, value in given.items():
            if key not in hints:
                hint = did_you_mean(str(key), hints)
                problems.append(f"masks.{modality}: no option {key!r}.{hint} Options: {', '.join(hints)}.")
            elif typing.get_origin(hints[key]) is not typing.Literal and not _fits(value, hints[key]):
                problems.append(f"masks.{modality}.{key}: expected {_spell(hints[key])}, got {value!r}")
            else:
                fitting[key] = value
        try:
            masks[modality] = cls(**fitting)
        except ConfigError as error:  # a word or a number that is no choice
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


def _lacking(needs: frozenset[Any], needs_fusion: bool, encoders: Mapping[str, Any]) -> str:
    """What an objective needs and the model does not have, as a sentence; "" if nothing."""
    lacking = [m for m in MODALITIES if m in needs and m not in encoders]
    if needs_fusion and "fusion" not in encoders:
        lacking.append("fusion")  # type: ignore[arg-type]
    if not lacking:
        return ""
    return (
        f"needs an encoder for {' and '.join(lacking)}, and that slot is empty. "
        f"Fill it (encoder/{lacking[0]}=...), or leave the objective out."
    )


def _raise(problems: list[str]) -> None:
    if problems:
        head = "" if len(problems) == 1 else f"{len(problems)} problems with the model:\n  "
        raise ConfigError(head + "\n  ".join(problems))


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(vars(cls)["__init__"])
    except (
        Exception
    ):  # a plugin may annotate with names that only a type checker sees; then its own constructor has the word
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a configuration value may be passed for a parameter annotated with ``hint``; True for annotations that
    say little.
    """
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, h) for h in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if origin in (list, tuple):
        return isinstance(value, (list, tuple))
    return True


def _spell(hint: Any) -> str:
    """An annotation in words: ``one of 'mean', 'cls'``, ``int or null``."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(repr(a) for a in typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_spell(a) for a in typing.get_args(hint))
    if hint is type(None):
        return "null"
    return str(getattr(hint, "__name__", hint))


def _plain(value: Any) -> Any:
    """Tuples as lists, paths as strings, so that the specification is JSON."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
