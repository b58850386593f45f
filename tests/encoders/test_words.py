"""Words and their ids, and ids as text, for every family of tokenizers: what was split can be put together again."""

from __future__ import annotations

import pickle

import pytest

from vtp.types import TextSpec
from vtp_encoders.tokenizers import SPECIAL, build_tokenizer, spec_of, spec_of_transformers, word_pieces

TEXT = "the unreddish Ball, don't stop"
PIECES = [*SPECIAL, "the", "un", "##red", "##dish", "ball", ",", "don", "'", "t", "stop", "\u4e2d", "\u6587"]
LETTERS = sorted(set("abcdefghijklmnopqrstuvwxyz,'"))


def tiny(length: int) -> TextSpec:
    return spec_of(build_tokenizer([TEXT, "\u4e2d\u6587"]), length)


def pieces(length: int, folder) -> TextSpec:
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return spec_of(word_pieces(folder / "vocab.txt"), length)


def bert(length: int, folder) -> TextSpec:
    from transformers import BertTokenizer

    (folder / "vocab.txt").write_text("\n".join([*PIECES, *"abcde"]) + "\n", encoding="utf-8")
    return of_transformers(BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=True), length)


def roberta(length: int) -> TextSpec:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaTokenizer

    vocabulary = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
        *sorted(ByteLevel.alphabet()),
        "th",
        "\u0120th",
        "\u0120the",
    ]
    merges = [("t", "h"), ("\u0120", "th"), ("\u0120th", "e")]
    return of_transformers(RobertaTokenizer(vocab={w: i for i, w in enumerate(vocabulary)}, merges=merges), length)


def clip(length: int) -> TextSpec:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    alphabet = sorted(ByteLevel.alphabet())
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "th", "the</w>", "<|startoftext|>", "<|endoftext|>"]
    merges = [("t", "h"), ("th", "e</w>")]
    return of_transformers(CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=merges), length)


def t5(length: int) -> TextSpec:
    from transformers import T5Tokenizer

    scores = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "\u2581the": -1.0, "\u2581": -2.0, "red": -2.0, "dish": -2.5}
    scores |= dict.fromkeys([*LETTERS, "B", "A"], -4.0)
    return of_transformers(T5Tokenizer(vocab=list(scores.items()), extra_ids=0), length)


def of_transformers(tokenizer, length: int) -> TextSpec:
    return spec_of_transformers("x", tokenizer, length, "tiny", len(tokenizer))


@pytest.fixture(params=["tiny", "pieces", "bert", "roberta", "clip", "t5"])
def make(request, tmp_path):
    """``make(length)``: the spec of one family."""
    family = globals()[request.param]
    return lambda length: family(length, tmp_path) if request.param in ("pieces", "bert") else family(length)


def content(spec: TextSpec, text: str) -> list[int]:
    """Ids without the special ones around."""
    ids = spec.tokenize([text])[0]
    return ids[ids[0] == spec.cls_id : len(ids) - (ids[-1] == spec.sep_id)]


def test_words_have_the_ids_of_the_text(make):
    spec = make(64)
    found = spec.words(TEXT)
    assert [i for _, ids in found for i in ids] == content(spec, TEXT) and all(ids for _, ids in found)
    spelt = [word for word, _ in found]
    assert [w for w in spelt if w in ("the", "unreddish", "Ball", "stop")] == ["the", "unreddish", "Ball", "stop"] or (
        "Ball," in spelt  # sentencepiece parts at spaces alone
    )
    assert "".join(spelt) == TEXT.replace(" ", "")
    assert spec.words("") == [] or all(not word for word, _ in spec.words(""))


@pytest.mark.parametrize("length", [3, 4, 5, 7, 9])
def test_a_cut_text_has_the_words_that_are_left_the_last_one_told_whole(make, length):
    spec, whole = make(length), make(64)
    found = spec.words(TEXT)
    assert [i for _, ids in found for i in ids] == content(spec, TEXT)
    assert [word for word, _ in found] == [word for word, _ in whole.words(TEXT)][: len(found)]


def test_ids_become_text(make):
    spec = make(64)
    ids = spec.tokenize(["the stop"])[0]
    assert spec.detokenize(ids) == spec.detokenize([*ids, spec.pad_id, spec.pad_id]) == "the stop"
    assert spec.detokenize(content(spec, "the stop")) == "the stop" and spec.detokenize([]) == ""


def test_words_travel_to_loader_workers(make):
    spec = make(12)
    again = pickle.loads(pickle.dumps(spec))
    assert again.words(TEXT) == spec.words(TEXT)
    assert again.detokenize(spec.tokenize([TEXT])[0]) == spec.detokenize(spec.tokenize([TEXT])[0])


def test_chinese_words_are_characters_of_bert_and_runs_of_bytes(tmp_path):
    text = "\u4e2d\u6587 the"
    for spec in (tiny(9), pieces(9, tmp_path), bert(9, tmp_path)):
        assert [word for word, _ in spec.words(text)] == ["\u4e2d", "\u6587", "the"]
        assert spec.detokenize(spec.tokenize([text])[0]) == "\u4e2d \u6587 the"
    spec = roberta(16)
    assert [(word, len(ids)) for word, ids in spec.words(text)] == [("\u4e2d\u6587", 6), ("the", 1)]
    assert spec.detokenize(spec.tokenize([text])[0]) == text


def test_unknown_and_hidden_words_stay_what_they_are(tmp_path):
    spec = pieces(9, tmp_path)
    ids = spec.tokenize(["the zebra [MASK]"])[0]
    assert spec.detokenize(ids) == "the [UNK] [MASK]"
    assert [(word, ids) for word, ids in spec.words("the zebra [MASK]")] == [
        ("the", [5]),
        ("zebra", [1]),
        ("[MASK]", [4]),
    ]


def test_a_word_of_pieces_is_one_word(tmp_path):
    assert pieces(16, tmp_path).words("the unreddish ball") == [("the", [5]), ("unreddish", [6, 7, 8]), ("ball", [9])]
