"""BLEU, ROUGE-L and CIDEr-D held against the reference implementation, recorded by tools/record_caption_scores.py, and
against their formulas on cases that can be counted by hand."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

from vtp.errors import ConfigError
from vtp_tasks import caption_metrics as module
from vtp_tasks.caption_metrics import caption_scores, meteor_stages

HERE = Path(__file__).parent
REFERENCE = json.loads((HERE / "caption_reference.json").read_text(encoding="utf-8"))["scores"]


def corpus():
    spec = importlib.util.spec_from_file_location("record", HERE.parents[1] / "tools" / "record_caption_scores.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool.corpus()


def test_a_corpus_scores_as_in_the_reference():
    written, references = corpus()
    assert any(not text for text in written) and max(map(len, references)) == 5
    found = caption_scores(written, references, ["exact"])
    np.testing.assert_allclose(found.cider, REFERENCE["cider"], atol=1e-6)
    np.testing.assert_allclose(found.rouge_l, REFERENCE["rouge_l"], atol=1e-9)
    np.testing.assert_allclose(found.bleu, REFERENCE["bleu"], atol=1e-9)


def test_bleu_is_clipped_counts_and_brevity():
    """The example of the paper: `the` seven times is right twice; and a sentence half as long as its reference."""
    bleu = caption_scores(["the the the the the the the"], [["The cat is on the mat.", "There is a cat on the mat"]])
    assert bleu.bleu[0] == pytest.approx(2 / 7) and bleu.bleu[1] == 0.0
    short = caption_scores(["a dog"], [["a dog runs fast"]]).bleu
    assert short[:2] == pytest.approx([math.exp(1 - 4 / 2)] * 2)


def test_rouge_is_the_longest_common_subsequence():
    score = caption_scores(["police kill the gunman"], [["police killed the gunman"]]).rouge_l[0]
    assert score == pytest.approx(3 / 4)  # precision and recall are equal
    score = caption_scores(["a b"], [["a x b y"]]).rouge_l[0]
    assert score == pytest.approx((1 + 1.44) * 1.0 * 0.5 / (0.5 + 1.44 * 1.0))


def test_cider_rewards_what_only_these_references_say():
    """Two clips; `a` is said of both and weighs nothing, so n-grams with it alone do not count."""
    found = caption_scores(["a dog", "a a"], [["a dog"], ["a cat"]]).cider
    one = [math.log(2), math.log(2)]  # `dog` and `a dog`, in one clip of two
    assert all(one) and found[0] == pytest.approx(10 * 2 / 4) and found[1] == 0.0


def test_meteor_counts_matches_and_chunks(monkeypatch):
    def score(written, text, stages=("exact",)):
        return caption_scores([written], [[text]], stages).meteor[0]

    same = score("the cat sat", "the cat sat")
    assert same == pytest.approx(1 - 0.5 * (1 / 3) ** 3)
    assert score("sat the cat", "the cat sat") == pytest.approx(1 - 0.5 * (2 / 3) ** 3)
    assert score("the cat", "the cat sat on it") == pytest.approx(10 * 1 * 0.4 / (0.4 + 9) * (1 - 0.5 * (1 / 2) ** 3))
    assert score("dogs", "a cat") == score("", "a cat") == 0.0
    pytest.importorskip("nltk")
    assert score("dogs running", "dog runs", ("exact", "stem")) == pytest.approx(1 - 0.5 * (1 / 2) ** 3)
    assert score("dogs running", "dog runs") == 0.0


def test_the_alignment_with_the_fewest_chunks_is_found():
    """Of two equal words the one that makes a longer chunk is taken: one chunk here, not two."""
    pairs = module._align(("on", "the", "mat"), ("the", "cat", "on", "the", "mat"), ("exact",))
    assert pairs == [(0, 2), (1, 3), (2, 4)]


def test_a_stage_that_cannot_be_had_is_told_and_the_name_says_which_there_were(monkeypatch):
    stages = meteor_stages()
    assert stages[0] == "exact"
    name = f"meteor_{'_'.join(stages)}"
    assert name in caption_scores(["a"], [["a"]]).percent()
    monkeypatch.setattr(module, "_stage", lambda name: None if name == "synonym" else lambda word: frozenset((word,)))
    assert meteor_stages() == ("exact", "stem")
    with pytest.raises(ConfigError, match="the stage 'synonym' needs NLTK and its WordNet files"):
        caption_scores(["a"], [["a"]], ["exact", "synonym"])


def test_percent_is_a_hundred_times_the_mean():
    found = caption_scores(["a dog runs", "a cat"], [["a dog runs"], ["a man sings"]], ["exact"])
    assert found.percent()["cider"] == pytest.approx(100 * found.cider.mean())
    assert list(found.percent())[:4] == ["bleu1", "bleu2", "bleu3", "bleu4"]
