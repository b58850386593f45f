"""Taggers: programs that tell verbs, nouns and adjectives of captions, and what their tags mean.

    nltk    English, the averaged perceptron; needs the data set averaged_perceptron_tagger_eng
    spacy   English, en_core_web_sm
    jieba   Chinese; brings its dictionary along

None of them is downloaded here: what is missing is named with the command that gets it.
"""

from __future__ import annotations

import logging
import warnings
from importlib import import_module
from typing import Any, Literal

from vtp.errors import ConfigError

__all__ = [
    "PERCEPTRON",
    "Part",
    "Tagger",
    "installed",
    "jieba_tagger",
    "missing",
    "nltk_tagger",
    "nltk_with",
    "part_of_jieba",
    "part_of_penn",
    "part_of_universal",
    "segmenter",
    "spacy_pipeline",
]

Tagger = Literal["nltk", "spacy", "jieba"]
Part = Literal["verb", "noun", "adj"]
PERCEPTRON = "averaged_perceptron_tagger_eng"

_UNIVERSAL: dict[str, Part] = {"VERB": "verb", "NOUN": "noun", "ADJ": "adj"}
_JIEBA: dict[str, Part] = {"v": "verb", "n": "noun", "a": "adj"}
_NAMES = ("nr", "ns", "nt", "nz")  # of people, places, organisations, others


def part_of_penn(tag: str) -> Part | None:
    """Tags of the Penn treebank: verbs, common nouns, adjectives."""
    if tag.startswith("VB"):
        return "verb"
    if tag.startswith("JJ"):
        return "adj"
    return "noun" if tag in ("NN", "NNS") else None


def part_of_universal(tag: str) -> Part | None:
    """Universal parts of speech, spaCy's ``pos_``: verbs but no auxiliaries, nouns but no names."""
    return _UNIVERSAL.get(tag)


def part_of_jieba(tag: str) -> Part | None:
    """Tags of jieba: v*, a*, and n* but no names."""
    return None if tag.startswith(_NAMES) else _JIEBA.get(tag[:1])


def missing(owner: str, what: str, command: str) -> ConfigError:
    """What to raise where a program or its data are not there."""
    return ConfigError(f"{owner}: words of texts are told by {what}, which is not installed. Get it with: {command}")


def installed(name: str, owner: str, what: str, command: str) -> Any:
    """A module of a package that need not be there.

    Raises:
        ConfigError: it is not, see :func:`missing`.
    """
    try:
        return import_module(name)
    except ImportError:
        raise missing(owner, what, command) from None


def nltk_with(owner: str, *data: str) -> Any:
    """The module nltk.

    Args:
        data: data sets that must be there, as ``corpora/stopwords``.

    Raises:
        ConfigError: it, or one of these, is not installed.
    """
    nltk = installed("nltk", owner, "NLTK", "pip install nltk")
    try:
        for path in data:
            nltk.data.find(path)
    except LookupError:
        names = [path.rpartition("/")[2] for path in data]
        raise missing(
            owner,
            f"the NLTK data {' and '.join(names)}",
            f"python -m nltk.downloader {' '.join(names)} (or NLTK_DATA=FOLDER, where they are)",
        ) from None
    return nltk


def nltk_tagger(owner: str, *data: str) -> Any:
    """NLTK's ``PerceptronTagger``; arguments and errors as those of :func:`nltk_with`."""
    return nltk_with(owner, f"taggers/{PERCEPTRON}", *data).tag.perceptron.PerceptronTagger(lang="eng")


def spacy_pipeline(owner: str) -> Any:
    """spaCy's ``en_core_web_sm``, as far as it tags.

    Raises:
        ConfigError: it, or the model, are not installed.
    """
    spacy = installed("spacy", owner, "spaCy", "pip install spacy")
    try:
        return spacy.load("en_core_web_sm", disable=["parser", "ner", "lemmatizer"])
    except OSError:
        command = "python -m spacy download en_core_web_sm (or tagger=nltk)"
        raise missing(owner, "spaCy's en_core_web_sm", command) from None


def segmenter(owner: str) -> Any:
    """The module jieba, which cuts Chinese texts into words.

    Raises:
        ConfigError: it is not installed.
    """
    return _jieba("jieba", owner)


def jieba_tagger(owner: str) -> Any:
    """The module ``jieba.posseg``, which also tags them; errors as :func:`segmenter`."""
    return _jieba("jieba.posseg", owner)


def _jieba(name: str, owner: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its age: pkg_resources, and escapes that Python 3.12 doubts
        installed("jieba", owner, "jieba", "pip install jieba")
        found = import_module(name)
    logging.getLogger("jieba").setLevel(logging.WARNING)  # it reports that it builds its dictionary
    return found
