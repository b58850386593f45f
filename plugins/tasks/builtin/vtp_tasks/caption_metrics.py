"""BLEU, ROUGE-L, CIDEr-D and METEOR of written sentences, from their papers, over the words of :mod:`vtp_tasks.ptb`.

All are over a corpus: sentence i has the references i. BLEU (Papineni et al., ACL 2002) counts n-grams over the corpus
and takes the reference whose length is closest, the shorter of two. ROUGE-L (Lin, 2004) is an F-measure of the longest
common subsequence with beta = 1.2, of the best precision and the best recall over the references. CIDEr-D (Vedantam et
al., arXiv:1411.5726, the section on gaming) weighs n-grams of up to 4 words by how rare they are among the references
of the corpus. These three are the numbers of COCO's caption evaluation.

METEOR is that of Banerjee and Lavie (ACL workshop 2005): words that are equal, then words with the same stem, then
synonyms. It is NOT the METEOR 1.5 that captioning papers report, which has tables of paraphrases and other weights; its
name says which stages it had.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.errors import ConfigError
from vtp_tasks.ptb import tokens

__all__ = ["CaptionScores", "caption_scores", "meteor_stages"]

Array = npt.NDArray[Any]
Words = tuple[str, ...]
N = 4
BETA = 1.2  # of ROUGE-L
SIGMA = 6.0  # of the length penalty of CIDEr-D
STAGES = ("exact", "stem", "synonym")


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """Scores of a corpus.

    Attributes:
        bleu: BLEU-1 to BLEU-4, in [0, 1].
        rouge_l: (N,), in [0, 1].
        cider: (N,), in [0, 10].
        meteor: (N,), in [0, 1].
        stages: of METEOR.
    """

    bleu: tuple[float, ...]
    rouge_l: Array
    cider: Array
    meteor: Array
    stages: tuple[str, ...]

    @property
    def by_sentence(self) -> dict[str, Array]:
        """Those that are means over the sentences, by the name of their metric."""
        return {"cider": self.cider, "rouge_l": self.rouge_l, f"meteor_{'_'.join(self.stages)}": self.meteor}

    def percent(self) -> dict[str, float]:
        """Times 100, as papers print them (CIDEr-D too, so that it goes up to 1,000)."""
        found = {f"bleu{n}": 100 * value for n, value in enumerate(self.bleu, 1)}
        return found | {name: 100 * float(np.mean(values)) for name, values in self.by_sentence.items()}


def caption_scores(
    sentences: Sequence[str], references: Sequence[Sequence[str]], stages: Sequence[str] | None = None
) -> CaptionScores:
    """Score a corpus; an empty sentence scores nothing.

    Args:
        sentences: what was written.
        references: of each sentence.
        stages: of METEOR; None = those that can be had here.

    Raises:
        ConfigError: a stage that cannot be had here.
    """
    written = [tokens(sentence) for sentence in sentences]
    people = [[tokens(text) for text in texts] for texts in references]
    stages = meteor_stages() if stages is None else tuple(stages)
    return CaptionScores(
        _bleu(written, people),
        np.array([_rouge_l(words, texts) for words, texts in zip(written, people, strict=True)]),
        _cider(written, people),
        np.array([_meteor(words, texts, stages) for words, texts in zip(written, people, strict=True)]),
        stages,
    )


def _grams(words: Words) -> list[Counter[Words]]:
    """Counts of the n-grams of 1, 2, 3 and 4 words."""
    return [Counter(words[i : i + n] for i in range(len(words) - n + 1)) for n in range(1, N + 1)]


def _bleu(written: Sequence[Words], people: Sequence[Sequence[Words]]) -> tuple[float, ...]:
    found, possible, length, wanted = np.zeros(N), np.zeros(N), 0, 0
    for words, texts in zip(written, people, strict=True):
        length += len(words)
        wanted += min((abs(len(text) - len(words)), len(text)) for text in texts)[1]
        counts = [_grams(text) for text in texts]
        for n, own in enumerate(_grams(words)):
            most: Counter[Words] = Counter()
            for one in counts:
                most |= one[n]
            found[n] += (own & most).total()
            possible[n] += own.total()
    if not length:
        return (0.0,) * N
    brevity = min(0.0, 1 - wanted / length)
    precision = found / np.maximum(possible, 1)
    return tuple(
        math.exp(brevity + float(np.log(precision[:n]).mean())) if (precision[:n] > 0).all() else 0.0
        for n in range(1, N + 1)
    )


def _rouge_l(words: Words, texts: Sequence[Words]) -> float:
    common = [_longest(words, text) for text in texts]
    precision = max((c / len(words) for c in common), default=0.0) if words else 0.0
    recall = max((c / len(text) for c, text in zip(common, texts, strict=True) if text), default=0.0)
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _longest(one: Words, other: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for a in one:
        corner = 0
        for j, b in enumerate(other, 1):
            corner, row[j] = row[j], corner + 1 if a == b else max(row[j], row[j - 1])
    return row[-1]


def _cider(written: Sequence[Words], people: Sequence[Sequence[Words]]) -> Array:
    counts = [[_grams(text) for text in texts] for texts in people]
    seen: Counter[Words] = Counter()  # by how many clips' references an n-gram is used
    for grams in counts:
        seen.update({gram for one in grams for part in one for gram in part})
    clips = math.log(len(people)) if len(people) > 1 else 0.0

    def weighed(grams: list[Counter[Words]]) -> tuple[list[dict[Words, float]], list[float]]:
        vectors = [
            {gram: count * (clips - math.log(max(1, seen[gram]))) for gram, count in part.items()} for part in grams
        ]
        return vectors, [math.sqrt(sum(value**2 for value in vector.values())) for vector in vectors]

    def similar(own: Any, other: Any, difference: int) -> float:
        total = 0.0
        for one, length, two, length_two in zip(*own, *other, strict=True):
            if length and length_two:
                product = sum(min(value, two[gram]) * two[gram] for gram, value in one.items() if gram in two)
                total += product / (length * length_two)
        return total / N * math.exp(-(difference**2) / (2 * SIGMA**2))

    scores = []
    for words, grams in zip(written, counts, strict=True):
        own_grams = _grams(words)
        own = weighed(own_grams)
        found = [similar(own, weighed(other), own_grams[1].total() - other[1].total()) for other in grams]
        scores.append(10 * sum(found) / len(found) if found else 0.0)
    return np.array(scores)


def meteor_stages() -> tuple[str, ...]:
    """The stages that can be had here: ``exact``, with NLTK ``stem``, with WordNet's files ``synonym``."""
    return tuple(stage for stage in STAGES if _stage(stage) is not None)


