"""Rows about one clip, and rows with one text, are no negatives of each other: tables with several rows per clip,
through the loader, against the plain formula."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vtp.data import TrainLoader
from vtp.types import MediaRef, Sample
from vtp_objectives.vtc import VTC
from vtp_objectives.vtm import VTM


def questions(clips=4, each=3):
    """Rows of ``clips`` clips; the first text is the same for all of them. Two clips are moments of one film."""
    rows = []
    for clip in range(clips):
        span = (float(clip), clip + 1.0) if clip < 2 else (None, None)
        ref = MediaRef("film.mp4" if clip < 2 else f"v{clip}.mp4", *span)
        for number in range(each):
            text = "7 7" if number == 0 else f"{8 + clip} {14 + number}"
            rows.append(Sample(f"{clip}-{number}", ref, ref, (text,), {}, {"source": f"x.csv:{clip}"}))
    return rows


def text_of(batch):
    mask = batch.inputs["text"]["attention_mask"]
    return [tuple(ids[real].tolist()) for ids, real in zip(batch.inputs["text"]["token_ids"], mask, strict=True)]


def by_formula(sim, clips, texts):
    """-log exp(s_ii) / sum over the row itself and those of other clips with other texts, both directions."""
    total = 0.0
    for scores in (sim, sim.T):
        for i in range(len(sim)):
            others = [j for j in range(len(sim)) if j == i or (clips[j] != clips[i] and texts[j] != texts[i])]
            total += torch.logsumexp(scores[i, others], 0) - scores[i, i]
    return (total / len(sim) / 2).item()


@pytest.mark.parametrize("group, workers, accumulation", [(1, 0, 1), (3, 0, 1), (3, 2, 1), (3, 0, 4), (1, 0, 3)])
def test_vtc_compares_a_row_with_other_clips_and_other_texts(
    context, make_model, make_pipeline, run, take_step, group, workers, accumulation
):
    objective = VTC(context=context)
    loader = TrainLoader(questions(), make_pipeline(), global_batch=12, group=group, workers=workers)
    batch = next(iter(loader))
    assert (batch.media_rows is not None) == (group > 1)
    model = make_model(vtc=objective)
    sim = objective.similarity(run(model, batch), "text", "video").detach().double()
    clips = [name.split("-")[0] for name in batch.ids]  # two moments of one film are two clips
    loss = take_step(model, batch, accumulation=accumulation)["vtc"].loss.item()
    assert loss == pytest.approx(by_formula(sim, clips, text_of(batch)), rel=1e-5)
    assert loss != pytest.approx(by_formula(sim, batch.ids, batch.ids), rel=1e-3)


@pytest.mark.parametrize("swap", [["text"], ["video"]])
def test_vtm_pairs_a_row_with_another_clip_and_another_text(context, make_model, make_pipeline, run, swap):
    loader = TrainLoader(questions(), make_pipeline(), global_batch=12, group=3)
    objective = VTM(context=context, swap=swap)
    for _, batch in zip(range(3), loader, strict=False):
        other = objective._negative_rows(run(make_model(vtm=objective), batch)).tolist()
        texts = text_of(batch)
        for row, partner in enumerate(other):
            assert batch.ids[row].split("-")[0] != batch.ids[partner].split("-")[0] and texts[row] != texts[partner]


def test_moments_of_a_film_are_clips_and_one_video(context, make_model, load, run):
    batch = load(questions(4, 1))
    assert [Path(name).name for name in batch.extra["video_id"]] == [
        "film.mp4[0-1]",
        "film.mp4[1-2]",
        "v2.mp4",
        "v3.mp4",
    ]
    ctx = run(make_model(), batch)
    assert len(ctx.identity("video").unique()) == 4
    whole = ctx.identity("video", whole=True)
    assert whole[0] == whole[1] and len(whole.unique()) == 3
    assert torch.equal(whole, ctx.identity("audio", whole=True))
