"""What `model=univl` composes to with a data set, and where its weights start."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from univl_models import text_encoder

from vtp.cli.run import compose
from vtp_univl.bert import Layers

RETRIEVAL = "task=msrvtt_retrieval"


def sizes(config: dict[str, Any]) -> tuple[Any, ...]:
    text = config["encoder"]["text"]
    return text["preset"], text["tokenizer"], config["encoder"]["video"]["preset"]


@pytest.mark.parametrize(
    ("command", "want"),
    [
        ([RETRIEVAL], ("base", "bert-base-uncased", "base")),
        ([RETRIEVAL, "dataset=shapes"], ("tiny", "texts", "tiny")),
        (["dataset=shapes", "task=msrvtt_qa"], ("tiny", "texts", "tiny")),
        ([RETRIEVAL, "dataset=shapes", "encoder.text.preset=base"], ("base", "texts", "tiny")),
        ([RETRIEVAL, "dataset=msvd"], ("base", "bert-base-uncased", "base")),
    ],
)
def test_sizes_follow_the_data_set(command: list[str], want: tuple[Any, ...]) -> None:
    assert sizes(compose(["model=univl", *command])) == want


def test_an_encoder_that_is_named_is_taken() -> None:
    config = compose(["model=univl", RETRIEVAL, "dataset=shapes", "encoder/text=tiny", "encoder/fusion=concat"])
    found = {slot: (options or {}).get("name") for slot, options in config["encoder"].items()}
    assert found == {"text": "tiny", "video": "univl", "audio": None, "fusion": "concat"}


def test_the_recipe_is_that_of_the_model_and_the_data_set() -> None:
    """Generated clips have a recipe for vtp's own small models, which learn from steps that BERT does not survive."""
    own = compose(["model=univl", RETRIEVAL, "dataset=shapes"])["train"]
    assert (own["lr"], own["global_batch"]) == (5e-4, 64)
    assert compose([RETRIEVAL, "dataset=shapes"])["train"]["lr"] == 2e-3
    assert compose(["model=univl", RETRIEVAL])["train"]["lr"] != own["lr"]
    assert compose(["model=univl", RETRIEVAL, "dataset=shapes", "train.lr=1e-3"])["train"]["lr"] == 1e-3
    assert compose(["dataset=shapes"])["train"]["lr"] == 2e-3


@pytest.mark.parametrize("width", [96, 768])
def test_layers_start_with_the_gain_of_bert(width: int) -> None:
    torch.manual_seed(0)
    weight = Layers(width, 1, 4, 0.0, 0.0).layer[0].output.dense.weight
    gain = float(weight.detach().std()) * width**0.5
    assert gain == pytest.approx(0.02 * 768**0.5, rel=0.02)


def test_the_word_embedding_of_padding_is_zero() -> None:
    text = text_encoder()
    torch.manual_seed(0)
    table = type(text.bert.embeddings)(20, 8, 16, 0.0, pad_id=3).word_embeddings.weight
    assert not table[3].any()
    assert table[[0, 1, 2, 4]].abs().sum(dim=1).all()
