"""The rows of a table from the counts of words: which tokens a word is, its rank, and the words with its lemma.

A word that the tokenizer knows as one token is that token. One that it splits is the sequence of its tokens, as they
are inside a text, or left out: with word pieces a significant word is found by its one id, which is fast. Words that
are the same tokens (``café`` and ``cafe`` to a tokenizer without accents) are one row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from typing import Literal

from vtp.types import TextSpec
from vtp_snps3.words import Word, ranked
from vtp_univl.parts_of_speech import installed, nltk_with

__all__ = ["STOP_WORDS", "Lemmas", "Rows", "Spelling", "lemmatizer", "make_rows"]

Lemmas = Literal["lemminflect", "simplemma", "wordnet", "none"]
Lemmatize = Callable[[str], Mapping[str, str]]  # a word -> its lemma as each part of speech that it is known to be

# Forms of be, have and do say nothing about a picture; backgrounds are in every caption of stock footage
STOP_WORDS: Mapping[str, tuple[str, ...]] = {
    "en": (
        "be", "am", "is", "are", "was", "were", "been", "being", "have", "has", "had", "having", "do", "does", "did",
        "done", "doing", "background", "backgrounds",
    ),
    "zh": ("是", "有", "背景"),
}  # fmt: skip
_PARTS = {"VERB": "verb", "NOUN": "noun", "ADJ": "adj"}
_CJK = "\u2e80"  # the first of the characters of which one alone is a word


class Spelling:
    """Which tokens of a tokenizer words are, inside a text.

    Args:
        spec: of the text encoder.
        language: ``en`` or ``zh``, where words stand without spaces.
    """

    def __init__(self, spec: TextSpec, language: str) -> None:
        self._spec = spec
        self._special = frozenset(spec.special_ids)
        self._language = language
        self._around = ("，", "，") if language == "zh" else ("a ", " a")

    @cached_property
    def texts(self) -> list[str]:
        """What each id stands for; nothing of special ones."""
        read = self._spec.detokenize
        if read is None:
            return []
        return ["" if i in self._special else read([i]).strip() for i in range(self._spec.vocab_size)]

    @property
    def splits(self) -> bool:
        """Whether words of several tokens are needed: Chinese ones, and those of bytes. Word pieces of English know
        frequent words as one."""
        return self._language == "zh" or not any(text.startswith("##") for text in self.texts)

    @property
    def lower(self) -> bool:
        """Whether the tokenizer takes capital letters for small ones."""
        small = "abcdefghijklmnopqrstuvwxyz"
        return self._spec.tokenize(list(small)) == self._spec.tokenize(list(small.upper()))

    def ids(self, word: str) -> tuple[int, ...]:
        """The tokens; none of a word that has an unknown one in it."""
        before, behind = self._around
        if self._spec.words is None:
            found = [i for i in self._spec.tokenize([word])[0] if i not in self._edges()]
        else:
            parts = self._spec.words(f"{before}{word}{behind}")
            found = [i for _, ids in parts[1:-1] for i in ids]
        return () if not found or self._special.intersection(found) else tuple(found)

    def vocabulary(self) -> Iterator[tuple[int, str]]:
        """The tokens that may be words, made of letters alone, each with its text. That they are words inside a text is
        for :meth:`ids` to say."""
        return ((i, text) for i, text in enumerate(self.texts) if len(text) > 1 and text.isalpha())

    def _edges(self) -> Collection[int]:
        return (self._spec.cls_id, self._spec.sep_id)


@dataclass(frozen=True, slots=True)
class Rows:
    """What became of counts.

    Attributes:
        words: by rank.
        unknown, split: words that the tokenizer does not know, or that it splits where they are left out; how many, and
            how often they occur.
    """

    words: tuple[Word, ...]
    unknown: tuple[int, int]
    split: tuple[int, int] = (0, 0)


def make_rows(
    counts: Mapping[str, Sequence[int]],
    spelling: Spelling,
    stop_words: Iterable[str],
    lemma: Lemmatize,
    pieces: bool = True,
) -> Rows:
    """Rows of all words that are a verb, a noun or an adjective at least once.

    Args:
        counts: word -> how often it is a verb, a noun, an adjective, anything else.
        stop_words: that are left out, and so are single letters.
        lemma: of a word as its most frequent part of speech (of equally frequent ones: verb, then noun).
        pieces: whether words of several tokens have rows.
    """
    stop = frozenset(map(str.lower, stop_words))
    found: dict[tuple[int, ...], Word] = {}
    left: dict[bool, list[int]] = {True: [], False: []}  # counts of words that are unknown, and that are split
    for word in sorted(counts):
        verb, noun, adj, _ = counts[word]
        total = verb + noun + adj
        if not total or word.lower() in stop or (len(word) == 1 and word < _CJK):
            continue
        ids = spelling.ids(word)
        if not ids or (len(ids) > 1 and not pieces):
            left[not ids].append(total)
            continue
        other = found.get(ids)
        if other is not None:  # the more frequent spelling stands for both, of equals the first of the alphabet
            name = word if total > other.total else other.word
            verb, noun, adj = verb + other.verb, noun + other.noun, adj + other.adj
            word, total = name, total + other.total
        found[ids] = Word(ids, word, "", total, verb, noun, adj)
    words = [replace(word, lemma=_as(word, lemma(word.word))) for word in found.values()]
    unknown, split = ((len(counts), sum(counts)) for counts in (left[True], left[False]))
    return Rows(tuple(_with_families(ranked(words), spelling, lemma)), unknown, split)


def _as(word: Word, lemmas: Mapping[str, str]) -> str:
    """The lemma of a word as what it mostly is; the word itself where none is known."""
    part, _ = max((("verb", word.verb), ("noun", word.noun), ("adj", word.adj)), key=lambda item: item[1])
    return lemmas.get(part) or word.word.lower()


def _with_families(words: Sequence[Word], spelling: Spelling, lemma: Lemmatize) -> Iterator[Word]:
    """Ranks, and of each word those with its lemma and as many tokens, by count, then id: of the vocabulary, and mined
    ones."""
    families: dict[tuple[str, int], dict[tuple[int, ...], tuple[str, int]]] = {}
    for word in words:
        families.setdefault((word.lemma, len(word.ids)), {})[word.ids] = (word.word, word.total)
    mined = {word.ids for word in words}
    for i, text in spelling.vocabulary():
        if (i,) in mined:
            continue
        # Without a caption to say what it is, a word is in the family of each of its lemmas
        for name in {*lemma(text).values()} or {text.lower()}:
            family = families.get((name, 1))
            if family is not None and spelling.ids(text) == (i,):
                family[(i,)] = (text, 0)
    lists = {
        key: tuple(text for text, _ in (family[ids] for ids in sorted(family, key=lambda ids: (-family[ids][1], ids))))
        for key, family in families.items()
    }
    for rank, word in enumerate(words):
        yield replace(word, rank=rank, same_lemma=lists[word.lemma, len(word.ids)])


def lemmatizer(lemmas: Lemmas, owner: str) -> tuple[Lemmatize, str]:
    """A function that gives the lemmas of a word, in lower case, and its version.

    lemminflect   by part of speech, from the words of the SPECIALIST lexicon; brings them along
    wordnet       by part of speech; needs NLTK's data wordnet
    simplemma     whatever the part of speech; brings its dictionary along
    none          every word is its own lemma

    Raises:
        ConfigError: the package, or its data, are not installed.
    """
    if lemmas == "none":
        return (lambda word: {}), "none"
    if lemmas == "wordnet":
        wordnet = nltk_with(owner, "corpora/wordnet").corpus.wordnet
        letters = {"verb": "v", "noun": "n", "adj": "a"}
        return (
            lambda word: {
                part: found for part, letter in letters.items() if (found := wordnet.morphy(word.lower(), letter))
            }
        ), _version("nltk", "wordnet of ")
    tool = installed(lemmas, owner, lemmas, f"pip install {lemmas}")
    if lemmas == "simplemma":
        return (
            lambda word: dict.fromkeys(_PARTS.values(), str(tool.lemmatize(word.lower(), lang="en")).lower())
        ), _version(lemmas)
    # Only what is in its lexicon: its guesses take "slicing" for a form of "slicy"
    return (
        lambda word: {
            _PARTS[part]: found[0].lower() for part, found in tool.getAllLemmas(word.lower()).items() if part in _PARTS
        }
    ), _version(lemmas)


def _version(package: str, before: str = "") -> str:
    return f"{before}{package} {metadata.version(package)}"
