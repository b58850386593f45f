from __future__ import annotations

import copy

import pytest
import torch

from vtp.data import Pipeline, collate
from vtp.model.context import ForwardContext
from vtp.types import MediaRef, Sample, Tokens


def hidden_half(inputs):
    return {**inputs, "mask": torch.tensor([[True, False], [False, True], [True, False]])}


def test_each_pass_is_computed_once(model, make_batch):
    ctx = ForwardContext(model, make_batch())
    words = {**ctx.inputs("text"), "token_ids": ctx.inputs("text")["token_ids"].clone(), "labels": torch.zeros(3, 5)}
    made = []
    ctx.view("text", "mlm", lambda inputs: made.append(1) or words)
    ctx.view("text", "mlm", lambda inputs: made.append(2) or words)
    first = ctx.fused({"video": "", "text": "mlm"})
    assert ctx.fused({"text": "mlm", "video": ""}) is first  # whatever the order
    assert ctx.tokens("video") is ctx.tokens("video")
    ctx.pooled("video"), ctx.pooled("text"), ctx.fused({"video": "", "text": ""})
    assert made == [1]
    assert model.encoders["video"].calls == ["encoded"]
    assert model.encoders["text"].calls == ["encoded", "encoded"]  # masked and clean
    assert model.encoders["fusion"].calls == [("video", "text"), ("video", "text")]
    assert model.encoders["audio"].calls == []  # nobody asked


def test_a_pass_without_gradients_is_not_served_as_one_with(model, make_batch):
    ctx = ForwardContext(model, make_batch())
    with torch.no_grad():
        assert not ctx.pooled("text").requires_grad
    assert ctx.pooled("text").requires_grad


def test_fused_order_is_video_audio_text(model, make_batch):
    ForwardContext(model, make_batch()).fused({"text": "", "audio": "", "video": ""})
    assert model.encoders["fusion"].calls == [("video", "audio", "text")]


def test_video_is_normalised_with_the_encoders_numbers(model, make_batch):
    batch = make_batch()
    video = ForwardContext(model, batch).inputs("video")["video"]
    frames = batch.inputs["video"]["frames"].double() / 255
    for channel, (mean, std) in enumerate(zip((0.5, 0.25, 0.0), (0.5, 0.25, 1.0), strict=True)):
        expected = (frames[..., channel] - mean) / std
        torch.testing.assert_close(video[:, :, channel].double(), expected, rtol=0, atol=1e-6)


def test_views_replace_inputs_and_keep_labels_to_themselves(model, make_batch):
    ctx = ForwardContext(model, make_batch())
    ctx.view("video", "half", hidden_half)
    tokens = ctx.tokens("video", "half")
    assert tokens.x.shape == (3, 1, 4) and tokens.index.tolist() == [[1], [0], [1]]
    everything = ctx.tokens("video").x
    torch.testing.assert_close(tokens.x[:, 0], everything[torch.arange(3), [1, 0, 1]])
    labels = torch.arange(15).view(3, 5)
    ctx.view("text", "mlm", lambda inputs: {**inputs, "labels": labels})
    assert ctx.inputs("text", "mlm")["labels"] is labels
    ctx.tokens("text", "mlm")  # the encoder would refuse an argument named labels


def test_a_view_may_not_write_into_the_clean_tensors(model, make_batch):
    ctx = ForwardContext(model, make_batch())

    def in_place(inputs):
        inputs["token_ids"][:, 0] = 3
        return inputs

    with pytest.raises(ValueError, match="view 'mlm' of text wrote into token_ids in place"):
        ctx.view("text", "mlm", in_place)


def test_unknown_views_and_modalities_are_named(model, make_batch, stubs):
    ctx = ForwardContext(model, make_batch())
    ctx.view("text", "mlm", dict)
    with pytest.raises(ValueError, match=r"no view 'mlmm' of text.*made: 'mlm'"):
        ctx.tokens("text", "mlmm")
    with pytest.raises(ValueError, match="needs a name"):
        ctx.view("text", "", dict)
    del model.encoders["audio"]
    with pytest.raises(ValueError, match=r"no encoder for audio \(it has: video, text\)"):
        ForwardContext(model, make_batch()).tokens("audio")


def test_missing_rows_have_no_tokens(model, make_batch):
    ctx = ForwardContext(model, make_batch())
    assert ctx.present("audio").tolist() == [True, False, True]
    assert ctx.tokens("audio").attention_mask.tolist() == [[True], [False], [True]]
    with_sound = ctx.fused({"video": "", "audio": ""}).pooled
    without = ctx.fused({"video": ""}).pooled
    torch.testing.assert_close(with_sound[1], without[1])  # nothing is added for the row without sound
    assert not torch.allclose(with_sound[0], without[0])


