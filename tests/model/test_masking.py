"""Masks: how many, where, which words, and that they depend on nothing but seed, step and row."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from vtp.cli.run import compose
from vtp.data import Pipeline, collate
from vtp.errors import ConfigError
from vtp.model.build import BuildContext, build_model
from vtp.model.context import ForwardContext
from vtp.model.masking import (
    AXES,
    MASKS,
    AudioMask,
    VideoMask,
    WeightedWordMask,
    WordMask,
    draw_mask,
    grid_of,
    replace_words,
    select_by_weight,
    split_mask,
)
from vtp.model.model import VTPModel
from vtp.model.objective import Objective
from vtp.types import Sample, TextSpec

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "antmmf_losses.pt"
GRID = (8, 14, 14)
MASK, VOCABULARY = 3, 20  # of the stub tokenizer; its special ids are 0 to 4


def video_mask(kind, ratio, rows=5, grid=GRID):
    return draw_mask(grid, AXES["video"][kind], ratio, torch.rand(rows, math.prod(grid)))


@pytest.mark.parametrize("ratio, per_slot", [(0.9, 176), (0.75, 147), (0.0, 0), (0.999, 195)])
def test_tube_hides_the_same_places_in_every_slot(ratio, per_slot):
    mask = video_mask("tube", ratio).view(5, 8, 196)
    assert (mask.sum(2) == per_slot).all()
    assert (mask == mask[:, :1]).all()


@pytest.mark.parametrize("ratio, count", [(0.9, 1411), (0.75, 1176)])
def test_token_hides_an_equal_count_anywhere(ratio, count):
    mask = video_mask("token", ratio)
    assert (mask.sum(1) == count).all()
    assert (mask.view(5, 8, 196).sum(2) != count // 8).any()


def test_frame_hides_whole_slots():
    slots = video_mask("frame", 0.75).view(5, 8, 196).float().mean(2)
    assert set(slots.unique().tolist()) == {0.0, 1.0} and (slots.sum(1) == 6).all()


@pytest.mark.parametrize("kind, axis", [("time", 1), ("frequency", 0)])
def test_time_and_frequency_hide_whole_lines_of_a_spectrogram(kind, axis):
    mask = draw_mask((4, 10), AXES["audio"][kind], 0.5, torch.rand(6, 40)).view(6, 4, 10)
    lines = mask.transpose(1, 2) if axis == 1 else mask  # (B, lines, places of a line)
    assert (lines.all(2) == lines.any(2)).all()
    assert (lines.all(2).sum(1) == (5 if axis == 1 else 2)).all()


def test_every_place_is_hidden_equally_often():
    share = video_mask("tube", 0.75, 4000, (1, 4, 4)).float().mean(0)
    assert (share - 0.75).abs().max() < 0.04  # six standard deviations


def test_split_gives_ascending_positions_of_both_parts():
    mask = video_mask("token", 0.6, 3, (2, 3, 4))
    visible, hidden = split_mask(mask, 24 - int(0.6 * 24))
    for row in range(3):
        assert visible[row].tolist() == (~mask[row]).nonzero()[:, 0].tolist()
        assert hidden[row].tolist() == mask[row].nonzero()[:, 0].tolist()


def gridded(model, grid=(2, 2, 2)):
    model.encoders["video"].grid = grid
    model.encoders["audio"].grid = (4,)
    return model


@pytest.mark.parametrize("video", [VideoMask("tube", 0.5), VideoMask("token", 0.5), VideoMask("frame", 0.5)])
@pytest.mark.parametrize("text", [WordMask(0.5, "bert"), WordMask(0.5, "mask")])
def test_masks_do_not_depend_on_how_the_batch_is_cut(model, make_batch, video, text):
    gridded(model).masks |= {"video": video, "text": text, "audio": AudioMask("time", 0.5)}
    batch = make_batch(6)

    def drawn(part):
        ctx = ForwardContext(model, part)
        masks = [ctx.inputs(m, ctx.masked(m))["mask"] for m in ("video", "audio")]
        return *masks, ctx.inputs("text", ctx.masked("text"))["token_ids"]

    whole = drawn(batch)
    parts = [drawn(batch.rows(0, 2)), drawn(batch.rows(2, 6))]
    for i in range(3):
        assert torch.equal(whole[i], torch.cat([part[i] for part in parts]))
    batch.step = 1
    assert not all(torch.equal(a, b) for a, b in zip(whole, drawn(batch), strict=True))


@pytest.mark.parametrize(
    "mask, key, columns",
    [
        (VideoMask("tube", 0.5), "simvtp.tube0.5", 8),
        (WordMask(0.5, "mask"), "simvtp.words0.5", 6),
        (WordMask(0.5, "bert"), "mlm", 18),
    ],
)
def test_random_numbers_keep_their_key_and_shape(model, make_batch, monkeypatch, mask, key, columns):
    """Part of what makes a run repeatable with a later version; 6 is the longest text."""
    ctx, asked = ForwardContext(gridded(model), make_batch()), []
    monkeypatch.setattr(ctx, "uniform", lambda *given: asked.append(given) or torch.rand(3, given[1]))
    mask.view(ctx)
    assert asked == [(key, columns)]


def test_masks_do_not_depend_on_padding(model, make_batch):
    model.masks["text"] = WordMask(0.5)
    batch = make_batch(6)

    def labels():
        ctx = ForwardContext(model, batch)
        return ctx.inputs("text", ctx.masked("text"))["labels"]

    whole = labels()
    batch.inputs["text"] = {name: tensor[:, :4] for name, tensor in batch.inputs["text"].items()}
    assert torch.equal(labels(), whole[:, :4])


def test_equal_masks_are_one_view(model, make_batch):
    ctx = ForwardContext(gridded(model), make_batch())
    assert ctx.masked("video") == ctx.masked("video") == VideoMask("tube", 0.9).view(ctx) == "tube0.9"
    assert ctx.masked("text") == "bert0.15" and ctx.masked("audio") == "token0.3"
    assert VideoMask("token", 0.9).view(ctx) == "token0.9"


def test_clips_of_one_video_get_masks_of_their_own(model, make_batch):
    batch = make_batch(2)
    frames = batch.inputs["video"]["frames"]
    batch.inputs["video"]["frames"] = torch.stack([frames] * 3, dim=1)
    ctx = ForwardContext(gridded(model, (2, 1, 1)), batch)
    made = ctx.inputs("video", VideoMask("frame", 0.5).view(ctx))
    assert made["mask"].shape == (2, 3, 2) and (made["mask"].sum(2) == 1).all()
    assert made["visible"].shape == made["hidden"].shape == (2, 3, 1)
    assert (made["hidden"] != made["hidden"][:, :1]).any()


def test_a_shorter_clip_has_a_shorter_grid():
    class Encoder(nn.Module):
        grid = (4, 2, 2)
        spec = type("Spec", (), {"frames": 8})

    assert grid_of(Encoder(), "video", torch.zeros(1, 4, 16, 16, 3)) == (2, 2, 2)
    assert grid_of(Encoder(), "video") == (4, 2, 2)


def test_an_encoder_without_a_grid_is_refused(model, make_batch):
    ctx = ForwardContext(model, make_batch())
    with pytest.raises(ConfigError, match=r"Frames has no attribute grid = \(T', H', W'\)"):
        ctx.masked("video")


# -- words -----------------------------------------------------------------------------------------------------------


def by_brute_force(ids, selected, action, others, share_masked):
    """Token by token, as BERT's paper words it."""
    masked, labels = [row[:] for row in ids], [[-100] * len(ids[0]) for _ in ids]
    for b, row in enumerate(ids):
        for k, token in enumerate(row):
            if not selected[b][k]:
                continue
            labels[b][k] = token
            if action[b][k] < share_masked:
                masked[b][k] = MASK
            elif action[b][k] < share_masked + (1 - share_masked) / 2:
                masked[b][k] = others[b][k]
    return masked, labels


