"""Masks: how many tokens, which pattern, and that they depend on nothing but seed, step and row."""

from __future__ import annotations

import pytest
import torch
from simvtp_models import build, random_batch, spec

from vtp.errors import ConfigError
from vtp.model.context import ForwardContext
from vtp_simvtp.masking import VideoMask, WordMask, draw_mask, split_mask

GRID = (8, 14, 14)


@pytest.mark.parametrize("ratio, per_slot", [(0.9, 176), (0.75, 147), (0.0, 0), (0.999, 195)])
def test_tube_hides_the_same_places_in_every_slot(ratio, per_slot):
    mask = draw_mask("tube", ratio, GRID, torch.rand(5, 1568)).view(5, 8, 196)
    assert (mask.sum(2) == per_slot).all()
    assert (mask == mask[:, :1]).all()


@pytest.mark.parametrize("ratio, count", [(0.9, 1411), (0.75, 1176)])
def test_random_hides_an_equal_count_anywhere(ratio, count):
    mask = draw_mask("random", ratio, GRID, torch.rand(5, 1568))
    assert (mask.sum(1) == count).all()
    assert (mask.view(5, 8, 196).sum(2) != count // 8).any()


def test_frame_hides_whole_slots():
    slots = draw_mask("frame", 0.75, GRID, torch.rand(5, 1568)).view(5, 8, 196).float().mean(2)
    assert set(slots.unique().tolist()) == {0.0, 1.0} and (slots.sum(1) == 6).all()


def test_every_place_is_hidden_equally_often():
    share = draw_mask("tube", 0.75, (1, 4, 4), torch.rand(4000, 16)).float().mean(0)
    assert (share - 0.75).abs().max() < 0.04  # six standard deviations


def test_split_gives_ascending_positions_of_both_parts():
    mask = draw_mask("random", 0.6, (2, 3, 4), torch.rand(3, 24))
    visible, hidden = split_mask(mask, 24 - int(0.6 * 24))
    for row in range(3):
        assert visible[row].tolist() == (~mask[row]).nonzero()[:, 0].tolist()
        assert hidden[row].tolist() == mask[row].nonzero()[:, 0].tolist()


@pytest.mark.parametrize("kind", ["tube", "random", "frame"])
def test_masks_do_not_depend_on_how_the_batch_is_cut(kind, vocab):
    model = build(spec(vocab), seed=5)
    batch = random_batch(6)
    mask = VideoMask(kind, 0.6)

    def drawn(part):
        ctx = ForwardContext(model, part)
        return ctx.inputs("video", mask.view(ctx))["mask"], ctx.inputs("text", WordMask(0.5).view(ctx))["token_ids"]

    whole = drawn(batch)
    parts = [drawn(batch.rows(0, 2)), drawn(batch.rows(2, 6))]
    for i in range(2):
        assert torch.equal(whole[i], torch.cat([part[i] for part in parts]))
    batch.step = 1
    assert not torch.equal(whole[0], drawn(batch)[0]) and not torch.equal(whole[1], drawn(batch)[1])


def test_objectives_with_equal_masks_share_one_view(vocab):
    model = build(spec(vocab))
    ctx = ForwardContext(model, random_batch(4))
    names = {model.objectives[name].mask.view(ctx) for name in model.objectives}
    assert names == {"tube0.75"}


def test_words_special_tokens_are_never_hidden(vocab):
    model = build(spec(vocab))
    batch = random_batch(8)
    ids = batch.inputs["text"]["token_ids"]
    ids[0, 3] = 4  # an unknown word
    ctx = ForwardContext(model, batch)
    made = ctx.inputs("text", WordMask(1.0).view(ctx))
    chosen = made["labels"] != -100
    assert torch.equal(chosen, ids > 4)
    assert (made["token_ids"][chosen] == 3).all() and torch.equal(made["labels"][chosen], ids[chosen])
    assert torch.equal(made["token_ids"][~chosen], ids[~chosen])


def test_words_share_is_the_probability(vocab):
    model = build(spec(vocab))
    batch = random_batch(300, length=20)
    ctx = ForwardContext(model, batch)
    made = ctx.inputs("text", WordMask(0.75).view(ctx))
    words = (batch.inputs["text"]["token_ids"] > 4).sum()
    assert abs((made["labels"] != -100).sum() / words - 0.75) < 0.04


def test_clips_of_one_video_get_masks_of_their_own(vocab):
    model = build(spec(vocab))
    batch = random_batch(2)
    frames = batch.inputs["video"]["frames"]
    batch.inputs["video"]["frames"] = torch.stack([frames, frames, frames], dim=1)
    ctx = ForwardContext(model, batch)
    mask = ctx.inputs("video", VideoMask("tube", 0.5).view(ctx))["mask"]
    assert mask.shape == (2, 3, 32) and not torch.equal(mask[:, 0], mask[:, 1])
    assert ctx.tokens("video", "tube0.5").x.shape == (2, 48, 96)


@pytest.mark.parametrize("options, words", [({"kind": "tubes"}, "tube, random, frame"), ({"ratio": 1.0}, r"\[0, 1\)")])
def test_wrong_options_are_explained(options, words):
    with pytest.raises(ConfigError, match=words):
        VideoMask(**options)


def test_an_encoder_without_a_grid_is_refused():
    class Flat(torch.nn.Module):
        spec = None

    from vtp_simvtp.masking import grid_of

    with pytest.raises(ConfigError, match="Flat"):
        grid_of(Flat(), torch.zeros(1, 4, 8, 8, 3, dtype=torch.uint8))
