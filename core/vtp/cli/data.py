"""``vtp data ACTION ...``: what is on the disk, and how to make it faster to read. One module per action."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtp.cli.arguments import Parser, a, key_values, place
from vtp.errors import ConfigError, DataError
from vtp.ranges import Natural
from vtp.registry import did_you_mean

if TYPE_CHECKING:
    from vtp.prepare.target import Target

__all__ = ["ACTIONS", "ArgumentParser", "decoder", "exit_code", "main", "point_at", "split_options"]

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

TARGET_HELP = """a folder of media; a table of your own (csv, tsv, jsonl or json) with a column `video` or `audio`, read
as `vtp run dataset=csv dataset.file=TARGET` does; or the name of a data set. Options of the data set may follow, and
which of its tables: msrvtt root=DIR kind=qa split=test"""


class ArgumentParser(Parser):
    """Of an action on TARGET, and of OUT where ``out`` says what that is. Errors are ours: one line, exit code 2."""

    def __init__(self, action: str, about: str, out: str = "") -> None:
        places = "TARGET OUT" if out else "TARGET"
        super().__init__(
            prog=f"vtp data {action}",
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            usage=f"vtp data {action} {places} [KEY=VALUE ...] [OPTIONS]",
        )
        self.add_argument("target", metavar="TARGET", type=place, help=TARGET_HELP)
        if out:
            self.add_argument("out", metavar="OUT", type=place, help=out)

    def has_value(self, option: str) -> bool:
        """Whether the argument behind ``--option``, which may be shortened, is its value."""
        named = {name: action.nargs != 0 for action in self._actions for name in action.option_strings}
        meant = [option] if option in named else [name for name in named if len(option) > 2 and name.startswith(option)]
        return any(named[name] for name in meant)

    def add_accept(self) -> None:
        """The option by which what is left out is no failure."""
        self.add_argument(
            "--accept",
            type=a(Natural),
            default=0,
            metavar="N",
            help="exit code 0 although so many clips or rows are left out",
        )


def split_options(arguments: Sequence[str], parser: ArgumentParser) -> tuple[list[str], dict[str, Any]]:
    """The ``key=value`` arguments, which are for the data set, apart from the others. What follows an option of
    ``parser`` that has a value is that value, whatever it looks like: ``--model model=clip``."""
    rest: list[str] = []
    given: list[str] = []
    before = ""
    for argument in arguments:
        key, sign, _ = argument.removeprefix("dataset.").partition("=")
        mine = sign and key.isidentifier() and not parser.has_value(before)
        (given if mine else rest).append(argument)
        before = argument
    return rest, key_values([argument.removeprefix("dataset.") for argument in given])


def exit_code(left_out: int, accepted: int) -> int:
    """0 where nothing is left out, or no more than ``--accept`` allows; 1 with a line that says so."""
    if left_out <= accepted:
        return 0
    print(f"exit code 1, because {left_out:,} clips or rows are left out; --accept {left_out} accepts them")
    return 1


def decoder(name: str) -> str:
    """The ``type=`` of ``--backend``: one that is there and can be used.

    Raises:
        ConfigError, PluginError: there is no such decoder, or its library is missing.
    """
    from vtp.media.backends import find_backend, load_backend

    try:
        load_backend(find_backend(name))
    except ConfigError as error:
        raise ConfigError(str(error).replace("media.backend=", "--backend ")) from None
    return name


def point_at(
    name: str, options: Mapping[str, Any], *, default_split: str | None = None, hold_out: bool = False
) -> Target:
    """What TARGET means.

    Args:
        options: of the data set, instead of what its option file says, with ``kind`` and ``split`` of its tables.
        default_split: of a data set by name; None = all its splits.
        hold_out: whether a table without splits is divided as ``vtp run`` does it. Else its rows stay in their order.

    Raises:
        ConfigError: there is no such data set, or it has no such option.
        DataError: there is no such file or folder.
    """
    from vtp.media.extensions import MEDIA
    from vtp.options import option_files
    from vtp.prepare.target import Target

    known = option_files().get("dataset", {})
    path = Path(name).expanduser()
    if path.is_dir() and (os.sep in name or name not in known):
        if options:
            raise ConfigError(f"{name} is a folder, and {next(iter(options))} is for data sets.")
        return Target(path)
    rest = {key: value for key, value in options.items() if key not in ("kind", "split")}
    kinds, splits = ([options[key]] if key in options else [] for key in ("kind", "split"))
    if path.is_file():
        if path.suffix.lower() in MEDIA:
            raise DataError(f"{name}: a media file is no table. Give its folder, or a table that names it.")
        whole = {} if hold_out or splits else {"val_share": 0, "test_share": 0}
        return Target(_dataset("csv", {"file": str(path), **whole, **rest}, known), kinds, splits, own=True)
    if os.sep in name or path.suffix:
        raise DataError(f"{name}: there is no such file or folder.")
    default = [default_split] if default_split is not None else []
    return Target(_dataset(name, rest, known), kinds, splits or default)


def _dataset(name: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    """A data set as ``vtp run dataset=NAME`` builds it, with ``options`` instead of what its file says."""
    if name not in known:
        raise ConfigError(
            f"{name!r} is neither a data set nor a file or folder here.{did_you_mean(name, known)} Data sets: "
            f"{', '.join(sorted(known))}."
        )
    from vtp.cli.run import compose
    from vtp.components import build
    from vtp.plugins import host

    return build("dataset", dict(compose([f"dataset={name}"])["dataset"]) | dict(options), host().registry)


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
