from __future__ import annotations

import pytest

from vtp_tasks.caption_scores import exact_match, token_f1, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog's ball, 2 cats.", ["a", "dog's", "ball", "2", "cats"]),
        ("one-handed  push up!", ["one", "handed", "push", "up"]),
        ("dots , the light", ["dots", "the", "light"]),  # as a word tokenizer writes it back
        ("\u4e00\u4e2a\u7537\u4eba sings\u3002", ["\u4e00", "\u4e2a", "\u7537", "\u4eba", "sings"]),
        ("Gro\u00dfe caf\u00e9s", ["gro\u00dfe", "caf\u00e9s"]),
        (" ?! ", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_exact_match_compares_words_in_their_order():
    references = ["a man sings", "A dog runs, fast."]
    assert exact_match("a dog runs fast", references) and exact_match("A man sings .", references)
    assert not exact_match("sings a man", references) and not exact_match("a man", references)
    assert not exact_match("", references) and not exact_match("", ["..."]) and not exact_match("a", [])


@pytest.mark.parametrize(
    ("sentence", "references", "expected"),
    [
        ("a man sings", ["a man sings"], 1.0),
        ("sings a man", ["a man sings"], 1.0),  # order does not count
        ("a man", ["a man sings"], 2 * 2 / (2 + 3)),
        ("a a a", ["a man sings"], 2 * 1 / (3 + 3)),  # a word counts as often as both have it
        ("the the dog", ["the dog the", "x"], 1.0),
        ("a cat", ["nothing here", "a small cat sleeps", "cat"], max(2 * 2 / 6, 2 * 1 / 3)),  # the best reference
        ("", ["a man"], 0.0),
        ("a man", [], 0.0),
        ("...", ["..."], 0.0),
    ],
)
def test_token_f1_is_that_of_the_best_reference(sentence, references, expected):
    assert token_f1(sentence, references) == pytest.approx(expected)
