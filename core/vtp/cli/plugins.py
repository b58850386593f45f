"""``vtp plugins``: every plugin found, with its distribution, version, place, offers and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtp.cli.arguments import Parser
from vtp.errors import ConfigError
from vtp.plugins import Host, PluginInfo, host, missing_addons
from vtp.registry import did_you_mean

if TYPE_CHECKING:
    from vtp.cli.plugins_check import Checked

__all__ = ["main"]

FAULTY = ("broken", "incompatible", "refused")


def main(arguments: list[str]) -> int:
    """Print the table; with ``check`` everything that can be found without a run, and exit code 1 for any of it."""
    parser = Parser(
        prog="vtp plugins",
        description="List the plugins of this Python: status, distribution, version, what they offer, where they lie.",
        epilog="VTP_BLOCK_PLUGINS=a,b switches plugins off, VTP_LOAD_PLUGINS=a,b loads only these besides the built-in "
        "ones (empty: none), VTP_STRICT_PLUGINS=1 makes a faulty plugin an error.",
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("list", "check", "why"),
        default="list",
        help="check: import every component, compare option files with classes, look for doubled names; exit code 1 "
        "when something is wrong. why: where a plugin, component or option comes from, and who else has its name",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME|DIR",
        help="for why: what to explain, such as snps3 or objective=vtc. For check: only these plugins, installed or in "
        "the folder of a package; their components are built with the options of their files and held against their "
        "contracts",
    )
    parser.add_argument("--quick", action="store_true", help="for check: without building anything")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--verbose", action="store_true", help="with the traceback of each broken plugin")
    if "--check" in arguments:
        raise ConfigError("--check is now `vtp plugins check`.")
    options = parser.parse_intermixed_args(arguments)
    if options.action == "check":
        return _check(options.names, as_json=options.json, quick=options.quick)
    if options.action == "why":
        from vtp.cli.plugins_why import why

        if not options.names:
            raise ConfigError("say what to explain: vtp plugins why NAME.")
        print("\n".join(line for name in options.names for line in why(name, host())))
        return 0
    if options.names:
        raise ConfigError(f"vtp plugins list takes no names; vtp plugins why {options.names[0]} explains one.")
    if options.json:
        print(json.dumps([_record(info) for info in host().infos], indent=2))
        return 0
    _print(host(), verbose=options.verbose)
    return 0


def _record(info: PluginInfo) -> dict[str, Any]:
    """What ``--json`` says about a plugin."""
    point = info.point
    mine = [e for e in host().registry.entries() if (e.plugin, e.distribution) == (point.name, point.distribution)]
    offers: dict[str, list[str]] = {}
    for entry in mine:
        offers.setdefault(entry.kind, []).append(entry.name)
    return {
        "name": point.name,
        "distribution": point.distribution,
        "version": point.version,
        "module": point.value,
        "status": info.status,
        "error": info.error,
        "path": info.path,
        "offers": offers,
    }


def _check(names: list[str], *, as_json: bool, quick: bool) -> int:
    folders = [name for name in names if Path(name).is_dir() and not _is_plugin(name)]
    found: dict[str, Checked] = {}
    for folder in folders:
        from vtp.cli.plugins_contracts import as_installed

        with as_installed(Path(folder)) as own:
            found |= _checked(own, quick=quick)
    if rest := [name for name in names if name not in folders] or ([] if folders else [""]):
        found |= _checked([name for name in rest if name], quick=quick)
    lines = {name: checked.lines for name, checked in found.items()}
    count = sum(map(len, lines.values()))
    if as_json:
        print(json.dumps(lines, indent=2))
        return 1 if count else 0
    _print_checked(found)
    for name, checked in found.items():
        for line in checked.lines:
            print(f"{name}: {line}")
        for note in checked.notes:
            print(f"{name}: note: {note}")
    print(f"{count} problem(s)" if count else f"{len(found)} plugin{'s' * (len(found) != 1)}, nothing is wrong")
    return 1 if count else 0


def _is_plugin(name: str) -> bool:
    return any(name in (info.point.name, info.point.distribution) for info in host().infos)


def _checked(names: list[str], *, quick: bool) -> dict[str, Checked]:
    """Name of a plugin, or of its distribution where two have one name -> what was found."""
    from vtp.cli.plugins_check import Checked, check

    known = [name for info in host().infos for name in (info.point.name, info.point.distribution)]
    if absent := [name for name in names if name not in known]:
        raise ConfigError(f"no plugin {absent[0]!r}.{did_you_mean(absent[0], known)} `vtp plugins` lists them.")
    found: dict[str, Checked] = {}
    for info in host().infos:
        if names and not {info.point.name, info.point.distribution} & set(names):
            continue
        name = info.point.name if info.point.name not in found else info.point.distribution
        if info.status in FAULTY:
            found[name] = Checked()
            found[name].add("loads", 1, [f"{info.status}: {info.error}"])
        elif info.status == "loaded":
            found[name] = check(info.point, host())
            found[name].add("loads", 0, [info.error] if info.error else [])
            if names and not quick and not found[name].lines:  # else what is wrong is known already
                from vtp.cli.plugins_contracts import add_contracts

                add_contracts(found[name], info.point, host())
    return found


def _print_checked(found: dict[str, Checked]) -> None:
    """A row per plugin: of each check how many things it looked at, or how many are wrong."""
    from vtp.cli.plugins_check import CHECKS

    columns = [check for check in CHECKS if any(checked.looked.get(check) for checked in found.values())]
    rows = [("plugin", *columns)]
    for name, checked in found.items():
        cells = []
        for check in columns:
            wrong = len(checked.problems.get(check, ()))
            cells.append(
                f"{wrong} WRONG" if wrong else f"{checked.looked[check]} ok" if checked.looked.get(check) else "-"
            )
        rows.append((name, *cells))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()


def _print(found: Host, *, verbose: bool) -> None:
    rows = [("plugin", "status", "distribution", "version", "offers")]
    for info in found.infos:
        offers = ", ".join(sorted(hook.removeprefix("vtp_register_") for hook in info.hooks))
        rows.append((info.point.name, info.status, info.point.distribution, info.point.version, offers or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for index, row in enumerate(rows):
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]))
        if index and (path := found.infos[index - 1].path):
            print(f"  {path}")
    for name, distribution in sorted(missing_addons().items()):
        print(f"\nnot installed: {name}; pip install {distribution}")
    faulty = [info for info in found.infos if info.status in FAULTY]
    for info in found.infos:
        if info in faulty or (info.status == "loaded" and info.error):
            print(f"\n{info.summary()}")
        if verbose and info.trace:
            print(info.trace)
    if any(info.trace for info in faulty) and not verbose:
        print("\n`vtp plugins --verbose` shows the tracebacks.")
