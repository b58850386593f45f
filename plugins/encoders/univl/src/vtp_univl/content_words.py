"""Which words of a text say what it is about: nouns, verbs and adjectives that are no stop words. DMAE counts them
twice (arXiv:2309.11082).

The taggers are those of :mod:`vtp_univl.parts_of_speech`; ``nltk`` needs the data set ``stopwords`` besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from vtp.errors import ConfigError
from vtp.types import TextSpec
from vtp_univl.parts_of_speech import (
    Tagger,
    installed,
    jieba_tagger,
    nltk_tagger,
    part_of_jieba,
    part_of_penn,
    part_of_universal,
    spacy_pipeline,
)

__all__ = ["ContentWords", "Tag", "Tagger", "Words", "load_tagger"]

Words = Sequence[tuple[int, int]]  # where words begin and end in a text
Tag = Callable[[str, Words], list[bool]]  # a text and its words -> which of them are content words
_KNOWN = 65536  # texts whose words are kept


class ContentWords:
    """Counts the words of texts: 1 each, 2 for a content word, special tokens 1.

    Args:
        tagger: which one, or a function that tells content words.
        spec: of the text encoder.
        owner: who asks, for messages.

    Raises:
        ConfigError: the tokenizer knows no words, or the tagger or its data are not installed.
    """

    def __init__(self, tagger: Tagger | Tag, spec: TextSpec, owner: str) -> None:
        if spec.words is None:
            raise ConfigError(
                f"{owner}: content words are words, and the tokenizer of this text encoder does not tell where words "
                "begin. Use one of the tokenizers library (encoder.text.tokenizer), or use_twm=false."
            )
        self.spec = spec
        self._tag = tagger if callable(tagger) else load_tagger(tagger, owner)
        self._known: dict[str, list[int]] = {}

    def counts(self, text: str) -> list[int]:
        """A number per token of ``spec.tokenize([text])``."""
        found = self._known.get(text)
        if found is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            found = self._known[text] = self._count(text)
        return found

    def _count(self, text: str) -> list[int]:
        assert self.spec.words is not None
        ids = self.spec.tokenize([text])[0]
        words = self.spec.words(text)
        content = self._tag(text, list(_spans(text, [word for word, _ in words])))
        inside = [(2 if twice else 1, i) for twice, (_, own) in zip(content, words, strict=True) for i in own]
        before = _start(ids, [i for _, i in inside])
        counts = [1] * len(ids)
        counts[before : before + len(inside)] = [count for count, _ in inside]
        return counts


def _spans(text: str, words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where words that follow each other stand in a text."""
    end = 0
    for word in words:
        start = text.find(word, end)
        start = end if start < 0 else start
        end = start + len(word)
        yield start, end


def _start(ids: Sequence[int], inside: Sequence[int]) -> int:
    """Where the ids of the words begin among those of the text, behind its first special tokens."""
    places = range(len(ids) - len(inside) + 1)
    return next((at for at in places if list(ids[at : at + len(inside)]) == list(inside)), 0)


def load_tagger(name: Tagger, owner: str) -> Tag:
    """A function that tells of each word, given by its begin and end in a text, whether it is a content word.

    Raises:
        ConfigError: the tagger or its data are not installed.
    """
    return {"nltk": _nltk, "spacy": _spacy, "jieba": _jieba}[name](owner)


def _nltk(owner: str) -> Tag:
    tagger = nltk_tagger(owner, "corpora/stopwords")
    stop = frozenset(installed("nltk.corpus", owner, "NLTK", "pip install nltk").stopwords.words("english"))

    def tag(text: str, words: Words) -> list[bool]:
        tokens = [text[start:end] for start, end in words]
        return [
            token.lower() not in stop and token.isalpha() and part_of_penn(kind) is not None
            for token, kind in tagger.tag(tokens)
        ]

    return tag


def _spacy(owner: str) -> Tag:
    load = spacy_pipeline(owner)

    def tag(text: str, words: Words) -> list[bool]:
        content = [
            (token.idx, token.idx + len(token))
            for token in load(text)
            if part_of_universal(token.pos_) and not token.is_stop
        ]
        return _overlapping(words, content)

    return tag


def _jieba(owner: str) -> Tag:
    tagged = jieba_tagger(owner)

    def tag(text: str, words: Words) -> list[bool]:
        content, end = [], 0
        for word, kind in tagged.cut(text):
            start, end = end, end + len(word)
            if part_of_jieba(kind):
                content.append((start, end))
        return _overlapping(words, content)

    return tag


def _overlapping(words: Words, content: Words) -> list[bool]:
    """Which words share a letter with a content word."""
    return [any(start < stop and begin < end for begin, stop in content) for start, end in words]
