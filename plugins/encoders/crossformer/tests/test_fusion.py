"""What all fusion encoders promise: a modality that is missing changes nothing, whatever else is in the batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fusions import CASES, SUBSETS, assert_same, build, real, some_tokens, without

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.testing import check_fusion
from vtp.types import MODALITIES, Tokens

every_case = pytest.mark.parametrize("case", CASES)


@every_case
def test_the_contract(case: str) -> None:
    cls, options = CASES[case]
    check_fusion(cls, {"preset": "tiny", "width": 16, "heads": 2, **options})


@every_case
def test_a_row_without_a_modality_is_a_row_of_a_batch_that_never_had_it(case: str) -> None:
    """For every subset, alone and beside rows that have all."""
    fusion, tokens = build(case).eval(), some_tokens()
    for names in SUBSETS:
        gone = {m: [1] for m in MODALITIES if m not in names}
        beside = real(fusion(without(tokens, gone, fill=torch.nan)), 1)
        never = {m: tokens[m].take(torch.tensor([1])) for m in names}
        assert_same(beside, real(fusion(never), 0))


@every_case
def test_what_stands_in_place_of_padding_changes_nothing(case: str) -> None:
    fusion, tokens = build(case).eval(), some_tokens()
    changed = {}
    for m, t in tokens.items():
        x = torch.cat([t.x.masked_fill(~t.attention_mask[..., None], 1e4), t.x[:, :2] + 7], dim=1)
        mask = torch.cat([t.attention_mask, torch.zeros_like(t.attention_mask[:, :2])], dim=1)
        index = None if t.index is None else torch.cat([t.index, t.index[:, :2]], dim=1)
        changed[m] = Tokens(x, mask, None if t.index is None else t.grid, index)
    plain = {m: Tokens(t.x, t.attention_mask, None if t.index is None else t.grid, t.index) for m, t in tokens.items()}
    left, right = fusion(plain), fusion(changed)
    for row in range(4):
        assert_same(real(left, row), real(right, row))


@every_case
def test_rows_may_come_in_any_order(case: str) -> None:
    fusion = build(case).eval()
    tokens = without(some_tokens(), {"audio": [0, 2], "text": [3]})
    order = torch.tensor([2, 0, 3, 1])
    left, right = fusion(tokens), fusion({m: t.take(order) for m, t in tokens.items()})
    for place, row in enumerate(order.tolist()):
        assert_same(real(left, row), real(right, place))


@every_case
def test_modalities_may_come_in_any_order(case: str) -> None:
    fusion, tokens = build(case).eval(), some_tokens()
    turned = dict(reversed(tokens.items()))
    assert list(turned) != list(tokens)
    assert_same(real(fusion(tokens), 1), real(fusion(turned), 1), atol=0)


@every_case
def test_every_parameter_has_a_gradient_whatever_is_missing(case: str) -> None:
    """Of equal shapes and finite: in a batch in which nobody has sound, and in one that knows no sound at all."""
    for given in (
        without(some_tokens(), {"audio": range(4)}, fill=torch.nan),
        {m: t for m, t in some_tokens().items() if m != "audio"},
        {"text": some_tokens()["text"]},
    ):
        fusion = build(case).train()
        out = fusion(given)
        (out.pooled.square().sum() + sum(t.x.square().sum() for t in out.tokens.values())).backward()
        for name, parameter in fusion.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@every_case
def test_a_missing_modality_sends_no_gradient_to_its_tokens(case: str) -> None:
    fusion, tokens = build(case).train(), without(some_tokens(), {"audio": [1, 3]})
    for t in tokens.values():
        t.x.requires_grad_()
    fusion(tokens).pooled.square().sum().backward()
    for t in tokens.values():
        assert t.x.grad is not None
        assert not t.x.grad[~t.attention_mask].any()
        assert t.x.grad.isfinite().all()
    assert tokens["audio"].x.grad[[0, 2]].any()


@every_case
def test_a_row_that_has_nothing_is_finite(case: str) -> None:
    fusion = build(case).train()
    tokens = without(some_tokens(), {m: [2] for m in MODALITIES}, fill=torch.nan)
    out = fusion(tokens)
    assert out.pooled.isfinite().all()
    out.pooled.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


@every_case
def test_every_modality_is_listened_to(case: str) -> None:
    fusion, tokens = build(case).eval(), some_tokens()
    whole = fusion(tokens).pooled
    for m in MODALITIES:
        other = some_tokens(seed=5)[m].x
        changed = tokens | {m: replace(tokens[m], x=other)}
        assert (fusion(changed).pooled - whole).abs().max() > 1e-3


@every_case
@pytest.mark.parametrize(
    ("options", "said"),
    [({"preset": "huge"}, "no preset 'huge'"), ({"width": 15}, "width=15 must be a multiple of heads=2")],
)
def test_mistakes_are_told(case: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(case, **options)


@every_case
def test_there_must_be_something_to_fuse(case: str) -> None:
    with pytest.raises(ConfigError, match="nothing to fuse"):
        CASES[case][0](context=BuildContext())
