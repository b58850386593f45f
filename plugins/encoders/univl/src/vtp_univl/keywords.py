"""``keyword_dropping``: in training, some words that say little about a video leave its captions (DMAE,
arXiv:2309.11082).

    weight of a word for a video   tf * idf
    tf    its share of the words of all captions of the video
    idf   1 + log((1 + V) / (1 + videos with the word)) over the V training videos

Of a caption, the ``most`` words of least weight that lie below ``below`` may go: a random number of them, and never
more than ``share`` of its words.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np

from vtp.components import build
from vtp.contracts import Dataset, member
from vtp.data.table import media_id
from vtp.errors import ConfigError
from vtp.ranges import Count, Positive, Range
from vtp.types import Sample
from vtp_univl.parts_of_speech import segmenter

__all__ = ["KeywordDropping", "keywords"]

Share = Annotated[float, Range(above=0, most=1)]
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_KINDS = ("retrieval", "caption")  # tables with captions, in the order in which they are looked for


class KeywordDropping:
    """The transform.

    Args:
        dataset: whose captions are counted, by name or with its options: ``${dataset}`` is the data set of the run.
        language: ``en``: words are what stands between spaces and marks. ``zh``: what jieba finds.
        top: so many words of a video have a weight; others never go.
        most: words of a caption that may go.
        below: weight below which a word may go.
        share: of the words of a caption, at most so many go.
    """

    def __init__(
        self,
        *,
        dataset: str | dict[str, Any],
        language: Literal["en", "zh"] = "en",
        top: Count = 200,
        most: Count = 5,
        below: Positive = 0.1,
        share: Share = 0.5,
    ) -> None:
        from vtp.plugins import host

        self._cut = _cutter(language)
        self._share = share
        table = build("dataset", _node(dataset), host().registry)
        kinds: Sequence[str] = member(table, Dataset, "kinds")
        kind = next((kind for kind in _KINDS if kind in kinds), None)
        samples: Sequence[Sample] = table.samples(kind, "train") if kind else ()
        if not len(samples):
            raise ConfigError(
                "data.transforms.text: keyword_dropping counts the captions of its data set, and "
                f"{member(table, Dataset, 'name')} has no training captions. Name another one: "
                "data.transforms.text={keyword_dropping: {dataset: msrvtt}}."
            )
        captions: dict[str, list[str]] = {}
        for row in range(len(samples)):
            captions.setdefault(media_id(samples[row]), []).extend(samples[row].texts)
        self._may_go = self._find(captions, top, most, below)

    @staticmethod
    def nested(options: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Sequence[str]]]:
        """The data set, for the check before anything is built."""
        if (dataset := options.get("dataset")) is not None:
            yield "dataset", "dataset", _node(dataset), ()

    def __call__(self, text: str, *, generator: np.random.Generator | None) -> str:
        """The text without some of its words; texts that are in no training caption stay."""
        may_go = self._may_go.get(text)
        if generator is None or not may_go:
            return text
        spans = self._cut(text)
        limit = min(len(may_go), int(self._share * len(spans)))
        chosen = generator.permutation(len(may_go))[: generator.integers(limit + 1)]
        gone = {may_go[place] for place in chosen.tolist()}
        kept, end = [], 0
        for start, stop in spans:
            if text[start:stop].lower() in gone:
                kept.append(text[end:start].rstrip())
                end = stop
        return "".join([*kept, text[end:]]).strip()

    def _find(
        self, captions: Mapping[str, Sequence[str]], top: int, most: int, below: float
    ) -> dict[str, tuple[str, ...]]:
        """Captions and the words of each that may go, in the order of the alphabet."""
        counts = [Counter(word for text in texts for word in self._words(text)) for texts in captions.values()]
        weights = keywords(counts, top)
        found: dict[str, tuple[str, ...]] = {}
        for texts, weight in zip(captions.values(), weights, strict=True):
            for text in texts:
                light = {word: weight[word] for word in self._words(text) if weight.get(word, below) < below}
                chosen = sorted(light, key=lambda word: (light[word], word))[:most]
                if chosen and text not in found:
                    found[text] = tuple(sorted(chosen))
        return found

    def _words(self, text: str) -> list[str]:
        return [text[start:end].lower() for start, end in self._cut(text)]


def keywords(counts: Sequence[Mapping[str, int]], top: int) -> list[dict[str, float]]:
    """Weights tf * idf of the ``top`` words of each video, from the counts of the words in its captions; ties by the
    alphabet."""
    seen = Counter(word for own in counts for word in own)
    found = []
    for own in counts:
        total = sum(own.values())
        weight = {
            word: count / total * (1 + math.log((1 + len(counts)) / (1 + seen[word]))) for word, count in own.items()
        }
        best = sorted(weight, key=lambda word: (-weight[word], word))[:top]
        found.append({word: weight[word] for word in best})
    return found


def _node(dataset: Any) -> Any:
    """A data set by its name alone, or with options."""
    return {"name": dataset} if isinstance(dataset, str) else dataset


class _English:
    """Words between spaces and marks. A class, so that it can be pickled."""

    def __call__(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in _WORD.finditer(text)]


class _Chinese:
    """Words by jieba; marks are no words."""

    def __init__(self) -> None:
        segmenter("keyword_dropping")

    def __call__(self, text: str) -> list[tuple[int, int]]:
        spans, end = [], 0
        for word in segmenter("keyword_dropping").lcut(text):
            start, end = end, end + len(word)
            if _WORD.fullmatch(word):
                spans.append((start, end))
        return spans


def _cutter(language: Literal["en", "zh"]) -> Any:
    return _English() if language == "en" else _Chinese()
