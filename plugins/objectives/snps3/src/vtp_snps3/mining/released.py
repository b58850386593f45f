"""Tables of AntMMF as tables of ours: ``count_reprocess_*.json``, a list over the vocabulary for each of ``id, name,
total_count, verb_count, noun_count, adj_count, rank, ...``, and ``vocab_simi_list_new.json``, of each id the words with
its lemma."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vtp.errors import ConfigError, DataError
from vtp.types import TextSpec
from vtp_encoders.tokenizers import SPECIAL, spec_of, vocabulary_hash, word_pieces
from vtp_snps3.words import Word, WordTable, ranked

__all__ = ["convert"]

_COUNTS = ("total_count", "verb_count", "noun_count", "adj_count")


def convert(file: Path, same_lemma: Path | None = None, tokenizer: tuple[str, TextSpec] | None = None) -> WordTable:
    """The table of an AntMMF file. Words that were never counted are left out; a word is its own lemma, as these files
    do not tell lemmas.

    Args:
        file: with the counts.
        same_lemma: with the words of each lemma; without it, every word stands alone.
        tokenizer: name and spec of the one that the table is for; None is BERT's over the words of the file.

    Raises:
        DataError: a file is not there, or is none of these.
        ConfigError: the vocabulary of the file is not that of the tokenizer.
    """
    content = _json(file)
    names = content.get("name") if isinstance(content, dict) else None
    columns = [content.get(name) for name in _COUNTS] if isinstance(content, dict) else []
    size = len(names) if isinstance(names, list) else -1
    if not isinstance(names, list) or any(not isinstance(column, list) or len(column) != size for column in columns):
        raise DataError(
            f"{file} is no table of counts of AntMMF: expected an object with lists of one length, name, "
            f"{', '.join(_COUNTS)}, as in count_reprocess_webvid.json."
        )
    odd = [i for i, name in enumerate(names) if not isinstance(name, str) or not name or "\n" in name]
    if odd:
        raise DataError(f"{file}: the name of id {odd[0]} is {names[odd[0]]!r}, and no word.")
    families = _families(same_lemma, size)
    of_file = vocabulary_hash(_bert(file, names))
    if tokenizer is not None and vocabulary_hash(tokenizer[1]) != of_file:
        raise ConfigError(f"{file} is for another vocabulary than tokenizer={tokenizer[0]}. Leave tokenizer= out.")
    words: list[Word] = []
    counts: list[Any]
    for i, (name, *counts) in enumerate(zip(names, *columns, strict=True)):
        try:
            total, verb, noun, adj = (round(count) for count in counts)  # shares of counts are no whole numbers
        except (TypeError, ValueError, OverflowError):
            raise DataError(f"{file}: the counts of id {i} ({name!r}) are no numbers.") from None
        if min(total, verb, noun, adj) < 0:
            raise DataError(f"{file}: a count of id {i} ({name!r}) is less than 0.")
        if total > 0:
            words.append(Word((i,), name, name, total, verb, noun, adj, same_lemma=families[i]))
    files = [path.read_bytes() for path in (file, same_lemma) if path is not None]
    return WordTable(
        tokenizer=tokenizer[0] if tokenizer is not None else f"the words of {file.name}",
        vocabulary=of_file,
        corpus=hashlib.sha256(files[0]).hexdigest(),
        tagger="as in AntMMF",
        language="en",
        settings={"converted": file.name, "sha256": [hashlib.sha256(content).hexdigest() for content in files]},
        words=tuple(replace(word, rank=rank) for rank, word in enumerate(ranked(words))),
    )


def _bert(file: Path, names: Sequence[Any]) -> TextSpec:
    if lacking := [word for word in SPECIAL if word not in names]:
        raise DataError(f"{file}: its words are no vocabulary of BERT: {', '.join(lacking)} is not among them.")
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.txt"
        vocabulary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        return spec_of(word_pieces(vocabulary), 512)


def _families(file: Path | None, size: int) -> list[tuple[str, ...]]:
    if file is None:
        return [()] * size
    lists = _json(file)
    if not isinstance(lists, list) or len(lists) != size or not all(isinstance(words, list) for words in lists):
        raise DataError(f"{file} is no list of {size:,} lists of words, as vocab_simi_list_new.json is.")
    return [tuple(map(str, words)) for words in lists]


def _json(file: Path) -> Any:
    if file.exists() and not file.is_file():
        raise DataError(f"{file} is no file.")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such file.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error}).") from None
