"""The option files of the core and of all plugins: ``conf/<group>/<option>.yaml``. They are located, never imported.

A plugin's file of the name of a built-in one shadows it: hydra takes the built-in file, so the stranger's is ignored
here too, and its owner is ``broken`` in ``vtp plugins``.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import vtp.conf
from vtp.plugins import Host, PluginPoint, config_dir
from vtp.registry import did_you_mean

__all__ = [
    "Found",
    "OptionFiles",
    "all_circular",
    "as_model",
    "based_on",
    "below",
    "circular",
    "first_comment",
    "nameless",
    "no_option",
    "option_files",
    "read_options",
    "shadowing",
    "unpackaged",
    "unreadable",
]

Found = list[tuple[str, Path]]  # who offers an option, and in which file
OptionFiles = dict[str, dict[str, Found]]  # by group and option

CORE = "vtp"
_NAMED = 40  # options that a message names
_TYPED = ("schema/train", "schema/data", "schema/media")  # nodes of the core that are no files


def _files(points: Iterable[PluginPoint]) -> list[tuple[PluginPoint | None, str, Path]]:
    """``(owner, group/option, file)`` of every option file; the core's own, whose owner is None, come first."""
    folders: list[tuple[PluginPoint | None, Path]] = [(None, Path(vtp.conf.__path__[0]))]
    folders += [(point, folder) for point in points if (folder := config_dir(point)) is not None]
    return [
        (owner, name.removesuffix(".yaml"), folder / name)
        for owner, folder in folders
        for name in sorted(_yaml_below(folder), key=lambda name: name.split("/"))
        if name != "renamed.yaml"
    ]


def _yaml_below(folder: Path) -> Iterator[str]:
    """Paths relative to the folder. Not by pathlib: every composition looks, and there it takes five times as long."""
    root = os.fspath(folder)
    for place, _, names in os.walk(root):
        below = place[len(root) + 1 :].replace(os.sep, "/")
        yield from (f"{below}/{name}" if below else name for name in names if name.endswith(".yaml"))


def shadowing(points: Iterable[PluginPoint]) -> dict[PluginPoint, list[str]]:
    """Plugins with option files of the names of built-in ones, and those names: ``{point: ["objective/vtc"]}``."""
    files = _files(points)
    own = {name for owner, name, _ in files if owner is None or owner.builtin} | {*_TYPED}
    found: dict[PluginPoint, list[str]] = {}
    for owner, name, _ in files:
        if owner is not None and not owner.builtin and name in own:
            found.setdefault(owner, []).append(name)
    return found


def option_files(points: Iterable[PluginPoint] | None = None) -> OptionFiles:
    """Every option that can be chosen, with who offers it; those that shadow a built-in one are left out.

    Args:
        points: whose files count besides the core's; None takes every plugin that is not switched off.

    Returns:
        ``{group: {option: [(plugin, file), ...]}}``; two plugins behind one option are told when it is chosen.
    """
    points = Host().active_points() if points is None else list(points)
    ignored = {(point, name) for point, names in shadowing(points).items() for name in names}
    groups: OptionFiles = {}
    for owner, name, file in _files(points):
        group, _, option = name.rpartition("/")
        if group and not group.startswith(("hydra", "schema")) and (owner, name) not in ignored:
            groups.setdefault(group, {}).setdefault(option, []).append((owner.name if owner else CORE, file))
    return groups


def below(groups: OptionFiles, kind: str) -> dict[str, Found]:
    """The options of a group and of the groups in it, as ``vtp run`` calls them: experiment=simvtp/tiny_pretrain."""
    found = dict(groups.get(kind, {}))
    for inner in [name for name in groups if name.startswith(f"{kind}/")]:
        found |= {f"{inner.removeprefix(kind)[1:]}/{option}": files for option, files in groups[inner].items()}
    return found


