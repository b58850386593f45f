"""Token-wise similarity and NegNCE, held against the released functions and against loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from vtp_univl.interaction import cross_entropy, matched_similarity, neg_nce, token_similarity


def some(texts: int = 3, videos: int = 4, words: int = 5, frames: int = 4, width: int = 8):
    """Random tokens of unit length, and masks with padding and content words."""
    x = normalize(torch.randn(texts, words, width), dim=2)
    v = normalize(torch.randn(videos, frames, width), dim=2)
    word_mask = torch.tensor([[1, 2, 1, 2, 1], [2, 1, 1, 0, 0], [1, 1, 1, 1, 0]], dtype=torch.float32)[:texts]
    frame_mask = torch.ones(videos, frames)
    frame_mask[1, 2:] = 0
    return x, v, word_mask, frame_mask


def by_loops(x, v, word_mask, frame_mask, nfc, weights=None):
    """The formula, one pair and one token at a time."""
    out = torch.zeros(len(x), len(v), dtype=torch.float64)
    for i in range(len(x)):
        for j in range(len(v)):
            n_words, n_frames = x.shape[1], v.shape[1]
            like = [
                [
                    float(x[i, t] @ v[j, u]) * min(float(word_mask[i, t]), 1) * float(frame_mask[j, u])
                    for u in range(n_frames)
                ]
                for t in range(n_words)
            ]
            r = []
            for t in range(n_words):
                best = max(range(n_frames), key=lambda u: like[t][u])
                value = like[t][best]
                if nfc:
                    beside = {
                        u: 0.0
                        if u == best or not frame_mask[j, u] * frame_mask[j, best]
                        else float(v[j, best] @ v[j, u])
                        for u in range(n_frames)
                    }
                    other = max(beside, key=lambda u: beside[u])
                    value += 0.5 * beside[other] * like[t][other]
                r.append(value)
            q = [max(like[t][u] for t in range(n_words)) for u in range(n_frames)]
            a, b = word_mask[i].double(), frame_mask[j].double()
            a, b = (a / a.sum(), b / b.sum()) if weights is None else (a * weights[0][i], b * weights[1][j])
            out[i, j] = (a @ torch.tensor(r, dtype=a.dtype) + b @ torch.tensor(q, dtype=b.dtype)) / 2
    return out.float()


@pytest.mark.parametrize("case", range(4))
def test_interaction_is_that_of_the_released_code(golden, case):
    g = golden["token_interaction"][case]
    weights = (g["word_weights"], g["frame_weights"]) if g["interaction"] == "wti" else None
    given = (g["words"], g["frames"], g["word_mask"], g["frame_mask"])
    torch.testing.assert_close(token_similarity(*given, nfc=g["nfc"], weights=weights), g["sim"], atol=1e-5, rtol=0)
    matched = matched_similarity(*given, nfc=g["nfc"], weights=weights)
    torch.testing.assert_close(matched, g["sim"].diagonal(), atol=1e-5, rtol=0)


def test_att_ti_is_the_mean_over_the_sentence_and_the_words(golden):
    g = golden["att_ti"]
    one = torch.ones(len(g["sentence"]), 1)
    by_sentence = token_similarity(g["sentence"], g["frames"], one, g["frame_mask"], nfc=True)
    by_words = token_similarity(g["words"], g["frames"], g["word_mask"], g["frame_mask"], nfc=True)
    torch.testing.assert_close((by_sentence + by_words) / 2, g["sim"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("nfc", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk", [None, 2])
def test_interaction_with_padding_is_the_formula(nfc, weighted, chunk):
    given = some()
    weights = (torch.rand(3, 5), torch.rand(4, 4)) if weighted else None
    got = token_similarity(*given, nfc=nfc, weights=weights, chunk=chunk)
    torch.testing.assert_close(got, by_loops(*given, nfc, weights))


@pytest.mark.parametrize("nfc", [False, True])
def test_padding_has_no_influence(nfc):
    x, v, word_mask, frame_mask = some()
    want = token_similarity(x, v, word_mask, frame_mask, nfc=nfc)
    other = x.masked_fill((word_mask == 0)[..., None], 7.0), v.masked_fill((frame_mask == 0)[..., None], 7.0)
    assert torch.equal(token_similarity(*other, word_mask, frame_mask, nfc=nfc), want)


def test_chunks_have_the_same_gradients():
    x, v, word_mask, frame_mask = some()
    grads = []
    for chunk in (None, 2):
        a, b = x.clone().requires_grad_(), v.clone().requires_grad_()
        token_similarity(a, b, word_mask, frame_mask, nfc=True, chunk=chunk).square().sum().backward()
        grads.append((a.grad, b.grad))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("case", range(7))
def test_neg_nce_is_that_of_the_released_code(golden, case):
    g = golden["neg_nce"][case]
    sim = g["sim"].clone().requires_grad_()
    loss = neg_nce(sim)
    torch.testing.assert_close(loss, g["neg_nce"], atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(neg_nce(sim.T), g["neg_nce_t"], atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(cross_entropy(sim), g["cross_entropy"], atol=1e-5, rtol=1e-6)
    if "grad" in g:
        loss.backward()
        torch.testing.assert_close(sim.grad, g["grad"], atol=1e-5, rtol=1e-5)


def test_neg_nce_by_hand():
    # row 0: 0.01 above its own, hard; row 1 easy, but its negative is above the one of column 0: hard too
    sim = torch.tensor([[0.10, 0.11], [0.105, 0.20]])
    p = (100 * sim).softmax(1)
    want = -(p[0, 0].log() + p[1, 1].log()) / 2 - 0.5 * ((1 - p[0, 1]).log() + (1 - p[1, 0]).log()) / 2
    torch.testing.assert_close(neg_nce(sim), want)
    easy = torch.eye(3)
    assert float(neg_nce(easy)) == pytest.approx(-math.log(1 - 1e-6), abs=1e-6)


def test_rows_that_take_no_part_change_nothing():
    sim = torch.randn(4, 4) / 10
    rows = torch.tensor([True, False, True, True])
    small = sim[rows][:, rows]
    masked = sim.masked_fill((~rows[:, None] | ~rows) & ~torch.eye(4, dtype=torch.bool), -torch.inf).requires_grad_()
    torch.testing.assert_close(neg_nce(masked, rows), neg_nce(small))
    torch.testing.assert_close(cross_entropy(masked, rows), cross_entropy(small))
    neg_nce(masked, rows).backward()
    assert masked.grad.isfinite().all()
    nothing = neg_nce(masked, torch.zeros(4, dtype=torch.bool))
    assert nothing.item() == 0 and nothing.requires_grad
