"""What `model=univl` composes to with a data set, and where its weights start."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from objective_models import TEXTS, random_batch
from torch import Tensor
from univl_models import text_encoder

from vtp.cli.run import compose
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.context import ForwardContext
from vtp.plugins import host
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
    assert compose(["model=univl", RETRIEVAL, "dataset=shapes", "train.lr=3e-3"])["train"]["lr"] == 3e-3
    assert compose(["dataset=shapes"])["train"]["lr"] == 2e-3
    questions = compose(["model=univl", "task=msrvtt_qa", "dataset=shapes"])
    assert (questions["train"]["lr"], questions["train"]["global_batch"], questions["data"]["group"]) == (5e-4, 240, 10)


@pytest.mark.parametrize(
    ("command", "want"),
    [
        (["dataset=shapes", "task=msrvtt_qa"], "tiny"),
        (["dataset=shapes", "task=msrvtt_captioning"], "tiny"),
        (["dataset=shapes", RETRIEVAL], None),
        (["task=msrvtt_qa"], None),
    ],
)
def test_sound_is_encoded_where_generated_clips_are_asked_about_it(command: list[str], want: str | None) -> None:
    assert compose(["model=univl", *command])["encoder"]["audio"]["name"] == want


@pytest.mark.parametrize(("width", "std"), [(64, 0.125), (768, 0.02)])
def test_layers_start_as_those_of_bert_or_with_a_gain_of_one(width: int, std: float) -> None:
    torch.manual_seed(0)
    weight = Layers(width, 1, 4, 0.0, 0.0).layer[0].output.dense.weight
    assert float(weight.detach().std()) == pytest.approx(std, rel=0.02)


def told_apart(vectors: Tensor) -> float:
    """Share of the mean square of vectors (R, D) that their differences make up."""
    return float(vectors.var(dim=0).sum() / vectors.square().sum(dim=1).mean())


def test_a_new_tiny_model_tells_clips_and_texts_apart() -> None:
    """What matching and question answering learn from. With weights of BERT's gain and clips larger than its tables of
    positions the shares were 0.007, 0.003 and 0.1, and next to nothing was learnt from pairs of generated clips."""
    found = compose(["model=univl", RETRIEVAL, "dataset=shapes", "objective=[univl/vtc,univl/vtm]"])
    spec = {"encoders": found["encoder"], **{key: found[key] for key in ("objectives", "masks", "variant")}}
    model = build_model(spec, lookup_in(host().registry), BuildContext(texts=lambda: TEXTS), seed=3).eval()
    batch = random_batch(model, 16)
    tiles = torch.randint(256, (16, 6, 4, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batch.inputs["video"]["frames"] = tiles.repeat_interleave(16, dim=2).repeat_interleave(16, dim=3)
    ctx, rows = ForwardContext(model, batch), torch.arange(16)
    same = torch.zeros_like(rows)
    with torch.no_grad():
        clips = ctx.fused({"video": "", "text": ""}, {"video": rows, "text": same}).pooled
        texts = ctx.fused({"video": "", "text": ""}, {"video": same, "text": rows}).pooled
        features = model.encoders["video"].clip_features(ctx.tokens("video"))[:, 0]
    assert told_apart(clips) > 0.01
    assert told_apart(texts) > 0.02
    assert told_apart(features) > 0.13


def test_the_word_embedding_of_padding_is_zero() -> None:
    text = text_encoder()
    torch.manual_seed(0)
    table = type(text.bert.embeddings)(20, 8, 16, 0.0, pad_id=3).word_embeddings.weight
    assert not table[3].any()
    assert table[[0, 1, 2, 4]].abs().sum(dim=1).all()