@pytest.mark.parametrize("share_masked", [0.8, 1.0, 0.2])
def test_replacing_equals_the_loop(share_masked):
    ids, others = torch.randint(5, VOCABULARY, (2, 40, 12))
    selected, action = torch.rand(40, 12) < 0.5, torch.rand(40, 12)
    before = ids.clone()
    masked, labels = replace_words(ids, selected, action, others, MASK, share_masked)
    expected = by_brute_force(ids.tolist(), selected.tolist(), action.tolist(), others.tolist(), share_masked)
    assert masked.tolist() == expected[0] and labels.tolist() == expected[1]
    assert torch.equal(ids, before)


def long_text(make_batch, n=20_000):
    batch = make_batch(8)
    batch.inputs["text"] = {"token_ids": torch.full((8, n), 5), "attention_mask": torch.ones(8, n, dtype=torch.bool)}
    return batch


def test_shares_are_those_of_bert(model, make_batch):
    ctx = ForwardContext(model, long_text(make_batch))
    made = ctx.inputs("text", ctx.masked("text"))
    n, masked, labels = 160_000, made["token_ids"], made["labels"]
    selected = (labels != -100).sum().item()
    other = masked[(masked != 5) & (masked != MASK)]  # one random word in fifteen is the word itself
    for count, of, share in [
        (selected, n, 0.15),
        ((masked == MASK).sum().item(), selected, 0.8),
        (len(other), selected, 0.1 * 14 / 15),
    ]:
        assert abs(count / of - share) < 4 * math.sqrt(share * (1 - share) / of)
    assert other.unique().tolist() == list(range(6, VOCABULARY))  # every ordinary word, no special one


