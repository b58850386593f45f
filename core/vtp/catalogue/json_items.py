"""JSON as people write it: one item at a time of files that do not fit into memory, and what Python's parser lets pass
in silence put right (half a surrogate) or refused (a key that stands twice, nesting without end)."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["json_items", "json_value"]

_SPACE = " \t\r\n"
_AFTER = frozenset(_SPACE + ",:]}")  # what may follow a JSON value
_HALF = re.compile("[\ud800-\udfff]")
_TOO_DEEP = "lists or objects are nested too deeply"


def json_value(text: str) -> Any:
    """The value of a JSON text. Half a surrogate, which cutting a text through an emoji leaves (``"\\ud83d"``), becomes
    the replacement character: no file could hold it.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or is an object in which a key stands twice.
    """
    try:
        value = json.loads(text)
        if "\\u" in text or type(value) is not dict or text.count('":') != len(value):  # plain rows need no second look
            return _checked(value, text, 0, len(text))
        return value
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def json_items(stream: io.TextIOBase, block: int) -> Iterator[tuple[str | None, Any]]:
    """(key, value) of the items of the JSON list or object that ``stream`` holds, with one item in memory at a time;
    ``block`` characters are read at once. An item that would be refused by :func:`json_value` alone is a ValueError in
    place of its value.

    Raises:
        ValueError: the whole is no JSON, or neither a list nor an object.
    """
    source = _Window(stream, block)
    opening = source.peek()
    if opening not in ("[", "{"):
        raise ValueError(f"expected a list or an object, found {opening!r}")
    source.skip()
    closing = "]" if opening == "[" else "}"
    if source.peek() == closing:
        source.skip()
    else:
        while True:
            key: Any = None
            if opening == "{":
                key = source.value()
                if not isinstance(key, str) or source.peek() != ":":
                    raise ValueError(f"expected a key and a colon at character {source.place():,}")
                source.skip()
            yield key, source.value()
            mark = source.peek()
            source.skip()
            if mark == closing:
                break
            if mark != ",":
                raise ValueError(f"expected a comma or {closing} at character {source.place():,}")
    if source.peek():
        raise ValueError(f"extra text after the end at character {source.place():,}")


def _checked(value: Any, text: str, start: int, end: int) -> Any:
    """``value`` without half surrogates. Nothing is looked at more than once unless the text gives reason to.

    Raises:
        ValueError: a key of a flat object stands twice; of the two values nobody knows which one is meant.
    """
    if text.find("\\ud", start, end) >= 0 or text.find("\\uD", start, end) >= 0:
        value = _without_halves(value)
    if type(value) is dict and text.count('":', start, end) != len(value) and not any(map(_nests, value.values())):
        json.loads(text[start:end], object_pairs_hook=_each_once)
    return value


def _nests(value: Any) -> bool:
    return type(value) is dict or (type(value) is list and bool(value) and type(value[0]) is dict)


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    keys: set[str] = set()
    for key, _ in pairs:
        if key in keys:
            raise ValueError(f"the key {key!r} stands twice")
        keys.add(key)


def _without_halves(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_halves(item) for item in value]
    if isinstance(value, dict):
        return {_without_halves(key): _without_halves(item) for key, item in value.items()}
    return value


class _Window:
    """The part of a stream that is being parsed."""

    def __init__(self, stream: io.TextIOBase, block: int) -> None:
        self._stream = stream
        self._block = block
        self._text = ""
        self._at = 0  # in the text
        self._before = 0  # characters that have left the window
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more(self._block):
                return ""

    def skip(self) -> None:
        """Go past the character that :meth:`peek` gave."""
        self._at += 1

    def place(self) -> int:
        """Characters from the beginning of the stream."""
        return self._before + self._at

    def value(self) -> Any:
        """The next JSON value, or the ValueError of one that must not be used."""
        self.peek()
        size = self._block
        try:
            while True:
                try:
                    value, end = self._decode(self._text, self._at)
                    ended = self._text[end : end + 1] in _AFTER  # of 2.5, the window may end with 2 or with 2.
                except ValueError:
                    ended = False
                if ended:
                    break
                if not self._more(size):
                    value, end = self._decode(self._text, self._at)
                    break
                size *= 2  # so that a value of many blocks is not parsed once per block
        except RecursionError:
            raise ValueError(f"{_TOO_DEEP} at character {self.place():,}") from None
        start, self._at = self._at, end
        try:
            return _checked(value, self._text, start, end)
        except (ValueError, RecursionError) as error:
            return error if isinstance(error, ValueError) else ValueError(_TOO_DEEP)

    def _more(self, size: int) -> bool:
        block = self._stream.read(size)
        self._before += self._at
        self._text, self._at = self._text[self._at :] + block, 0
        return bool(block)
