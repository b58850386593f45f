"""``vtp list KIND`` and ``vtp show KIND NAME``: what can be chosen on the command line, who offers it, and its
options."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from vtp.errors import ConfigError
from vtp.registry import did_you_mean

__all__ = ["main", "option_files"]

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


def option_files() -> dict[str, dict[str, list[tuple[str, Path]]]]:
    """Configuration files by group and option: ``{group: {option: [(provider, file), ...]}}``; imports no plugin."""
    import vtp.conf
    from vtp.plugins import Host, config_dir

    folders = [("vtp", Path(vtp.conf.__path__[0]))]
    folders += [(p.name, folder) for p in Host().active_points() if (folder := config_dir(p)) is not None]
    groups: dict[str, dict[str, list[tuple[str, Path]]]] = {}
    for provider, folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            group = file.parent.relative_to(folder).as_posix()
            if group != "." and not group.startswith(("hydra", "schema")):
                groups.setdefault(group, {}).setdefault(file.stem, []).append((provider, file))
    return groups


def first_comment(file: Path) -> str:
    """The file's first comment line that is not a hydra header: what the option is, in a few words."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").strip()
    return ""


def main(arguments: list[str]) -> int:
    """``arguments[0]`` is the command: list or show."""
    command, rest = arguments[0], arguments[1:]
    return _list(rest) if command == "list" else _show(rest)


def _no_kind(kind: str, groups: Iterable[str]) -> ConfigError:
    return ConfigError(f"no kind {kind!r}.{did_you_mean(kind, groups)} Kinds: {', '.join(sorted(groups))}.")


def _list(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="vtp list",
        description=f"Options of a kind ({', '.join(GROUPS)}), or of all kinds, with the plugin that offers each.",
    )
    parser.add_argument("kind", nargs="?", help="for example objective, encoder/video or task")
    wanted = parser.parse_args(arguments).kind
    groups = option_files()
    shown = [g for g in groups if wanted is None or g == wanted or g.startswith(f"{wanted}/")]
    if not shown:
        raise _no_kind(wanted, groups)
    for group in sorted(shown, key=lambda g: GROUPS.index(g) if g in GROUPS else len(GROUPS)):
        print(group)
        width = max(map(len, groups[group]))
        for option, found in sorted(groups[group].items()):
            providers = " and ".join(provider for provider, _ in found)
            print(f"  {option:<{width}}  {first_comment(found[0][1])}  [{providers}]")
    return 0


def _show(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="vtp show",
        description="One option: the plugin that offers it, its class, and its settings with their defaults.",
    )
    parser.add_argument("kind", help="for example objective, encoder/video or task")
    parser.add_argument("name")
    options = parser.parse_args(arguments)
    groups = option_files()
    group = dict(groups.get(options.kind, {}))
    for inner in [name for name in groups if name.startswith(f"{options.kind}/")]:  # experiment=simvtp/tiny_pretrain
        group |= {f"{inner.removeprefix(options.kind)[1:]}/{option}": found for option, found in groups[inner].items()}
    if not group:
        raise _no_kind(options.kind, groups)
    if options.name not in group:
        from vtp.plugins import addon_hint

        raise ConfigError(
            f"no {options.name!r} in {options.kind!r}.{addon_hint(options.name) or did_you_mean(options.name, group)} "
            f"Known: {', '.join(sorted(group))}."
        )
    _print(group, options.kind, options.name)
    return 0


def _print(group: dict[str, list[tuple[str, Path]]], kind: str, name: str) -> None:
    """Print an option's files, and below them those of the same group that they begin with."""
    from vtp.errors import PluginError
    from vtp.plugins import host

    for provider, file in group[name]:
        print(f"# {kind}={name}, offered by {provider}: {file}")
        try:
            entry = host().registry.get(kind, name)
            print(f"# class {entry.target.replace(':', '.')} of {entry.distribution}")
        except PluginError:
            pass  # a file may combine components and be none itself, as those of model and experiment
        print(file.read_text(encoding="utf-8"), end="")
        for base in _bases(file, kind):
            if base in group:
                print(f"\n# What {kind}={name} does not say is that of")
                _print(group, kind, base)


def _bases(file: Path, kind: str) -> list[str]:
    """The options of a kind that a file's list ``defaults`` begins with."""
    import yaml

    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    defaults = content.get("defaults", []) if isinstance(content, dict) else []
    return [entry.partition("@")[0].removeprefix(f"/{kind}/") for entry in defaults if isinstance(entry, str)]