def first_comment(file: Path) -> str:
    """The file's first comment that is not a hydra header: its first line, or the sentence that goes on after it."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return f"(cannot be read: {type(error).__name__})"
    for number, line in enumerate(lines):
        if line.startswith("#") and not line.startswith("# @package"):
            rest = itertools.takewhile(lambda more: more.startswith("# "), lines[number + 1 :])
            return _sentence(line.lstrip("# ").strip(), " ".join(more.lstrip("# ").strip() for more in rest))
    return ""


def _sentence(line: str, rest: str) -> str:
    """``line`` as far as it has whole sentences; with its end in ``rest`` where it has none."""
    if line.endswith((".", "?")):
        return line
    if whole := re.match(r".*[.?](?=\s)", line):
        return whole[0]
    ends = re.match(r".*?[.?](?=\s|$)", f"{line} {rest}")
    return ends[0] if ends else line


def read_options(file: Path) -> dict[str, Any]:
    """The content of an option file.

    Raises:
        ValueError: it is not UTF-8, not YAML, or not a mapping; in one line.
    """
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not valid YAML"
        raise ValueError(f"{what}: {' '.join(str(error).split())}") from error
    if not isinstance(content or {}, dict):
        raise ValueError(f"expected options, a line each, got {content!r}")
    return dict(content or {})


def based_on(group: str, content: dict[str, Any]) -> list[tuple[str, str]]:
    """``(group, option)`` of the files that an option file builds on: "mvm", or "/objective/mvm@_here_"."""
    given = content.get("defaults")
    rows = [str(row).partition("@")[0].rpartition("/") for row in given or ()] if isinstance(given, list) else []
    return [(place.strip("/") or group, option) for place, _, option in rows]


def circular(group: str, option: str, files: OptionFiles) -> str:
    """By way of which options an option file builds on itself, ``objective/a, objective/b``; "" where it does not."""
    waiting: list[tuple[tuple[str, str], ...]] = [((group, option),)]
    seen = {(group, option)}
    while waiting:
        way = waiting.pop()
        for _, file in files.get(way[-1][0], {}).get(way[-1][1], ()):
            try:
                below = based_on(way[-1][0], read_options(file))
            except ValueError:
                continue
            if (group, option) in below:
                return ", ".join("/".join(step) for step in way)
            waiting += [(*way, step) for step in below if step not in seen]
            seen |= set(below)
    return ""


def as_model(folder: Path) -> str:
    """How a model that transformers saved into a folder is named: ``model=clap,encoder.audio.model=FOLDER``, by its
    kind in config.json."""
    try:
        kind = str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        kind = ""
    for name, found in sorted(option_files().get("model", {}).items()):
        slots = _slots(found[0][1])
        slot = next((slot for slot in slots if slot != "text"), "")
        if kind and slot and (name.startswith(kind) or slots[slot] == kind):
            return f"model={name},encoder.{slot}.model={folder}"
    return f"encoder/video=NAME,encoder.video.model={folder} (`vtp list encoder` has the names)"


def _slots(file: Path) -> dict[str, str]:
    """Slots that an option of the group ``model`` fills, each with the option of the encoder."""
    try:
        given = read_options(file).get("defaults")
    except ValueError:
        return {}
    rows = [pair for row in given or () if isinstance(row, dict) for pair in row.items()]
    return {key.rpartition(".")[2]: str(value) for key, value in rows if "@_global_.encoder." in str(key)}


def unreadable() -> list[str]:
    """``"objective=mine of mine: /.../mine.yaml is not UTF-8: ..."`` for every option file that cannot be read."""
    wrong = []
    for group, options in option_files().items():
        for option, found in options.items():
            for provider, file in found:
                try:
                    read_options(file)
                except ValueError as error:
                    wrong.append(f"{group}={option} of plugin {provider!r}: {file} is {error}")
    return wrong


def all_circular() -> list[str]:
    """``"objective=mine of plugin 'p' builds on itself ..."`` for every such option file."""
    files = option_files()
    return [
        f"{group}={option} of plugin {found[0][0]!r} builds on itself, by way of {way}: take that out of its defaults"
        for group, options in files.items()
        for option, found in options.items()
        if (way := circular(group, option, files))
    ]


def nameless(group: str, option: str) -> str:
    """``"conf/objective/x.yaml of plugin 'p' lacks the line ..."``, if that is why an option chooses nothing."""
    for provider, file in option_files().get(group, {}).get(option, ()):
        try:
            content = read_options(file)
        except ValueError:
            continue
        if "name" not in content and "defaults" not in content:
            return f"conf/{group}/{file.name} of plugin {provider!r} lacks the line `name: ...`, the registered name. "
    return ""


def unpackaged() -> list[str]:
    """What is said of every option file of an objective without its first line, which says where its options go."""
    lines = []
    for group, options in option_files().items():
        for option, found in options.items() if group.partition("/")[0] == "objective" else ():
            for provider, file in found:
                if not file.read_bytes().startswith(b"# @package "):
                    where = f"conf/{group}/{file.name} of plugin {provider!r}"
                    lines.append(f"{where} lacks its first line `# @package objectives.{option}`")
    return lines


def no_option(kind: str, name: str, known: Iterable[str]) -> str:
    """What is said where an option is asked for that nobody offers; a registered component without a file is named."""
    from vtp.plugins import addon_hint, host, missing_addons

    known = sorted(known)
    registered = next((e for e in host().registry.entries() if (e.kind, e.name) == (kind, name)), None)
    if registered is not None:
        return (
            f"no {name!r} in {kind!r}: {registered.origin} registers it but brings no option file. Add "
            f"conf/{kind}/{name}.yaml to its package."
        )
    hint = addon_hint(f"{kind.partition('/')[2]}/{name}".strip("/"))
    if hint:
        return f"no {name!r} in {kind!r}.{hint}"
    notes = "".join(f"\n  note: {note}" for note in host().registry.notes)
    hint = did_you_mean(name, known)
    if not hint and kind == "experiment" and (absent := sorted(missing_addons().values())):  # the core has none
        hint = f" Packages that are not installed may bring it: pip install {' '.join(absent)}."
    return f"no {name!r} in {kind!r}.{hint} Available: {_available(kind, name, known)}.{notes}"


def _available(kind: str, name: str, known: Sequence[str]) -> str:
    """The names, of many only those of the asked family, or how many there are of each."""
    family = [one for one in known if "/" in name and one.startswith(name.partition("/")[0] + "/")]
    if len(known) <= _NAMED or family:
        return ", ".join(family or known) or "(nothing)"
    sizes = Counter(one.partition("/")[0] if "/" in one else "" for one in known)
    parts = [*(one for one in known if "/" not in one), *(f"{n} of {first}/" for first, n in sizes.items() if first)]
    return f"{', '.join(parts)} (`vtp list {kind}` names them)"
