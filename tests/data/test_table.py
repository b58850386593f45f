from __future__ import annotations

import os

import numpy as np
import pytest

from vtp.data.table import evenly, first_word, media_id, select
from vtp.types import MediaRef, Sample


def test_a_clip_is_known_by_its_id_else_its_file_else_the_sample():
    assert media_id(Sample("a", MediaRef("x/y.mp4"), extra={"video_id": 7010})) == "7010"
    spellings = ("x/y.mp4", "./x/y.mp4", "x//y.mp4", "x/z/../y.mp4", "x\\y.mp4", os.path.abspath("x/y.mp4"))
    assert {media_id(Sample("a", MediaRef(path))) for path in spellings} == {os.path.abspath("x/y.mp4")}
    assert media_id(Sample("a", MediaRef("z/y.mp4"))) == os.path.abspath("z/y.mp4")  # another clip of that name
    assert media_id(Sample("a", None, MediaRef("/x/y.wav", None, 3.0))) == "/x/y.wav[0-3]"
    assert media_id(Sample("a", MediaRef(b"bytes"))) == media_id(Sample("a")) == "a"


def test_scripts_without_spaces_have_no_first_word():
    asked = [
        "\u4ed6\u5728\u505a\u4ec0\u4e48\uff1f",
        "\u4ec0\u4e48",
        "TV \u5728\u54ea",
        "\u8ab0\u304c\u8d70\u308b\u306e\uff1f",
        "\u0e43\u0e04\u0e23",
        "\uff1f",
    ]
    assert [first_word(question) for question in asked] == ["other", "other", "tv", "other", "other", "other"]
    spaced = {
        "\u00bfQu\u00e9 hace?": "qu\u00e9",
        "\u043a\u0442\u043e \u044d\u0442\u043e?": "\u043a\u0442\u043e",
        '"Who" is it': "who",
        "\ub204\uac00 \uac00?": "\ub204\uac00",
    }
    for question, word in spaced.items():
        assert first_word(question) == word


def test_the_type_of_a_question_is_its_first_word():
    asked = {"What is it?": "what", "who": "who", "": "other", "How?": "how", " where is": "where", "?": "other"}
    for question, word in asked.items():
        assert first_word(question) == word


class Big(list):
    """A table that gives a view of its rows."""

    def select(self, rows):
        return Big(self[row] for row in rows)


@pytest.mark.parametrize("kind", [list, Big])
def test_rows_are_a_view_where_the_table_gives_one_and_else_a_list(kind):
    rows = select(kind("abcdef"), np.array([4, 0, 4]))
    assert type(rows) is kind and list(rows) == ["e", "a", "e"]
    assert list(select(kind("abc"), np.array([], np.int64))) == []


@pytest.mark.parametrize("kind", [list, Big])
@pytest.mark.parametrize(
    "total, count", [(0, 0), (0, 3), (5, 0), (5, 1), (5, 2), (7, 3), (7, 6), (7, 7), (7, 9), (97, 31)]
)
def test_evenly_spaced_rows_begin_with_the_first_and_keep_the_same_distance(kind, total, count):
    rows = evenly(kind(range(total)), count)
    assert type(rows) is kind and len(rows) == min(total, count)
    assert list(rows[:1]) == list(range(total))[: min(1, count)]
    steps = set(np.diff([*rows, total])) if rows else {0}  # the last one is as far from the end
    assert max(steps) - min(steps) <= 1
