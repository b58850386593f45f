"""Reading the members of components: the one place that looks whether a component has a member.

The contracts themselves, a class per kind with every member and its default, are in :mod:`vtp.contracts`, which offers
these functions too.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol

from vtp.errors import PluginError

__all__ = ["Read", "joined_reads", "lacking", "member", "members", "misspelt", "offers", "reads_of", "unfit"]

_CONTRACTS = "vtp.contracts"
_NOTHING = object()


@cache
def members(contract: type) -> Mapping[str, bool]:
    """Name -> whether a component must have it."""
    found: dict[str, bool] = {}
    for base in reversed(contract.__mro__[:-1]):
        own = vars(base)
        for name in [*own, *own.get("__annotations__", ())]:
            public = not name.startswith("_") or name in ("__len__", "__getitem__", "__call__")
            if public and base is not Protocol and base.__module__ == _CONTRACTS:
                default = own.get(name, _NOTHING)
                found[name] = default is _NOTHING or bool(getattr(default, "__isabstractmethod__", False))
    return found


def offers(component: object, name: str) -> bool:
    """Whether a component has a member of its own, and more than None in it."""
    return _read(component, name) not in (_NOTHING, None)


def member(component: object, contract: type, name: str) -> Any:
    """A member of a component, or the contract's default where it has none.

    Raises:
        PluginError: it has none, and there is no default.
    """
    found = _read(component, name)
    if found is not _NOTHING:
        return found
    required = members(contract)
    if name not in required:
        raise KeyError(f"{contract.__name__} has no member {name!r}; vtp.contracts names them all")
    if required[name]:
        raise PluginError(f"{_owner(component)} {_lacks(component, contract, name)}")
    default = _default(contract, name)
    if inspect.isfunction(default):
        return partial(default, component)  # unlike a method it can be pickled: loader workers get the labels of a task
    return default.__get__(component) if isinstance(default, property) else default


@dataclass(frozen=True, slots=True)
class Read:
    """What somebody wants of every sample besides its media and its text.

    Attributes:
        owner: who asks for it, for messages.
        listed: in ``batch.extra``, as it is.
        how: a :class:`vtp.types.Field`, or a function from the values of a batch to a tensor, for ``batch.fields``;
            None where nobody wants tensors.
    """

    owner: str
    listed: bool = True
    how: Any = None


def reads_of(component: object, contract: type, owner: str) -> dict[str, Read]:
    """The ``reads`` of an objective or a task, by name.

    Raises:
        PluginError: it is one string, or holds what is no name, or a name leads to something else than a Field, a
            function or None.
    """
    from vtp.types import Field

    names = member(component, contract, "reads")
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise PluginError(f'{owner}: reads={names!r} must be a set of names, for example frozenset({{"source"}}).')
    asked = {name: names[name] if isinstance(names, Mapping) else None for name in sorted(names)}
    for name, how in asked.items():
        if isinstance(how, type) or not (how is None or isinstance(how, Field) or callable(how)):
            raise PluginError(
                f"{owner}: reads[{name!r}]={how!r} must be None (as it is), a vtp.types.Field, or a function from the "
                "values of a batch to a tensor."
            )
    return {name: Read(owner, how is None, how) for name, how in asked.items()}


def joined_reads(*several: Mapping[str, Read]) -> dict[str, Read]:
    """What all of them want.

    Raises:
        PluginError: two want different tensors of one name.
    """
    found: dict[str, Read] = {}
    for reads in several:
        for name, read in reads.items():
            first = found.setdefault(name, read)
            if None not in (first.how, read.how) and first.how != read.how:
                raise PluginError(
                    f"{first.owner} reads {name!r} as {first.how!r}, and {read.owner} as {read.how!r}: they must "
                    "agree, or read it under two names of Sample.extra."
                )
            kept = first if first.how is not None else read
            found[name] = Read(kept.owner, first.listed or read.listed, kept.how)
    return found


def unfit(component: object, contract: type) -> list[str]:
    """What keeps a component from its contract: members that it must have and has not, and :func:`misspelt` ones. Each
    a sentence without its subject, "has no `samples`..."."""
    required = [name for name, must in members(contract).items() if must]
    lacking = [name for name in required if _read(component, name) is _NOTHING]
    return [_lacks(component, contract, name) for name in lacking] + misspelt(component, contract)


def lacking(cls: type, contract: type) -> list[str]:
    """As :func:`unfit`, of a class that nothing was built of: methods that it must have and has not. What a constructor
    sets is not known yet."""
    methods = (name for name, must in members(contract).items() if must and callable(getattr(contract, name, None)))
    return [_lacks(cls, contract, name) for name in methods if not hasattr(cls, name)]


def misspelt(component: object, contract: type) -> list[str]:
    """Public names of a component, or of a class, that are most likely misspelt members; as sentences like those of
    :func:`unfit`."""
    own = _public_names(component)
    found = []
    for name, required in members(contract).items():
        near = [one for one in sorted(own) if _is_misspelt(one, name)]
        if near and not required and name not in own:
            found.append(
                f"has `{near[0]}`, which nothing reads. Is it meant to be `{name}`? Rename it, to that or to a name "
                "that is further away or begins with an underscore."
            )
    return found


def _read(component: object, name: str) -> Any:
    try:
        return getattr(component, name)
    except AttributeError:
        if any(name in vars(base) for base in type(component).__mro__):
            raise  # its own property failed
        return _NOTHING


@cache  # asked for in every step
def _default(contract: type, name: str) -> Any:
    return inspect.getattr_static(contract, name)


def _owner(component: object) -> str:
    return f"{type(component).__module__}.{type(component).__qualname__}"


def _lacks(component: object, contract: type, name: str) -> str:
    kind = contract.__name__
    close = [one for one in sorted(_public_names(component)) if difflib.SequenceMatcher(None, one, name).ratio() > 0.8]
    hint = f" Is `{close[0]}` meant to be it?" if close else ""
    return f"has no `{name}`, which a component of the kind {kind} must have (vtp.contracts.{kind}).{hint}"


def _public_names(component: object) -> set[str]:
    """Names that its author gave: not those of torch, of Python or of vtp's own bases."""
    cls = component if isinstance(component, type) else type(component)
    names = {name for base in cls.__mro__ if not _is_foreign(base) for name in vars(base)}
    if cls is not component and not _is_foreign(cls):
        names |= {*vars(component)} if hasattr(component, "__dict__") else set()
    return {name for name in names if not name.startswith("_")}


def _is_foreign(cls: type) -> bool:
    module = cls.__module__
    package = module.partition(".")[0]
    return package == "torch" or package in sys.stdlib_module_names or module in ("vtp.model.objective", _CONTRACTS)


@cache  # the same names are compared for every part of every model
def _is_misspelt(name: str, wanted: str) -> bool:
    """Whether ``name`` is ``wanted`` with swapped letters, or a long one with a slip. A plural is no slip."""
    if sorted(name) == sorted(wanted):
        return name != wanted
    plural = {name, wanted} in ({name, name + "s"}, {wanted, wanted + "s"}) and len(wanted) < 10
    return not plural and difflib.SequenceMatcher(None, name, wanted).ratio() > 0.9
