"""``vtp install`` and ``vtp uninstall``: pip of this very Python, without loading any plugin, so that a broken one can
be removed."""

from __future__ import annotations

import argparse
import subprocess
import sys

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """``arguments[0]`` is the command; the rest goes to pip."""
    command, rest = arguments[0], arguments[1:]
    parser = argparse.ArgumentParser(
        prog=f"vtp {command}",
        description=f"{command.capitalize()} distributions with pip in the Python that vtp runs in ({sys.executable}).",
        epilog="Example: vtp install vtp-plugin-snps3. Options of pip may follow, for example --upgrade.",
    )
    parser.add_argument("distribution", nargs="+")
    options, pip_options = parser.parse_known_args(rest)
    if command == "uninstall" and "-y" not in pip_options and "--yes" not in pip_options:
        pip_options.append("--yes")
    return subprocess.run(
        [sys.executable, "-m", "pip", command, *pip_options, *options.distribution], check=False
    ).returncode
