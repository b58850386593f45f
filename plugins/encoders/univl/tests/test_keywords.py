"""Keyword dropping: which words may go, how many do, and that texts stay readable."""

from __future__ import annotations

import math
import pickle
from importlib.util import find_spec

import numpy as np
import pytest

from vtp.errors import ConfigError
from vtp.testing import check_transform
from vtp_univl.keywords import KeywordDropping, keywords

# one video whose captions agree on the dog, and one of another kind
CAPTIONS = {"a.mp4": ["a dog runs", "a dog jumps over a fence, slowly", "the dog plays"] * 3, "b.mp4": ["a car"] * 4}


@pytest.fixture
def table(tmp_path):
    rows = [f'{video},"{text}",train' for video, texts in CAPTIONS.items() for text in texts]
    (tmp_path / "table.csv").write_text("\n".join(["video,caption,split", *rows]))
    return {"name": "csv", "file": str(tmp_path / "table.csv")}


def test_weights_are_tf_idf():
    found = keywords([{"a": 3, "dog": 2}, {"a": 1, "car": 1}], top=2)
    once, twice = 1 + math.log(3 / 2), 1
    assert found == [
        {"a": pytest.approx(3 / 5 * twice), "dog": pytest.approx(2 / 5 * once)},
        {"a": pytest.approx(1 / 2 * twice), "car": pytest.approx(1 / 2 * once)},
    ]
    assert list(keywords([{"a": 3, "dog": 2, "x": 1}], top=2)[0]) == ["a", "dog"]


def test_words_of_little_weight_go_and_others_stay(table):
    # the words of a.mp4: dog 9, a 9 of 39; each other one 3 of 39, times 1 + log(3 / 2) = 0.108
    drop = KeywordDropping(dataset=table, below=0.11)
    text = "a dog jumps over a fence, slowly"
    seen = {drop(text, generator=np.random.default_rng(seed)) for seed in range(200)}
    assert text in seen and "a dog over a, slowly" in seen
    assert all("dog" in made and made.split()[0] == "a" for made in seen)
    words = [len(made.replace(",", "").split()) for made in seen]
    assert min(words) == 4  # of 7 words at most 3 go
    assert not any("  " in made for made in seen)
    kept = KeywordDropping(dataset=table, below=0.1)
    assert {kept(text, generator=np.random.default_rng(seed)) for seed in range(20)} == {text}


def test_at_most_so_many_words_of_a_caption_may_go(table):
    drop = KeywordDropping(dataset=table, below=0.11, most=1, share=1.0)
    seen = {drop("a dog jumps over a fence, slowly", generator=np.random.default_rng(seed)) for seed in range(50)}
    assert seen == {"a dog jumps over a fence, slowly", "a dog jumps over a, slowly"}


def test_other_texts_and_evaluation_change_nothing(table):
    drop = pickle.loads(pickle.dumps(KeywordDropping(dataset=table, below=9.0)))
    assert drop("slowly the dog plays", generator=np.random.default_rng(1)) == "slowly the dog plays"
    assert drop("a dog runs", generator=None) == "a dog runs"


def test_it_keeps_the_contract(table):
    check_transform(KeywordDropping, {"dataset": table}, modality="text")


@pytest.mark.skipif(find_spec("jieba") is None, reason="needs jieba: pip install jieba")
def test_chinese_words_are_those_of_jieba(tmp_path):
    rows = ["a.mp4,一个男人在厨房里切苹果,train"] * 8 + ["a.mp4,一个男人慢慢地切苹果,train"]
    (tmp_path / "table.csv").write_text("\n".join(["video,caption,split", *rows]))
    dataset = {"name": "csv", "file": str(tmp_path / "table.csv")}
    drop = KeywordDropping(dataset=dataset, language="zh", below=0.02)
    seen = {drop("一个男人慢慢地切苹果", generator=np.random.default_rng(seed)) for seed in range(40)}
    assert "一个男人慢慢地切苹果" in seen and len(seen) > 1
    assert all(made.startswith("一个男人") and made.endswith("苹果") and " " not in made for made in seen)


def test_a_data_set_without_captions_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text("video,question,answer,split\na.mp4,what?,a dog,train\n")
    with pytest.raises(ConfigError, match="has no training captions"):
        KeywordDropping(dataset={"name": "csv", "file": str(tmp_path / "table.csv")})
