"""Triplet partial margins, held against the released functions and worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from vtp_univl.interaction import matched_similarity
from vtp_univl.partial import TokenImportance, margin_loss, partial_margins, without_important

UNUSED = {"q_proj.weight", "k_proj.weight"}  # layers that the released predictors hold and never use


def importance(state, queries, tokens, width=12, prefix=""):
    module = TokenImportance(queries, tokens, width)
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    module.load_state_dict({name: value for name, value in own.items() if name not in UNUSED})
    return module


@pytest.mark.parametrize("case", range(2))
def test_importance_and_what_is_left_are_those_of_the_released_code(golden, case):
    g = golden["tpm_weights"][case]
    with torch.no_grad():
        weights = importance(g["state"], g["q"].shape[1], g["k"].shape[1])(g["q"], g["k"])
    torch.testing.assert_close(weights, g["weights"], atol=1e-5, rtol=0)
    left, kept = without_important(g["k"], weights, g["threshold"])
    assert torch.equal(kept.float(), g["kept"])
    torch.testing.assert_close(left, g["masked_tokens"], atol=1e-5, rtol=0)
    pooled = normalize((weights[..., None] * g["k"]).sum(1), dim=1)
    torch.testing.assert_close(pooled, g["pooled"], atol=1e-5, rtol=0)
    torch.testing.assert_close((weights[..., None] * left).sum(1), g["pooled_partial"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", range(3))
def test_margins_are_those_of_the_released_code(golden, case):
    g = golden["tpm_loss"][case]
    one = torch.ones(len(g["sentence"]), 1)
    to_frames = importance(g["state"], 1, 5, prefix="t2v_linear_xwp.")(g["sentence"], g["frames"])
    to_words = importance(g["state"], 5, 6, prefix="v2t_linear_xwp.")(g["frames"], g["words"])
    losses = partial_margins(
        g["sentence"],
        g["words"],
        g["frames"],
        to_words,
        to_frames,
        lambda text, frames: matched_similarity(text, frames, one, g["frame_mask"]),
        kind=g["partial_type"],
        margin=g["margin"],
    )
    torch.testing.assert_close(losses.mean(), g["loss"], atol=1e-5, rtol=0)


def test_the_most_important_tokens_go_until_the_threshold():
    tokens = torch.arange(1.0, 5).expand(1, 4)[..., None]
    left, kept = without_important(tokens, torch.tensor([[0.1, 0.4, 0.2, 0.3]]), 0.75)
    # by falling weight 0.4, 0.7, 0.9, 1: the third one passes the threshold and stays
    assert kept.tolist() == [[True, False, True, False]]
    assert left[0, :, 0].tolist() == [1, 0, 3, 0]


def test_margin_loss():
    got = margin_loss(torch.tensor([0.9, 0.5, 0.2]), torch.tensor([0.1, 0.4, 0.5]), 0.6)
    torch.testing.assert_close(got, torch.tensor([0.0, 0.5, 0.9]))


def test_every_weight_of_the_predictor_gets_a_gradient():
    module = TokenImportance(3, 4, 8)
    (module(torch.randn(2, 3, 8), torch.randn(2, 4, 8)) * torch.rand(2, 4)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
