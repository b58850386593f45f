"""What is wrong with a plugin that loads, found without a run: ``vtp plugins check``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtp.components import check_options
from vtp.contracts import contract_of, lacking, misspelt
from vtp.errors import PluginError
from vtp.eval.protocol import Protocol, offered_protocols
from vtp.options import OptionFiles, based_on, circular, option_files, read_options
from vtp.plugins import Host, PluginPoint, config_dir
from vtp.registry import Entry
from vtp.run.check import GIVEN

__all__ = ["CHECKS", "Checked", "check", "check_option_file", "entries_of", "own_options", "problems_of"]

# what is looked at, in this order; contracts only where a plugin is named
CHECKS = ("loads", "components", "options", "renamed", "protocols", "names", "contracts")

OPTION_KINDS = ("encoder/", "objective", "dataset", "task")  # those that are chosen by an option file


@dataclass
class Checked:
    """What was looked at in a plugin, and what is wrong with it.

    Attributes:
        looked: how many things each of :data:`CHECKS` looked at; what it did not look at is not there.
        problems: of each check, a line each.
        notes: what could not be looked at, and why.
    """

    looked: dict[str, int] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, check: str, looked: int, problems: Iterable[str] = ()) -> None:
        """Count what a check looked at, and keep what it found."""
        self.looked[check] = self.looked.get(check, 0) + looked
        self.problems.setdefault(check, []).extend(problems)

    @property
    def lines(self) -> list[str]:
        """All problems."""
        return [line for found in self.problems.values() for line in found]


def problems_of(point: PluginPoint, host: Host) -> list[str]:
    """Everything that is wrong with a loaded plugin, a line each, as :func:`check` finds it."""
    return check(point, host).lines


def check(point: PluginPoint, host: Host) -> Checked:
    """Look at a loaded plugin. Imports what it registers, and builds nothing.

    Args:
        point: of the plugin.
        host: loaded; knows what the other plugins offer.
    """
    entries = entries_of(point, host)
    files = option_files(host.active_points())
    own = sum(provider == point.name for group in files.values() for found in group.values() for provider, _ in found)
    folder = config_dir(point)
    found = Checked()
    found.add("loads", 1)
    found.add("components", len(entries), _targets(entries))
    found.add("options", own, _option_files(point, host, files, entries))
    found.add("renamed", int(folder is not None and (folder / "renamed.yaml").is_file()), _renamed(point))
    protocols = sum(owner == point for offers in offered_protocols().values() for owner, _ in offers)
    found.add("protocols", protocols, _protocols(point))
    found.add("names", len(entries) + own, _doubled(point, host, files))
    return found


def entries_of(point: PluginPoint, host: Host) -> list[Entry]:
    """What a plugin registers."""
    return [e for e in host.registry.entries() if (e.plugin, e.distribution) == (point.name, point.distribution)]


def own_options(entry: Entry, point: PluginPoint, files: OptionFiles) -> Iterator[tuple[str, dict[str, Any]]]:
    """The options that a plugin's own files give a component, each with the name of its file; of a kind without option
    files, ``("", {})``."""
    if not entry.kind.startswith(OPTION_KINDS):
        yield "", {}
    for group, options in sorted(files.items()):
        if group != entry.kind and group.partition("/")[0] != entry.kind:
            continue
        for found in options.values():
            for file in (file for provider, file in found if provider == point.name):
                with suppress(ValueError):  # told by the check of the options
                    node = _node(group, file, files)
                    if node.pop("name", None) == entry.name:
                        yield f"{group}/{file.name}", {k: v for k, v in node.items() if k != "weight"}


def _targets(entries: list[Entry]) -> Iterator[str]:
    for entry in entries:
        try:
            target = entry.load()
        except PluginError as error:
            yield str(error)
            continue
        if not callable(target):
            yield f"{entry.kind} {entry.name!r}: {entry.target} must be a class or function"
        else:
            yield from (f"{entry.kind} {entry.name!r}: it {problem}" for problem in _class_problems(entry.kind, target))


def _class_problems(kind: str, target: Any) -> Iterator[str]:
    """What can be seen without an object."""
    contract = contract_of(kind)
    if kind == "objective":
        from vtp.model.objective import Objective

        if not (isinstance(target, type) and issubclass(target, Objective)):
            yield "is no subclass of vtp.model.objective.Objective, which it must be"
            return
    elif isinstance(target, type) and kind != "importer" and not hasattr(target, "__getattr__"):
        yield from lacking(target, contract)
    yield from misspelt(target, contract)


def _option_files(point: PluginPoint, host: Host, files: OptionFiles, entries: list[Entry]) -> Iterator[str]:
    chosen: set[tuple[str, str]] = set()
    for group, options in sorted(files.items()):
        kind = group if group.startswith("encoder/") else group.partition("/")[0]
        for found in options.values():
            for file in (file for provider, file in found if provider == point.name):
                where = f"conf/{group}/{file.name}"
                try:
                    if kind.startswith(OPTION_KINDS):
                        name, problems = check_option_file(kind, group, file, host, files)
                        chosen.add((kind, name))
                        yield from problems
                    else:
                        read_options(file)
                except ValueError as error:
                    yield f"{where} is {error}"
                    chosen.add((kind, file.stem))
    for entry in entries:
        if entry.kind.startswith(OPTION_KINDS) and (entry.kind, entry.name) not in chosen:
            yield f"{entry.kind} {entry.name!r} is registered, and no option file in conf/{entry.kind}/ chooses it"


def check_option_file(kind: str, group: str, file: Path, host: Host, files: OptionFiles) -> tuple[str, list[str]]:
    """Compare the keys of an option file with the class that it chooses.

    Returns:
        The name that it chooses, "" for none, and what is wrong.

    Raises:
        ValueError: the file cannot be read.
    """
    where = f"conf/{group}/{file.name}"
    if way := circular(group, file.stem, files):
        return "", [f"{where} builds on itself, by way of {way}: take that out of its defaults"]
    node = _node(group, file, files)
    problems = []
    if group.partition("/")[0] == "objective":
        stem = f"{group}/{file.stem}".removeprefix("objective/")
        first = file.read_text(encoding="utf-8").partition("\n")[0].strip()
        if not first.startswith("# @package objectives."):
            problems.append(f"{where}: the first line must be # @package objectives.{stem.replace('/', '_')}")
    if "name" not in node:
        return "", [*problems, f"{where}: the line `name: ...`, the registered name, is missing"]
    name = node.pop("name")
    if name is None:  # encoder/video=none
        return "", [*problems, f"{where}: options without a name choose nothing"] if node else problems
    try:
        target = host.registry.get(kind, str(name)).load()
    except PluginError as error:
        return str(name), [*problems, f"{where}: {str(error).splitlines()[0]}"]
    plain = {k: v for k, v in node.items() if k != "weight" and not (isinstance(v, str) and "${" in v) and v != "???"}
    given = ["context", *GIVEN.get(kind, ())]
    given += [k for k, v in node.items() if k not in plain and k != "weight"]  # not known before a run
    check_options(where, str(name), target, plain, problems, given=given)
    problems += [
        line for key in set(node) - set(plain) - {"weight"} for line in _unknown_option(where, str(name), target, key)
    ]
    return str(name), problems


def _unknown_option(where: str, name: str, target: Any, key: str) -> list[str]:
    """The same for an option whose value is only known in a run: that there is such an option."""
    found: list[str] = []
    check_options(where, name, target, {key: None}, found)
    return [line for line in found if f"has no option {key!r}" in line]


def _renamed(point: PluginPoint) -> Iterator[str]:
    folder = config_dir(point)
    file = folder / "renamed.yaml" if folder is not None else None
    if folder is None or file is None or not file.is_file():
        return
    try:
        names = read_options(file)
    except ValueError as error:
        yield f"conf/renamed.yaml must hold lines `group/option: what to write now`, and it is {error}"
        return
    if not all(isinstance(one, str) for pair in names.items() for one in pair):
        yield "conf/renamed.yaml must hold lines `group/option: what to write now`"
        return
    yield from (f"conf/renamed.yaml: {name} is still there" for name in names if (folder / f"{name}.yaml").is_file())


def _protocols(point: PluginPoint) -> Iterator[str]:
    for name, found in sorted(offered_protocols().items()):
        for owner, path in found:
            if owner == point:
                try:
                    Protocol.load(path)
                except PluginError as error:
                    yield f"protocols/{path.name}: {error}"
                except Exception as error:
                    yield f"protocols/{path.name}: {' '.join(str(error).split())}"
        others = [owner.name for owner, _ in found if owner != point]
        if others and any(owner == point for owner, _ in found) and not point.builtin:
            yield f"protocols/{name}.yaml: a protocol of that name is also offered by {', '.join(others)}: rename it"


def _doubled(point: PluginPoint, host: Host, files: OptionFiles) -> Iterator[str]:
    """Names that another plugin offers, too: whoever uses them is refused."""
    for entry in host.registry.doubled():
        if (entry.plugin, entry.distribution) == (point.name, point.distribution):
            yield f"{entry.kind} {entry.name!r} is also offered by another plugin: rename one, or switch one off"
    for group, options in sorted(files.items()):
        for option, found in sorted(options.items()):
            providers = [provider for provider, _ in found]
            if point.name in providers and len(providers) > 1:
                others = ", ".join(provider for provider in providers if provider != point.name)
                yield f"conf/{group}/{option}.yaml is also a file of {others or 'itself'}: rename one"


def _node(group: str, file: Path, files: OptionFiles) -> dict[str, Any]:
    """The options that a file sets in its own node, over those of the files of its group that it builds on."""
    content = read_options(file)
    found: dict[str, Any] = {}
    for place, option in based_on(group, content):
        for _, below in files.get(place, {}).get(option, ()):
            found |= _node(group, below, files)
    content.pop("defaults", None)
    if file.read_text(encoding="utf-8").startswith("# @package _global_"):
        content = content.get(group.partition("/")[0], {})
    return found | dict(content)