def test_random_words_are_drawn_evenly_around_special_ids_anywhere(model, make_batch):
    special = (0, 3, 4, 7, 19)
    model.encoders["text"].spec = replace(model.encoders["text"].spec, special_ids=special)
    ctx = ForwardContext(model, long_text(make_batch))
    masked = ctx.inputs("text", WordMask(1.0, "bert").view(ctx))["token_ids"]
    counts = masked[(masked != MASK) & (masked != 5)].bincount(minlength=VOCABULARY).tolist()
    ordinary = sorted(set(range(VOCABULARY)) - set(special) - {5})
    assert [i for i, count in enumerate(counts) if count] == ordinary
    mean = sum(counts) / len(ordinary)
    assert all(abs(counts[i] - mean) < 5 * math.sqrt(mean) for i in ordinary)


@pytest.mark.parametrize("replaced", ["bert", "mask"])
def test_special_padded_and_missing_words_are_never_selected(model, make_batch, replaced):
    batch = make_batch(6)
    batch.inputs["text"]["token_ids"][1, 3] = 4  # an unknown word
    batch.present["text"][2] = False
    ctx = ForwardContext(model, batch)
    ids, real = (batch.inputs["text"][name] for name in ("token_ids", "attention_mask"))
    before = ids.clone()
    made = ctx.inputs("text", WordMask(1.0, replaced).view(ctx))
    selected = made["labels"] != -100
    assert torch.equal(selected, (ids > 4) & real & batch.present["text"][:, None])
    assert torch.equal(made["labels"][selected], ids[selected])
    assert torch.equal(made["token_ids"][~selected], ids[~selected]) and torch.equal(ids, before)
    if replaced == "mask":
        assert (made["token_ids"][selected] == MASK).all()


def test_words_are_drawn_without_replacement_in_proportion_to_their_weight():
    """Two of three positions: the chance of each pair from the two draws, written out."""
    w, rows = [1.0, 2.0, 5.0], 40_000
    weights = torch.tensor([[*w, 0.0]]).repeat(rows, 1)
    drawn = select_by_weight(weights, torch.full((rows,), 2), torch.rand(rows, 4))
    assert (drawn.sum(1) == 2).all() and not drawn[:, 3].any()
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        total = sum(w)
        chance = w[i] / total * w[j] / (total - w[i]) + w[j] / total * w[i] / (total - w[j])
        seen = (drawn[:, i] & drawn[:, j]).float().mean().item()
        assert abs(seen - chance) < 4 * math.sqrt(chance * (1 - chance) / rows)
    asked_for_all = select_by_weight(weights[:5], torch.full((5,), 4), torch.rand(5, 4))
    assert asked_for_all.tolist() == [[True, True, True, False]] * 5  # never one of weight 0


def test_a_weighted_mask_selects_a_fixed_number_of_words(model, make_batch):
    """Half of 2 or 4 words, at least one; words of weight 0 never."""
    weights = torch.ones(6, 5)
    weights[3:, 1] = 0
    mask = WeightedWordMask("attentive", lambda ctx: weights, share=0.5)
    batch = make_batch(6)
    batch.inputs["text"]["token_ids"][0, 0] = 1
    ctx = ForwardContext(model, batch)
    made = ctx.inputs("text", mask.view(ctx))
    selected = made["labels"] != -100
    words = (batch.inputs["text"]["token_ids"] > 4) & batch.inputs["text"]["attention_mask"]
    assert selected.sum(1).tolist() == [max(int(n * 0.5), 1) for n in words.sum(1).tolist()]
    assert not selected[3:, 1].any() and not (selected & ~words).any()
    assert (made["token_ids"][selected] == MASK).all()
    model.masks["text"] = mask
    assert ForwardContext(model, batch).masked("text") == "attentive"


