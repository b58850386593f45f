"""``vtp list KIND`` and ``vtp show KIND NAME``: what can be chosen on the command line, who offers it, and its
options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from vtp.cli.arguments import Parser
from vtp.components import hints_of
from vtp.errors import ConfigError, PluginError
from vtp.options import Found, based_on, below, first_comment, no_option, option_files, read_options
from vtp.registry import Entry, did_you_mean
from vtp.values import spell

__all__ = ["GROUPS", "PLAIN", "main", "options_of", "use"]

GROUPS = (
    "task",
    "dataset",
    "model",
    "encoder/text",
    "encoder/video",
    "encoder/audio",
    "encoder/fusion",
    "objective",
    "experiment",
)
# Kinds that are chosen by a word, without an option file, and how.
PLAIN = {
    "command": "vtp NAME",
    "importer": "vtp import NAME FILE OUT",
    "decoder": "media.backend=NAME",
    "sampler": "data.sampler=NAME",
    "transform/video": "data.transforms.video=[NAME]",
    "transform/audio": "data.transforms.audio=[NAME]",
    "transform/text": "data.transforms.text=[NAME]",
    "form": "kind: NAME in a protocol file",
    "callback": "callbacks=[NAME]",
}

# What the core's own choices of such kinds are (docs/data.md).
_OWN = {
    "decoder": {
        "auto": "pyav",
        "pyav": "FFmpeg as it comes with PyAV: every format, and what is measured against",
        "torchcodec": "torchcodec, where one that fits torch is installed; with FFmpeg's libraries of the system",
        "decord": "decord, for comparison with published code: no AV1, no gif, no transport streams",
    },
    "sampler": {
        "auto": "dense for encoders with a stride, else segment in training and uniform in evaluation",
        "uniform": "the middle of each of equal parts of the clip, one per frame",
        "segment": "a random moment in each of equal parts (TSN, arXiv:1608.00859); in evaluation their middles",
        "dense": "frames that are a stride apart, from a random place; in evaluation from the middle",
        "every": "all frames, in order",
    },
}


def main(arguments: list[str]) -> int:
    """``arguments[0]`` is the command: list or show."""
    command, rest = arguments[0], arguments[1:]
    return _list(rest) if command == "list" else _show(rest)


def _no_kind(kind: str, groups: Iterable[str]) -> ConfigError:
    known = sorted({*groups, *PLAIN})
    return ConfigError(f"no kind {kind!r}.{did_you_mean(kind, known)} Kinds: {', '.join(known)}.")


def _list(arguments: list[str]) -> int:
    parser = Parser(
        prog="vtp list",
        description=f"What there is of a kind ({', '.join((*GROUPS, *PLAIN))}), or of all kinds, with the plugin that "
        "offers each.",
    )
    parser.add_argument("kind", nargs="?", help="for example objective, encoder/video or task")
    wanted = parser.parse_args(arguments).kind
    groups = option_files()
    shown = [g for g in groups if wanted is None or g == wanted or g.startswith(f"{wanted}/")]
    plain = [kind for kind in PLAIN if wanted in (None, kind, kind.partition("/")[0])]
    if not shown and not plain:
        raise _no_kind(wanted, groups)
    for group in sorted(shown, key=lambda g: GROUPS.index(g) if g in GROUPS else len(GROUPS)):
        rows = {
            option: (first_comment(found[0][1]), " and ".join(provider for provider, _ in found))
            for option, found in sorted(groups[group].items())
        }
        _print_rows(group, rows)
    for kind in plain:
        _print_rows(f"{kind}   ({PLAIN[kind]})", _plain_rows(kind))
    return 0


def _print_rows(title: str, rows: dict[str, tuple[str, str]]) -> None:
    print(title)
    width = max(map(len, rows), default=0)
    for name, (text, provider) in rows.items():
        print(f"  {name:<{width}}  {text}  [{provider}]")


def _plain_rows(kind: str) -> dict[str, tuple[str, str]]:
    """``name -> (what it is, who offers it)`` of a kind without option files; the core's own come first."""
    from vtp.cli.main import COMMANDS
    from vtp.plugins import RESERVED, host

    own = {name: text for name, (_, text) in COMMANDS.items()} if kind == "command" else _OWN.get(kind, {})
    rows = {name: (own.get(name, ""), "vtp") for name in (*own, *RESERVED.get(kind, ()))}
    for entry in host().registry.entries(kind):
        text = str(entry.facts.get("help") or entry.facts.get("counted") or entry.target.replace(":", "."))
        rows.setdefault(entry.name, (text, entry.plugin))
    return rows


