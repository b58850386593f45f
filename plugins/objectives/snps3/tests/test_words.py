"""Tables of words: what is read is what was written, which words are significant, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vtp.errors import ConfigError, DataError
from vtp.types import TextSpec
from vtp_encoders.tokenizers import build_tokenizer, spec_of, vocabulary_hash
from vtp_snps3.words import Word, WordTable, load_table, ranked, save_table

TEXTS = ["a red cube rolls to the left", "two green balls stand still", "the red ball"]


def spec(texts: list[str] = TEXTS, **options: Any) -> TextSpec:
    return spec_of(build_tokenizer(texts), 16, **options)


def table_for(found: TextSpec, totals: dict[str, int]) -> WordTable:
    """Words of the vocabulary with such counts."""
    assert found.words is not None
    words = [Word(tuple(found.words(word)[0][1]), word, word, total, noun=total) for word, total in totals.items()]
    words = [replace(word, rank=rank) for rank, word in enumerate(ranked(words))]
    return WordTable("texts", vocabulary_hash(found), "0" * 64, "nltk", "en", {"stop": ["be"]}, tuple(words))


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    table = table_for(spec(), {"red": 3, "ball": 2, "cube": 2})
    lemmas = replace(
        table.words[1], ids=(7, 8), verb=1, noun=1, same_lemma=("ball", "balls"), word="Bälle", lemma="ball"
    )
    table = replace(table, words=(table.words[0], lemmas, table.words[2]))
    save_table(table, tmp_path / "one.json")
    found = load_table(tmp_path / "one.json", spec())
    assert found == table
    assert found.split
    save_table(found, tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_a_row_has_the_names_of_the_format(tmp_path: Path) -> None:
    save_table(table_for(spec(), {"red": 3}), tmp_path / "one.json")
    content = json.loads((tmp_path / "one.json").read_text())
    head = {"format", "tokenizer", "vocabulary", "corpus", "tagger", "language", "settings", "words"}
    assert set(content) == head
    row = {"id", "word", "lemma", "total", "verb", "noun", "adj", "rank", "same_lemma"}
    assert [set(word) for word in content["words"]] == [row]


@pytest.mark.parametrize(
    ("top_k", "paper", "released"),
    [
        (1, ["red"], ["red", "ball", "cube"]),  # both have rank 1
        (2, ["red", "ball"], ["red", "ball", "cube"]),
        (3, ["red", "ball", "cube"], ["red", "ball", "cube", "left"]),
        (4, ["red", "ball", "cube", "left"], ["red", "ball", "cube", "left", "to", "still"]),  # never counted
        (9, ["red", "ball", "cube", "left"], ["red", "ball", "cube", "left", "to", "still"]),
    ],
)
def test_significant_words(top_k: int, paper: list[str], released: list[str]) -> None:
    """Ids by falling count in the training texts: the, red, then by the alphabet."""
    found = spec()
    table = table_for(found, {"cube": 2, "still": 0, "ball": 2, "to": 0, "red": 3, "left": 1})
    by_id = lambda words: sorted(words, key=lambda w: w.ids)  # noqa: E731
    got = [word.word for word in table.significant(top_k)]
    assert got == paper
    shared = table.significant(top_k, released=True)
    assert {word.word for word in shared} == set(released)
    assert by_id([w for w in shared if w.total == 2])[0].word == "ball"


def test_a_table_for_another_vocabulary_is_refused(tmp_path: Path) -> None:
    save_table(table_for(spec(), {"red": 3}), tmp_path / "one.json")
    with pytest.raises(ConfigError, match="made for the vocabulary of texts .* another one"):
        load_table(tmp_path / "one.json", spec([*TEXTS, "one"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "is no table of the form vtp-words-1"),
        ('{"id": [0], "rank": [3]}', "--from-antmmf converts"),
        ("no json", "is no table of words"),
        ('{"format": "vtp-words-1", "words": []}', "lacks tokenizer, vocabulary"),
        ("[" * 100_000, "is no table of words .*recursion"),
    ],
)
def test_what_is_no_table_is_said_to_be_none(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(content)
    with pytest.raises(DataError, match=message):
        load_table(tmp_path / "one.json", spec())


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file .*none.json. Make one: vtp mine-words"):
        load_table(tmp_path / "none.json", spec())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total": None}, "total must be a whole number from 0, got None"),
        ({"total": "5"}, "total must be a whole number from 0, got '5'"),
        ({"noun": 2.5}, "noun must be a whole number from 0, got 2.5"),
        ({"verb": -1}, "verb must be a whole number from 0, got -1"),
        ({"adj": True}, "adj must be a whole number from 0, got True"),
        ({"total": float("inf")}, "total must be a whole number from 0, got inf"),
        ({"rank": 0}, "it has the rank of row 1"),
        ({"id": 5}, "it has the ids of row 1"),
        ({"id": "x"}, r"id or ids must be whole numbers from 0, got \['x'\]"),
        ({"ids": []}, r"id or ids must be whole numbers from 0, got \[\]"),
        ({"ids": "12"}, "id or ids must be whole numbers from 0, got 12"),
        ({"word": ""}, "word must be a word, got ''"),
        ({"lemma": 3}, "lemma must be a word, got 3"),
        ({"same_lemma": "balls"}, "same_lemma must be a list of words, got balls"),
        ({"same_lemma": [1]}, r"same_lemma must be a list of words, got \[1\]"),
    ],
)
def test_a_row_that_is_not_as_it_should_be_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_table(table_for(spec(), {"red": 3, "ball": 1}), tmp_path / "one.json")
    content = json.loads((tmp_path / "one.json").read_text())
    assert content["words"][0]["id"] == 5
    content["words"][1].update(change)
    (tmp_path / "one.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"one.json: row 2 is not as it should be: {message}. Make the table again"):
        load_table(tmp_path / "one.json", spec())


def test_an_id_that_the_vocabulary_has_not_is_named(tmp_path: Path) -> None:
    table = table_for(found := spec(), {"red": 3, "ball": 1})
    save_table(replace(table, words=(table.words[0], replace(table.words[1], ids=(7, 10**30)))), tmp_path / "one.json")
    with pytest.raises(
        DataError, match=rf"row 2 \(ball\) has the id {10**30}, and the vocabulary has {found.vocab_size}"
    ):
        load_table(tmp_path / "one.json", found)


@pytest.mark.parametrize("counted", [[1], {"words": "many"}, {"captions": -1}])
def test_what_was_counted_are_numbers(counted: Any, tmp_path: Path) -> None:
    save_table(replace(table_for(spec(), {"red": 3}), counted=counted), tmp_path / "one.json")
    with pytest.raises(DataError, match="counted must have captions and words as whole numbers"):
        load_table(tmp_path / "one.json", spec())


def test_an_editor_may_have_put_a_mark_in_front(tmp_path: Path) -> None:
    save_table(table := table_for(spec(), {"red": 3}), tmp_path / "one.json")
    (tmp_path / "one.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "one.json").read_bytes())
    assert load_table(tmp_path / "one.json", spec()) == table


@pytest.mark.parametrize("name", [".", "/dev/zero"])
def test_what_is_no_file_is_not_read(name: str) -> None:
    with pytest.raises(DataError, match="is no file"):
        load_table(name, spec())