def test_weights_of_the_released_attentive_masking(model, make_batch):
    """AntMMF's importance of words, with special tokens at 0: as many words as there, none of them special."""
    if not GOLDEN.is_file():
        pytest.skip(f"the recorded losses of the released code are not at {GOLDEN}")
    case = torch.load(GOLDEN, weights_only=True)["attentive_masking"]
    ids = case["raw_ids"]
    ordinary = (ids != 101) & (ids != 102) & (ids != 0)
    count = (ordinary.sum(1) * 0.15).long().clamp(min=1)
    assert torch.equal(count, case["number"].long())
    drawn = select_by_weight(case["weights"] * ordinary, count, torch.rand(ids.shape))
    assert torch.equal(drawn.sum(1), count) and not (drawn & ~ordinary).any()


# -- the node masks --------------------------------------------------------------------------------------------------


def test_the_configuration_states_what_the_classes_default_to():
    assert compose([])["masks"] == {m: {f: getattr(cls(), f) for f in cls.__slots__} for m, cls in MASKS.items()}


def test_masks_are_built_from_the_specification_and_stored_in_it():
    given = {"video": {"kind": "token", "ratio": 0.5}, "text": {"probability": 0.75, "replace": "mask"}}
    model = build_model({"encoders": {}, "masks": given}, lookup=None)
    assert model.masks == {"video": VideoMask("token", 0.5), "audio": AudioMask(), "text": WordMask(0.75, "mask")}
    again = build_model(json.loads(json.dumps(model.spec)), lookup=None)
    assert again.masks == model.masks and again.spec == model.spec


def test_an_objective_may_bring_a_mask_that_all_share():
    """The specification keeps what was configured; building it again brings the mask again."""

    class Attentive(Objective):
        def __init__(self, *, context: BuildContext):
            super().__init__()
            assert context.masks["text"] == WordMask(0.3)
            context.masks["text"] = WeightedWordMask("attentive", lambda ctx: ctx.inputs("text")["token_ids"].float())

    spec = {"encoders": {}, "objectives": {"it": {"name": "it"}}, "masks": {"text": {"probability": 0.3}}}
    for given in (spec, build_model(spec, lambda *args, **kwargs: Attentive).spec):
        made = build_model(given, lambda *args, **kwargs: Attentive)
        assert made.masks["text"].name == "attentive" and made.masks["video"] == VideoMask()
        assert made.spec["masks"]["text"] == {"probability": 0.3, "replace": "bert", "whole_words": False}


def test_every_mistake_in_the_masks_is_a_line_of_its_own():
    wrong = {
        "vidoe": {},
        "video": {"kind": "random", "ration": 0.5},
        "audio": {"ratio": "much"},
        "text": {"probability": 1.5},
    }
    with pytest.raises(ConfigError) as error:
        build_model({"encoders": {}, "masks": wrong}, lookup=None)
    lines = str(error.value).splitlines()
    assert lines[0] == "5 problems with the model:"
    assert "masks: no modality 'vidoe'. Did you mean 'video'?" in lines[1]
    assert "masks.video.kind=random is now masks.video.kind=token" in lines[2]
    assert "masks.video: VideoMask has no option 'ration'. Did you mean 'ratio'?" in lines[3]
    assert "masks.audio.ratio: expected float, got 'much'" in lines[4]
    assert "masks.text: probability=1.5 must lie between 0 and 1" in lines[5]


@pytest.mark.parametrize(
    "masks, words",
    [
        ({"video": {"kind": "box"}}, "masks.video.kind: expected one of 'tube', 'token', 'frame', got 'box'"),
        ({"video": {"ratio": 1.0}}, r"masks.video: ratio=1.0 must be a share in \[0, 1\)"),
        ({"audio": {"kind": "tube"}}, "expected one of 'token', 'time', 'frequency'"),
        ({"text": {"replace": "all"}}, "masks.text.replace: expected one of 'bert', 'mask', got 'all'"),
        ({"video": "tube"}, "masks.video: expected options, got 'tube'"),
    ],
)
def test_wrong_values_are_explained(masks, words):
    with pytest.raises(ConfigError, match=words):
        build_model({"encoders": {}, "masks": masks}, lookup=None)


