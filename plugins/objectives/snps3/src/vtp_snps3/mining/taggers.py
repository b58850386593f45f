"""How often the words of some captions are verbs, nouns and adjectives, as a tagger of
:mod:`vtp_univl.parts_of_speech` tells it. Words are what is made of letters alone.

The English words of NLTK are those of its Treebank tokenizer and its perceptron, computed for many captions at once
and with the same outcome: a caption of plain words is cut at its spaces.
"""

from __future__ import annotations

import hashlib
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
    nltk_tagger,
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
# Letters, digits and spaces, single hyphens between them, commas before a space, a full stop at the end
_PLAIN = re.compile(r"[A-Za-z0-9 ]*(?:(?:, |-(?!-))[A-Za-z0-9 ]*)*\.?")


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
    nltk = nltk_with(owner, f"taggers/{PERCEPTRON}")
    with nltk.data.find(f"taggers/{PERCEPTRON}/").join(f"{PERCEPTRON}.weights.json").open() as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return {"nltk": metadata.version("nltk"), PERCEPTRON: digest[:16]}


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
        parts = [*self._tool.CONTRACTIONS2, *self._tool.CONTRACTIONS3]  # gonna, cannot, ...
        self._contraction = re.compile("|".join(part.pattern.replace("(?i)", "") for part in parts), re.IGNORECASE)

    def __call__(self, text: str) -> list[str]:
        """All words and marks, in order."""
        if not _PLAIN.fullmatch(text) or self._contraction.search(f" {text} "):
            words: list[str] = self._tool.tokenize(text)
            return words
        if "," in text:
            text = text.replace(", ", " , ")
        return (f"{text[:-1]} ." if text.endswith(".") else text).split()


class _Nltk:
    def __init__(self, owner: str) -> None:
        tagger = nltk_tagger(owner)
        self._tokens = Tokens()
        self._perceptron = Perceptron(tagger.model.weights, tagger.tagdict, tagger.classes)
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
