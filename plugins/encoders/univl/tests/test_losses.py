"""The loss functions against the recorded ones of the released code, formulas, and loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden import group
from torch.nn.functional import normalize

from vtp.model.losses import mil_nce
from vtp.model.masking import select_by_weight
from vtp_univl.draws import curriculum_share
from vtp_univl.losses import (
    candidates,
    clip_similarity,
    easiness,
    enqueue,
    hardness,
    level1,
    mil_nce_of_clips,
    mil_nce_of_slots,
    moco_losses,
    word_importance,
)


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def square(scores: torch.Tensor) -> torch.Tensor:
    """MIL-NCE of a square matrix, per row."""
    rows = len(scores)
    return mil_nce_of_slots(scores, torch.arange(rows), scores, torch.ones(rows, rows, dtype=torch.bool))


def test_mil_nce_of_the_core_is_the_recorded_one() -> None:
    for case in group("mil_nce"):
        batch, clips = case["batch"], case["clips"]
        sim = case["sim"].clone().requires_grad_()
        bag = torch.arange(batch).repeat_interleave(clips)
        losses = mil_nce(sim, bag)[torch.arange(batch) * clips + clips // 2]
        loss = (losses * case.get("weights", torch.ones(batch))).mean()
        close(loss, case["loss"])
        if "grad" in case:
            loss.backward()
            close(sim.grad, case["grad"])


@pytest.mark.parametrize(("batch", "clips", "want"), [(3, 2, math.log(5)), (4, 1, math.log(7)), (1, 3, 0.0)])
def test_equal_similarities(batch: int, clips: int, want: float) -> None:
    """ln 5 for three texts and two clips, ln(2 B - 1) for single clips."""
    close(mil_nce_of_clips(torch.zeros(batch, batch, clips)), torch.full((batch,), want))
    if clips == 1:
        close(square(torch.zeros(batch, batch)), torch.full((batch,), want))


def test_texts_against_clips_is_mil_nce_of_repeated_rows() -> None:
    """Also where some pairs are no negatives: they then stand in neither sum."""
    sim = torch.randn(5, 5, 3)
    excluded = torch.zeros(5, 5, dtype=torch.bool)
    excluded[1, 3] = excluded[3, 1] = excluded[4, 4] = True
    bag = torch.arange(5).repeat_interleave(3)
    for left_out in (None, excluded):
        large = sim if left_out is None else sim.masked_fill((left_out & ~torch.eye(5).bool())[..., None], -torch.inf)
        want = mil_nce(large.repeat_interleave(3, dim=0).flatten(1), bag)[torch.arange(5) * 3 + 1]
        close(mil_nce_of_clips(sim, left_out), want)


def test_texts_against_clips_is_the_recorded_one() -> None:
    for case in group("vtc_in_batch"):
        text, clips = case["text"].clone().requires_grad_(), case["video"].clone().requires_grad_()
        video = clips.unflatten(0, (-1, case["clips"]))
        close(level1(text, video), case["l1_sim"])
        loss = mil_nce_of_clips(clip_similarity(text, video)).mean()
        close(loss, case["loss"])
        loss.backward()
        close(text.grad, case["grad_text"])
        close(clips.grad, case["grad_video"])


def test_queues_are_the_recorded_ones() -> None:
    for case in group("vtc_moco"):
        n = case["clips"]
        text, clips = case["text"].clone().requires_grad_(), case["video"].clone().requires_grad_()
        keys = case["key_text"], case["key_video"].unflatten(0, (-1, n))
        queues = case["text_queue"].clone(), case["video_queue"].clone()
        texts, videos = moco_losses(text, clips.unflatten(0, (-1, n)), keys, queues, case["temperature"])
        close(texts.mean(), case["loss_text"])
        close(videos.mean(), case["loss_video"])
        loss = (texts.mean() + videos.mean()) / 2
        close(loss, case["loss"])
        loss.backward()
        close(text.grad, case["grad_text"])
        close(clips.grad, case["grad_video"])
        for modality, queue in zip(("text", "video"), queues, strict=True):
            pointer = torch.tensor([case[f"ptr_{modality}_before"]])
            enqueue(queue, pointer, case[f"key_{modality}"])
            assert torch.equal(queue, case[f"{modality}_queue_after"])
            assert int(pointer) == case[f"ptr_{modality}_after"]


def test_a_queue_takes_its_end_and_more_keys_than_it_has() -> None:
    queue, pointer = torch.zeros(1, 5), torch.tensor([3])
    enqueue(queue, pointer, torch.tensor([[1.0], [2.0]]))  # up to the end: back to the start
    assert queue.tolist() == [[0, 0, 0, 1, 2]] and int(pointer) == 0
    enqueue(queue, pointer, torch.arange(10.0, 17.0)[:, None])
    assert queue.tolist() == [[12, 13, 14, 15, 16]] and int(pointer) == 0


def test_random_queues_give_the_logarithm_of_their_size() -> None:
    """About ln 16384 with queries and keys that have nothing to do with each other."""
    one, two, three, four = (normalize(torch.randn(8, 256), dim=1) for _ in range(4))
    queues = tuple(normalize(torch.randn(256, 16384), dim=0) for _ in range(2))
    texts, clips = moco_losses(one, two[:, None], (three, four[:, None]), (queues[0], queues[1]), 1.0)
    assert texts.mean().item() == pytest.approx(math.log(16384), abs=0.2)
    assert clips.mean().item() == pytest.approx(math.log(16384), abs=0.2)


def test_hard_negatives_are_the_recorded_ones() -> None:
    for case in group("hard_mining"):
        batch, pool = case["batch"], case["batch"] * case["world"]
        own = torch.arange(batch) + case["rank"] * batch
        sim = case["l1_sim"][own]
        allowed = torch.arange(pool) != own[:, None]
        found = candidates(hardness(sim, own, case["method"]), allowed, batch - 1)
        assert torch.equal(found, case["best_negatives"])


def test_hard_negatives_are_distinct_and_never_excluded() -> None:
    """Three rows of a pool of three: the released code takes the own video twice."""
    sim = torch.tensor([[1.0, 0.5, 0.5, 0.9]])
    own = torch.tensor([0])
    allowed = torch.tensor([[False, True, True, False]])
    for method in ("top_k", "nearliest"):
        assert candidates(hardness(sim, own, method), allowed, 2).tolist() == [[1, 2]]  # ties: the lower index


def test_weights_are_the_recorded_ones() -> None:
    for case in group("vtm_reweight"):
        own = case["l1_sim"].diagonal()
        everyone = torch.ones(len(own), len(own), dtype=torch.bool)
        weights = easiness(own, own, everyone, "mean")
        close(weights, case["weights"])
        close((weights * square(case["l2_scores"])).mean(), case["loss"])


def test_the_median_is_a_median() -> None:
    """And both are taken over the members alone."""
    own = torch.tensor([0.0, 1.0, 2.0, 9.0, 100.0])
    members = (torch.arange(5) < 4).expand(5, -1)
    by_median = easiness(own, own, members, "median")
    close(by_median[:4], torch.tensor([1.0, 1.0, 1.5 / 2, 0.2]))
    close(easiness(own, own, members, "mean")[:4], torch.tensor([1.0, 1.0, 1.0, 3 / 9]))


def test_equal_similarities_have_weight_one() -> None:
    assert easiness(torch.ones(3), torch.ones(3), torch.ones(3, 3, dtype=torch.bool), "mean").tolist() == [1, 1, 1]


def test_slots_in_blocks() -> None:
    """Two blocks of two rows against loops: a column goes over the rows of a block."""
    scores = torch.randn(4, 2)
    scores[1, 0] = -torch.inf
    slot, block = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    got = mil_nce_of_slots(scores, slot, scores, block[:, None] == block)
    for i in range(4):
        column = [scores[k, slot[i]] for k in range(4) if block[k] == block[i]]
        row = [scores[i, c] for c in range(2) if c != slot[i]]
        close(got[i], torch.stack(column + row).logsumexp(0) - scores[i, slot[i]])


def test_the_curriculum_is_the_recorded_one() -> None:
    case = group("hscl")
    found = [curriculum_share(int(step), case["change_iter"], case["change_rate"]) for step in case["step"]]
    close(torch.tensor(found, dtype=case["p"].dtype), case["p"])


def test_importance_is_the_recorded_one() -> None:
    case = group("attentive_masking")
    importance = word_importance(case["attention"])
    close(importance, case["word_importance"])
    ids = case["raw_ids"]
    words = ~torch.isin(ids, torch.tensor([0, 101, 102]))
    # the released weights leave 1e-6 at special places; here they have none
    close((importance + 1e-6).masked_fill(~words, 0.0), case["weights"].masked_fill(~words, 0.0))
    count = (words.sum(dim=1) * 0.15).long().clamp(min=1)
    assert torch.equal(count, case["number"])
    selected = select_by_weight((importance + 1e-6) * words, count, torch.rand(ids.shape))
    assert torch.equal(selected.sum(dim=1), case["number"]) and not (selected & ~words).any()
    close(normalize(case["pooled"], dim=1), case["text_feature"])


def test_attention_of_padding_can_be_left_out() -> None:
    attention = torch.rand(2, 1, 3, 4, 4)
    real = torch.tensor([[True, True, True, False]])
    want = sum(attention[layer, 0, head, q] for layer in range(2) for head in range(3) for q in range(3)) / 3
    close(word_importance(attention, real)[0], want)