@lru_cache(maxsize=8)
def _stage(name: str) -> Callable[[str], frozenset[str]] | None:
    """What words of one stage have in common, by word; two words match that share anything. None = not to be had."""
    if name == "exact":
        return lambda word: frozenset((word,))
    try:
        if name == "stem":
            stem = lru_cache(maxsize=1 << 16)(import_module("nltk.stem.snowball").SnowballStemmer("english").stem)
            return lambda word: frozenset((stem(word),))
        wordnet = import_module("nltk.corpus").wordnet
        wordnet.ensure_loaded()
        return lru_cache(maxsize=1 << 16)(lambda word: frozenset(one.name() for one in wordnet.synsets(word)))
    except (ImportError, LookupError):
        return None


def _meteor(words: Words, texts: Sequence[Words], stages: tuple[str, ...]) -> float:
    """The best over the references: F = 10 P R / (R + 9 P), less half the cube of chunks per match."""
    best = 0.0
    for text in texts:
        pairs = _align(words, text, stages)
        if pairs:
            precision, recall = len(pairs) / len(words), len(pairs) / len(text)
            chunks = 1 + sum(b != (a[0] + 1, a[1] + 1) for a, b in zip(pairs, pairs[1:], strict=False))
            mean = 10 * precision * recall / (recall + 9 * precision)
            best = max(best, mean * (1 - 0.5 * (chunks / len(pairs)) ** 3))
    return best


def _align(words: Words, text: Words, stages: tuple[str, ...]) -> list[tuple[int, int]]:
    """Pairs of places, one for a word at most: as many as can be in the first stage, then in the next one, in as few
    chunks as a search over 32 partial alignments finds."""
    pairs: list[tuple[int, int]] = []
    for name in stages:
        kind = _stage(name)
        if kind is None:
            raise ConfigError(
                f"METEOR with the stage {name!r} needs NLTK{' and its WordNet files' if name == 'synonym' else ''}, "
                "which are not here. Install them where the report is checked, or leave that metric out."
            )
        taken, used = {a for a, _ in pairs}, {b for _, b in pairs}
        kinds = [kind(word) for word in text]
        options = [
            [j for j, other in enumerate(kinds) if j not in used and own & other] if i not in taken else []
            for i, own in enumerate(map(kind, words))
        ]
        pairs = _fewest_chunks(options, pairs)
    return pairs


def _fewest_chunks(options: Sequence[Sequence[int]], fixed: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    kept = dict(fixed)
    beam: list[tuple[int, int, tuple[tuple[int, int], ...]]] = [(0, 0, ())]  # -matches, chunks, pairs
    for i, places in enumerate(options):
        grown = []
        for matches, chunks, pairs in beam:
            taken = {j for _, j in pairs}
            choices: list[int | None] = [kept[i]] if i in kept else [None, *(j for j in places if j not in taken)]
            for j in choices:
                if j is None:
                    grown.append((matches, chunks, pairs))
                else:
                    follows = bool(pairs) and pairs[-1] == (i - 1, j - 1)
                    grown.append((matches - 1, chunks + (not follows), (*pairs, (i, j))))
        beam = sorted(grown)[:32]
    return list(min(beam)[2])
