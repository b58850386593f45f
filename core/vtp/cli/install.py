"""``vtp install`` and ``vtp uninstall``: pip of this very Python, without loading any plugin, so that a broken one can
be removed."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vtp.cli.arguments import Parser
from vtp.errors import ConfigError
from vtp.registry import did_you_mean

__all__ = ["main"]

# Builds that must belong together: another one of them makes the others fail when they are imported.
TESTED_TOGETHER = ("torch", "torchvision", "torchaudio", "triton")
# Options of pip whose value is a word of its own, which is no name of a distribution.
_WITH_VALUE = {
    "-c", "--constraint", "-e", "--editable", "-f", "--find-links", "-i", "--index-url", "-r", "--requirement", "-t",
    "--target", "-C", "--config-settings", "--abi", "--build-constraint", "--cache-dir", "--cert", "--client-cert",
    "--exists-action", "--extra-index-url", "--global-option", "--group", "--implementation", "--keyring-provider",
    "--log", "--no-binary", "--only-binary", "--platform", "--prefix", "--progress-bar", "--proxy", "--python",
    "--python-version", "--report", "--resume-retries", "--retries", "--root", "--root-user-action", "--src",
    "--timeout", "--trusted-host", "--upgrade-strategy", "--use-deprecated", "--use-feature",
}  # fmt: skip
# A name without a path, with the extras and versions that pip takes: snps3, my_loss[fast], snps3>=0.2
_WORD = re.compile(r"(?P<name>[A-Za-z0-9][\w-]*)(?P<rest>\s*(?:\[[^\]]*\])?\s*(?:[=<>!~].*)?)")


def main(arguments: list[str]) -> int:
    """``arguments[0]`` is the command; the rest goes to pip."""
    command, rest = arguments[0], arguments[1:]
    parser = Parser(
        prog=f"vtp {command}",
        description=f"{command.capitalize()} distributions with pip in the Python that vtp runs in ({sys.executable}).",
        epilog=f"Example: vtp {command} snps3, which is vtp-plugin-snps3. Options of pip may follow.",
    )
    if command == "install":
        parser.add_argument("--yes", action="store_true", help="also where it changes the version of torch")
        parser.add_argument("--dry-run", action="store_true", help="show what would change, and stop")
    parser.add_argument(
        "distribution", nargs="*", help="NAME of vtp-plugin-NAME, a name that `vtp plugins` prints, vtp-..."
    )
    own = ("--yes", "--dry-run", "-h", "--help") if command == "install" else ("-h", "--help")
    options = parser.parse_args([word for word in rest if word in own])
    given = [word for word in rest if word not in own]
    if not all(word.strip() for word in given):
        raise ConfigError("expected the name of a distribution, got an empty one.")
    words, short = _resolved(given, command)
    if not words:
        parser.error("expected the name of a distribution.")
    if command == "uninstall":
        from vtp.plugins import normalised

        folders = _folders() if _unreadable() else {}  # else pip can
        for word in [word for word in words if normalised(word) in folders]:
            words.remove(word)
            count = _removed(folders[normalised(word)])
            print(f"{word}: {count} files removed; pip cannot while metadata of a distribution cannot be read")
        if all(word.startswith("-") for word in words):
            return 0
    if command == "uninstall" and "-y" not in words and "--yes" not in words:
        words.insert(0, "--yes")
    pip = [sys.executable, "-P", "-m", "pip"]  # -P: no pip.py of the working folder
    if command == "install":
        changes = _changes(pip, words)
        if changes is None and short:
            raise ConfigError(
                f"pip cannot install {', '.join(short)}; its words are above. A short name is one of a plugin: "
                f"what is no plugin of vtp is installed with {sys.executable} -m pip install NAME."
            )
        if changes is not None:
            print(
                "\n".join(_told(name, old, new) for name, old, new in changes) or "nothing changes: all of it is there"
            )
            broken = [_told(*change) for change in changes if change[0] in TESTED_TOGETHER and change[1]]
            if broken and not options.yes:
                raise ConfigError(
                    f"this changes {', '.join(broken)}, which the other libraries here were built for. Give the "
                    "version that is there (torch==...), use another environment, or insist with --yes."
                )
        if options.dry_run or changes == []:
            return 0 if changes is not None else 1
    code = subprocess.run([*pip, command, *words], check=False).returncode
    if code and (unreadable := _unreadable()):
        told = f"vtp {command}: pip fails where metadata cannot be read; this may help first: vtp uninstall"
        print(told, *unreadable, file=sys.stderr)
    return code


def _unreadable() -> list[str]:
    """Distributions of plugins whose metadata nobody can read."""
    from vtp.installed import entry_points
    from vtp.plugins import normalised

    return sorted({normalised(one.distribution) for one in entry_points("vtp.plugins") if one.fault})


def _folders() -> dict[str, Path]:
    """Distributions of plugins -> the folder of their metadata."""
    from vtp.installed import entry_points
    from vtp.plugins import CORE, normalised

    found = {normalised(one.distribution): Path(one.folder) for one in entry_points("vtp.plugins")}
    return {name: folder for name, folder in found.items() if name != CORE and folder.is_dir()}


def _removed(folder: Path) -> int:
    """Remove what RECORD in a folder of metadata lists beside it, and the folder; gives the number of files."""
    site = folder.parent.resolve()
    try:
        rows = list(csv.reader((folder / "RECORD").read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError, csv.Error):
        rows = []
    files = {(site / row[0]).resolve() for row in rows if row}
    files = {file for file in files if file.is_relative_to(site) and file.is_file()}
    files |= {file for file in folder.rglob("*") if file.is_file()}
    for file in files:
        file.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    for place in sorted({place for file in files for place in file.parents if site in place.parents}, reverse=True):
        shutil.rmtree(place / "__pycache__", ignore_errors=True)
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
    return len(files)


def _resolved(given: Sequence[str], command: str) -> tuple[list[str], list[str]]:
    """The words for pip in their order, names of plugins as distributions; and those distributions."""
    words: list[str] = []
    short: list[str] = []
    for before, word in zip(["", *given], given, strict=False):
        name = word if word.startswith("-") or before in _WITH_VALUE else _distribution(word, command)
        words.append(name)
        short += [name] if name != word else []
    return words, short


def _changes(pip: Sequence[str], arguments: Sequence[str]) -> list[tuple[str, str, str]] | None:
    """(distribution, version that is there or "", version that comes) of everything that pip would install; None where
    pip cannot tell, which it then says itself."""
    command = [*pip, "install", "--dry-run", "--quiet", "--report", "-", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return None
    try:
        report: dict[str, Any] = json.loads(done.stdout)
        names = [
            (one["metadata"]["name"].lower().replace("_", "-"), one["metadata"]["version"]) for one in report["install"]
        ]
    except (ValueError, LookupError):  # a pip from before reports
        return None
    return sorted((name, _installed(name), new) for name, new in names)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _told(name: str, old: str, new: str) -> str:
    return f"{name} {old} -> {new}" if old else f"{name} {new} (new)"


def _distribution(name: str, command: str) -> str:
    """The distribution behind a short name; what is no bare name, such as a path, is left to pip.

    Raises:
        ConfigError: several distributions have a plugin of that name, it is a part of vtp-core, or nothing that could
            be uninstalled has it.
    """
    from vtp.plugins import CORE, discover, normalised

    bare = _WORD.fullmatch(name)
    if bare is None:
        return name
    points, short = discover(), normalised(bare["name"])
    if short.startswith("vtp-") or any(point.distribution == short for point in points):
        return name
    named = [point for point in points if normalised(point.name) == short]
    found = sorted({point.distribution for point in named if not point.builtin})
    if len(found) > 1:
        raise ConfigError(f"the plugin name {name!r} is used by {' and '.join(found)}: name the one that you mean.")
    if named and not found:
        raise ConfigError(f"{name} is a part of {CORE} here. To switch it off: VTP_BLOCK_PLUGINS={name}")
    if command == "install":
        if not found and _installed(bare["name"]):  # a library that is there: torch==2.11.0 keeps it as it is
            return name
        return f"{found[0] if found else f'vtp-plugin-{short}'}{bare['rest']}"
    if not found and not _installed(name):
        known = {known for point in points if not point.builtin for known in (point.name, point.distribution)}
        raise ConfigError(f"nothing here is called {name!r}.{did_you_mean(name, known)} `vtp plugins` lists them.")
    return found[0] if found else name