@pytest.mark.parametrize("how", ["no key", "no columns"])
def test_a_modality_that_no_row_has_still_runs(model, make_batch, how):
    batch = make_batch()
    if how == "no key":
        del batch.inputs["audio"], batch.inputs["text"], batch.inputs["video"]
        batch.labels["answer"] = torch.zeros(3, dtype=torch.long)
    else:
        batch.inputs["text"] = {k: v[:, :0] for k, v in batch.inputs["text"].items()}
    ctx = ForwardContext(model, batch)
    assert ctx.modalities == ("video", "audio", "text")
    pooled = ctx.fused(dict.fromkeys(ctx.modalities, "")).pooled
    assert ctx.present("text").tolist() == [False] * 3 and not ctx.tokens("text").attention_mask.any()
    assert pooled.isfinite().all()
    pooled.sum().backward()
    assert (model.encoders["text"].words.weight.grad == 0).all()


def test_rows_pair_a_text_with_another_video(model, make_batch):
    ctx = ForwardContext(model, make_batch())
    swapped = torch.tensor([2, 0, 1])
    pair = {"video": "", "text": ""}
    fused = ctx.fused(pair, rows={"text": swapped})
    expected = ctx.pooled("video") + ctx.pooled("text")[swapped]
    torch.testing.assert_close(fused.pooled, expected)
    assert ctx.fused(pair, rows={"text": swapped}) is fused
    assert ctx.fused(pair, rows={"text": swapped.clone()}) is not fused
    everyone = torch.arange(3)
    texts, videos = everyone.repeat_interleave(3), everyone.repeat(3)
    all_pairs = ctx.fused(pair, rows={"text": texts, "video": videos}).pooled
    torch.testing.assert_close(all_pairs.view(3, 3, -1)[1, 2], ctx.pooled("text")[1] + ctx.pooled("video")[2])
    assert model.encoders["text"].calls == ["encoded"]
    with pytest.raises(ValueError, match=r"different numbers of rows \{'video': 3, 'text': 9\}"):
        ctx.fused(pair, rows={"text": texts})
    with pytest.raises(ValueError, match="rows are given for audio"):
        ctx.fused(pair, rows={"audio": texts})


def test_tokens_from_elsewhere_can_be_fused(model, make_batch):
    ctx = ForwardContext(model, make_batch())
    own = ctx.tokens("video")
    foreign = Tokens(own.x + 1, own.attention_mask)
    torch.testing.assert_close(
        ctx.fused({"video": foreign, "text": ""}).pooled, ctx.pooled("text") + ctx.pooled("video") + 1
    )


def test_fusion_may_read_embeddings(model, make_batch):
    model.encoders["fusion"].consumes = {"text": "embedded"}
    ctx = ForwardContext(model, make_batch())
    fused = ctx.fused({"video": "", "text": ""}).pooled
    torch.testing.assert_close(fused, ctx.pooled("video") + 100 * ctx.pooled("text"))
    assert model.encoders["text"].calls == ["embedded", "encoded"]


def test_unimodal_features_pass_the_shared_fusion_encoder(model, make_batch):
    model.encoders["fusion"].unimodal = True
    ctx = ForwardContext(model, make_batch())
    torch.testing.assert_close(ctx.pooled("text"), 2 * ctx.tokens("text").pooled())
    assert model.encoders["fusion"].calls == [("text",)]


def test_encoders_may_pool_their_own_way(model, make_batch):
    model.encoders["text"].pool = lambda tokens: tokens.x[:, 0]
    ctx = ForwardContext(model, make_batch())
    assert torch.equal(ctx.pooled("text"), ctx.tokens("text").x[:, 0])


def test_several_views_of_a_video_give_their_tokens_one_after_the_other(model, make_batch):
    batch = make_batch()
    one, two = batch.inputs["video"]["frames"], batch.inputs["video"]["frames"].flip(1)
    batch.inputs["video"]["frames"] = torch.stack([one, two], dim=1)  # (B, V, T, H, W, 3)
    tokens = ForwardContext(model, batch).tokens("video")
    assert tokens.x.shape == (3, 4, 4) and tokens.attention_mask.shape == (3, 4) and tokens.grid == (4, 1, 1)
    torch.testing.assert_close(tokens.x[:, 2:], tokens.x[:, :2].flip(1))


