"""Texts that others wrote, on a terminal: captions, types, ids and names of files may hold bytes that command it."""

from __future__ import annotations

import logging
import re

__all__ = ["Formatter", "one_line", "printable"]

# C0 and C1 but tab and line feed, what turns the direction of writing round, and halves of characters, which no output
# can encode: bytes of a file name that are not UTF-8 are such
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_BREAKS = re.compile("[\n\u2028\u2029]")  # the others are commands


def printable(text: str) -> str:
    """``text`` with such characters spelled out, as ``\\x1b``."""
    return _COMMANDS.sub(_spelled, text)


def one_line(text: str) -> str:
    """:func:`printable`, with line breaks spelled out too, as ``\\n``: names of files may hold them."""
    return _BREAKS.sub(_spelled, printable(text))


def _spelled(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class Formatter(logging.Formatter):
    """Lines of a log that are :func:`printable`."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
