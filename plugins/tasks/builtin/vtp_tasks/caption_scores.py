"""How well a written sentence agrees with those that people wrote: exact match and token F1, the best over all
references.

Words are what is between spaces and punctuation in lower case; where a script puts no spaces between words, such as
Chinese or Thai, every character is one. Neither is a metric of captioning benchmarks (BLEU, METEOR, ROUGE-L, CIDEr):
F1 knows no word order and no synonyms.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

__all__ = ["exact_match", "token_f1", "words"]

# Thai to Myanmar, Khmer, Japanese and Chinese
_UNSPACED = (
    "\u0e00-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u312f\u31a0-\u31ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['\u2019][^\W{_UNSPACED}]+)*")


def words(text: str) -> list[str]:
    """``"A dog's ball, 2 cats."`` -> ``["a", "dog's", "ball", "2", "cats"]``."""
    return _WORD.findall(text.lower())


def exact_match(sentence: str, references: Sequence[str]) -> bool:
    """Whether the words of ``sentence`` are those of a reference in their order; one without words never is right."""
    found = words(sentence)
    return bool(found) and any(found == words(reference) for reference in references)


def token_f1(sentence: str, references: Sequence[str]) -> float:
    """The largest F1 over the references, in [0, 1]: 2 * common / (words of the sentence + words of the reference), a
    word counted as often as both have it (as SQuAD, arXiv:1606.05250, with articles)."""
    found = Counter(words(sentence))
    return max((_f1(found, Counter(words(reference))) for reference in references), default=0.0)


def _f1(one: Counter[str], other: Counter[str]) -> float:
    common = (one & other).total()
    return 2 * common / (one.total() + other.total()) if common else 0.0
