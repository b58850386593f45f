"""What every command does with its arguments: a mistake is one line of ours and exit code 2, whatever argparse says."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

from vtp.errors import ConfigError
from vtp.ranges import Range, SampleRate
from vtp.registry import did_you_mean
from vtp.values import fits, spell

__all__ = [
    "PIXELS",
    "Parser",
    "Seconds",
    "a",
    "key_values",
    "place",
    "refuse_file",
    "sample_rate",
    "words",
]

Seconds = Annotated[float, Range(above=0, most=86400)]
PIXELS = Annotated[int, Range(least=16, most=16384)]


class Parser(argparse.ArgumentParser):
    """argparse, whose errors are ours, and say what a misspelt option or choice was meant to be."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message.rstrip('.')}.{self._hint(message)} `{self.prog} --help` explains.")

    def _hint(self, message: str) -> str:
        """An unknown option is looked for in every message: argparse may say first that another one is missing."""
        if choice := re.search(r"invalid choice: '(.*?)'", message):
            return did_you_mean(choice[1], (str(name) for action in self._actions for name in action.choices or ()))
        options = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        for given in self._given:
            name = given.partition("=")[0]
            if name == "--":
                break
            if name.startswith("--") and not any(option.startswith(name) for option in options):
                hint = did_you_mean(name, options)
                return f" There is no option {name}.{hint}" if hint and name not in message else hint
        return ""


def a(hint: Any) -> Callable[[str], Any]:
    """The ``type=`` of an argument that is a number: ``a(Count)``, ``a(Seconds)``."""

    def read(text: str) -> Any:
        for convert in (int, float):
            try:
                value: Any = convert(text)
            except ValueError:
                continue
            if fits(value, hint):
                return value
        raise argparse.ArgumentTypeError(f"expected {spell(hint)}, got {text!r}")

    return read


def sample_rate(text: str) -> int:
    """The ``type=`` of ``--audio``: Hz, or none, which is 0."""
    return 0 if text == "none" else int(a(SampleRate)(text))


def place(text: str) -> str:
    """The ``type=`` of a file or folder. An empty name would be the working folder, which nobody means."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError("expected the name of a file or folder, got an empty one")
    return text


def words(text: str) -> str:
    """The ``type=`` of a question or of what is searched for."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a text, got an empty one")
    return text


def key_values(arguments: Sequence[str]) -> dict[str, Any]:
    """``["root=DIR", "kind=[qa]"]`` as options.

    Raises:
        ConfigError: a value cannot be read.
    """
    import yaml

    options = {}
    for argument in arguments:
        key, _, value = argument.partition("=")
        try:
            options[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:  # a ValueError: such as the date 2024-13-45
            reason = " ".join(str(error).split()).partition(' in "<unicode')[0]
            raise ConfigError(
                f"{argument!r} cannot be read: {reason}. Lists are written [a,b]; quote what has signs in it."
            ) from error
    return options


def refuse_file(folder: Path) -> None:
    """Refuse a file where a folder is to be made, before any work is done for it.

    Raises:
        ConfigError: it, or a part of its path, is a file.
    """
    there = next(part for part in (folder, *folder.parents) if part.exists())
    if not there.is_dir():
        raise ConfigError(f"{folder}: {there} is a file, and a folder is to be written there. Name another one.")
