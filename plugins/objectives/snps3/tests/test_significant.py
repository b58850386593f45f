"""Which tokens belong to significant words: by id, or by the words of the text where the tokenizer splits them."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from word_tables import (
    TEXTS,
    byte_pairs,
    context_of,
    named_table,
    numbered_spec,
    table_of,
    words_spec,
)

from vtp.errors import ConfigError, DataError
from vtp.model.build import BuildContext
from vtp_snps3.counting import FUNCTION_WORDS, table_of_texts
from vtp_snps3.significant import Significant
from vtp_snps3.words import save_table


def marked(significant: Significant, texts: list[str]) -> list[list[int]]:
    """Places of significant tokens, [CLS] being place 0."""
    ctx = context_of(significant.spec, significant.spec.tokenize(texts), texts)
    return [row.nonzero()[:, 0].tolist() for row in significant.tokens(ctx)]


def test_words_of_one_token_are_looked_up_by_id() -> None:
    spec = words_spec()
    significant = Significant(named_table(spec, {"red": 2, "ball": 1, "still": 0}), 5, spec)
    assert marked(significant, ["a red cube", "stand still", "the red ball"]) == [[2], [], [2, 3]]
    assert Significant(named_table(spec, {"red": 2, "ball": 1}), 1, spec).tokens(
        context_of(spec, spec.tokenize(["the red ball"]))
    ).sum() == 1  # fmt: skip


def test_all_tokens_of_a_word_that_is_split(tmp_path: Path) -> None:
    """``doggy`` is two tokens, of which the first one is ``dog``; ``cat`` is two as well, and no part of ``cats``."""
    spec = byte_pairs(tmp_path)
    assert len(spec.tokenize(["a dog"])[0]) == 4 and len(spec.tokenize(["a doggy"])[0]) == 5
    significant = Significant(named_table(spec, {"dog": 2, "cat": 1}), 5, spec)
    ids = spec.tokenize(["a cat"])[0]
    assert marked(significant, ["a dog", "a doggy", "Dog", "a cat", "a cats", "cat dog"]) == [
        [2],
        [],
        [1, 2],  # in front of a text, without a space, as two tokens
        list(range(2, len(ids) - 1)),
        [],
        list(range(1, len(spec.tokenize(["cat"])[0]) - 1)) + [len(spec.tokenize(["cat dog"])[0]) - 2],
    ]


def test_words_of_several_characters() -> None:
    """Chinese by characters: the longest word counts, a character of it alone does not, and a space ends it."""
    spec = words_spec(["大 学 生 在 学 校 里 跳 舞"])
    table = named_table(spec, {"大学生": 3, "学校": 2, "跳": 1, "大": 1})
    assert table.split
    significant = Significant(table, 9, spec)
    assert marked(significant, ["大学生在学校里跳舞", "学生", "大学 生", "学"]) == [[1, 2, 3, 5, 6, 8], [], [1], []]
    assert significant.replacements(*torch.rand(2, 200), inflect=True).unique().tolist() == sorted(
        {i for word in table.words for i in word.ids}
    )


@pytest.mark.parametrize("word", ["大学", "大"])
def test_they_can_be_sent_to_other_processes(word: str) -> None:
    spec = words_spec(["大 学 生 在"])
    significant = Significant(named_table(spec, {word: 3}), 9, spec)
    again = pickle.loads(pickle.dumps(significant))
    assert marked(again, ["大学生"]) == marked(significant, ["大学生"]) == [list(range(1, len(word) + 1))]


def test_a_text_that_is_withheld_has_no_significant_words() -> None:
    spec = words_spec(["大 学 生 在"])
    significant = Significant(named_table(spec, {"大学": 3}), 9, spec)
    rows = spec.tokenize(["大学", "在"])
    ctx = context_of(spec, rows, ["大学", "大学"])
    assert significant.tokens(ctx).any(dim=1).tolist() == [True, False]
    assert not significant.tokens(context_of(spec, rows)).any()


def test_a_long_text_is_cut_as_its_tokens_are() -> None:
    """What is left of a word of several characters is not known to be of it."""
    spec = words_spec(["大 学 生 在"], length=5)
    significant = Significant(named_table(spec, {"大学": 3}), 9, spec)
    assert marked(significant, ["在在大学生", "大学大学"]) == [[], [1, 2]]


def test_without_significant_words_nothing_can_be_masked_first() -> None:
    spec = numbered_spec()
    with pytest.raises(ConfigError, match="no word of the training texts was counted"):
        Significant(table_of(spec, {(200,): 0}), 9, spec)


def test_spans_need_a_tokenizer_that_knows_words() -> None:
    spec = numbered_spec()
    with pytest.raises(ConfigError, match="does not tell where words begin"):
        Significant(table_of(spec, {(200, 201): 3}), 9, spec)


def test_words_of_the_training_texts() -> None:
    spec = words_spec([*TEXTS, "x 4 red!"])
    table = table_of_texts([*TEXTS, "x 4 red!"], spec, "mssm")
    assert [(word.word, word.total) for word in table.words] == [
        ("red", 3), ("ball", 1), ("balls", 1), ("cube", 1), ("green", 1), ("left", 1), ("rolls", 1), ("stand", 1),
        ("still", 1), ("two", 1),
    ]  # fmt: skip
    assert [word.rank for word in table.words] == list(range(10))
    assert table.corpus != table_of_texts(TEXTS, spec, "mssm").corpus


def test_two_ids_of_a_word_are_two_rows(tmp_path: Path) -> None:
    spec = byte_pairs(tmp_path)
    table = table_of_texts(["a dog", "a dog at dog", "at doggy"], spec, "mssm")
    assert [(word.word, word.total) for word in table.words] == [("dog", 3)]


def test_function_words_are_those_of_english() -> None:
    assert {"the", "a", "of", "is", "and", "with", "that", "they"} <= FUNCTION_WORDS
    assert not {"man", "red", "runs", "two", "left"} & FUNCTION_WORDS


def test_a_tokenizer_without_words_needs_a_table(tmp_path: Path) -> None:
    spec = numbered_spec()
    context = BuildContext(texts=lambda: TEXTS, encoders={"text": torch.nn.Module()})
    context.encoders["text"].spec = spec
    with pytest.raises(ConfigError, match="words=null counts the words .* Give a table"):
        Significant.of(context, None, 9, "snps3_mssm")
    save_table(table_of(spec, {(200,): 3}), tmp_path / "words.json")
    found = Significant.of(context, str(tmp_path / "words.json"), 9, "snps3_mssm")
    assert [word.ids for word in found.table.words] == [(200,)]


def test_a_checkpoint_keeps_the_significant_words(tmp_path: Path) -> None:
    """With the other forms of their lemmas, and without the rest. Another table that is given counts instead."""
    spec = numbered_spec()
    table = table_of(spec, {(200,): 3, (201,): 2, (202,): 1, (203,): 0}, w200=["w203"])
    significant = Significant(table, 2, spec, source="gone.json")
    folder = tmp_path / "objectives" / "any"
    folder.mkdir(parents=True)
    context = BuildContext(encoders={"text": torch.nn.Module()}, assets=tmp_path)
    context.encoders["text"].spec = spec
    with pytest.raises(DataError, match="there is no file gone.json"):
        Significant.of(context, "gone.json", 2, "snps3_mssm")
    significant.save(folder, "snps3_mssm")
    found = Significant.of(context, "gone.json", 2, "snps3_mssm")
    assert found.table == significant.table
    assert [word.word for word in found.whole.words] == ["w200", "w201", "w203"]
    numbers = torch.rand(2, 50)
    want = significant.replacements(*numbers, inflect=True)
    assert torch.equal(found.replacements(*numbers, inflect=True), want) and 203 in want
    save_table(table_of(spec, {(205,): 1}), tmp_path / "other.json")
    other = Significant.of(context, str(tmp_path / "other.json"), 2, "snps3_mssm")
    assert [word.word for word in other.table.words] == ["w205"]


def test_a_report_names_the_table(tmp_path: Path) -> None:
    """Its header as it stands in the file, whose folder is nobody's business; from a checkpoint as well."""
    spec = numbered_spec()
    table = replace(
        table_of(spec, {(200,): 3, (201,): 2, (202,): 1}), counted={"captions": 3}, settings={"pieces": True}
    )
    save_table(table, file := tmp_path / "words.json")
    folder = tmp_path / "objectives" / "any"
    folder.mkdir(parents=True)
    context = BuildContext(encoders={"text": torch.nn.Module()})
    context.encoders["text"].spec = spec
    given = Significant.of(context, str(file), 2, "snps3_mssm")
    header = json.loads(file.read_text())
    del header["words"]
    assert {"vocabulary", "corpus", "tagger", "settings"} <= set(header)
    assert given.origin() == {"words": {"file": "words.json", **header, "significant": 2}}
    given.save(folder, "snps3_mssm")
    file.unlink()
    context.assets = tmp_path
    assert Significant.of(context, str(file), 2, "snps3_mssm").origin() == given.origin()
    assert Significant(table, 2, spec).origin()["words"]["file"] is None


def test_words_that_were_counted_are_kept_too(tmp_path: Path) -> None:
    """A model that is described by a checkpoint without them counts anew."""
    folder = tmp_path / "objectives" / "any"
    folder.mkdir(parents=True)
    context = BuildContext(texts=lambda: ["the red ball"], encoders={"text": torch.nn.Module()}, assets=tmp_path)
    context.encoders["text"].spec = words_spec()
    found = Significant.of(context, None, 2, "snps3_mssm")
    assert [word.word for word in found.table.words] == ["red", "ball"]
    found.save(folder, "snps3_mssm")
    context.texts = lambda: ["two green balls"]
    assert Significant.of(context, None, 2, "snps3_mssm").table == found.table
    assert Significant.of(context, None, 2, "snps3_lvwm").table != found.table