class Syllables(nn.Module):
    """Text: words of 1 to 3 tokens, ``"ab c"`` -> [1] a b c [2] with ids from 5 on."""

    width = 4

    def __init__(self, boundaries: bool = True) -> None:
        super().__init__()
        words = _syllables if boundaries else None
        self.spec = TextSpec(_syllable_ids, 0, 3, 1, 2, (0, 1, 2, 3, 4), 20, 12, words=words)
        self.words = nn.Embedding(20, 4)


def _syllables(text: str) -> list[tuple[str, list[int]]]:
    return [(word, [5 + ord(letter) - ord("a") for letter in word]) for word in text.split()]


def _syllable_ids(texts: list[str]) -> list[list[int]]:
    return [[1, *(i for _, ids in _syllables(text) for i in ids), 2] for text in texts]


class Letters(Syllables):
    """The same without word boundaries."""

    def __init__(self) -> None:
        super().__init__(boundaries=False)


SPOKEN = ["abc d ef", "a", "ab abc ab c", "", "fed ba cab", "d d ab"]


def spoken(rows=None, **mask):
    """A context over these texts, through the pipeline, with a mask of whole words."""
    encoder = Syllables()
    pipeline = Pipeline({"text": encoder.spec}, train=False)
    samples = [Sample(f"s{row}", texts=(text,)) for row, text in enumerate(SPOKEN * 50)]
    batch = collate([pipeline(sample, 0, row) for row, sample in enumerate(samples)], pipeline.specs)
    model = VTPModel({"text": encoder}, seed=5, masks={"text": WordMask(**mask)})
    return ForwardContext(model, batch if rows is None else batch.rows(*rows)), batch


@pytest.mark.parametrize("replaced", ["bert", "mask"])
def test_whole_words_are_selected_with_all_of_their_tokens(replaced):
    ctx, batch = spoken(probability=0.3, replace=replaced, whole_words=True)
    labels = ctx.inputs("text", ctx.masked("text"))["labels"]
    chosen = total = 0
    for row, text in zip(labels, batch.extra["text"], strict=True):
        place = 1
        for _, ids in _syllables(text):
            selected = row[place : place + len(ids)] != -100
            assert selected.all() or not selected.any()
            chosen, total, place = chosen + int(selected[0]), total + 1, place + len(ids)
        assert (row[place:] == -100).all() and row[0] == -100
    assert chosen / total == pytest.approx(0.3, abs=0.05)
    assert ctx.masked("text") == f"{replaced}0.3whole"


def test_whole_words_keep_the_draw_of_their_first_token():
    """The same numbers as without, so that switching it on moves no other draw."""
    whole, batch = spoken(probability=0.3, whole_words=True)
    apart, _ = spoken(probability=0.3)
    found, single = (ctx.inputs("text", ctx.masked("text"))["labels"] for ctx in (whole, apart))
    for row, (text, one) in enumerate(zip(batch.extra["text"], single, strict=True)):
        place = 1
        for _, ids in _syllables(text):
            assert (found[row, place] != -100) == (one[place] != -100)
            place += len(ids)
    part, _ = spoken(rows=(7, 31), probability=0.3, whole_words=True)
    assert torch.equal(
        part.inputs("text", part.masked("text"))["labels"], found[7:31, : part.inputs("text")["token_ids"].shape[1]]
    )


def test_whole_words_need_a_tokenizer_that_knows_them():
    words = {"encoders": {"text": {"name": "syllables"}}, "masks": {"text": {"whole_words": True}}}
    assert build_model(words, lookup=lambda *_, **__: Syllables).masks["text"].whole_words
    with pytest.raises(ConfigError, match=r"masks.text: whole_words=true needs a text encoder whose tokenizer knows"):
        build_model(words, lookup=lambda *_, **__: Letters)
    ctx, _ = spoken(probability=0.3, whole_words=True)
    ctx.model.encoders["text"].spec = replace(ctx.model.encoders["text"].spec, words=None)
    with pytest.raises(ConfigError, match="TextSpec.words"):
        ctx.masked("text")


def test_a_text_that_is_withheld_has_no_words():
    ctx, batch = spoken(probability=1.0, whole_words=True)
    batch.present["text"][:] = False
    batch.inputs["text"] = {
        "token_ids": torch.zeros(300, 3, dtype=torch.int64),
        "attention_mask": torch.zeros(300, 3).bool(),
    }
    ctx = ForwardContext(ctx.model, batch)
    assert (ctx.inputs("text", ctx.masked("text"))["labels"] == -100).all()
