"""The averaged perceptron tagger of NLTK (``averaged_perceptron_tagger_eng``) over many texts at once, with the same
tags: the weights are one matrix, and the words that stand at the same place of all texts are tagged together.

A score is a sum of float64 weights, one per feature; they are added here in the order in which NLTK adds them, so that
sums and ties are the same to the last bit.

    words    N, of all texts one after another
    lengths  int64 (T,), words of each text
    tags     int64 (N,), places in ``classes``
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Perceptron"]

_START, _START2, _END, _END2 = range(4)  # numbers of the words that stand around a text
_AROUND = ("-START-", "-START2-", "-END-", "-END2-")
_MOST = 1 << 16  # words whose features are kept
_TAG_AND_WORD = "i-1 tag+i word "
# of the word itself, and of the words around it: the two before, the two behind
_OWN = ("i suffix", "i pref1", "i word")
_NEAR = ("i-1 word", "i-1 suffix", "i-2 word", "i+1 word", "i+1 suffix", "i+2 word")

Ints = npt.NDArray[np.int64]


class Perceptron:
    """A tagger.

    Args:
        weights: feature -> tag -> weight.
        tagdict: words that have one tag only.
        classes: all tags.

    Attributes:
        classes: the tags, in falling order of the alphabet: of equal scores NLTK takes the last tag of the alphabet,
            and ``argmax`` the first place.
    """

    def __init__(
        self, weights: Mapping[str, Mapping[str, float]], tagdict: Mapping[str, str], classes: Collection[str]
    ) -> None:
        self.classes = tuple(sorted(classes, reverse=True))
        place = {tag: number for number, tag in enumerate(self.classes)}
        count = len(self.classes)
        before = place | {"-START-": count, "-START2-": count + 1}  # what may stand before a word
        self._rows = {feature: row for row, feature in enumerate(weights, start=1)}
        self._weights = np.zeros((len(weights) + 1, count))  # row 0: a feature that is not known
        self._with_tag: dict[str, list[tuple[int, int]]] = {}  # word -> (tag before it, row)
        for row, (feature, of_tags) in enumerate(weights.items(), start=1):
            for tag, weight in of_tags.items():
                self._weights[row, place[tag]] = weight
            if feature.startswith(_TAG_AND_WORD):
                tag, _, word = feature.removeprefix(_TAG_AND_WORD).partition(" ")
                if tag in before:
                    self._with_tag.setdefault(word, []).append((before[tag], row))
        self._tag = np.array([self._row("i-1 tag", tag) for tag in before])
        self._tag2 = np.array([self._row("i-2 tag", tag) for tag in before])
        self._pair = np.array([[self._row("i tag+i-2 tag", f"{tag} {two}") for two in before] for tag in before])
        self._only = {word: place[tag] for word, tag in tagdict.items() if tag}
        self._forget()

    def tag(self, words: Sequence[str], lengths: Ints) -> Ints:
        """The tags of all words."""
        if not len(words):
            return np.zeros(0, np.int64)
        numbers = self._numbers(words)
        # Two places before and behind each text for the words around it
        begin = np.cumsum(lengths + 4) - lengths - 2
        inside = np.repeat(begin - (np.cumsum(lengths) - lengths), lengths) + np.arange(len(words))
        padded = np.empty(len(words) + 4 * len(lengths), np.int64)
        padded[inside] = numbers
        for shift, word in ((-2, _START), (-1, _START2)):
            padded[begin + shift] = word
        for shift, word in ((0, _END), (1, _END2)):
            padded[begin + lengths + shift] = word
        tags = np.empty_like(padded)  # before a text stand the tags -START- and, farther, -START2-
        tags[begin - 1], tags[begin - 2] = len(self.classes), len(self.classes) + 1
        longest_first = np.argsort(-lengths, kind="stable")
        begin, longer = begin[longest_first], -lengths[longest_first]
        for place in range(int(lengths.max())):
            at = begin[: np.searchsorted(longer, -place)] + place
            found = self._known[padded[at]]
            open_ = np.flatnonzero(found < 0)
            found[open_] = self._predict(padded, tags, at[open_])
            tags[at] = found
        found_tags: Ints = tags[inside]
        return found_tags

    def names(self, words: Sequence[str]) -> list[str]:
        """The tags of the words of one text, by name."""
        return [self.classes[tag] for tag in self.tag(words, np.array([len(words)])).tolist()]

    def _predict(self, words: Ints, tags: Ints, at: Ints) -> Ints:
        """The best tags at some places; the order of the sums is NLTK's."""
        own, near = self._own, self._near
        word, one, two = words[at], tags[at - 1], tags[at - 2]
        rows = (
            own[word, 0], own[word, 1], self._tag[one], self._tag2[two], self._pair[one, two], own[word, 2],
            self._after[word, one], near[words[at - 1], 0], near[words[at - 1], 1], near[words[at - 2], 2],
            near[words[at + 1], 3], near[words[at + 1], 4], near[words[at + 2], 5],
        )  # fmt: skip
        scores = np.repeat(self._weights[self._rows.get("bias", 0)][None], len(at), axis=0)
        for row in rows:
            scores += self._weights[row]
        best: Ints = scores.argmax(1)
        return best

    def _row(self, name: str, value: str) -> int:
        return self._rows.get(f"{name} {value}", 0)

    def _numbers(self, words: Sequence[str]) -> Ints:
        """Numbers of words; features of those that are new are looked up."""
        if len(self._lexicon) > _MOST:
            self._forget()
        lexicon = self._lexicon
        new = [word for word in dict.fromkeys(words) if word not in lexicon]
        if new:
            self._learn([(word, _normalized(word)) for word in new])
        return np.fromiter(map(lexicon.__getitem__, words), np.int64, len(words))

    def _forget(self) -> None:
        self._lexicon: dict[str, int] = {}
        self._own, self._near = np.zeros((0, len(_OWN)), np.int32), np.zeros((0, len(_NEAR)), np.int32)
        self._after = np.zeros((0, len(self.classes) + 2), np.int32)
        self._known = np.zeros(0, np.int64)
        self._learn([(word, word) for word in _AROUND])
        self._lexicon.clear()  # a text may hold a word that is spelt like them

    def _learn(self, words: Sequence[tuple[str, str]]) -> None:
        """Take in words with what they are for their neighbours."""
        first = len(self._known)
        own, near, known = [], [], []
        after = np.zeros((len(words), self._after.shape[1]), np.int32)
        for place, (word, plain) in enumerate(words):
            values = (word[-3:], word[:1], plain)
            own.append([self._row(name, value) for name, value in zip(_OWN, values, strict=True)])
            near.append([self._row(name, plain[-3:] if name.endswith("suffix") else plain) for name in _NEAR])
            known.append(self._only.get(word, -1))
            for tag, row in self._with_tag.get(plain, ()):
                after[place, tag] = row
            self._lexicon[word] = first + place
        self._own = np.concatenate([self._own, np.array(own, np.int32)])
        self._near = np.concatenate([self._near, np.array(near, np.int32)])
        self._known = np.concatenate([self._known, np.array(known, np.int64)])
        self._after = np.concatenate([self._after, after])


def _normalized(word: str) -> str:
    """What a word is for its neighbours: in lower case; years, numbers and hyphens are all the same."""
    if "-" in word and word[0] != "-":
        return "!HYPHEN"
    if word.isdigit() and len(word) == 4:
        return "!YEAR"
    return "!DIGITS" if word[:1].isdigit() else word.lower()
