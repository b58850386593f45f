"""Local vision-word matching: the recorded losses, loops, which words are chosen, and what it takes from a model."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from objective_models import build, gradients, random_batch, take_step
from torch.nn.functional import normalize
from word_tables import TextOnly, context_of, numbered_spec, ranked_table, table_of

from vtp.errors import ConfigError
from vtp.model.context import ForwardContext
from vtp.model.losses import mil_nce
from vtp_snps3.lvwm import LVWM, choose_positions, vision_word_similarity
from vtp_snps3.significant import Significant
from vtp_univl.clips import clip_features
from vtp_univl.losses import mil_nce_of_clips


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_recorded_one(golden: Any) -> None:
    """Words as they are, no temperature: what the released code computes."""
    for case in golden["lvwm"]:
        words, clips = case["words"].clone().requires_grad_(), case["video"].clone().requires_grad_()
        video = clips.unflatten(0, (-1, case["clips"]))
        sim = vision_word_similarity(words, video)
        close(sim.logsumexp(dim=2), case["sim"])
        loss = mil_nce_of_clips(sim).mean()
        close(loss, case["loss"])
        loss.backward()
        close(words.grad, case["grad_words"])
        close(clips.grad, case["grad_video"])


@pytest.mark.parametrize(("clips", "temperature"), [(1, 1.0), (3, 0.05)])
def test_the_loss_is_that_of_loops(clips: int, temperature: float) -> None:
    rows, chosen = 4, 3
    words = normalize(torch.randn(rows, chosen, 8), dim=2)
    video = normalize(torch.randn(rows, clips, 8), dim=2)
    sim = torch.empty(rows, rows, clips)
    for a in range(rows):
        for b in range(rows):
            for c in range(clips):
                total = sum(math.exp(float(words[a, k] @ video[b, c]) / temperature) for k in range(chosen))
                sim[a, b, c] = math.log(total)
    close(vision_word_similarity(words, video, temperature), sim)
    large = sim.repeat_interleave(clips, dim=0).flatten(1)  # each text n times
    bag = torch.arange(rows).repeat_interleave(clips)
    want = mil_nce(large, bag)[torch.arange(rows) * clips + clips // 2]
    close(mil_nce_of_clips(vision_word_similarity(words, video, temperature)), want)


def test_positions_are_allowed_as_recorded(golden: Any) -> None:
    case = golden["lvwm_positions"]
    spec = numbered_spec(length=10)
    significant = Significant(ranked_table(spec, case["rank"]), case["top_k"], spec, released=True)
    lengths = (case["raw_ids"] != 0).sum(dim=1).tolist()
    rows = [row[:length] for row, length in zip(case["raw_ids"].tolist(), lengths, strict=True)]
    seen: list[Counter[int]] = [Counter() for _ in rows]
    objective = object.__new__(LVWM)
    torch.nn.Module.__init__(objective)
    objective.significant, objective.spec, objective.chosen = significant, spec, case["words"]
    for step in range(200):
        places = objective.positions(context_of(spec, rows, step=step))
        assert places.shape == (len(rows), case["words"])
        for row, (own, allowed) in enumerate(zip(places.tolist(), case["allowed"], strict=True)):
            there = set(allowed.nonzero()[:, 0].tolist())
            assert set(own) <= there
            assert len(set(own)) == min(len(there), case["words"])  # distinct, or each at least once
            seen[row].update(own)
    for counts, allowed in zip(seen, case["allowed"], strict=True):
        assert set(counts) == set(allowed.nonzero()[:, 0].tolist())  # in the long run every one of them


def test_every_allowed_position_is_drawn_equally_often() -> None:
    allowed = torch.zeros(8000, 9, dtype=torch.bool)
    allowed[:, [1, 4, 5, 8]] = True
    places = choose_positions(allowed, torch.rand(8000, 9), torch.rand(8000, 2))
    counts = torch.bincount(places.flatten(), minlength=9)[[1, 4, 5, 8]]
    assert (counts - 4000).abs().max() < 4 * math.sqrt(8000 * 0.25)
    short = choose_positions(allowed[:, :3], torch.rand(8000, 3), torch.rand(8000, 5))  # fewer places than words
    assert (short == 1).all()
    assert choose_positions(~torch.ones(2, 2, dtype=torch.bool), torch.rand(2, 2), torch.rand(2, 3)).tolist() == [
        [0, 1, 1],
        [0, 1, 1],
    ]


def test_padding_and_micro_batches_do_not_change_what_is_chosen() -> None:
    spec = numbered_spec()
    objective = object.__new__(LVWM)
    torch.nn.Module.__init__(objective)
    objective.significant, objective.spec, objective.chosen = Significant(table_of(spec, {(9,): 1}), 9, spec), spec, 3
    rows = [[101, *range(160, 180), 102], [101, *range(150, 158), 102]]
    alone = context_of(spec, rows[1:])
    alone.batch.global_rows, alone.batch.row_offset = 2, 1
    assert torch.equal(objective.positions(context_of(spec, rows))[1:], objective.positions(alone))


def test_words_before_and_after_the_layers() -> None:
    model = build("univl", ["snps3/lvwm"], "objectives.lvwm.stage=both")
    lvwm: Any = model.objectives["lvwm"]
    ctx = ForwardContext(model, random_batch(model, 5))
    places = lvwm.positions(ctx)
    found = lvwm.features(ctx)
    text: Any = model.encoders["text"]
    inputs = ctx.inputs("text")
    for stage, x in (("before", text.embed(**inputs).x), ("after", text(**inputs).x)):
        want = torch.stack([x[row, place] for row in range(5) for place in places[row]]).view(5, 3, -1)
        close(found[stage], normalize(want, dim=2))
    close(found["video"], clip_features(ctx))
    together = lvwm.loss_from_features(found).loss
    alone = []
    for stage in ("before", "after"):
        lvwm.stages = (stage,)
        alone.append(lvwm.loss_from_features(found).loss)
    close(together, alone[0] + alone[1])


def test_the_released_variant_has_words_as_they_are_and_no_temperature() -> None:
    released: Any = build("univl", ["snps3/lvwm"], released=True).objectives["lvwm"]
    repaired: Any = build("univl", ["snps3/lvwm"]).objectives["lvwm"]
    assert (released.normalize, released.temperature, released.mask_duplicates) == (False, 1.0, False)
    assert (repaired.normalize, repaired.temperature, repaired.mask_duplicates) == (True, 0.05, True)
    assert len(released.significant.table.words) >= len(repaired.significant.table.words)


def test_clips_of_one_video_are_no_negatives() -> None:
    model = build("univl", ["snps3/lvwm"])
    lvwm: Any = model.objectives["lvwm"]
    batch = random_batch(model, 4)
    batch.extra["video_id"] = ["a", "b", "a", "c"]
    features = lvwm.features(ForwardContext(model, batch))
    sim = vision_word_similarity(features["after"], features["video"], 0.05)
    excluded = torch.zeros(4, 4, dtype=torch.bool)
    excluded[0, 2] = excluded[2, 0] = True
    close(lvwm.loss_from_features(features).loss, mil_nce_of_clips(sim, excluded).mean())


@pytest.mark.parametrize("model", ["base", pytest.param("simvtp", marks=pytest.mark.slow)])
def test_models_of_others(model: str) -> None:
    found = build(model, ["snps3/lvwm"])
    seen = take_step(found, random_batch(found, 6))
    assert seen["lvwm"].loss.isfinite() and float(seen["lvwm"].weight) == 6
    assert any(name.startswith("encoders.text.") and grad.abs().sum() > 0 for name, grad in gradients(found).items())


def test_the_embedding_layer_of_simvtp_is_its_text_encoder() -> None:
    found = build("simvtp", ["snps3/lvwm"], "objectives.lvwm.stage=before")
    lvwm: Any = found.objectives["lvwm"]
    ctx = ForwardContext(found, random_batch(found, 3))
    x = ctx.tokens("text").x
    want = x.gather(1, lvwm.positions(ctx)[..., None].expand(-1, -1, x.shape[2]))
    close(lvwm.features(ctx)["before"], normalize(want.float(), dim=2))


def test_other_widths_need_a_common_space() -> None:
    with pytest.raises(ConfigError, match="32 .video., 48 .after.. Give objectives.lvwm.width"):
        build("base", ["snps3/lvwm"], "encoder.text.width=48", "encoder.fusion.width=32")
    model = build("base", ["snps3/lvwm"], "encoder.text.width=48", "objectives.lvwm.width=16")
    assert take_step(model, random_batch(model, 4))["lvwm"].loss.isfinite()
    assert gradients(model)["objectives.lvwm.proj.after.weight"].abs().sum() > 0


def test_an_encoder_without_an_embedding_layer_of_its_own() -> None:
    spec = numbered_spec()
    del spec
    with pytest.raises(ConfigError, match="stage=before needs a text encoder that gives its embedding layer"):
        model = build("base", ["snps3/lvwm"])
        from vtp.model.build import BuildContext

        encoders: Any = dict(model.encoders.items())
        encoders["text"] = TextOnly(model.specs()["text"], 32)  # type: ignore[arg-type]
        LVWM(context=BuildContext(texts=lambda: ["a red ball"], encoders=encoders), stage="before")