def _show(arguments: list[str]) -> int:
    parser = Parser(
        prog="vtp show",
        description="One component: the plugin that offers it, its class, and its settings with their defaults.",
        epilog="The words of `vtp run` do as well: vtp show objective=vtc, vtp show encoder/video=tiny.",
    )
    parser.add_argument("kind", help="for example objective, encoder/video, encoder, task or importer")
    parser.add_argument("name", nargs="?")
    options = parser.parse_args(arguments)
    kind, _, name = options.kind.partition("=") if options.name is None else (options.kind, "", options.name)
    if not name:
        raise ConfigError(f"say which one: vtp show {kind} NAME; `vtp list {kind}` says which there are.")
    if plain := [one for one in PLAIN if kind in (one, one.partition("/")[0])]:
        return _show_plain(next((one for one in plain if name in _plain_rows(one)), plain[0]), name)
    groups = option_files()
    slots = [g for g in sorted(groups) if kind == "encoder" and g.startswith("encoder/") and name in groups[g]]
    inside = [g for g in groups if g == kind or g.startswith(f"{kind}/")]
    if not inside:
        raise _no_kind(kind, groups)
    for one in slots or [kind]:
        group = below(groups, one)
        if name not in group:
            raise ConfigError(no_option(kind, name, group))
        _print(group, one, name)
    return 0


def _show_plain(kind: str, name: str) -> int:
    """A component that has no option file: who offers it, its signature and its docstring."""
    rows = _plain_rows(kind)
    if name in rows and rows[name][1] == "vtp":
        print(f"# {kind} {name}, a part of vtp: {PLAIN[kind].replace('NAME', name)}\n{rows[name][0]}")
        return 0
    from vtp.plugins import host

    entry = host().registry.get(kind, name)
    print(f"# {kind} {name}, offered by {entry.plugin}: {PLAIN[kind].replace('NAME', name)}")
    print(_class_line(entry))
    target = entry.load()
    print(f"{name}{inspect.signature(target)}\n\n{inspect.getdoc(target) or ''}".rstrip())
    return 0


def _class_line(entry: Entry) -> str:
    from vtp.hookspecs import HOOKS

    kind = entry.kind.partition("/")[0]
    what = "class" if entry.kind not in PLAIN else "from"
    hook = next(hook for hook, of in HOOKS.items() if of == kind)
    return f"# {what} {entry.target.replace(':', '.')} of {entry.distribution}, registered with {hook}"


def use(kind: str, name: str) -> str:
    """A command that chooses an option; "" where its kind says nothing of that."""
    group, _, inner = kind.partition("/")
    option = f"{inner}/{name}" if inner and group != "encoder" else name
    if group == "objective":
        node, fused = _objective(kind, name)
        task, usual = ("msrvtt_qa", "qa") if fused else ("msrvtt_retrieval", "vtc")
        return f"vtp run task={task} dataset=shapes objective=[{'' if node == usual else f'{usual},'}{option}]"
    if group == "model":
        slots = _filled(kind, name)
        task = "msrvtt_qa" if "fusion" in slots else "msrvtt_retrieval" if "video" in slots else "audiocaps_retrieval"
        return f"vtp run task={task} dataset=shapes model={option}"
    if group == "encoder":
        without = {"encoder/fusion": "msrvtt_retrieval", "encoder/text": "classification"}
        task = without.get(kind if name == "none" else "", "msrvtt_qa")
        return f"vtp run task={task} dataset=shapes {kind}={name}"
    patterns = {
        "task": "vtp run task={} dataset=shapes",
        "dataset": "vtp run task=retrieval dataset={}",
        "experiment": "vtp run experiment={}",
    }
    return patterns[group].format(option) if group in patterns else ""


def _objective(group: str, name: str) -> tuple[str, bool]:
    """The node that an option file of an objective fills, and whether its class needs a fusion encoder."""
    from vtp.contracts import Objective, member
    from vtp.plugins import host

    content: dict[str, Any] = {}
    node, groups = name, option_files()
    waiting, seen = [_place(group, name)], set[tuple[str, str]]()
    while waiting and "name" not in content:
        seen.add(step := waiting.pop())
        for _, file in groups.get(step[0], {}).get(step[1], ())[:1]:
            with suppress(ValueError):
                content = read_options(file)
                waiting += [base for base in based_on(step[0], content) if base not in seen]
                first = file.read_text(encoding="utf-8").partition("\n")[0]
                node = first.rpartition("objectives.")[2].strip() if step == _place(group, name) else node
    with suppress(PluginError, AttributeError):
        target = host().registry.get("objective", str(content.get("name", name))).load()
        return node, bool(member(target, Objective, "needs_fusion"))
    return node, False


def _place(group: str, name: str) -> tuple[str, str]:
    """Where :func:`vtp.options.option_files` has an option: ``objective``, ``univl/moco`` is ``objective/univl``,
    ``moco``."""
    folder, _, last = f"{group}/{name}".rpartition("/")
    return folder, last


def _evaluates(group: str, name: str) -> bool:
    """Whether an experiment, or one that it builds on, evaluates a checkpoint that it does not name."""
    waiting, seen = [_place(group, name)], set[tuple[str, str]]()
    while waiting:
        seen.add(step := waiting.pop())
        for _, file in option_files().get(step[0], {}).get(step[1], ())[:1]:
            with suppress(ValueError):
                content = read_options(file)
                if "mode" in content or content.get("checkpoint"):
                    return content.get("mode") == "eval" and not content.get("checkpoint")
                waiting += [base for base in based_on(step[0], content) if base not in seen and base[0] != "task"]
    return False


