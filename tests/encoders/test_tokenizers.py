"""Tokenizers that text encoders share: words of the training texts, BERT's word pieces, and where they come from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp_encoders.tokenizers import (
    SPECIAL,
    build_tokenizer,
    load_tokenizer,
    origin_of,
    save_tokenizer,
    saved_tokenizer,
    spec_of,
    vocabulary_hash,
    word_pieces,
)

TEXTS = ["The red Ball!", "the red box", "the END"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "red", "##dish", "ball", "!", "un", "##red"]


def words(tokenizer):
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.get)


def test_vocabulary_is_sorted_by_count_then_alphabet_and_does_not_depend_on_order():
    tokenizer = build_tokenizer(TEXTS, 100, 1)
    assert words(tokenizer) == [*SPECIAL, "the", "red", "!", "ball", "box", "end"]
    assert build_tokenizer(reversed(TEXTS), 100, 1).to_str() == tokenizer.to_str()


def test_rare_words_can_be_left_out():
    assert words(build_tokenizer(TEXTS, 100, 2)) == [*SPECIAL, "the", "red"]
    assert words(build_tokenizer(TEXTS, 6, 1)) == [*SPECIAL, "the"]


def test_texts_become_ids_with_cls_and_sep_cut_to_length():
    spec = spec_of(build_tokenizer(TEXTS, 100, 1), 4)
    the, red, unknown = 5, 6, 1
    assert spec.tokenize(["THE red", "the zebra", "", "the red ball box end"]) == [
        [spec.cls_id, the, red, spec.sep_id],
        [spec.cls_id, the, unknown, spec.sep_id],
        [spec.cls_id, spec.sep_id],
        [spec.cls_id, the, red, spec.sep_id],
    ]
    assert spec.special_ids == (0, 1, 2, 3, 4) and spec.vocab_size == 11 and spec.mask_id == 4


def test_a_special_word_in_a_text_gets_no_second_id():
    assert words(build_tokenizer(["[MASK] the"], 100, 1)).count("[MASK]") == 1


def vocab(folder, words=tuple(PIECES)):
    file = folder / "vocab.txt"
    file.write_text("\n".join(words) + "\n", encoding="utf-8")
    return file


def test_word_pieces_are_those_of_bert(tmp_path):
    from transformers import BertTokenizer

    theirs = BertTokenizer(vocab=str(vocab(tmp_path)), do_lower_case=True)
    texts = ["The reddish ball!", "unred", "a ball", "", "red\u2028ball"]
    ours = spec_of(word_pieces(vocab(tmp_path)), 16).tokenize
    assert ours(texts) == [theirs(text)["input_ids"] for text in texts]
    assert ours(["The reddish ball!"]) == [[2, 5, 6, 7, 8, 9, 3]]


def test_a_tokenizer_is_named_by_file_or_folder_and_kept_by_a_checkpoint(tmp_path):
    context = BuildContext(texts=lambda: TEXTS)
    by_file = load_tokenizer("x", str(vocab(tmp_path)), context)
    assert load_tokenizer("x", str(tmp_path), context).to_str() == by_file.to_str()
    assert words(load_tokenizer("x", "texts", context)) == words(build_tokenizer(TEXTS))
    folder = tmp_path / "assets" / "encoders" / "text"
    folder.mkdir(parents=True)
    save_tokenizer(by_file, folder)
    restored = load_tokenizer("x", "/gone/vocab.txt", BuildContext(assets=tmp_path / "assets"))
    assert words(restored) == PIECES and saved_tokenizer("x", context) is None


def test_wrong_tokenizers_are_explained(tmp_path):
    with pytest.raises(ConfigError, match=r"encoder x: tokenizer .* lacks \[MASK\]"):
        load_tokenizer("x", str(vocab(tmp_path, [word for word in PIECES if word != "[MASK]"])), BuildContext())
    with pytest.raises(ConfigError, match=r"encoder x: tokenizer=/no/where is neither .*vocab.txt"):
        load_tokenizer("x", "/no/where", BuildContext())
    with pytest.raises(ConfigError, match="encoder x: the checkpoint lacks its tokenizer"):
        load_tokenizer("x", "texts", BuildContext(assets=tmp_path))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[[[[", b'{"model": 3}', b"\xff\xfe\x00junk", b"root:x:0:0", b"[" * 9999]
)
@pytest.mark.parametrize("where", ["given", "saved"])
def test_a_file_that_is_no_tokenizer_is_one_line(tmp_path, content, where):
    folder = tmp_path / "encoders" / "text"
    folder.mkdir(parents=True)
    (tmp_path / "other").write_bytes(content)
    (folder / "tokenizer.json").symlink_to(tmp_path / "other")  # a link to another file is read no differently
    context = BuildContext(assets=tmp_path) if where == "saved" else BuildContext()
    with pytest.raises(ConfigError, match="^encoder x: .*tokenizer.json is no tokenizer [^\n]*$"):
        load_tokenizer("x", str(folder), context)


@pytest.mark.parametrize("lines, said", [
    (b"\xff\xfe\x00", "is no tokenizer"),
    (b"the\nred\n", "(lacks|is no tokenizer)"),
    ("\n".join(SPECIAL).encode(), "knows no word"),
])  # fmt: skip
def test_a_vocabulary_that_cannot_be_used_is_one_line(tmp_path, lines, said):
    (tmp_path / "vocab.txt").write_bytes(lines)
    with pytest.raises(ConfigError, match=f"^encoder x: .*{said}[^\n]*$"):
        load_tokenizer("x", str(tmp_path), BuildContext())


def test_a_model_folder_without_its_tokenizer_is_refused(tmp_path):
    """transformers makes a tokenizer of the configuration alone, which knows the special words and nothing else."""
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="^encoder x: tokenizer[ =].*(knows no word|nor to be had)"):
        load_tokenizer("x", str(tmp_path), BuildContext())


def test_the_hash_is_that_of_the_words_and_their_order():
    def spec(texts=TEXTS, **options):
        return spec_of(build_tokenizer(texts), 16, **options)

    own = vocabulary_hash(spec())
    assert own == vocabulary_hash(spec(list(reversed(TEXTS))))  # the same vocabulary
    assert own == vocabulary_hash(spec(vocab_size=300))  # more embeddings than words
    assert own == vocabulary_hash(replace(spec(), max_length=8))
    assert own != vocabulary_hash(spec([*TEXTS, "one"]))
    assert own != vocabulary_hash(spec([*TEXTS, "end", "end"]))  # the same words with other ids
    assert origin_of(spec(vocab_size=300)) == {"vocabulary": own, "vocab_size": 300}


def test_a_tokenizer_that_cannot_be_read_backwards_has_no_hash():
    with pytest.raises(ConfigError, match="does not turn ids into words"):
        vocabulary_hash(replace(spec_of(build_tokenizer(TEXTS), 16), detokenize=None))
