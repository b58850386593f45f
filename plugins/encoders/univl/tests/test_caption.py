"""The objective ``caption`` over the cross tokens of UniVL, and over those of other models."""

from __future__ import annotations

import pytest
import torch
from objective_models import build, gradients, random_batch, take_step

from vtp.model.context import ForwardContext
from vtp.model.weights import load_weights, save_weights

HEADS = "objectives.caption.heads=4"


@pytest.mark.parametrize("name", ["univl", "base", "simvtp"])
def test_every_model_learns_to_write(name):
    model = build(name, ["caption"], HEADS, "objectives.caption.depth=1")
    batch = random_batch(model, 4, text=[2])
    seen = take_step(model, batch)["caption"]
    assert seen.loss.isfinite() and seen.loss > 0
    reached = {name for name, gradient in gradients(model).items() if gradient.any()}
    assert any(name.startswith("encoders.video") for name in reached)
    assert all(name in reached for name, _ in model.objectives["caption"].named_parameters(prefix="objectives.caption")
               if ".words." not in name)  # fmt: skip
    words, scores = model.objectives["caption"].generate(ForwardContext(model, batch), beams=2, max_length=5)
    assert words.shape == (4, 5) and scores.isfinite().all()


def test_the_decoder_sees_the_clips_through_the_cross_encoder_and_no_word():
    model = build("univl", ["caption"], HEADS)
    batch, blind = random_batch(model, 3, video=[1]), random_batch(model, 3, video=[1], text=[0, 1, 2])
    ctx = ForwardContext(model, batch)
    memory, mask = model.objectives["caption"].memory(ctx)
    fused = model.encoders["fusion"]({"video": ctx.tokens("video")})
    torch.testing.assert_close(memory, fused.tokens["video"].x)
    assert mask.sum(1).tolist() == [4, 0, 4]  # clips; a row without a video has nothing to look at
    other = model.objectives["caption"].memory(ForwardContext(model, blind))[0]
    assert torch.equal(memory, other)


def test_one_table_of_words_is_kept_through_a_checkpoint(tmp_path):
    model, other = (build("univl", ["caption"], HEADS) for _ in range(2))
    tables = [m.encoders["text"].bert.embeddings.word_embeddings.weight for m in (model, other)]
    assert model.objectives["caption"].decoder.words.weight is tables[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    save_weights(tmp_path, model)
    load_weights(tmp_path, other)
    assert other.objectives["caption"].decoder.words.weight is tables[1] and torch.equal(*tables)
    batch = random_batch(model, 3)
    written = [m.objectives["caption"].generate(ForwardContext(m, batch), max_length=6)[1] for m in (model, other)]
    assert torch.equal(*written)
