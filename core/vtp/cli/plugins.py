"""``vtp plugins``: every plugin found, with its distribution, version, place, offers and what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

from vtp.cli.arguments import Parser
from vtp.errors import ConfigError
from vtp.plugins import Host, PluginInfo, host, missing_addons
from vtp.registry import did_you_mean

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
        choices=("list", "check"),
        default="list",
        help="check: import every component, compare option files with classes, look for doubled names; exit code 1 "
        "when something is wrong",
    )
    parser.add_argument("names", nargs="*", help="for check: only these plugins")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--verbose", action="store_true", help="with the traceback of each broken plugin")
    if "--check" in arguments:
        raise ConfigError("--check is now `vtp plugins check`.")
    options = parser.parse_intermixed_args(arguments)
    if options.action == "check":
        return _check(options.names, options.json)
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


def _check(names: list[str], as_json: bool) -> int:
    from vtp.cli.plugins_check import problems_of

    known = [name for info in host().infos for name in (info.point.name, info.point.distribution)]
    if absent := [name for name in names if name not in known]:
        raise ConfigError(f"no plugin {absent[0]!r}.{did_you_mean(absent[0], known)} `vtp plugins` lists them.")
    found: dict[str, list[str]] = {}
    for info in host().infos:
        if names and not {info.point.name, info.point.distribution} & set(names):
            continue
        name = info.point.name if not found.get(info.point.name) else info.point.distribution
        if info.status in FAULTY:
            found[name] = [f"{info.status}: {info.error}"]
        elif info.status == "loaded":
            found[name] = problems_of(info.point, host())
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for name, problems in found.items():
            for problem in problems:
                print(f"{name}: {problem}")
    count = sum(map(len, found.values()))
    if not as_json:
        print(f"{count} problem(s)" if count else f"{len(found)} plugins, nothing is wrong")
    return 1 if count else 0


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
    for info in faulty:
        print(f"\n{info.summary()}")
        if verbose and info.trace:
            print(info.trace)
    if any(info.trace for info in faulty) and not verbose:
        print("\n`vtp plugins --verbose` shows the tracebacks.")
