from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.types import Tokens
from vtp_objectives.caption import Caption


@pytest.fixture
def objective(context):
    torch.manual_seed(3)
    return Caption(context=context, depth=2, heads=2).eval()


def test_equal_scores_cost_ln_of_the_vocabulary(context, objective, make_model, make_batch, run):
    nn.init.zeros_(objective.decoder.transform[2].weight)
    out = objective(run(make_model(caption=objective), batch := make_batch(4)))
    assert out.loss.item() == pytest.approx(math.log(30), abs=1e-6)
    words = batch.inputs["text"]["attention_mask"].sum() - 4  # all but the start of each text
    assert int(out.weight) == int(words) == int(objective.count(run(make_model(caption=objective), batch)))


def test_the_loss_is_the_cross_entropy_of_each_next_word(objective, make_model, make_batch, run):
    model, batch = make_model(caption=objective), make_batch(5, missing={"text": [2]})
    ctx = run(model, batch)
    text, losses = batch.inputs["text"], []
    memory, mask = objective.memory(ctx)
    for row in (0, 1, 3, 4):
        ids = text["token_ids"][row][text["attention_mask"][row]]
        hidden = objective.decoder(ids[None, :-1], memory[row, None], mask[row, None])
        losses += cross_entropy(objective.decoder.logits(hidden[0]).double(), ids[1:], reduction="none").tolist()
    out = objective(ctx)
    assert out.loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert int(out.weight) == len(losses)


def test_label_smoothing_is_the_mean_with_a_uniform_target(context, make_model, make_batch, run):
    torch.manual_seed(3)
    objective = Caption(context=context, depth=1, heads=2, label_smoothing=0.3)
    ctx = run(make_model(caption=objective), make_batch(4))
    logs = objective.word_logits(ctx).double().log_softmax(-1)
    labels = objective._target(ctx)[1]
    right = logs.gather(1, labels[labels >= 0][:, None])[:, 0]
    want = -(0.7 * right + 0.3 * logs.mean(1)).mean()
    assert objective(ctx).loss.item() == pytest.approx(want.item(), rel=1e-5)


def test_a_state_does_not_depend_on_later_words(objective, make_model, make_batch, run):
    """Teacher forcing shows the decoder the whole text: one that could look ahead would only copy."""
    memory, mask = objective.memory(run(make_model(caption=objective), make_batch(3)))
    ids = torch.randint(5, 30, (3, 7))
    logits = objective.decoder.logits(objective.decoder(ids, memory, mask))
    for place in range(7):
        other = ids.clone()
        other[:, place] = (ids[:, place] - 5 + 1) % 25 + 5
        changed = objective.decoder.logits(objective.decoder(other, memory, mask))
        torch.testing.assert_close(changed[:, :place], logits[:, :place], rtol=0, atol=0)
        assert not torch.allclose(changed[:, place:], logits[:, place:])


def test_the_text_itself_is_not_looked_at(objective, make_model, make_batch, run):
    """What is written depends on the clip: neither on the text of the row nor on that of others."""
    model = make_model(caption=objective)
    batch, blind = make_batch(4), make_batch(4, missing={"text": [0, 1, 2, 3]})
    torch.testing.assert_close(objective.memory(run(model, batch)), objective.memory(run(model, blind)))
    written = [objective.generate(run(model, one), beams=2) for one in (batch, blind)]
    assert torch.equal(written[0][0], written[1][0]) and torch.equal(written[0][1], written[1][1])


def test_padding_of_text_and_memory_changes_nothing(objective, make_model, make_batch, run):
    model, batch = make_model(caption=objective), make_batch(4)
    ctx, text = run(model, batch), batch.inputs["text"]
    memory, mask = objective.memory(ctx)
    ids = text["token_ids"][0][text["attention_mask"][0]][None]
    alone = objective.decoder(ids, memory[:1], mask[:1])
    padded = torch.cat([ids, torch.full((1, 3), 9)], dim=1)
    noise = torch.cat([memory[:1], torch.full((1, 2, memory.shape[2]), 1e3)], dim=1)
    wide = objective.decoder(padded, noise, torch.cat([mask[:1], torch.zeros(1, 2, dtype=torch.bool)], dim=1))
    torch.testing.assert_close(wide[:, : ids.shape[1]], alone)


def test_rows_need_a_text_and_something_to_describe(objective, make_model, make_batch, run):
    model = make_model(caption=objective)
    missing = {"video": [0, 1], "audio": [1, 2], "text": [3]}
    ctx = run(model, make_batch(6, missing=missing))
    assert objective.rows(ctx).tolist() == [True, False, True, False, True, True]
    lengths = [3 + i % 6 for i in range(6)]
    assert int(objective(ctx).weight) == sum(lengths[i] - 1 for i in (0, 2, 4, 5))


