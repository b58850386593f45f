"""What is wrong with a command line of ``vtp run``: every mistake of it, each in a line of our own words.

hydra and omegaconf stop at the first one. So the argument that it is about is left out and the rest is composed again,
until it composes; then the values are checked as well.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from vtp.components import mistakes_of, renamed_option
from vtp.errors import ConfigError, VtpError
from vtp.registry import did_you_mean

__all__ = ["key_of", "mistakes", "refuse_bad_sweep", "refuse_at_sight", "split_flags"]

Compose = Callable[[list[str]], dict[str, Any]]  # arguments -> resolved configuration

_NO_NAME = r"(?i:|null|true|false|\{.*\}|[-+.\d]+(e[-+]?\d+)?|nan|inf)"  # what names no option
_OURS = ("config_path", "config_name", "experimental_rerun")  # flags of hydra that would leave vtp's configuration


def key_of(argument: str) -> str:
    """``++train.steps=3`` -> ``train.steps``."""
    return argument.partition("=")[0].lstrip("+~")


def split_flags(arguments: list[str]) -> tuple[list[str], list[str]]:
    """hydra's own flags (``-m``, ``--cfg job``), which may stand anywhere, and the settings.

    Raises:
        ConfigError: there is no such flag, or it lacks its value.
    """
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        known = [option for action in parser._actions for option in action.option_strings]
        wrong = next((one for one in arguments if one.startswith("-") and one.partition("=")[0] not in known), "")
        hint = did_you_mean(wrong.partition("=")[0], known) if wrong else ""
        raise ConfigError(f"{message}.{hint} `vtp run --help` explains; settings are KEY=VALUE, without dashes.")

    parser: argparse.ArgumentParser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    if not any(argument.startswith("-") for argument in arguments):
        return [], arguments
    given = parser.parse_intermixed_args(arguments)
    for name in _OURS:
        if getattr(given, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} is not for vtp: put options into a file of a plugin's conf/.")
    if given.resolve and not given.cfg:
        raise ConfigError("--resolve goes with --cfg job.")
    rest = list(arguments)
    for override in given.overrides:
        rest.remove(override)
    return rest, given.overrides


class _Mistake(NamedTuple):
    """One mistake: its line, or the unknown ``key`` that it is about, and the argument that made it, if one did."""

    line: str
    key: str = ""
    argument: str | None = None


def refuse_at_sight(arguments: Sequence[str]) -> None:
    """Refuse what hydra accepts without a word: a choice that names an option twice, ``objective=[qa,qa]``, and an
    empty ``run_dir=``, for which it would write into the working folder.

    Raises:
        ConfigError: names the argument.
    """
    for argument in arguments:
        if key_of(argument) in ("run_dir", "hydra.run.dir") and not argument.partition("=")[2].strip(" '\""):
            raise ConfigError(f"{argument}: expected the folder of this run.")
        names = _names(argument) if re.fullmatch(r"[\w/]+=\[[^{}]*\]", argument) else []
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1 and key_of(argument) in _options()]:
            raise ConfigError(f"{argument}: {twice[0]} is named twice.")


def mistakes(error: Exception, arguments: Sequence[str], compose: Compose) -> list[str]:
    """Everything that is wrong with a command line that does not compose.

    Args:
        error: what hydra or omegaconf said of it.
        arguments: without flags.
        compose: raises as hydra does.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    rest, found = list(arguments), list[_Mistake]()
    config: dict[str, Any] | None = None
    while config is None:
        found.append(_mistake(error, rest))
        if (culprit := found[-1].argument) is None:
            break
        rest.remove(culprit)
        try:
            config = compose(rest)
        except (HydraException, OmegaConfBaseException, ValueError) as further:
            error = further
    lines = [line for one in found for line in (_no_key(one.key, config) if one.key else one.line).split("\n")]
    if config is not None and all(one.key for one in found):  # a choice that is missing leaves more open than it says
        lines += _further(config)
    return list(dict.fromkeys(lines))


def _further(config: dict[str, Any]) -> list[str]:
    from vtp.run.check import check

    try:
        check(config, Path(str(config["run_dir"])))
    except ConfigError as error:
        return mistakes_of(error)
    except VtpError:  # of a plugin; told when the rest is right
        return []
    return []


