"""What cells hold: texts that were written as texts, lists of them in every spelling that tables have, and ids that are
made unique. Nothing is invented: NaN, null and objects are no texts."""

from __future__ import annotations

import ast
import json
import math
import re
from array import array
from collections.abc import Hashable, Mapping
from itertools import chain, count
from typing import Any

from vtp.data.keys import hash64

__all__ = ["ROW_ERRORS", "Ids", "Seen", "answer_text", "is_empty", "list_in", "plain_text", "reason", "text_of"]

# What a row of the wrong shape raises while it is read: a key that is not there, a number that is a text or too large
# for what it stands for, a list where an object was expected.
ROW_ERRORS = (KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError)

_STRING = r"""[uU]?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_ITEM = rf"(?:{_STRING}|None|nan|NaN|null)"
_LIST = re.compile(rf"[\[(]\s*(?:{_ITEM}(?:\s*,\s*{_ITEM})*\s*,?\s*)?[\])]", re.DOTALL)
_LIKE_OBJECT = re.compile(r"""\{\s*(?:[uU]?(?:'[^']*'|"[^"]*")|\d+)\s*:.*\}""", re.DOTALL)
_LIKE_LIST = re.compile(r"""\[\s*(?:[uU]?['"]|(?:None|nan|NaN|null)\s*,).*\]""", re.DOTALL)


def reason(error: Exception) -> str:
    """Why a row was refused, in words: a KeyError is a column that is not there."""
    return f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: no value, an empty text, or NaN, by which pandas writes that there is none."""
    return value is None or value == "" or (type(value) is float and value != value)


def plain_text(value: Any, key: str) -> str:
    """A text, or a finite number as the text that csv would have for it; without the white space around it.

    Raises:
        ValueError: it is anything else, or empty; ``key`` says what.
    """
    if type(value) is not str:
        if is_empty(value):
            raise ValueError(f"no {key}")
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not isinstance(value, str) and not (number and math.isfinite(value)):
            kind = {list: "a list", dict: "an object", bool: str(value).lower()}.get(type(value), str(value))
            raise ValueError(f"{key} is {kind} instead of a text")
        value = str(value)
    text: str = value.strip()
    if not text:
        raise ValueError(f"no {key}")
    return text


def text_of(row: Mapping[str, Any], key: str) -> str:
    """:func:`plain_text` of a cell.

    Raises:
        KeyError, ValueError: there is none.
    """
    return plain_text(row[key], key)


def answer_text(value: Any) -> str:
    """An answer: a text, a number, ``true`` or ``false`` as JSON spells them, or a list that holds one of these.

    Raises:
        ValueError: it is none of them.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        value = list_in(value, "answer")
    if isinstance(value, list):
        if len(value) != 1 or isinstance(value[0], list):
            raise ValueError(f"answer is a list of {len(value)} instead of one text")
        return answer_text(value[0])
    return plain_text(value, "answer")


def list_in(text: str, key: str) -> Any:
    """The list that a cell spells, as JSON (``["a", "b"]``) or as Python (``['a', "b's"]``); any other text as it is.

    Raises:
        ValueError: it looks like a list of texts and is none that can be read, such as ``['a' 'b']`` of numpy; or it
            spells an object, ``{'en': 'a dog'}``.
    """
    stripped = text.strip()
    if stripped[:1] == "{" and _LIKE_OBJECT.fullmatch(stripped):
        raise ValueError(f"{key} is an object instead of a text")
    if stripped[:1] not in ("[", "("):
        return text
    if stripped[0] == "[":
        try:
            found = json.loads(stripped)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list):
            return found
    if _LIST.fullmatch(stripped):
        return [None if item[-1] not in "'\"" else ast.literal_eval(item) for item in re.findall(_ITEM, stripped)]
    if _LIKE_LIST.fullmatch(stripped):
        raise ValueError(f"{key} looks like a list and cannot be read as one: write a JSON list, with commas")
    return text


class Seen:
    """A set of texts that takes 16 to 32 bytes for each, to tell repeated ids of millions of rows."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 << 10))
        self._filled = 0

    def add(self, text: str) -> bool:
        """Take in ``text``; False if it is there already."""
        if 2 * self._filled >= len(self._slots):
            self._grow()
        value = hash64(text) or 1
        slot = self._slot(value)
        if self._slots[slot]:
            return False
        self._slots[slot] = value
        self._filled += 1
        return True

    def _grow(self) -> None:
        old, slots = self._slots, array("Q", bytes(16 * len(self._slots)))
        last = len(slots) - 1
        for value in old:
            if value:
                slot = value & last
                while slots[slot]:
                    slot = (slot + 1) & last
                slots[slot] = value
        self._slots = slots

    def _slot(self, value: int) -> int:
        """Where ``value`` is, or the free place where it belongs."""
        slots, last = self._slots, len(self._slots) - 1
        slot = value & last
        while slots[slot] and slots[slot] != value:
            slot = (slot + 1) & last
        return slot


class Ids(Seen):
    """Ids of the rows of a table, each given once. Files number the questions of every clip from 0, or repeat an id for
    another reason: such rows are different ones all the same, and only one that says the same is left out.

    Attributes:
        repeated: rows whose id was there already with another content.
    """

    def __init__(self) -> None:
        super().__init__()
        self.repeated = 0
        self._contents = array("q", bytes(8 << 10))  # of the rows in the slots

    def unique(self, name: str, clip: str, place: int | str, *content: Hashable) -> str:
        """``name`` the first time, then ``clip/name``, then ``name#place``.

        Args:
            place: line or position of the row; unique.
            content: what the row says besides.

        Raises:
            ValueError: a row of this name, clip and content is there already.
        """
        said = hash((clip, *content))
        if self._first(name, said, name):
            return name
        names = chain((f"{clip}/{name}", f"{name}#{place}"), (f"{name}#{place}.{n}" for n in count(1)))
        made = next(made for made in names if self._first(made, said, name))
        self.repeated += 1
        return made

    def _first(self, made: str, said: int, name: str) -> bool:
        """Take in ``made``, from the id ``name``, and what its row says; False if it is there with another content.

        Raises:
            ValueError: it is there with the same content.
        """
        if 2 * self._filled >= len(self._slots):
            self._grow()
        value = hash64(made) or 1
        slot = self._slot(value)
        if not self._slots[slot]:
            self._slots[slot], self._contents[slot] = value, said
            self._filled += 1
            return True
        if self._contents[slot] == said:
            raise ValueError(f"the id {name} is there already, with the same content")
        return False

    def _grow(self) -> None:
        old, contents = self._slots, self._contents
        self._contents = array("q", bytes(8 * 2 * len(old)))
        super()._grow()
        for value, said in zip(old, contents, strict=True):
            if value:
                self._contents[self._slot(value)] = said
