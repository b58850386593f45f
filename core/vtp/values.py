"""What a value of the configuration may be: whether it fits an annotation, and how that is said. Ranges of numbers are
in annotations too, see :mod:`vtp.ranges`.

fits(0, Count)     -> False
spell(Count)       -> "int (at least 1)"

A number without a range is finite, and an int fits into 64 bits: nothing that takes one can use NaN, inf or 10**20.
"""

from __future__ import annotations

import math
import types
import typing
from collections import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from vtp.ranges import Range

__all__ = ["converted", "fits", "misfits", "shown", "spell", "types_of"]

_INTEGERS = range(-(2**63), 2**63)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of the configuration may be passed for a parameter annotated with ``hint``; True for annotations
    that say little."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return any(value == one and type(value) is type(one) for one in arguments)
    if origin is Annotated:
        bounds = [one for one in arguments[1:] if isinstance(one, Range)] if isinstance(value, (int, float)) else []
        return fits(value, arguments[0]) and all(one.holds(value) for one in bounds)
    if hint is None or hint is type(None):
        return value is None
    plain = origin or hint
    if plain in (bool, str):
        return isinstance(value, plain)
    if plain in (int, float):
        if isinstance(value, bool) or not isinstance(value, (int, plain)):
            return False
        return value in _INTEGERS if isinstance(value, int) else math.isfinite(value)
    if plain is Path:
        return isinstance(value, (str, Path))
    if plain in (tuple, list, set, frozenset, *_SEQUENCES):
        return isinstance(value, (list, tuple)) and _elements_fit(value, plain, arguments)
    if plain in (dict, abc.Mapping, abc.MutableMapping):
        kinds = arguments or (Any, Any)
        return isinstance(value, Mapping) and all(fits(k, kinds[0]) and fits(v, kinds[1]) for k, v in value.items())
    return True


_SEQUENCES = (abc.Sequence, abc.Iterable, abc.Collection, abc.Set)


def _elements_fit(values: Sequence[Any], plain: Any, kinds: tuple[Any, ...]) -> bool:
    if plain is tuple and kinds and kinds[-1] is not Ellipsis:
        return len(values) == len(kinds) and all(map(fits, values, kinds))
    return not kinds or all(fits(value, kinds[0]) for value in values)


def converted(value: Any, hint: Any) -> Any:
    """A number as ``hint`` wants it: ``epochs=3`` as 3.0, ``cache=2024`` as the name "2024". Else the value itself."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        plain = _plain_types(hint)
        if float in plain and int not in plain and isinstance(value, int) and value in _INTEGERS:
            return float(value)
        if str in plain and not {int, float} & plain:
            return str(value)
    elements = typing.get_args(hint)
    if isinstance(value, list) and typing.get_origin(hint) is list:
        return [converted(one, elements[0]) for one in value]
    if isinstance(value, Mapping) and typing.get_origin(hint) is dict:
        return {key: converted(one, elements[1]) for key, one in value.items()}
    return value


def misfits(where: str, given: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with values by their types: key -> ``"data.workers: expected int, got 'two'"``.

    Args:
        where: what stands before a key in messages, ``"data."``.
        given: key -> value; keys that have no hint are passed over.
        hints: key -> annotation.
    """
    return {
        key: f"{where}{key}: expected {spell(hints[key])}, got {shown(value)}"
        for key, value in given.items()
        if key in hints and not fits(value, hints[key])
    }


def shown(value: Any) -> str:
    """A value as it is written on the command line, where that differs from Python: null, true, false."""
    return {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))


def types_of(schema: type) -> dict[str, Any]:
    """Field -> annotation of a dataclass, with its ranges."""
    return typing.get_type_hints(schema, include_extras=True)


def _plain_types(hint: Any) -> set[Any]:
    """The types of which a value may be: of ``Annotated[int, ...] | None`` int and NoneType."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return {plain for one in arguments for plain in _plain_types(one)}
    return _plain_types(arguments[0]) if origin is Annotated else {origin or hint}


def spell(hint: Any) -> str:
    """An annotation in words: ``one of 'mean', 'cls'``, ``int or null``, ``int (at least 1)``, ``list of str``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(spell, arguments)))
    if origin is Annotated:
        bounds = [str(one) for one in arguments[1:] if isinstance(one, Range)]
        return spell(arguments[0]) + (f" ({', '.join(bounds)})" if bounds else "")
    if hint is type(None):
        return "null"
    plain = origin or hint
    if plain is Path:
        return "path"
    if plain in (dict, abc.Mapping, abc.MutableMapping):
        return "mapping" + (f" of {spell(arguments[0])} to {spell(arguments[1])}" if arguments else "")
    if plain is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"list of {len(arguments)}: {', '.join(map(spell, arguments))}"
    if plain in (tuple, list, set, frozenset, *_SEQUENCES):
        return "list" + (f" of {spell(arguments[0])}" if arguments and arguments[0] is not Any else "")
    return "anything" if hint is Any else str(getattr(hint, "__name__", hint))