def refuse_bad_sweep(arguments: Sequence[str], compose: Compose) -> None:
    """Compose and check a sweep with each of its values before the first job starts.

    Args:
        arguments: without flags.
        compose: raises ConfigError.

    Raises:
        ConfigError: with everything that is wrong, and the value that it comes from.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from vtp.components import refuse

    try:
        parsed = OverridesParser.create().parse_overrides(list(arguments))
        values = {
            argument: [f"{argument.partition('=')[0]}={value}" for value in override.sweep_string_iterator()]
            for argument, override in zip(arguments, parsed, strict=True)
            if override.is_sweep_override()
        }
    except HydraException:  # it is told when hydra composes
        return

    def problems(instead: dict[str, str]) -> list[str]:
        try:
            return _further(compose([instead.get(argument, argument) for argument in arguments]))
        except ConfigError as error:
            return mistakes_of(error)

    first = {argument: choices[0] for argument, choices in values.items()}
    always = problems(first)
    told = list(always)
    for argument, choices in values.items():
        for value in choices[1:]:
            told += [f"{value}: {line}" for line in problems({**first, argument: value}) if line not in always]
    refuse(told)


def _mistake(error: BaseException, arguments: Sequence[str]) -> _Mistake:
    """What a hydra or omegaconf error means."""
    from hydra.errors import OverrideParseException

    from vtp.options import no_option

    chain = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    text = "\n".join(str(link) for link in chain)
    if isinstance(error, OverrideParseException):
        if "=" not in error.override:
            return _Mistake(f"{error.override!r}: expected a setting, KEY=VALUE.", argument=error.override)
        said = re.split(r"\s*(?:See https|expecting \{)", str(error))[0].removeprefix("Error parsing override ")
        reason = " ".join(said.removeprefix(f"'{error.override}'").split())
        how = f"Write lists as [a,b], and a text that reads as something else as '{key_of(error.override)}=\"TEXT\"'"
        line = f"{error.override!r} cannot be read: {reason}. {how}."
        return _Mistake(line, argument=error.override)
    options = _options()
    if nameless := next((a for a in arguments if _names_nothing(a, options, text)), None):
        return _Mistake(_no_name(nameless, options), argument=nameless)
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text):
        group, option = match.groups()
        known = options.get(group, [])
        argument = next((a for a in arguments if _chooses(a, group, option)), None)
        absent = [name for name in _names(argument or "") if name not in known] or [option]
        lines = [renamed_option(f"{group}/{name}") or no_option(*_whole(group, name)) for name in absent]
        return _Mistake("\n".join(lines), argument=argument)
    if match := re.search(r"Could not override '([^'@]+)(?:@[^']*)?'", text):
        key = match.group(1)
        argument = next((a for a in arguments if key_of(a).partition("@")[0] == key), None)
        if "." in key:
            return _Mistake("", key, argument)
        if hint := _addon(f"{key}/{(argument or '').partition('=')[2]}"):
            return _Mistake(f"nothing is called {argument or key} here.{hint}", argument=argument)
        if key == "experiment" and argument:  # a group of plugins alone
            return _Mistake(no_option(*_whole(key, ", ".join(_names(argument)))), argument=argument)
        return _Mistake(_no_top(key, options), argument=argument)
    if "Could not delete" in text:
        argument = next((a for a in arguments if a.startswith("~") and f"'{key_of(a)}'" in text), None)
        return _Mistake(f"{argument or '~'}: there is no such key or choice to take away.", argument=argument)
    if match := re.search(r"Key '([^']+)' (?:is )?not in (?:struct|'\w+')", text):
        full = re.search(r"full_key: (\S+)", text)
        key = full.group(1) if full else match.group(1)
        argument = next((a for a in arguments if key_of(a) == key or key_of(a).startswith(f"{key}.")), None)
        return _Mistake("", key if argument is None else key_of(argument), argument)
    full = re.search(r"full_key: (\S+)", text)
    place = full.group(1) if full else ""
    argument = next((a for a in arguments if place and key_of(a) == place), None)
    if place.startswith("hydra.") and (given := next((a for a in arguments if key_of(a) == "run_dir"), None)):
        return _Mistake(f"{given}: expected the folder of this run.", argument=given)
    first = re.split(r"\s*(?:\n *full_key:|(?:Config )?[Ss]earch path|, set the environment)", str(error))[0]
    merging = re.match(r"Error merging override (.*)", first, re.S)
    if merging is not None:
        argument = next((a for a in arguments if a.lstrip("+") == merging.group(1)), None)
        return _Mistake(f"{merging.group(1)}: a value of this kind cannot stand there.", argument=argument)
    return _Mistake(f"{place}: {_plain(first)}" if place else _plain(first), argument=argument)


def _whole(group: str, name: str) -> tuple[str, str, list[str]]:
    """A group, the name of an option in it, and all that there are, with those of its inner groups: ``tiny`` of
    ``experiment/alpro`` is ``alpro/tiny`` of ``experiment``. The slots of ``encoder`` are groups by themselves."""
    from vtp.options import below, option_files

    first, _, inner = group.partition("/")
    if not inner or first == "encoder":
        return group, name, [*below(option_files(), group)]
    return first, f"{inner}/{name}", [*below(option_files(), first)]


def _plain(text: str) -> str:
    """In one line, and in words for what omegaconf calls a dereferenced interpolation."""
    return re.sub(r"While dereferencing interpolation '([^']*)': ", r"\1: ", " ".join(text.split()))


def _names_nothing(argument: str, options: dict[str, list[str]], text: str) -> bool:
    """Whether an argument ought to choose an option and has no name, where that is what hydra stumbled over."""
    group, is_choice, value = argument.lstrip("+").partition("=")
    group = group.partition("@")[0]
    if not (is_choice and re.fullmatch(_NO_NAME, value.strip("'\""))):
        return False
    if "onfig group override" in text:
        return group in options or group in ("hydra", "") or _parts(group, options) != []
    if f"Could not override '{group}'" in text:
        return _parts(group, options) != []
    return group in options and re.search(r"Could not (?:find|load) '\S*/'", text) is not None


def _no_name(argument: str, options: dict[str, list[str]]) -> str:
    group = key_of(argument).partition("@")[0]
    if group in options:
        return f"{argument}: expected the name of an option: {', '.join(options[group])}."
    if not group:
        return f"{argument!r}: expected a setting, KEY=VALUE."
    inner = _parts(group, options)
    return f"{argument}: expected one choice for each of its parts" + (f": {', '.join(inner)}." if inner else ".")


def _parts(group: str, options: dict[str, list[str]]) -> list[str]:
    """The groups in a group: of ``encoder`` those of its slots."""
    return [name for name in options if group and name.startswith(f"{group}/")]


def _names(argument: str) -> list[str]:
    """The options that an argument chooses."""
    return [name for name in re.split(r"[\[\],\s'\"]+", argument.partition("=")[2]) if name]


def _chooses(argument: str, group: str, option: str) -> bool:
    return key_of(argument).partition("@")[0] == group and option in _names(argument)


def _no_top(key: str, options: dict[str, list[str]]) -> str:
    from vtp.config import TOP_LEVEL

    hint = did_you_mean(key, [*options, *TOP_LEVEL])
    if not hint and (now := _renamed_somewhere(key)):
        return f"{key} is now {now}."
    return f"the configuration has no key or group {key!r}.{hint} `vtp run --help` lists them."


def _renamed_somewhere(key: str) -> str:
    """What an option is called now that any component had by this name."""
    from vtp.contracts import Component, member
    from vtp.plugins import host

    found = set()
    for entry in host().registry.entries():
        try:
            found.add(member(entry.load(), Component, "renamed").get(key))
        except VtpError:  # a component that cannot be imported says nothing
            continue
    names = found - {None}
    return str(names.pop()) if len(names) == 1 else ""


def _no_key(key: str, config: dict[str, Any] | None) -> str:
    """What an unknown key is called now, or a suggestion among the keys beside it.

    Args:
        config: without it; None where that cannot be composed.
    """
    from vtp.config import TOP_LEVEL

    node: Any = config
    for parent in key.split(".")[:-1]:
        node = node.get(parent) if isinstance(node, dict) else None
    node = node if isinstance(node, dict) else None
    if now := renamed_option(key, node):
        return now
    if node is None and key.startswith("objectives.") and (told := _not_chosen(key, config)):
        return told
    *_, last = key.split(".")
    hint = did_you_mean(key, TOP_LEVEL) if node is None else did_you_mean(last, node)
    keys = f" Keys there: {', '.join(map(str, node))}." if node and len(node) < 16 and node is not config else ""
    return f"the configuration has no key {key!r}.{hint}{keys}"


def _not_chosen(key: str, config: Any) -> str:
    """What is said of a setting of an objective that the run does not have."""
    from vtp.options import below, option_files

    chosen, name = [str(one) for one in config.get("objectives") or ()], key.split(".")[1]
    if hint := did_you_mean(name, chosen):
        return f"the configuration has no key {key!r}: no objective {name!r} is chosen.{hint}"
    if name in below(option_files(), "objective"):
        return f"{key}: the objective {name} is not chosen. Choose it: objective=[{','.join([*chosen, name])}]."
    return ""


def _addon(choice: str) -> str:
    from vtp.plugins import addon_hint

    return addon_hint(choice.partition("/")[2])


def _options() -> dict[str, list[str]]:
    from vtp.options import option_files

    return {group: sorted(options) for group, options in option_files().items()}