def test_another_encoder_gets_what_the_models_own_gets(model, make_batch):
    """A copy gives the same tokens: clean, hidden, of several clips, and none where the modality is missing."""
    batch = make_batch()
    batch.present["video"][1] = False
    frames = batch.inputs["video"]["frames"]
    for clips in (frames, torch.stack([frames, frames.flip(1)], dim=1)):
        batch.inputs["video"]["frames"] = clips
        ctx = ForwardContext(model, batch)
        for modality in ("video", "text"):
            own, copied = ctx.tokens(modality), ctx.tokens_of(copy.deepcopy(model.encoders[modality]), modality)
            assert torch.equal(own.x, copied.x) and torch.equal(own.attention_mask, copied.attention_mask)
            assert own.grid == copied.grid
        assert not copied.attention_mask[batch.present["text"].logical_not()].any()
        ctx.view("text", "labelled", lambda inputs: inputs | {"labels": inputs["token_ids"]})
        assert torch.equal(
            ctx.tokens("text", "labelled").x, ctx.tokens_of(model.encoders["text"], "text", "labelled").x
        )


def test_uniform_does_not_depend_on_how_the_step_is_cut(model, make_batch):
    whole = ForwardContext(model, make_batch(6, step=3)).uniform("mlm", 10)
    assert whole.dtype == torch.float32 and whole.shape == (6, 10) and (whole >= 0).all() and (whole < 1).all()
    batch = make_batch(6, step=3)
    parts = [ForwardContext(model, batch.rows(a, b)).uniform("mlm", 10) for a, b in [(0, 1), (1, 4), (4, 6)]]
    assert torch.equal(torch.cat(parts), whole)  # accumulation
    second_rank = make_batch(3, step=3, row_offset=3, global_rows=6)
    assert torch.equal(ForwardContext(model, second_rank).uniform("mlm", 10), whole[3:])  # processes
    assert torch.equal(ForwardContext(model, make_batch(6, step=3)).uniform("mlm", 10), whole)  # again


def test_uniform_depends_on_name_step_and_seed(model, make_batch):
    draws = [ForwardContext(model, make_batch(step=s)).uniform(n, 8) for s in (0, 1) for n in ("mlm", "tube")]
    model.seed = 8
    draws.append(ForwardContext(model, make_batch(step=0)).uniform("mlm", 8))
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_identity_of_texts_ignores_padding(model, make_batch):
    batch = make_batch(3)
    batch.inputs["text"]["token_ids"] = torch.tensor([[7, 9, 0, 0], [7, 9, 5, 6], [9, 7, 0, 0]])
    batch.inputs["text"]["attention_mask"] = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]).bool()
    same = ForwardContext(model, batch).identity("text")
    assert same[0] == same[1] and same[0] != same[2]
    batch.inputs["text"] = {k: v[:, :2] for k, v in batch.inputs["text"].items()}
    assert torch.equal(ForwardContext(model, batch).identity("text"), same)


def test_identity_of_texts_tells_small_changes_apart(model, make_batch):
    ids = torch.cartesian_prod(*[torch.arange(5, 12)] * 4)  # 2401 texts that differ by little
    batch = make_batch(len(ids))
    batch.inputs["text"] = {"token_ids": ids, "attention_mask": torch.ones_like(ids, dtype=torch.bool)}
    assert len(ForwardContext(model, batch).identity("text").unique()) == len(ids)


def test_identity_of_videos_is_that_of_the_video(model, make_batch):
    a, b, c = ForwardContext(model, make_batch()).identity("video").tolist()
    assert len({a, b, c}) == 3
    film = MediaRef("film.mp4", 0.0, 2.0), MediaRef("film.mp4", 2.0, 4.0), MediaRef("film.mp4", 0.0, 2.0)
    pipeline = Pipeline({"text": model.encoders["text"].spec}, train=False)
    rows = [pipeline(Sample(f"s{row}", ref, ref, ("a",)), 0, row) for row, ref in enumerate(film)]
    batch = make_batch(extra=collate(rows, pipeline.specs).extra)
    a, b, c = ForwardContext(model, batch).identity("audio").tolist()
    assert a == c != b
    assert len(ForwardContext(model, batch).identity("audio", whole=True).unique()) == 1


def test_rows_about_one_clip_share_its_pass(model, make_batch):
    batch = make_batch(3)
    rows = [0, 0, 1, 2, 2]
    apart = make_batch(5)
    for modality in ("video", "audio"):
        apart.inputs[modality] = {k: v[rows] for k, v in batch.inputs[modality].items()}
        apart.present[modality] = batch.present[modality][rows]
    together = make_batch(5, media_rows=rows, present=apart.present)
    together.inputs |= {m: batch.inputs[m] for m in ("video", "audio")}
    seen = []
    model.encoders["video"].register_forward_hook(lambda module, arguments, out: seen.append(len(out.x)))
    modalities = dict.fromkeys(("video", "audio", "text"), "")
    expected = ForwardContext(model, apart).fused(modalities).pooled
    torch.testing.assert_close(ForwardContext(model, together).fused(modalities).pooled, expected)
    assert seen == [5, 3]
    one = ForwardContext(model, together)
    assert torch.equal(one.inputs("video")["video"], ForwardContext(model, apart).inputs("video")["video"])
