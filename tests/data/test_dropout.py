"""Modality dropout: how often, which rows, and that nothing but seed, step and row matters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vtp.data import Pipeline, TrainLoader
from vtp.data.dropout import withhold
from vtp.media import VideoInfo
from vtp.types import AudioSpec, Batch, Clip, MediaRef, Sample, TextSpec, VideoSpec

TEXT = TextSpec(lambda texts: [[1, 7, 2] for _ in texts], 9, 3, 1, 2, (1, 2, 3, 9), 20, 8)
SPECS = {"video": VideoSpec(frames=1, size=2), "audio": AudioSpec(8, 1.0), "text": TEXT}
SHARES = {"video": 0.5, "audio": 0.3, "text": 0.2}


class Flat:
    def read(self, ref, wanted):
        wanted.times(VideoInfo(0, "flat", 2, 2, 10.0, np.arange(9) / 10, 0.9))
        return Clip(
            np.full((1, 2, 2, 3), 5, np.uint8),
            np.zeros(1),
            None if wanted.sample_rate is None else np.ones((1, 8), np.float32),
        )


class Whole:
    decode_size = 2

    def __call__(self, frames, seed):
        return frames


def table(count=40, each=1):
    refs = [MediaRef(f"v{row // each}") for row in range(count)]
    return [Sample(f"s{row}", ref, ref if row // each % 4 else None, ("x",)) for row, ref in enumerate(refs)]


def stream(shares, steps=3, world=1, group=1, **options) -> list[Batch]:
    """Batches of all processes, joined."""
    pipeline = Pipeline(SPECS, train=True, reader=Flat(), transform=Whole())
    parts = []
    for rank in range(world):
        loader = TrainLoader(
            table(each=group), pipeline, global_batch=40, rank=rank, world_size=world, group=group,
            modality_dropout=shares, **options,
        )  # fmt: skip
        iterator = iter(loader)
        parts.append([next(iterator) for _ in range(steps)])
        iterator.close()
    return [batch for part in zip(*parts, strict=True) for batch in part]


def present(batches) -> dict[str, list[bool]]:
    return {m: torch.cat([batch.present[m] for batch in batches]).tolist() for m in SPECS}


def many(shares, rows=20000) -> tuple[np.ndarray, np.ndarray]:
    """bool (3, rows) twice: what rows had and what they have left. Every fourth row is silent."""
    had = {m: torch.ones(rows, dtype=torch.bool) for m in SPECS}
    had["audio"][::4] = False
    ids = torch.full((rows, 3), 7)
    text = {"token_ids": ids, "attention_mask": torch.ones_like(ids, dtype=torch.bool)}
    batch = Batch([""] * rows, {"text": text}, dict(had), global_rows=rows)
    withhold(batch, shares, seed=3)
    return np.array([had[m].numpy() for m in SPECS]), np.array([batch.present[m].numpy() for m in SPECS])


def test_each_modality_goes_as_often_as_asked_and_never_all():
    had, left = many(SHARES)
    assert left.any(0).all() and not (left & ~had).any()
    lost = ~left[:, had.all(0)]  # of rows that have all three
    keeps_one = 0.5 * 0.3 * 0.2 / 3  # all would go, and this one stays
    for gone, share in zip(lost, SHARES.values(), strict=True):
        assert gone.mean() == pytest.approx(share - keeps_one, abs=0.015)
    assert (lost[0] & lost[1]).mean() == pytest.approx(0.5 * 0.3 - 2 * keeps_one, abs=0.015)  # independent
    silent = ~left[:, ~had[1]]
    assert silent[0].mean() == pytest.approx(0.5 - 0.5 * 0.2 / 2, abs=0.02)


def test_of_all_that_would_go_each_stays_as_often():
    had, left = many({"video": 0.98, "audio": 0.9, "text": 0.8})
    one = left[:, had.all(0) & (left.sum(0) == 1)]
    all_gone, alone = 0.98 * 0.9 * 0.8 / 3, [0.02 * 0.9 * 0.8, 0.98 * 0.1 * 0.8, 0.98 * 0.9 * 0.2]
    want = np.array(alone) + all_gone
    assert one.mean(1) == pytest.approx(want / want.sum(), abs=0.015)


def test_it_depends_on_seed_step_and_row_alone():
    want = present(stream(SHARES))
    assert present(stream(SHARES, workers=2)) == want
    two = [present([batch]) for batch in stream(SHARES, world=2)]
    joined = {m: [here for part in two for here in part[m]] for m in SPECS}
    assert joined == want
    assert present(stream(SHARES, seed=1)) != want
    steps = [present([batch]) for batch in stream(SHARES)]
    assert steps[0] != steps[1]
    alone = present(stream({"audio": 0.3}))
    rows = [i for i, (video, text) in enumerate(zip(want["video"], want["text"], strict=True)) if video and text]
    assert [alone["audio"][i] for i in rows] == [want["audio"][i] for i in rows]  # whatever the others are
    assert all(alone["video"]) and all(alone["text"])


def test_micro_batches_and_shared_clips_keep_the_draw():
    batch = stream(SHARES, steps=1, group=4)[0]
    assert batch.media_rows is not None and len(batch.inputs["video"]["frames"]) == 10
    assert present([batch.rows(a, a + 8) for a in range(0, 40, 8)]) == present([batch])
    together = [batch.present["video"][4 * clip : 4 * clip + 4] for clip in range(10)]
    assert any(rows.any() and not rows.all() for rows in together)  # rows about one clip are drawn one by one


def test_a_withheld_text_is_padding():
    batch = stream({"text": 0.5}, steps=1)[0]
    gone = ~batch.present["text"]
    assert 0 < gone.sum() < 40
    words = batch.inputs["text"]
    assert torch.equal(words["attention_mask"].any(1), ~gone) and (words["token_ids"][gone] == TEXT.pad_id).all()
    assert (words["token_ids"][~gone] == torch.tensor([1, 7, 2])).all()


def test_without_a_share_nothing_is_withheld():
    assert present(stream({"audio": 0.0})) == present(stream({}))