def _filled(group: str, name: str) -> set[str]:
    """The slots for encoders that an option of the group ``model`` fills, those of its bases included."""
    groups = option_files()
    waiting, seen = [_place(group, name)], set[tuple[str, str]]()
    slots: dict[str, str] = {}  # the nearest file counts
    while waiting:
        seen.add(step := waiting.pop())
        for _, file in groups.get(step[0], {}).get(step[1], ())[:1]:
            with suppress(ValueError):
                content = read_options(file)
                slots = dict(re.findall(r"/encoder/(\w+)@\S+: '?(\w+)", str(content.get("defaults")))) | slots
                waiting += [base for base in based_on(step[0], content) if base not in seen]
    return {slot for slot, option in slots.items() if option != "none"}


def _print_class(entry: Entry, content: dict[str, Any]) -> None:
    """What the class says about itself, and each of its options with type, default and meaning."""
    try:
        target = entry.load()
        parameters = inspect.signature(target).parameters
    except (PluginError, TypeError, ValueError) as error:
        print(f"\n# {' '.join(str(error).split())}")
        return
    summary = " ".join((inspect.getdoc(target) or "").partition("\n\n")[0].split())
    print(f"\n# {entry.target.partition(':')[2]}: {summary}")
    rows = options_of(entry)
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("#   " + "  ".join([*cells, row[3]]).rstrip())
    if isinstance(content.get(entry.kind.partition("/")[0]), dict):  # a file of settings everywhere
        if others := sorted(set(content) - {"defaults", entry.kind.partition("/")[0]}):
            print(f"# besides, it sets {', '.join(others)}")
    elif lacking := sorted(
        set(content) - set(parameters) - {"name", "weight", "defaults", entry.kind.partition("/")[0]}
    ):
        print(f"# not of the class: {', '.join(lacking)}")


def options_of(entry: Entry) -> list[tuple[str, str, str, str]]:
    """``(key, type, default, meaning)`` of every option of a component's class, in words.

    Raises:
        PluginError: the class cannot be imported.
        TypeError, ValueError: it has no signature.
    """
    from vtp.run.check import GIVEN

    target = entry.load()
    meanings: dict[str, str] = {}
    for one in inspect.getmro(target) if isinstance(target, type) else (target,):  # what a base says counts, too
        meanings = argument_texts(inspect.cleandoc(one.__doc__ or "")) | meanings
    return [
        (name, _type_of(target, name), _default(parameter), meanings.get(name, ""))
        for name, parameter in inspect.signature(target).parameters.items()
        if name not in GIVEN.get(entry.kind.partition("/")[0], ()) and name not in ("context", "self")
    ]


def argument_texts(docstring: str) -> dict[str, str]:
    """What an ``Args:`` section says of each parameter, in one line; several may share an entry."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.partition("Args:\n")[2].splitlines():
        if not line.strip() or not line.startswith("    "):
            break
        entry = re.match(r"    (\w+(?:, \w+)*): (.*)", line)
        if entry:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2].strip())
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _type_of(target: Any, name: str) -> str:
    hint = hints_of(target).get(name, Any)
    return "anything" if hint is Any else spell(hint)


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "must be given"
    value = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _print(group: dict[str, Found], kind: str, name: str, above: tuple[str, ...] = ()) -> None:
    """Print an option's files, and below them those of the same group that they begin with; ``above`` are those that
    begin with this one."""
    from vtp.plugins import host

    for provider, file in group[name]:
        print(f"# {kind}={name}, offered by {provider}: {file}")
        try:
            content = read_options(file)
        except ValueError as error:
            raise ConfigError(f"{kind}={name} of plugin {provider!r}: {file} is {error}") from error
        entry = None
        with suppress(PluginError):  # a file may combine components and be none itself, as those of model
            entry = host().registry.get(kind, str(content.get("name", name)))
            print(_class_line(entry))
        if uses := use(kind, name):
            node = f"objectives.{name}" if kind == "objective" else kind.replace("/", ".")
            asked = [f"{node}.{key}=..." for key, value in content.items() if value == "???"]
            asked += ["checkpoint=RUN"] if _evaluates(kind, name) else []
            print(f"# use: {' '.join([uses, *asked])}")
        print(file.read_text(encoding="utf-8"), end="")
        if entry is not None:
            _print_class(entry, content)
        for entry in content.get("defaults") or ():
            base = entry.partition("@")[0].removeprefix(f"/{kind}/") if isinstance(entry, str) else None
            if base in (*above, name):
                print(f"\n# {kind}={name} builds on itself, so it cannot be used")
            elif base in group:
                print(f"\n# What {kind}={name} does not say is that of")
                _print(group, kind, base, (*above, name))
