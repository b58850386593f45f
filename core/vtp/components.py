"""Build a component from its options, the keyword arguments of its class.

    problems: list[str] = []
    data = choose("dataset", config["dataset"], lookup, problems)        # looked up and checked; nothing is built yet
    task = choose("task", config["task"], lookup, problems, given=("dataset", "seed"))
    refuse(problems)                                                     # everything that is wrong, in one message
    dataset = data.build()
    task.build(dataset=dataset, seed=0)

Whoever builds a data set, a task, a part of a model or calls an importer comes here, so a mistyped option is answered
in the same words everywhere: which options there are, what type was expected, what an old name is now.
"""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtp.contracts import Component, contract_of, member, offers, unfit
from vtp.errors import ConfigError, PluginError, UserError
from vtp.faults import fault_of
from vtp.registry import did_you_mean
from vtp.values import fits, shown, spell

if TYPE_CHECKING:
    from vtp.registry import Registry

__all__ = [
    "Choice",
    "build",
    "check_options",
    "choose",
    "find",
    "hints_of",
    "mistakes_of",
    "refuse",
    "renamed_option",
    "renamed_options",
]


@dataclass(frozen=True)
class Choice:
    """A component that was chosen, its options checked.

    Attributes:
        where: its node in the configuration, ``encoder.text``.
        kind: of the registry, ``encoder/text``.
        name: as registered.
        target: the class, or the function of an importer.
        options: keyword arguments.
    """

    where: str
    kind: str
    name: str
    target: Callable[..., Any]
    options: Mapping[str, Any]

    def build(self, problems: list[str] | None = None, **given: Any) -> Any:
        """Call the constructor.

        Args:
            problems: takes what the constructor refuses, and the result is then None; without it, that is raised.
            given: passed as far as the constructor has such parameters; an option of that name goes first.

        Raises:
            ConfigError: the constructor refuses its options, or fails in a library behind it.
            PluginError: what comes out lacks a member of its contract, or has a misspelt one.
        """
        found: list[str] = []
        taken = inspect.signature(self.target).parameters
        try:
            component = self.target(**{k: v for k, v in given.items() if k in taken} | dict(self.options))
        except UserError as error:
            if problems is None:
                raise
            problems.append(f"{self.where}: {error}")
            return None
        except Exception as error:  # of the libraries behind it, which no list of classes covers
            if fault_of(error) is not None or os.environ.get("VTP_TRACEBACK", "") not in ("", "0"):
                raise
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": ")
            problem = f"{self.where}: {self.name} cannot be built with these options ({said})."
            if problems is None:
                raise ConfigError(f"{problem} VTP_TRACEBACK=1 shows the traceback.") from error
            problems.append(problem)
            return None
        if self.kind == "dataset" and not offers(component, "name"):
            component.name = self.name
        found += [f"{self.where}: {self.name} {problem}" for problem in unfit(component, contract_of(self.kind))]
        if problems is not None:
            problems += found
        elif found:
            raise PluginError("\n  ".join(found))
        return component


def find(registry: Registry, kind: str) -> Callable[[str], Any]:
    """The look-up that :func:`choose` wants, of one kind of a plugin registry."""
    return lambda name: registry.get(kind, name).load()


def build(kind: str, options: Mapping[str, Any], registry: Registry, **given: Any) -> Any:
    """Look a component up, check its options, and build it.

    Args:
        kind: of the registry.
        options: as for :func:`choose`.
        registry: of the plugins.
        given: passed as far as the constructor has such parameters; an option of that name goes first.

    Raises:
        ConfigError: with everything that is wrong with the options.
        PluginError: it does not keep its contract.
    """
    problems: list[str] = []
    choice = choose(kind, options, find(registry, kind), problems, given=given)
    refuse(problems)
    assert choice is not None
    return choice.build(**given)


def choose(
    where: str,
    options: Mapping[str, Any],
    lookup: Callable[[str], Callable[..., Any]],
    problems: list[str],
    *,
    kind: str = "",
    given: Collection[str] = (),
) -> Choice | None:
    """Look a component up and check its options.

    Args:
        where: its node in the configuration, for messages; empty where options stand alone.
        options: the node; ``name`` says which one, the rest are keyword arguments.
        lookup: name -> class.
        problems: takes everything that is wrong, a line each.
        kind: of the registry, where it is not ``where``.
        given: parameters that whoever builds it passes; no options must be given for them.

    Returns:
        None if there is no such component.
    """
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        problems.append(f"{where}: expected a mapping with a name, {{name: ..., options}}; got {options!r}")
        return None
    name = str(options["name"])
    try:
        target = lookup(name)
    except UserError as error:
        problems.append(f"{where}: {error}")
        return None
    arguments = {key: value for key, value in options.items() if key != "name"}
    check_options(where, name, target, arguments, problems, given=given)
    if nested := member(target, Component, "nested"):
        from vtp.plugins import host

        for place, inner, node, passed in nested(arguments):
            choose(f"{where}.{place}", node, find(host().registry, inner), problems, kind=inner, given=passed)
    return Choice(where, kind or where, name, target, arguments)