def test_the_table_of_words_is_that_of_the_text_encoder(context, objective):
    table = context.encoders["text"].words
    assert objective.decoder.words is table
    own = Caption(context=context, share_with=None, heads=2)
    assert own.decoder.words is not table and own.decoder.words.weight.shape == (30, 6)
    assert Caption(context=context, share_with=None, width=8).decoder.words.weight.shape == (30, 8)


def test_first_logits_have_a_variance_of_about_one_whatever_the_table(context, make_model, make_batch, run):
    for spread in (0.02, 1.0, 5.0):
        nn.init.normal_(context.encoders["text"].words.weight, std=spread)
        torch.manual_seed(0)
        objective = Caption(context=context, depth=1, heads=2)
        logits = objective.word_logits(run(make_model(caption=objective), make_batch(6)))
        assert 0.3 < logits.std().item() < 3


def test_without_a_fusion_encoder_the_tokens_of_one_encoder_are_looked_at(context, make_batch, run):
    from vtp.model.model import VTPModel

    encoders = {slot: encoder for slot, encoder in context.encoders.items() if slot != "fusion"}
    objective = Caption(context=BuildContext(encoders=encoders), heads=2)
    assert objective.modalities == ("video",) and not objective.needs_fusion
    ctx = run(VTPModel(encoders, {"caption": objective}), make_batch(3, missing={"video": [1]}))
    memory, mask = objective.memory(ctx)
    assert torch.equal(memory, ctx.tokens("video").x) and mask.any(1).tolist() == [True, False, True]
    assert objective(ctx).loss.isfinite()
    with pytest.raises(ConfigError, match=r"\['video', 'audio'\] need a fusion encoder"):
        Caption(context=BuildContext(encoders=encoders), modalities=["audio", "video"])
    with pytest.raises(ConfigError, match="transcript needs a fusion encoder"):
        Caption(context=BuildContext(encoders=encoders), transcript="said")


def test_what_is_said_is_fused_as_text(context, make_model, make_batch, run):
    objective = Caption(context=context, heads=2, transcript="said").eval()
    assert objective.reads == frozenset({"said"})
    batch = make_batch(3, missing={"text": [2]})
    seen: list[dict[str, Tokens]] = []
    context.encoders["fusion"].register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    batch.extra["said"] = ["7 9", None, "7 9 11"]
    memory, mask = objective.memory(run(make_model(caption=objective), batch))
    (tokens,) = seen
    assert list(tokens) == ["video", "audio", "text"]
    assert tokens["text"].attention_mask.sum(1).tolist() == [4, 0, 5]  # with start and end; also without a caption
    assert torch.equal(tokens["text"].x[0], context.encoders["text"].words(torch.tensor([2, 7, 9, 3, 0])))
    assert memory.shape[1] == mask.shape[1] == 2 + 1 + 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ["text"]}, r"modalities=\['text'\] must be some of video, audio"),
        ({"modalities": []}, "must be some of video, audio"),
        ({"width": 8}, "width=8, but share_with=text uses word embeddings that are 6 wide"),
        ({"heads": 4}, "width=6 must be a multiple of heads=4"),
    ],
)
def test_what_cannot_be_is_refused(context, options, message):
    with pytest.raises(ConfigError, match=message):
        Caption(context=context, **{"heads": 2, **options})


def test_a_text_encoder_without_one_table_or_without_an_end_is_refused(context):
    text = context.encoders["text"]
    text.more = nn.Embedding(30, 6)
    with pytest.raises(ConfigError, match="has 2.*share_with=null"):
        Caption(context=context, heads=2)
    text.spec = replace(text.spec, tokenize=lambda texts: [[7] for _ in texts])
    with pytest.raises(ConfigError, match="puts no end behind a text"):
        Caption(context=context, heads=2, share_with=None)


def test_where_texts_have_no_start_the_padding_id_stands_for_it(context, make_model, make_batch, run):
    text = context.encoders["text"]
    text.spec = replace(text.spec, tokenize=lambda texts: [[7, 3] for _ in texts], cls_id=-1)
    objective = Caption(context=context, heads=2)
    batch = make_batch(2)
    given, labels = objective._target(run(make_model(caption=objective), batch))
    ids = batch.inputs["text"]["token_ids"]
    assert given[:, 0].tolist() == [0, 0] and torch.equal(given[:, 1:], ids[:, :-1])
    assert torch.equal(labels[0, :3], ids[0, :3]) and (labels[0, 3:] == -100).all()
