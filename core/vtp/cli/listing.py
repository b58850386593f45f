"""The commands that plugins offer, for ``vtp --help``: asking every plugin takes ten times as long as starting Python.
Imports nothing that a bare Python has not imported, while the kept answer counts."""

from __future__ import annotations

import os
import sys

from vtp.kept import SWITCHES, keep, kept, search_path, vtp_modules

__all__ = ["plugin_commands"]


def plugin_commands() -> dict[str, str]:
    """``{command: what it does [plugin]}``. They are asked for again when a package was installed or removed, a module
    that was loaded for them changed, an option file came or went, or other plugins are switched on; and each time while
    a plugin is broken.

    Raises:
        PluginError: a plugin cannot be loaded and VTP_STRICT_PLUGINS is set.
    """
    asked = repr([os.environ.get(name) for name in SWITCHES])
    if (lines := kept("commands", asked)) is not None:
        return dict(line.split("\t", 1) for line in lines)
    from vtp.plugins import host

    plugins = host()
    commands = {
        entry.name: " ".join(f"{entry.facts.get('help', '')} [{entry.plugin}]".split())
        for entry in plugins.registry.entries("command")
    }
    if all(info.status in ("loaded", "blocked") for info in plugins.infos):
        lines = [f"{name}\t{text}" for name, text in commands.items()]
        keep("commands", lines, _watched({point.package for point in plugins.points}), asked)
    return commands


def _watched(packages: set[str]) -> set[str]:
    """Every module that was loaded to find the commands, and the folders of the plugins' option files."""
    watched = {*search_path(), *vtp_modules(packages)}
    for package in packages:
        for folder in getattr(sys.modules.get(package), "__path__", ()):
            conf = os.path.join(folder, "conf")
            watched |= {conf, *(place for place, _, _ in os.walk(conf))}
    return watched
