"""Rows of a checkpoint are taken by position: never where a position is another word or another answer."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch

from vtp.errors import DataError
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.weights import load_model, load_weights, save_weights
from vtp.plugins import host

SMALL = {"name": "tiny", "width": 12, "depth": 1, "heads": 2}
SPEC = {
    "encoders": {
        "text": SMALL,
        "video": {**SMALL, "frames": 2, "size": 32},
        "fusion": {"name": "concat", "width": 20, "depth": 1, "heads": 2},
    },
    "objectives": {"qa": {"name": "qa", "weight": 1.0}, "mlm": {"name": "mlm", "weight": 1.0}},
}
# The same three words, the most frequent one first: other ids for red and cat, and tables of one size.
THEIRS, OURS = ["red ball", "red cat", "red ball"], ["cat ball", "cat red", "cat ball"]
WORDS = "encoders.text.words.weight"


def make(texts, answers=("yes", "no"), spec=SPEC):
    context = BuildContext(texts=lambda: texts, answers=tuple(answers))
    return build_model(spec, lookup_in(host().registry), context, seed=len(answers) + (texts is THEIRS))


@pytest.fixture
def theirs(tmp_path):
    model = make(THEIRS)
    save_weights(tmp_path / "theirs", model)
    return tmp_path / "theirs", model


def test_words_with_other_ids_are_refused_in_one_line(theirs):
    folder, model = theirs
    ours = make(OURS)
    assert ours.state_dict()[WORDS].shape == model.state_dict()[WORDS].shape
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(DataError, match="its words have other places") as told:
        load_weights(folder, ours)
    line = str(told.value)
    assert WORDS in line and f"add model={folder}" in line and "init_allow_missing=" in line and "\n" not in line
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
    with pytest.raises(DataError, match="its words have other places"):
        load_weights(folder / "model.safetensors", ours)
    with pytest.raises(DataError, match="its words have other places"):  # more words: the shapes differ as well
        load_weights(folder, make([*OURS, "blue"]))


def test_what_may_be_missing_is_learnt_anew_and_the_rest_is_taken(theirs):
    folder, model = theirs
    ours, given = make(OURS), model.state_dict()
    random = ours.state_dict()[WORDS].clone()
    told = pytest.raises(DataError, load_weights, folder, ours)
    names = str(told.value).partition("init_allow_missing=[")[2].partition("]")[0].split(",")
    report = load_weights(folder, ours, allow_missing=names)
    assert WORDS in report.missing and torch.equal(ours.state_dict()[WORDS], random)
    same = "encoders.text.positions.weight"
    assert torch.equal(ours.state_dict()[same], given[same]) and not torch.equal(random, given[WORDS])


def test_the_same_words_and_answers_are_taken(theirs):
    folder, model = theirs
    ours = make(THEIRS[::-1])  # the same counts
    assert load_weights(folder, ours).missing == []
    assert torch.equal(ours.state_dict()[WORDS], model.state_dict()[WORDS])
    load_model(folder, lookup_in(host().registry))


def test_answers_of_another_order_are_refused(theirs):
    folder, _ = theirs
    with pytest.raises(DataError, match=r"its answers have other places.*objectives\.qa\.head") as told:
        load_weights(folder, make(THEIRS, ["no", "yes"]))
    assert "encoders" not in str(told.value) and "\n" not in str(told.value)
    load_weights(folder, make(THEIRS, ["no", "yes"]), allow_missing=["objectives.qa.*"])


def test_a_checkpoint_without_its_words_is_mentioned(theirs, caplog):
    folder, _ = theirs
    shutil.rmtree(folder / "assets")
    with caplog.at_level(logging.WARNING, "vtp.model"):
        load_weights(folder, make(OURS))
    assert "whether its words have the ids that they have here is not known" in caplog.text


def test_other_settings_of_the_same_tokenizer_are_no_other_words(theirs):
    folder, _ = theirs
    file = folder / "assets" / "encoders" / "text" / "tokenizer.json"
    content = json.loads(file.read_text())
    content |= {"truncation": {"max_length": 7, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}}
    content["model"]["vocab"] = dict(reversed(content["model"]["vocab"].items()))
    file.write_text(json.dumps(content))
    load_weights(folder, make(THEIRS))


def test_a_file_without_texts_is_not_asked_for_words(theirs, tmp_path):
    """Weights of the video encoder alone, and then a head whose rows are no words."""
    from safetensors.torch import load_file, save_file

    video = {k: v for k, v in load_file(theirs[0] / "model.safetensors").items() if k.startswith("encoders.video.")}
    save_file(video, theirs[0] / "model.safetensors")
    report = load_weights(theirs[0], make(OURS, ["no", "yes"]), allow_missing=["*"])
    assert sorted(report.loaded) == sorted(video)


@pytest.mark.parametrize("kind", ["simvtp", "transformers"])
def test_every_text_encoder_that_keeps_its_tokenizer_is_asked(tmp_path, kind):
    """The same words in another order in the vocabulary file."""

    def build(name, words):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
        if kind == "simvtp":
            pytest.importorskip("vtp_simvtp")
            text = {"name": "simvtp", "preset": "tiny", "tokenizer": str(folder / "vocab.txt"), "max_length": 16}
        else:
            from transformers import BertConfig, BertTokenizerFast

            BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
            sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
            BertConfig(vocab_size=5 + len(words), max_position_embeddings=64, **sizes).save_pretrained(folder)
            text = {"name": "transformers", "model": str(folder), "pretrained": False, "max_length": 16}
        spec = {"encoders": {"text": text, "video": SPEC["encoders"]["video"]}, "objectives": {"vtc": {"name": "vtc"}}}
        return make([], (), spec)

    theirs = build("theirs", ["red", "cat", "ball"])
    save_weights(tmp_path / "saved", theirs)
    load_weights(tmp_path / "saved", build("same", ["red", "cat", "ball"]))
    with pytest.raises(DataError, match=r"its words have other places.*word_embeddings"):
        load_weights(tmp_path / "saved", build("ours", ["cat", "red", "ball"]))
