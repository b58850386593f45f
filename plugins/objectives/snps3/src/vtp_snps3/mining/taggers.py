"""How often the words of some captions are verbs, nouns and adjectives, as a tagger of
:mod:`vtp_univl.parts_of_speech` tells it. Words are what is made of letters alone.

The English words of NLTK are those of its Treebank tokenizer and its perceptron, computed for many captions at once
and with the same outcome: a caption of plain words is cut at its spaces.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module, metadata
from itertools import chain
from typing import Any

import numpy as np

from vtp_snps3.mining.perceptron import Perceptron
from vtp_univl.parts_of_speech import (
    PERCEPTRON,
    Part,
    Tagger,
    jieba_tagger,
    nltk_with,
    part_of_jieba,
    part_of_penn,
    part_of_universal,
    spacy_pipeline,
)

__all__ = ["CHUNK", "Count", "Counts", "Tokens", "facts_of", "make_counter"]

Counts = dict[str, tuple[int, int, int, int]]  # word -> how often a verb, a noun, an adjective, anything else
Count = Callable[[Sequence[str], Sequence[int]], Counts]  # of captions that occur so many times each

CHUNK: dict[Tagger, int] = {"nltk": 16384, "spacy": 2048, "jieba": 2048}  # captions that are counted together: seconds
_COLUMNS: dict[Part | None, int] = {"verb": 0, "noun": 1, "adj": 2, None: 3}
# Letters, digits and spaces, commas before a space, a full stop at the end
_PLAIN = re.compile(r"[A-Za-z0-9 ]*(?:, [A-Za-z0-9 ]*)*\.?")


def facts_of(tagger: Tagger, owner: str) -> dict[str, str]:
    """Versions of what decides its tags.

    Raises:
        ConfigError: it, or its data, are not installed.
    """
    if tagger == "jieba":
        jieba_tagger(owner)
        return {"jieba": metadata.version("jieba")}
    if tagger == "spacy":
        pipeline = spacy_pipeline(owner)
        return {"spacy": metadata.version("spacy"), "en_core_web_sm": str(pipeline.meta["version"])}
    digest = hashlib.sha256(_data(owner, "weights")).hexdigest()
    return {"nltk": metadata.version("nltk"), PERCEPTRON: digest[:16]}


def _data(owner: str, name: str) -> bytes:
    """A file of NLTK's English tagger."""
    nltk = nltk_with(owner, f"taggers/{PERCEPTRON}")
    with nltk.data.find(f"taggers/{PERCEPTRON}/").join(f"{PERCEPTRON}.{name}.json").open() as file:
        content: bytes = file.read()
    return content


def make_counter(tagger: Tagger, owner: str) -> Count:
    """What counts with a tagger.

    Raises:
        ConfigError: it, or its data, are not installed.
    """
    if tagger == "nltk":
        return _Nltk(owner)
    return _spacy(owner) if tagger == "spacy" else _jieba(owner)


class Tokens:
    """The words of a caption as NLTK's ``TreebankWordTokenizer`` cuts it."""

    def __init__(self) -> None:
        self._tool: Any = import_module("nltk.tokenize").TreebankWordTokenizer()
        # The words that are cut in two, gonna and cannot, without what the patterns say about their places
        patterns = [part.pattern for part in (*self._tool.CONTRACTIONS2, *self._tool.CONTRACTIONS3)]
        self._contractions = frozenset(re.sub(r"\(\?[^)]*\)|\\b|[() ]", "", pattern).lower() for pattern in patterns)

    def __call__(self, text: str) -> list[str]:
        """All words and marks, in order."""
        if _PLAIN.fullmatch(text):
            plain = text.replace(", ", " , ") if "," in text else text
            words = (f"{plain[:-1]} ." if plain.endswith(".") else plain).split()
            if self._contractions.isdisjoint(map(str.lower, words)):
                return words
        found: list[str] = self._tool.tokenize(text)
        return found


class _Nltk:
    def __init__(self, owner: str) -> None:
        self._tokens = Tokens()
        # As NLTK reads them, less its search for what json does not allow, which takes as long again
        self._perceptron = Perceptron(*(json.loads(_data(owner, name)) for name in ("weights", "tagdict", "classes")))
        self._columns = np.array([_COLUMNS[part_of_penn(tag)] for tag in self._perceptron.classes])

    def __call__(self, texts: Sequence[str], times: Sequence[int]) -> Counts:
        captions = list(map(self._tokens, texts))
        words = list(chain.from_iterable(captions))
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        columns = self._columns[self._perceptron.tag(words, lengths)]
        numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
        rows = np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))
        often = np.repeat(np.asarray(times, np.int64), lengths)
        counts = np.bincount(4 * rows + columns, often, 4 * len(numbers)).astype(np.int64).reshape(-1, 4)
        return {
            word: (v, n, a, o) for word, (v, n, a, o) in zip(numbers, counts.tolist(), strict=True) if word.isalpha()
        }


def _spacy(owner: str) -> Count:
    pipeline = spacy_pipeline(owner)

    def count(texts: Sequence[str], times: Sequence[int]) -> Counts:
        read = pipeline.pipe(texts, batch_size=256)
        return _added(
            (token.text, part_of_universal(token.pos_), n) for n, doc in zip(times, read, strict=True) for token in doc
        )

    return count


def _jieba(owner: str) -> Count:
    tagger = jieba_tagger(owner)

    def count(texts: Sequence[str], times: Sequence[int]) -> Counts:
        read = map(tagger.cut, texts)
        return _added(
            (word, part_of_jieba(kind), n) for n, pairs in zip(times, read, strict=True) for word, kind in pairs
        )

    return count


def _added(words: Iterable[tuple[str, Part | None, int]]) -> Counts:
    counts: dict[str, list[int]] = {}
    for word, part, often in words:
        if word.isalpha():
            counts.setdefault(word, [0, 0, 0, 0])[_COLUMNS[part]] += often
    return {word: (row[0], row[1], row[2], row[3]) for word, row in counts.items()}
