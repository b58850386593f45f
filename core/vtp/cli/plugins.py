"""``vtp plugins``: every plugin found, with its distribution, version, place, hooks and what is wrong with it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Print the table; with --check the exit code is 1 when a plugin is faulty."""
    parser = argparse.ArgumentParser(
        prog="vtp plugins",
        description="List the plugins of this Python: status, distribution, version, what they offer, where they lie.",
        epilog="VTP_BLOCK_PLUGINS=a,b switches plugins off, VTP_LOAD_PLUGINS=a,b loads only these besides the built-in "
        "ones (empty: none), VTP_STRICT_PLUGINS=1 makes a faulty plugin an error.",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument(
        "--check", action="store_true", help="exit code 1 when a plugin is broken, incompatible or refused"
    )
    parser.add_argument("--verbose", action="store_true", help="with the traceback of each broken plugin")
    options = parser.parse_args(arguments)

    from vtp.plugins import host, missing_addons

    infos = host().infos
    faulty = [info for info in infos if info.status in ("broken", "incompatible", "refused")]
    if options.json:
        print(json.dumps([asdict(info) for info in infos], indent=2))
        return 1 if options.check and faulty else 0

    rows = [("plugin", "status", "distribution", "version", "offers")]
    for info in infos:
        offers = ", ".join(sorted(hook.removeprefix("vtp_register_") for hook in info.hooks))
        rows.append((info.point.name, info.status, info.point.distribution, info.point.version, offers or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for index, row in enumerate(rows):
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]))
        if index and (path := infos[index - 1].path):
            print(f"  {path}")
    for name, distribution in sorted(missing_addons().items()):
        print(f"\nnot installed: {name}; pip install {distribution}")
    for info in faulty:
        print(f"\n{info.summary()}")
        if options.verbose and info.trace:
            print(info.trace)
    if any(info.trace for info in faulty) and not options.verbose:
        print("\n`vtp plugins --verbose` shows the tracebacks.")
    return 1 if options.check and faulty else 0
