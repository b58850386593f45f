"""Held against tokens of the reference tokenizer, recorded by tools/record_caption_scores.py."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from vtp_tasks.ptb import tokens

RECORD = json.loads((Path(__file__).parent / "caption_reference.json").read_text(encoding="utf-8"))
MSVD = Path(__file__).resolve().parents[2].parent / "shared/data/annotations/msvd/captions_msvd.json"

# What is known to differ, also in docs/evaluation.md: a word -> the reference's tokens
ODD = {"\u2018em": None, "goin'to": ["goi", "n'to"], "there'a": ["there'a"]}


@pytest.mark.parametrize(("text", "want"), [pair for pair in RECORD["tokens"] if not any(w in pair[0] for w in ODD)])
def test_tokens_are_those_of_the_reference(text, want):
    assert list(tokens(text)) == want


def test_what_is_known_to_differ_is_little():
    odd = [text for text, want in RECORD["tokens"] if list(tokens(text)) != want]
    assert len(odd) == len(ODD) and all(any(word in text for word in ODD) for text in odd)


@pytest.mark.data
@pytest.mark.skipif(not MSVD.exists(), reason="needs ../shared/data/annotations/msvd/captions_msvd.json")
def test_all_captions_of_msvd_have_the_tokens_of_the_reference():
    captions = [text for texts in json.loads(MSVD.read_text(encoding="utf-8")).values() for text in texts]
    lines = "".join(" ".join(tokens(text)) + "\n" for text in captions)
    assert len(captions) == RECORD["msvd"]["captions"] == 80_827
    assert hashlib.sha256(lines.encode()).hexdigest() == RECORD["msvd"]["sha256"]


def test_the_next_caption_does_not_change_this_one():
    """The reference reads all captions as one text, so that a capital letter in the next line may take a full stop
    away; here a caption is all there is."""
    assert tokens("triple A.") == ("triple", "a.")
    assert tokens("triple A.\nThe end") == ("triple", "a.", "the", "end")


def test_words_that_are_no_words_are_no_error():
    for text in ("", "   ", "...", "\u200b", "\x00", "\ud800", "'" * 50, "(((((" * 20):
        assert isinstance(tokens(text), tuple)
    assert tokens("...") == tokens("") == ()
