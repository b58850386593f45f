"""Content words: taggers, their places among tokens, and what is said where one is missing."""

from __future__ import annotations

import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

from vtp.errors import ConfigError
from vtp_encoders.tokenizers import build_tokenizer, spec_of, word_pieces
from vtp_univl.content_words import ContentWords
from vtp_univl.parts_of_speech import jieba_tagger

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"

needs_jieba = pytest.mark.skipif(find_spec("jieba") is None, reason="needs jieba: pip install jieba")


@pytest.fixture
def nltk_data(monkeypatch):
    nltk = pytest.importorskip("nltk")
    folder = DATA / "nltk_data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/nltk_data, beside the repository")
    monkeypatch.setattr(nltk.data, "path", [str(folder)])


@pytest.mark.usefixtures("nltk_data")
def test_nltk_tells_content_words():
    text = "The two small dogs are playing with a red ball in the garden."
    spec = spec_of(build_tokenizer([text]), 30)
    counts = ContentWords("nltk", spec, "it").counts(text)
    words = [word for word, _ in spec.words(text)]
    twice = [word for word, count in zip(words, counts[1:-1], strict=True) if count == 2]
    assert twice == ["small", "dogs", "playing", "red", "ball", "garden"]
    assert len(counts) == len(words) + 2 and counts[0] == counts[-1] == 1


@pytest.mark.usefixtures("nltk_data")
def test_all_pieces_of_a_content_word_count(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ngir\n##af\n##fe\nruns")
    spec = spec_of(word_pieces(tmp_path / "vocab.txt"), 5)
    # [CLS] a gir ##af [SEP]: cut off behind the second piece
    assert ContentWords("nltk", spec, "it").counts("a giraffe runs") == [1, 1, 2, 2, 1]


@needs_jieba
def test_jieba_tells_content_words_of_chinese():
    text = "一个男人在厨房里切红色的苹果"
    spec = spec_of(build_tokenizer([text]), 40)
    counts = ContentWords("jieba", spec, "it").counts(text)
    letters = [word for word, _ in spec.words(text)]
    twice = "".join(word for word, count in zip(letters, counts[1:-1], strict=True) if count == 2)
    assert {"男", "人", "厨", "房", "切", "苹", "果"} <= set(twice)
    assert not {"在", "的", "一"} & set(twice)


def test_the_age_of_jieba_is_not_told(tmp_path, monkeypatch):
    """It imports pkg_resources, which warns."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "jieba"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "jieba").mkdir()
    (tmp_path / "jieba" / "__init__.py").write_text("import warnings\nwarnings.warn('pkg_resources is deprecated')\n")
    (tmp_path / "jieba" / "posseg.py").write_text("cut = '\\d'.split\n")
    monkeypatch.syspath_prepend(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert jieba_tagger("it").cut() == ["\\d"]
    for name in ("jieba", "jieba.posseg"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("tagger", "module", "command"),
    [
        ("nltk", "nltk", "pip install nltk"),
        ("spacy", "spacy", "pip install spacy"),
        ("jieba.posseg", "jieba", "pip install jieba"),
    ],
)
def test_a_tagger_that_is_not_installed_is_named(tagger, module, command, monkeypatch):
    monkeypatch.setitem(sys.modules, tagger, None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=command):
        ContentWords(module, spec_of(build_tokenizer(["a dog"]), 9), "objective univl_dmae")


def test_data_that_are_missing_are_named_with_the_command(monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(ConfigError, match="nltk.downloader averaged_perceptron_tagger_eng stopwords"):
        ContentWords("nltk", spec_of(build_tokenizer(["a dog"]), 9), "objective univl_dmae")


def test_a_tokenizer_without_words_is_refused():
    from vtp.testing.inputs import TinyText

    with pytest.raises(ConfigError, match="does not tell where words begin"):
        ContentWords("nltk", TinyText.spec, "it")
