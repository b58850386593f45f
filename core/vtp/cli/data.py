"""``vtp data ACTION ...``: what is on the disk, and how to make it faster to read. One module per action."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from vtp.errors import ConfigError
from vtp.registry import did_you_mean

__all__ = ["ACTIONS", "TARGET_HELP", "ArgumentParser", "main", "split_options"]

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

TARGET_HELP = """a folder of media; a .csv, .tsv or .jsonl file with a column `video` (or `audio`), whose paths are
relative to that file; or the name of a data set, followed by its options: msrvtt root=DIR"""


class ArgumentParser(argparse.ArgumentParser):
    """One whose errors are ours: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. `{self.prog} --help` explains.")


def split_options(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The ``key=value`` arguments, which are for the data set, apart from the others."""
    import yaml

    def is_option(argument: str) -> bool:
        return argument.partition("=")[0].isidentifier() and "=" in argument

    options = {}
    for argument in filter(is_option, arguments):
        key, _, value = argument.partition("=")
        options[key.removeprefix("dataset.")] = yaml.safe_load(value)
    return [argument for argument in arguments if not is_option(argument)], options


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
