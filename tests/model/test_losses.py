"""Losses against their formulas, written out, and against the recorded losses of AntMMF where they lie beside the
repository."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from vtp.model.losses import (
    clamp_scale,
    comparable,
    derange,
    draw_by_weight,
    log_share,
    masked_cross_entropy,
    matching_cross_entropy,
    mil_nce,
    other_rows,
    share_right,
    symmetric_nce,
)

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "antmmf_losses.pt"
EVERY = torch.ones(64, dtype=torch.bool)


def golden(name):
    if not GOLDEN.is_file():
        return []
    return torch.load(GOLDEN, weights_only=True)[name]


# -- contrastive -----------------------------------------------------------------------------------------------------


def by_formula(sim, rows, groups, same):
    """Both cross-entropies, row by row, over the candidates that count: (text to video, video to text)."""
    n = len(sim)
    totals = []
    for matrix in (sim, sim.T):
        losses = []
        for i in range(n):
            if not rows[i]:
                continue
            counted = [
                j
                for j in range(n)
                if j == i or (rows[j] and groups[i] == groups[j] and not any(s[i] == s[j] for s in same))
            ]
            share = math.exp(matrix[i, i]) / sum(math.exp(matrix[i, j]) for j in counted)
            losses.append(-math.log(share))
        totals.append(sum(losses) / max(len(losses), 1))
    return totals


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("grouped", [False, True])
def test_symmetric_nce_is_the_written_out_sum(seed, grouped):
    generator = torch.Generator().manual_seed(seed)
    sim = torch.randn(9, 9, generator=generator) * 3
    rows = torch.rand(9, generator=generator) < 0.7
    groups = torch.randint(2, (9,), generator=generator) if grouped else torch.zeros(9, dtype=torch.int64)
    same = [torch.randint(6, (9,), generator=generator) for _ in range(2)]
    one, two = by_formula(sim.double(), rows, groups, same)
    made = comparable(sim, rows, same, groups if grouped else None)
    assert symmetric_nce(made, rows).item() == pytest.approx((one + two) / 2, rel=1e-5)
    assert symmetric_nce(made, rows, directions="sum").item() == pytest.approx(one + two, rel=1e-5)


def test_rows_that_take_no_part_get_no_gradient():
    sim = torch.randn(5, 5, requires_grad=True)
    rows = torch.tensor([True, False, True, True, False])
    symmetric_nce(comparable(sim, rows), rows).backward()
    assert sim.grad.isfinite().all() and (sim.grad[~rows] == 0).all() and (sim.grad[:, ~rows] == 0).all()
    sim.grad = None
    symmetric_nce(comparable(sim, rows & False), rows & False).backward()
    assert (sim.grad == 0).all()


def test_a_queue_is_more_columns():
    """As if the queue were rows of the batch that ask for nothing themselves."""
    text, video, more_video, more_text = (torch.randn(rows, 8) for rows in (4, 4, 7, 5))
    got = symmetric_nce(text @ video.T, EVERY[:4], queues=(text @ more_video.T, video @ more_text.T))
    labels = torch.arange(4)
    want = cross_entropy(text @ torch.cat([video, more_video]).T, labels)
    want = (want + cross_entropy(video @ torch.cat([text, more_text]).T, labels)) / 2
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("bound", [1.0, 4.6])
def test_a_clamped_scale_can_come_back(bound):
    scale = torch.tensor([0.5, 9.0], requires_grad=True)
    made = clamp_scale(scale, bound)
    assert made.tolist() == pytest.approx([0.5, bound])
    (up,) = torch.autograd.grad(-made.sum(), scale, retain_graph=True)
    (down,) = torch.autograd.grad(made.sum(), scale)
    assert up.tolist() == [-1.0, 0.0] and down.tolist() == [1.0, 1.0]


def mil_nce_by_formula(sim, bag):
    n, exp = len(sim), sim.double().exp()
    losses = []
    for j in range(n):
        own = sum(exp[i, j] for i in range(n) if bag[i] == bag[j])
        rest = sum(exp[j, k] for k in range(n) if bag[k] != bag[j])
        losses.append(-(own / (exp[:, j].sum() + rest)).log())
    return torch.stack(losses)


@pytest.mark.parametrize("bag", [[0, 1, 2, 3], [0, 0, 1, 1, 2, 2], [4, 1, 4, 1, 1], [0, 0, 0]])
def test_mil_nce_is_the_written_out_share(bag):
    bag = torch.tensor(bag)
    sim = torch.randn(len(bag), len(bag)) * 2
    torch.testing.assert_close(mil_nce(sim, bag).double(), mil_nce_by_formula(sim, bag), rtol=1e-5, atol=1e-5)


def test_mil_nce_of_large_numbers_is_finite():
    sim = (torch.tensor([[300.0, -300.0], [0.0, 200.0]])).requires_grad_()
    losses = mil_nce(sim, torch.tensor([0, 1]))
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.0, 0.0], abs=1e-5) and sim.grad.isfinite().all()
    half = mil_nce(sim.detach().half(), torch.tensor([0, 1]))
    assert half.isfinite().all()


def test_mil_nce_leaves_out_rows_that_take_no_part():
    sim, bag = torch.randn(6, 6), torch.tensor([0, 0, 1, 1, 2, 2])
    rows = torch.tensor([True, True, False, False, True, True])
    kept = mil_nce(sim, bag, rows)
    torch.testing.assert_close(kept[rows], mil_nce(sim[rows][:, rows], bag[rows]))
    assert kept.isfinite().all()


@pytest.mark.parametrize("case", golden("mil_nce"))
def test_mil_nce_of_the_released_code(case):
    batch, clips = case["batch"], case["clips"]
    sim = case["sim"].clone().requires_grad_()
    losses = mil_nce(sim, torch.arange(batch).repeat_interleave(clips))[torch.arange(batch) * clips + clips // 2]
    loss = (losses * case.get("weights", torch.ones(batch))).mean()
    torch.testing.assert_close(loss.detach(), case["loss"], rtol=1e-5, atol=1e-5)
    if "grad" in case:
        torch.testing.assert_close(torch.autograd.grad(loss, sim)[0], case["grad"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", golden("vtc_moco"))
def test_log_share_with_a_queue_is_the_released_momentum_contrast(case):
    """A clip has one positive key and a queue of texts, a text has the n clips of its video and a queue of clips."""
    clips, temperature = case["clips"], case["temperature"]
    text, video = (case[name].clone().requires_grad_() for name in ("text", "video"))
    key_text, key_video = case["key_text"].repeat_interleave(clips, 0), case["key_video"].unflatten(0, (-1, clips))
    own_text = (video * key_text).sum(1, keepdim=True)
    own_video = torch.einsum("bd,bcd->bc", text, key_video)
    losses = []
    for own, queue in [(own_video, text @ case["video_queue"]), (own_text, video @ case["text_queue"])]:
        scores = torch.cat([own, queue], dim=1) / temperature
        positive = torch.arange(scores.shape[1]) < own.shape[1]
        losses.append(log_share(scores, positive.expand_as(scores)).mean())
    torch.testing.assert_close(losses[0].detach(), case["loss_text"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses[1].detach(), case["loss_video"], rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad((losses[0] + losses[1]) / 2, (text, video))
    torch.testing.assert_close(grads[0], case["grad_text"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grads[1], case["grad_video"], rtol=1e-4, atol=1e-5)


# -- words -----------------------------------------------------------------------------------------------------------


def test_masked_cross_entropy_is_the_mean_over_labels():
    logits, labels = torch.randn(2, 5, 7), torch.tensor([[-100, 3, -100, 0, 6], [-100, -100, 2, -100, -100]])
    chosen = labels >= 0
    log_p = logits.double().log_softmax(-1)[chosen].gather(1, labels[chosen][:, None])
    assert masked_cross_entropy(logits, labels).item() == pytest.approx(-log_p.mean().item(), rel=1e-6)
    right = (logits.argmax(-1) == labels)[chosen].float().mean()
    assert share_right(logits, labels).item() == pytest.approx(right.item())


def test_no_label_is_a_connected_zero():
    for logits in (torch.randn(2, 3, 4), torch.randn(0, 4)):
        logits.requires_grad_()
        labels = torch.full(logits.shape[:-1], -100)
        loss = masked_cross_entropy(logits, labels)
        loss.backward()
        assert loss.item() == 0 and (logits.grad == 0).all() and share_right(logits, labels).item() == 0


# -- matching --------------------------------------------------------------------------------------------------------


def test_matching_is_the_cross_entropy_of_both_kinds_of_pairs():
    positive, negative = torch.randn(2, 6, 2)
    rows = torch.tensor([True, False, True, True, False, True])
    logits = torch.cat([positive[rows], negative[rows]]).double()
    labels = torch.tensor([1] * 4 + [0] * 4)
    loss, right = matching_cross_entropy(positive, negative, rows)
    assert loss.item() == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-6)
    assert right.item() == pytest.approx((logits.argmax(1) == labels).double().mean().item())


@pytest.mark.parametrize("batch", [2, 3, 8, 33])
def test_a_derangement_uses_every_row_once(batch):
    allowed = ~torch.eye(batch, dtype=torch.bool)
    seen = set()
    for _ in range(50):
        partner = derange(allowed, torch.rand(batch, 2))
        assert sorted(partner.tolist()) == list(range(batch))
        assert (partner != torch.arange(batch)).all()
        seen.add(tuple(partner.tolist()))
    assert len(seen) > 1 or batch == 2


def test_partners_are_always_allowed():
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        group = torch.randint(3, (7,), generator=generator)  # equal groups are no negatives
        present = torch.rand(7, generator=generator) < 0.7
        allowed = (group[:, None] != group[None]) & present[:, None] & present[None]
        partner = derange(allowed, torch.rand(7, 2, generator=generator))
        has_one = allowed.any(1)
        assert allowed[torch.arange(7), partner][has_one].all()


def test_draws_follow_the_weights():
    weights = torch.tensor([[0.0, 1.0, 3.0, 0.0]]).repeat(40_000, 1)
    drawn = draw_by_weight(weights, torch.rand(40_000))
    counts = torch.bincount(drawn, minlength=4) / 40_000
    assert counts[0] == counts[3] == 0
    assert abs(counts[2] - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 40_000)
    assert draw_by_weight(weights[:1], torch.tensor([0.0])).item() == 1  # never a column of weight 0, also at the edges
    assert draw_by_weight(weights[:1], torch.tensor([1 - 2**-24])).item() == 2


@pytest.mark.parametrize("present", [[True] * 5, [True, False, True, True, False]])
def test_negatives_are_other_rows_drawn_equally(present):
    rows = torch.tensor(present)
    drawn = torch.stack([other_rows(torch.rand(5), rows) for _ in range(3000)])
    for i in rows.nonzero()[:, 0].tolist():
        counts = drawn[:, i].bincount(minlength=5)
        assert counts[i] == 0 and (counts[~rows] == 0).all()
        expected = 3000 / (rows.sum() - 1)
        others = [j for j in rows.nonzero()[:, 0].tolist() if j != i]
        assert all(abs(counts[j] - expected) < 6 * expected**0.5 for j in others)


def test_negatives_never_fall_back_on_the_row_itself():
    almost = torch.full((5,), 1 - 2**-24)  # the largest float32 below 1
    rows = torch.ones(5, dtype=torch.bool)
    assert (other_rows(almost, rows) != torch.arange(5)).all()


def test_negatives_of_another_process():
    """Rows 2..4 of five: those of this process, among the gathered ones."""
    rows = torch.tensor([True, True, False, True, True])
    drawn = torch.stack([other_rows(torch.rand(3), rows, start=2) for _ in range(200)])
    assert set(drawn[:, 1].tolist()) == {0, 1, 4} and set(drawn[:, 2].tolist()) == {0, 1, 3}


def test_negatives_of_pairs_that_may_be_drawn():
    """With pairs the same rows are drawn from the same numbers where all pairs are allowed; else only allowed ones."""
    rows = torch.tensor([True, False, True, True, True])
    all_pairs = rows[None].repeat(3, 1)
    own = torch.arange(2, 5)
    all_pairs[torch.arange(3), own] = False
    for _ in range(50):
        uniform = torch.rand(3)
        assert torch.equal(other_rows(uniform, all_pairs, start=2), other_rows(uniform, rows, start=2))
    some = all_pairs.clone()
    some[:, 0] = False
    drawn = torch.stack([other_rows(torch.rand(3), some, start=2) for _ in range(300)])
    assert [set(drawn[:, k].tolist()) for k in range(3)] == [{3, 4}, {2, 4}, {2, 3}]
