"""``vtp data ACTION ...``: what is on the disk, and how to make it faster to read. One module per action."""

from __future__ import annotations

from importlib import import_module

from vtp.errors import ConfigError
from vtp.registry import did_you_mean

__all__ = ["ACTIONS", "main"]

# action -> (module with main(arguments) -> exit code, what it does)
ACTIONS = {
    "check": ("vtp.cli.data_check", "count what a protocol needs and what is there, decode it; a table and a page"),
    "cache": ("vtp.cli.data_cache", "decode once: short transcodes, JPEG frames or raw frames for data.cache=DIR"),
    "pack": ("vtp.cli.data_pack", "write WebDataset tar shards, to train from with dataset=shards"),
}

USAGE = """vtp data: look at media and make them fast to read.

usage: vtp data ACTION [...]      vtp data ACTION --help explains an action

{actions}
"""


def main(arguments: list[str]) -> int:
    """Run one action and return its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, ACTIONS))
        print(USAGE.format(actions="\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in ACTIONS.items())))
        return 0
    if arguments[0] not in ACTIONS:
        raise ConfigError(
            f"no action {arguments[0]!r}.{did_you_mean(arguments[0], ACTIONS)} Actions: {', '.join(ACTIONS)}."
        )
    return int(import_module(ACTIONS[arguments[0]][0]).main(arguments[1:]))
