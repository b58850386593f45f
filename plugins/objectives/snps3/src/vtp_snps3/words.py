"""Tables of words: how often the words of a vocabulary are nouns, verbs and adjectives of a corpus, and which of them
are significant. A JSON file::

    {"format": "vtp-words-1", "tokenizer": "bert-base-uncased", "vocabulary": sha256, "corpus": sha256,
     "tagger": "nltk", "language": "en", "settings": {...}, "counted": {"captions": 3, "words": 14, ...},
     "words": [{"id": 2158, "word": "man", "lemma": "man", "total": 6, "verb": 1, "noun": 5, "adj": 0, "rank": 0,
                "same_lemma": ["man", "men"]}, ...]}

A word that the tokenizer splits (pieces of bytes, Chinese by characters) has ``"ids": [...]``, all tokens of it, in
place of ``"id"``. Rows stand by rank; words that were never counted may be left out. ``rank`` is that of the total
count, ties by id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vtp.errors import ConfigError, DataError
from vtp.storage import replacing
from vtp.types import TextSpec
from vtp_encoders.tokenizers import vocabulary_hash

__all__ = ["FORMAT", "Word", "WordTable", "load_table", "ranked", "read_table", "save_table"]

FORMAT = "vtp-words-1"
_HEADER = {"tokenizer": str, "vocabulary": str, "corpus": str, "tagger": str, "language": str, "settings": dict}
_COUNTS = ("total", "verb", "noun", "adj", "rank")


@dataclass(frozen=True, slots=True)
class Word:
    """One row.

    Attributes:
        ids: its tokens, one where the word is an entry of the vocabulary.
        word: as it is counted, in lower case where the tokenizer is uncased.
        lemma: its basic form.
        total, verb, noun, adj: how often it occurs, and as what.
        rank: of ``total``, 0 = most frequent, ties by id.
        same_lemma: words of the vocabulary with that lemma, itself among them; may be empty.
    """

    ids: tuple[int, ...]
    word: str
    lemma: str
    total: int
    verb: int = 0
    noun: int = 0
    adj: int = 0
    rank: int = 0
    same_lemma: tuple[str, ...] = ()


@dataclass(frozen=True)
class WordTable:
    """A table.

    Attributes:
        tokenizer: name of the tokenizer whose ids these are, as an encoder was given it.
        vocabulary: :func:`vtp_encoders.tokenizers.vocabulary_hash` of it.
        corpus: sha256 of the captions.
        tagger: what told nouns, verbs and adjectives.
        language: ``en`` or ``zh``.
        settings: whatever else decided the counts.
        words: the rows, by rank.
        counted: what there was to count: ``captions``, and ``words`` of letters alone in them, function words too;
            empty where that is not known.
    """

    tokenizer: str
    vocabulary: str
    corpus: str
    tagger: str
    language: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[Word, ...] = ()
    counted: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def split(self) -> bool:
        """Whether some words are more than one token."""
        return any(len(word.ids) != 1 for word in self.words)

    def header(self) -> dict[str, Any]:
        """Everything but the rows, for the file and the report of a run."""
        head = {"format": FORMAT, **{name: getattr(self, name) for name in _HEADER}}
        return head | ({"counted": self.counted} if self.counted else {})

    def significant(self, top_k: int, *, released: bool = False) -> tuple[Word, ...]:
        """The significant words, by rank.

        Args:
            top_k: the first so many words that were counted at all (SNP-S3 takes 3000), ties by id.
            released: as the released code has it: all words of which at most ``top_k`` others are more frequent.
                Words of one count have one rank there, so these are one more than ``top_k``, and more where the last
                ones tie; words that were never counted belong to them where fewer than ``top_k`` were.
        """
        if not released:
            return tuple(word for word in ranked(self.words)[:top_k] if word.total > 0)
        found, better = [], 0
        for place, word in enumerate(rows := ranked(self.words)):
            if place and word.total < rows[place - 1].total:
                better = place
            if better <= top_k:
                found.append(word)
        return tuple(found)


def ranked(words: Sequence[Word]) -> list[Word]:
    """By falling count, ties by id."""
    return sorted(words, key=lambda word: (-word.total, word.ids))


def load_table(path: str | Path, spec: TextSpec) -> WordTable:
    """Read a table.

    Args:
        path: the file.
        spec: of the tokenizer in use.

    Raises:
        DataError: there is no such file, or it is no table, or a row of it cannot be.
        ConfigError: it was made for another vocabulary.
    """
    table = read_table(path)
    if table.vocabulary != (found := vocabulary_hash(spec)):
        raise ConfigError(
            f"words: {path} was made for the vocabulary of {table.tokenizer} (sha256 {table.vocabulary[:12]}), and the "
            f"text encoder has another one ({found[:12]}). Make a table for it with vtp mine-words, or choose the "
            "tokenizer that the table is for (encoder.text.tokenizer)."
        )
    for number, word in enumerate(table.words, 1):
        if max(word.ids) >= spec.vocab_size:
            raise DataError(
                f"words: {path}: row {number} ({word.word}) has the id {max(word.ids)}, and the vocabulary has "
                f"{spec.vocab_size:,}. Make the table again with vtp mine-words."
            )
    return table


def read_table(path: str | Path) -> WordTable:
    """:func:`load_table`, for whoever uses no vocabulary with it."""
    path = Path(path).expanduser()
    if path.exists() and not path.is_file():
        raise DataError(f"words: {path} is no file. Make one: vtp mine-words DATASET OUT")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"words: there is no file {path}. Make one: vtp mine-words DATASET {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"words: {path} is no table of words ({error}). Make one: vtp mine-words DATASET OUT") from None
    return _table(path, content)


def save_table(table: WordTable, path: str | Path, then: str = "") -> None:
    """Write a table, whole or not at all; equal tables are equal files.

    Args:
        then: what to do when the disk is full; by default, to go on with the run.
    """
    rows = []
    for word in table.words:
        row: dict[str, Any] = {"id": word.ids[0]} if len(word.ids) == 1 else {"ids": list(word.ids)}
        row |= {name: getattr(word, name) for name in ("word", "lemma", *_COUNTS)}
        rows.append(json.dumps(row | {"same_lemma": list(word.same_lemma)}, ensure_ascii=False))
    head = json.dumps(table.header(), ensure_ascii=False, sort_keys=True)[1:-1]
    data = (f'{{{head}, "words": [\n' + ",\n".join(rows) + "\n]}\n").encode()
    with replacing(path, len(data), then) as file:
        file.write(data)


def _table(path: Path, content: Any) -> WordTable:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(
            f"words: {path} is no table of the form {FORMAT}. Make one with vtp mine-words; --from-antmmf converts "
            "the tables of AntMMF."
        )
    wrong = [name for name, kind in _HEADER.items() if not isinstance(content.get(name), kind)]
    if wrong or not isinstance(content.get("words"), list):
        raise DataError(f"words: {path} lacks {', '.join(wrong or ['words'])}. Make it again with vtp mine-words.")
    counted = content.get("counted", {})
    if not isinstance(counted, dict) or not all(_is_count(counted.get(name, 0)) for name in ("captions", "words")):
        raise DataError(
            f"words: {path}: counted must have captions and words as whole numbers, got {str(counted)[:80]}. "
            "Make the table again with vtp mine-words."
        )
    words: list[Word] = []
    places: dict[Any, int] = {}  # of ids and of ranks
    for number, row in enumerate(content["words"], 1):
        try:
            words.append(word := _word(row))
            for what, value in (("ids", word.ids), ("rank", word.rank)):
                if (first := places.setdefault((what, value), number)) != number:
                    raise ValueError(f"it has the {what} of row {first}")
        except ValueError as error:
            raise DataError(
                f"words: {path}: row {number} is not as it should be: {error}. Make the table again with vtp "
                "mine-words."
            ) from None
    return WordTable(words=tuple(words), counted=counted, **{name: content[name] for name in _HEADER})


def _word(row: Any) -> Word:
    """A row. ValueError, with what is wrong with it."""
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, got {str(row)[:40]}")
    ids, forms = row.get("ids", [row.get("id")]), row.get("same_lemma")
    if not isinstance(ids, list) or not ids or not all(map(_is_count, ids)):
        raise ValueError(f"id or ids must be whole numbers from 0, got {str(ids)[:40]}")
    for name in _COUNTS:
        if not _is_count(row.get(name)):
            raise ValueError(f"{name} must be a whole number from 0, got {row.get(name)!r}")
    for name in ("word", "lemma"):
        if not isinstance(row.get(name), str) or not row[name]:
            raise ValueError(f"{name} must be a word, got {row.get(name)!r}")
    if not isinstance(forms, list) or not all(isinstance(form, str) for form in forms):
        raise ValueError(f"same_lemma must be a list of words, got {str(forms)[:40]}")
    counts = {name: row[name] for name in _COUNTS}
    return Word(tuple(ids), row["word"], row["lemma"], same_lemma=tuple(forms), **counts)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
