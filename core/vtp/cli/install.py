"""``vtp install`` and ``vtp uninstall``: pip of this very Python, without loading any plugin, so that a broken one can
be removed."""

from __future__ import annotations

import subprocess
import sys

from vtp.cli.arguments import Parser
from vtp.errors import ConfigError

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """``arguments[0]`` is the command; the rest goes to pip."""
    command, rest = arguments[0], arguments[1:]
    parser = Parser(
        prog=f"vtp {command}",
        description=f"{command.capitalize()} distributions with pip in the Python that vtp runs in ({sys.executable}).",
        epilog="Example: vtp install vtp-plugin-snps3. Options of pip may follow, for example --upgrade.",
    )
    parser.add_argument("distribution", nargs="+", help="as pip calls it, or a name that `vtp plugins` prints")
    options, pip_options = parser.parse_known_args(rest)
    if not all(name.strip() for name in options.distribution):
        raise ConfigError("expected the name of a distribution, got an empty one.")
    distributions = [_distribution(name, command) for name in options.distribution]
    if command == "uninstall" and "-y" not in pip_options and "--yes" not in pip_options:
        pip_options.append("--yes")
    pip = [sys.executable, "-P", "-m", "pip"]  # -P: no pip.py of the working folder
    return subprocess.run([*pip, command, *pip_options, *distributions], check=False).returncode


def _distribution(name: str, command: str) -> str:
    """The distribution behind the name of a plugin; any other name is one already.

    Raises:
        ConfigError: several distributions have a plugin of that name, or it is a part of vtp-core.
    """
    from vtp.plugins import discover, missing_addons

    points = discover()
    if any(point.distribution == name for point in points):
        return name
    if command == "install":
        return missing_addons().get(name, name)
    found = sorted({point.distribution for point in points if point.name == name and not point.builtin})
    if len(found) > 1:
        raise ConfigError(f"the plugin name {name!r} is used by {' and '.join(found)}: name the one to uninstall.")
    if not found and any(point.name == name for point in points):
        raise ConfigError(f"{name} is a part of vtp-core. To switch it off: VTP_BLOCK_PLUGINS={name}")
    return found[0] if found else name
