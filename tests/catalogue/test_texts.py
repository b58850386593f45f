"""Cells in every spelling that tables have: nothing is invented, and ids are made unique."""

from __future__ import annotations

import json
import math

import pytest

from vtp.catalogue.annotations import EMPTY_TEXTS, AnnotationFile
from vtp.catalogue.json_items import json_value
from vtp.catalogue.texts import Ids, answer_text, is_empty, list_in, plain_text

NAN = float("nan")


@pytest.mark.parametrize("value, text", [(" a dog ", "a dog"), (12, "12"), (2.5, "2.5"), (0, "0")])
def test_texts_and_numbers_are_texts(value, text):
    assert plain_text(value, "caption") == text


@pytest.mark.parametrize(
    "value, words",
    [
        (None, "no caption"), ("  ", "no caption"), (NAN, "no caption"), (math.inf, "caption is inf instead"),
        (True, "caption is true instead"), (["a"], "caption is a list instead"), ({}, "caption is an object instead"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused(value, words):
    with pytest.raises(ValueError, match=words):
        plain_text(value, "caption")


def test_empty_cells():
    assert [value for value in (None, "", NAN, 0, False, " ", []) if is_empty(value)] == [None, "", NAN]


LISTS = [["a red square", "a blue bar"], ["it's", 'so "big"'], ["one"], ["a, b", "c] d"], ["船", "a\nb"], []]


@pytest.mark.parametrize("value", LISTS, ids=range(len(LISTS)))
def test_lists_are_read_as_json_and_as_python_write_them(value):
    for text in (json.dumps(value), repr(value), repr(tuple(value)), f"  {value!r} "):
        assert list_in(text, "caption") == value


def test_gaps_of_pandas_in_lists():
    assert list_in("['a', None, nan]", "caption") == ["a", None, None]
    assert list_in("[nan, 'a']", "caption") == [None, "a"]


@pytest.mark.parametrize("text", ["[music] a man talks", "[music]", "(a dog)", "a [b]", "[", "", "[unclear], [music]"])
def test_other_brackets_are_text(text):
    assert list_in(text, "caption") == text


@pytest.mark.parametrize("text", ["['a' 'b']", "['a', 'b", "[\"a\" 'b']", "['a', b]"])
def test_what_looks_like_a_list_and_is_none(text):
    if text.endswith("]"):
        with pytest.raises(ValueError, match="options looks like a list"):
            list_in(text, "options")
    else:
        assert list_in(text, "options") == text


@pytest.mark.parametrize("value", [{"en": "a dog"}, {"a": "it's", "b": [1]}, {0: "a dog"}])
def test_objects_that_a_cell_spells_are_no_texts(value):
    for text in (json.dumps(value), repr(value)):
        with pytest.raises(ValueError, match="caption is an object instead of a text"):
            list_in(text, "caption")
    assert list_in("{laughs} a man", "caption") == "{laughs} a man" and list_in("{}", "caption") == "{}"


def test_texts_of_a_cell_and_what_is_left_out(tmp_path):
    file = AnnotationFile(tmp_path / "x")
    assert file.texts("a", "caption") == ("a",) and file.texts(3, "caption") == ("3",)
    assert file.texts("['a', \"b's\"]", "caption") == ("a", "b's") and file.notes == {}
    assert file.texts([None, "a cat", NAN, " "], "caption") == ("a cat",)
    assert file.notes == {EMPTY_TEXTS: 1}
    for value in ([None], [], [["a"]], [{"a": 1}], NAN, ["a", True]):
        with pytest.raises(ValueError, match="caption"):
            file.texts(value, "caption")


def test_answers():
    given = ["dog", 3, 2.5, True, False, ["dog"], "['dog']"]
    assert list(map(answer_text, given)) == ["dog", "3", "2.5", "true", "false", "dog", "dog"]
    for value in (["a", "b"], [], {}, NAN, "['a', 'b']"):
        with pytest.raises(ValueError, match="answer"):
            answer_text(value)


def test_ids_are_unique_and_the_first_keeps_its_own():
    ids = Ids()
    rows = [("0", "a"), ("1", "a"), ("0", "b"), ("0", "b"), ("b/0", "c"), ("0#4", "d"), ("0", "b")]
    made = [ids.unique(name, clip, line, line) for line, (name, clip) in enumerate(rows, 1)]
    assert made == ["0", "1", "b/0", "0#4", "c/b/0", "d/0#4", "0#7"] and ids.repeated == 5
    assert len(set(made)) == len(rows)


def test_half_a_surrogate_is_replaced_and_whole_ones_stay():
    assert json_value('{"a": "dog \\ud83d", "b": ["\\uDE00"]}') == {"a": "dog \ufffd", "b": ["\ufffd"]}
    assert json_value('{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a": ' + "[" * 5000 + "]" * 5000 + "}"])
def test_nesting_without_end_is_no_json(text):
    with pytest.raises(ValueError, match="nested too deeply"):
        json_value(text)


def test_a_key_that_stands_twice_is_refused():
    for text in ('{"a": 1, "a": 2}', '{"a" : 1, "b" : 2, "a" : 3}'):
        with pytest.raises(ValueError, match="the key 'a' stands twice"):
            json_value(text)
    assert json_value('{"a": "x \\"b\\": y", "c" : 1}') == {"a": 'x "b": y', "c": 1}
