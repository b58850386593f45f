"""The objective ``univl_dmae``: its contract, its loss by hand, content words, and what it scores."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.testing import check_objective
from vtp.testing.inputs import TEXTS, batch_for, tiny_encoders
from vtp_univl import content_words
from vtp_univl.dmae import DMAE
from vtp_univl.interaction import neg_nce, token_similarity
from vtp_univl.text import UniVLText

ROWS = 5


def plain_encoders():
    """A text encoder that is not BERT, and tubelets on a grid of two moments."""
    encoders = tiny_encoders()
    return {slot: encoders[slot] for slot in ("text", "video")}


def bert_encoders():
    """BERT of width 8 beside the same tubelets."""
    context = BuildContext(texts=lambda: TEXTS)
    text = UniVLText(context=context, width=8, depth=1, heads=2, tokenizer="texts", max_length=12, positions=16)
    return {"text": text, "video": tiny_encoders()["video"]}


def made(encoders, **options):
    torch.manual_seed(0)
    built = encoders()
    model = VTPModel(built, {"dmae": DMAE(context=BuildContext(encoders=dict(built)), **options)}).eval()
    return model, model.objectives["dmae"]


def some_batch(model, missing=None):
    batch = batch_for(model.specs(), ROWS, {}, missing or {})
    batch.extra = {"video_id": batch.ids, "text": [TEXTS[row % 3] for row in range(ROWS)]}
    return batch


@pytest.mark.parametrize(
    ("encoders", "options"),
    [
        (bert_encoders, {}),
        (plain_encoders, {"interaction": "ti", "with_nfc": False, "loss_type": "cross_entropy"}),
        (
            bert_encoders,
            {"interaction": "att_wti", "wti_arch": 2, "partial_type": 4, "sim_header": "seqTransf", "chunk": 2},
        ),
        (plain_encoders, {"interaction": "wti", "partial_type": 3, "width": 6}),
        (bert_encoders, {"interaction": "att_ti", "partial_type": 2, "max_frames": 5, "max_words": 20}),
    ],
    ids=["wti", "ti", "att_wti", "projected", "att_ti"],
)
def test_it_keeps_the_contract(encoders, options):
    check_objective(DMAE, options, encoders=encoders)


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_one():
    check_objective(DMAE, {"interaction": "att_wti", "partial_type": 4}, encoders=bert_encoders, processes=2)


@pytest.mark.parametrize("encoders", [plain_encoders, bert_encoders])
def test_the_loss_is_the_formula(encoders):
    model, objective = made(encoders, interaction="att_ti")
    batch = some_batch(model)
    ctx = ForwardContext(model, batch)
    loss = objective.loss_from_features(objective.features(ctx)).loss
    sentence = normalize(ctx.pooled("text"), dim=1)[:, None]
    clips = ctx.tokens("video").x.view(ROWS, 2, -1, 8).mean(2)  # two moments
    if encoders is bert_encoders:
        bert = model.encoders["text"].bert
        words = bert.embed(batch.inputs["text"]["token_ids"])
        last = bert.embeddings.word_embeddings(torch.full((ROWS, 1), model.encoders["text"].spec.sep_id))
        frames = bert.embed(torch.cat([clips, last], 1), type_id=1)
    else:
        words, frames = ctx.tokens("text").x, clips
    words, frames, mask = normalize(words, dim=2), normalize(frames, dim=2), batch.inputs["text"]["attention_mask"]
    real = torch.ones(frames.shape[:2])
    sim = token_similarity(sentence, frames, torch.ones(ROWS, 1), real, nfc=True)
    sim = (sim + token_similarity(words, frames, mask.float(), real, nfc=True)) / 2
    torch.testing.assert_close(loss, (neg_nce(sim) + neg_nce(sim.T)) / 2)


def test_padding_changes_nothing():
    model, objective = made(bert_encoders, interaction="att_wti", partial_type=4)
    batch, other = some_batch(model), some_batch(model)
    ids, mask = other.inputs["text"]["token_ids"], other.inputs["text"]["attention_mask"]
    ids = torch.cat([ids, ids.new_zeros(ROWS, 3)], 1)
    mask = torch.cat([mask, mask.new_zeros(ROWS, 3)], 1)
    other.inputs["text"] = {"token_ids": ids.where(mask, torch.tensor(6)), "attention_mask": mask}
    losses = []
    for given in (batch, other):
        ctx = ForwardContext(model, given)
        losses.append(objective.loss_from_features(objective.features(ctx)).loss)
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("interaction", ["ti", "att_wti"])
def test_pairs_have_the_scores_of_the_matrix(interaction, monkeypatch):
    monkeypatch.setattr("vtp_univl.dmae.PAIRS", 7)
    model, objective = made(bert_encoders, interaction=interaction)
    ctx = ForwardContext(model, some_batch(model))
    sim = objective.similarity(ctx, "text", "video")
    text, video = (index.flatten() for index in torch.meshgrid(torch.arange(ROWS), torch.arange(ROWS), indexing="ij"))
    scores = objective.match_logits(ctx, {"text": text, "video": video})
    torch.testing.assert_close(scores.view(ROWS, ROWS), sim)
    torch.testing.assert_close(objective.match_logits(ctx), sim.diagonal())
    assert torch.equal(objective.similarity(ctx, "video", "text"), sim.T)


def test_captions_that_are_equal_are_no_negatives():
    model, objective = made(bert_encoders)
    batch = some_batch(model)
    for tensor in batch.inputs["text"].values():
        tensor[1] = tensor[0]
    ctx = ForwardContext(model, batch)
    features = objective.features(ctx)
    features["frames"] = features["frames"].clone()
    without = objective.loss_from_features({k: v for k, v in features.items() if not k.endswith("identity")}).loss
    assert not torch.allclose(without, objective.loss_from_features(features).loss)


@pytest.fixture
def letters(monkeypatch):
    """A tagger to whom words of more than four letters are content words."""

    def load(name, owner):
        return lambda text, words: [end - start > 4 for start, end in words]

    monkeypatch.setattr(content_words, "load_tagger", load)


@pytest.mark.usefixtures("letters")
def test_content_words_count_twice_wherever_texts_come_from():
    model, objective = made(bert_encoders, interaction="att_ti", use_twm=True)
    spec = model.encoders["text"].spec
    ids = spec.tokenize(list(TEXTS))
    longest = max(map(len, ids))
    batch = replace(some_batch(model).rows(0, 3), inputs=dict(some_batch(model).rows(0, 3).inputs))
    batch.inputs["text"] = {
        "token_ids": torch.tensor([row + [spec.pad_id] * (longest - len(row)) for row in ids]),
        "attention_mask": torch.tensor([[i < len(row) for i in range(longest)] for row in ids]),
    }
    batch.extra["text"] = list(TEXTS)
    mask = objective._texts(ForwardContext(model, batch))["word_mask"]
    # [CLS] a red ball moves to the left [SEP];  [CLS] two blue boxes stand still [SEP];  [CLS] what moves ? [SEP]
    want = [[1, 1, 1, 1, 2, 1, 1, 1, 1], [1, 1, 1, 2, 2, 2, 1, 0, 0], [1, 1, 2, 1, 1, 0, 0, 0, 0]]
    assert mask.tolist() == [row + [0] * 3 for row in want]
    batch.extra["text"] = [None, None, None]  # as where texts and clips come from two batches
    assert torch.equal(objective._texts(ForwardContext(model, batch))["word_mask"], mask)


def test_a_batch_with_more_clips_than_the_margins_know_is_refused():
    model, objective = made(bert_encoders, partial_type=4, max_frames=1)
    with pytest.raises(ConfigError, match=r"2 clip tokens.*max_frames=1"):
        objective.features(ForwardContext(model, some_batch(model)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interaction": "ti", "use_twm": True}, "interaction=att_ti"),
        ({"max_words": 4}, "at least 12"),
    ],
)
def test_options_without_a_meaning_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        made(bert_encoders, **options)


def test_widths_that_differ_need_a_projection():
    def wider():
        text = UniVLText(context=BuildContext(texts=lambda: TEXTS), width=16, depth=1, heads=2, tokenizer="texts")
        return {"text": text, "video": tiny_encoders()["video"]}

    model, objective = made(wider)  # clips are mapped into BERT's embedding space
    assert objective.clip_proj.weight.shape == (16, 8)
    assert objective.similarity(ForwardContext(model, some_batch(model)), "text", "video").shape == (ROWS, ROWS)
