"""A table of words without a tagger: every word of the training texts that is no function word, by how often it occurs.

For toy data, and for a first try: what nouns, verbs and adjectives are, it does not know. ``vtp mine-words`` does.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from vtp.errors import ConfigError
from vtp.types import TextSpec
from vtp_encoders.tokenizers import vocabulary_hash
from vtp_snps3.words import Word, WordTable, ranked

__all__ = ["FUNCTION_WORDS", "table_of_texts"]

_WORDS = """
a an the this that these those some any no every each either neither both all another other such same own
i me my mine myself we us our ours ourselves you your yours yourself he him his himself she her hers herself
it its itself they them their theirs themselves who whom whose which what where when why how
be am is are was were been being have has had having do does did doing done will would shall should can could may
might must and or nor but if then else than because while as so not n't 's there here
of at by for with about against between into onto through during before after above below over under to from up down
in out on off upon near along across around behind beside toward towards within without again once only very too
just also more most few less least except until since
"""
FUNCTION_WORDS = frozenset(_WORDS.split())  # of English: they say how words belong together, not what is there


def table_of_texts(texts: Iterable[str], spec: TextSpec, owner: str) -> WordTable:
    """Count words.

    Words that are one token, have letters only and more than one of them, and are no English function word count, in
    lower case; two ids of one word (with and without a space in front) are two rows.

    Args:
        texts: of the training.
        spec: of the text encoder.
        owner: who asks, for messages.

    Raises:
        ConfigError: the tokenizer knows no words.
    """
    if spec.words is None:
        raise ConfigError(
            f"objective {owner}: words=null counts the words of the training texts, and the tokenizer of this text "
            "encoder does not tell where words begin. Give a table (vtp mine-words), or choose another encoder/text."
        )
    counts: Counter[tuple[int, str]] = Counter()
    corpus = hashlib.sha256()
    special = set(spec.special_ids)
    for text in texts:
        corpus.update(text.encode() + b"\n")
        for word, ids in spec.words(text):
            if len(ids) == 1 and ids[0] not in special:
                counts[ids[0], word.lower()] += 1
    kept: dict[int, Word] = {}
    for (token, word), count in counts.items():
        if len(word) > 1 and word.isalpha() and word not in FUNCTION_WORDS:
            before = kept[token].total if token in kept else 0
            kept[token] = Word((token,), word, word, before + count)
    rows = [Word(w.ids, w.word, w.lemma, w.total, rank=rank) for rank, w in enumerate(ranked(list(kept.values())))]
    settings = {"words": "all that are one token and no function word"}
    return WordTable("", vocabulary_hash(spec), corpus.hexdigest(), "none", "en", settings, tuple(rows))