def check_options(
    where: str,
    name: str,
    target: Callable[..., Any],
    options: Mapping[str, Any],
    problems: list[str],
    *,
    given: Collection[str] = (),
) -> None:
    """Compare options with the parameters of a class or function; arguments as those of :func:`choose`."""
    parameters = {n: p for n, p in inspect.signature(target).parameters.items() if n not in given}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    hints = hints_of(target)
    renamed = member(target, Component, "renamed")
    head, node = (f"{where}: ", f"{where}.") if where else ("", "")
    for key, value in options.items():
        if key in renamed:
            problems.append(f"{node}{key} is now {renamed[key]}")
        elif key not in named and key not in given:
            if not open_ended:
                hint = did_you_mean(str(key), named)
                problems.append(f"{head}{name} has no option {key!r}.{hint} Options: {', '.join(named) or 'none'}.")
        elif key in hints and not fits(value, hints[key]):
            if (now := renamed.get(f"{key}={value}")) is not None:
                problems.append(f"{node}{key}={value} is now {now}")
            else:
                problems.append(f"{node}{key}: expected {spell(hints[key])}, got {shown(value)}")
    missing = [n for n in named if parameters[n].default is inspect.Parameter.empty and n not in options]
    if missing:
        problems.append(f"{head}{name} needs a value for {', '.join(missing)}. Give {node}{missing[0]}=...")


def refuse(problems: Sequence[str], what: str = "") -> None:
    """Raise ConfigError with all of them, if there are any; ``what`` is what they are problems with."""
    if problems:
        head = f"{len(problems)} problems{what and ' with ' + what}:"
        raise ConfigError(problems[0] if len(problems) == 1 else "\n  ".join([head, *problems]))


def mistakes_of(error: ConfigError) -> list[str]:
    """The problems that :func:`refuse` raised."""
    head, *rest = str(error).splitlines()
    return [line.strip() for line in rest] or [head]


# -- old names ---------------------------------------------------------------------------------------------------------


def renamed_options() -> dict[str, str]:
    """What the core and the plugins say in ``conf/renamed.yaml``: ``group/option`` of an option file that is gone, a
    key of the configuration (``data.stride``) or one of its choices (``data.sampler/old``), and what to write now."""
    import vtp.conf
    from vtp.options import read_options
    from vtp.plugins import Host, config_dir

    folders = [Path(vtp.conf.__path__[0]), *map(config_dir, Host().active_points())]
    found: dict[str, str] = {}
    for folder in folders:
        file = folder / "renamed.yaml" if folder is not None else None
        if file is not None and file.is_file():
            with suppress(ValueError):  # a message about something else goes without it; `vtp plugins check` tells
                found |= {str(old): str(new) for old, new in read_options(file).items()}
    return found


def renamed_option(key: str, node: Mapping[str, Any] | None = None) -> str:
    """``"objectives.vtm.negatives is now objectives.vtm.drawn."``, or nothing where no one says what it is now.

    Args:
        key: ``group/option``, or a dotted key of the configuration.
        node: the options beside that key, whose ``name`` then leads to the class that may know. An objective that was
            not chosen has no node, and its own name leads there.
    """
    parts = key.split(".")
    now = renamed_options().get(key)
    moved = renamed_options().get(f"objective/{parts[1]}") if parts[0] == "objectives" and parts[1:] else None
    if now is None and moved is not None:  # a key of an option file that is gone
        return f"objective={parts[1]} is now {moved}."
    name = (node or {}).get("name") or (parts[1] if parts[0] == "objectives" and parts[2:] else None)
    if now is None and name is not None:
        from vtp.plugins import host

        kind = {"objectives": "objective", "encoder": "/".join(parts[:2])}.get(parts[0], parts[0])
        try:
            target = host().registry.get(kind, str(name)).load()
        except PluginError:
            return ""
        now = member(target, Component, "renamed").get(parts[-1])
    return "" if now is None else f"{key.replace('/', '=') if '/' in key else key} is now {now}."


# -- types -------------------------------------------------------------------------------------------------------------


def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Parameter -> type, of those whose annotation can be resolved: a plugin may use names that only a type checker
    sees, and then its own constructor has the word."""
    function = target if inspect.isroutine(target) else inspect.getattr_static(target, "__init__", None)
    found = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        holder = type("_", (), {"__annotations__": {name: annotation}, "__module__": function.__module__})
        try:
            found[name] = typing.get_type_hints(holder, include_extras=True)[name]
        except Exception:  # resolving runs whatever a plugin wrote as its annotation
            continue
    return found
