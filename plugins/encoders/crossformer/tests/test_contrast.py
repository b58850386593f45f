"""The contrastive loss between sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.testing import check_objective
from vtp.testing.inputs import batch_for, tiny_encoders
from vtp_crossformer.contrast import Contrast

JOINT = [["video", "audio"], ["text"]]
PAIRS = [[["video"], ["text"]], [["audio"], ["text"]], [["video"], ["audio"]]]


def context_of(missing: Mapping[str, Sequence[int]], rows: int = 6, **options: Any) -> tuple[Any, ForwardContext]:
    torch.manual_seed(0)
    encoders = tiny_encoders()
    objective = Contrast(context=BuildContext(encoders=dict(encoders)), **{"width": 8} | options)
    model = VTPModel(encoders, {"vt": objective})
    batch = batch_for(model.specs(), rows, {}, missing)
    batch.extra["video_id"] = [f"clip{row if row != 4 else 0}" for row in range(rows)]  # row 4 shows the clip of row 0
    return objective, ForwardContext(model, batch)


def brute_force(one: Tensor, other: Tensor, taking: list[bool], negative: Any, scale: float) -> Tensor:
    """Mean over the rows that take part, of both directions."""
    terms = []
    rows = [i for i, takes in enumerate(taking) if takes]
    for a, b in ((one, other), (other, one)):
        for i in rows:
            logits = torch.stack([scale * a[i] @ b[j] for j in rows if j == i or negative(i, j)])
            terms.append(logits.logsumexp(0) - scale * a[i] @ b[i])
    return torch.stack(terms).mean()


@pytest.mark.parametrize("before_fusion", [True, False])
@pytest.mark.parametrize("sides", [JOINT, *PAIRS], ids=str)
def test_it_is_the_loss_over_the_rows_that_have_both_sides(sides: list[list[str]], before_fusion: bool) -> None:
    missing = {"audio": [1, 2], "video": [2, 3], "text": [5]}
    objective, ctx = context_of(missing, sides=sides, before_fusion=before_fusion)
    taking = [all(any(row not in missing[m] for m in side) for side in sides) for row in range(6)]
    assert objective.rows(ctx).tolist() == taking
    out = objective.loss_from_features(objective.features(ctx))
    one, other = (objective.embed(ctx, side[0]) for side in sides)
    same_clip = {(0, 4), (4, 0)}
    want = brute_force(one, other, taking, lambda i, j: (i, j) not in same_clip, 1 / 0.07)
    torch.testing.assert_close(out.loss, want)
    assert out.weight == sum(taking)


def test_before_fusion_a_side_is_the_mean_of_what_the_row_has() -> None:
    objective, ctx = context_of({"audio": [1]}, sides=JOINT)
    parts = {m: objective.proj[m](ctx.pooled(m)) for m in ("video", "audio")}
    found = objective.embed(ctx, "audio")
    for row, wanted in ((0, parts["video"][0] + parts["audio"][0]), (1, parts["video"][1])):
        torch.testing.assert_close(found[row], wanted / wanted.norm())


def test_after_fusion_a_side_never_sees_the_other() -> None:
    objective, ctx = context_of({}, sides=JOINT, before_fusion=False)
    want = objective.proj["video_audio"](ctx.fused({"video": "", "audio": ""}).pooled)
    torch.testing.assert_close(objective.embed(ctx, "video"), want / want.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("rows", range(1, 33))
def test_the_diagonal_is_right_for_every_batch_size(rows: int) -> None:
    """Equal embeddings on both sides are found by each other, whatever the number of rows."""
    objective, ctx = context_of({}, rows=rows, mask_duplicates=False)
    features = objective.features(ctx)
    features["other"] = features["one"] = torch.nn.functional.normalize(torch.randn(rows, 64), dim=1)
    metrics = objective.loss_from_features(features).metrics
    assert metrics["t2v_r1"] == metrics["v2t_r1"] == 1


def test_nobody_has_sound() -> None:
    objective, ctx = context_of({"audio": range(6)}, sides=PAIRS[1])
    out = objective.loss_from_features(objective.features(ctx))
    assert out.loss == 0 and out.weight == 0
    out.loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in objective.parameters())


@pytest.mark.parametrize(
    "options", [{"sides": JOINT}, {"sides": JOINT, "before_fusion": False}, {"sides": PAIRS[2]}], ids=str
)
def test_the_contract(options: dict[str, Any]) -> None:
    check_objective(Contrast, {"width": 8, **options})


@pytest.mark.slow
def test_two_processes_are_one() -> None:
    check_objective(Contrast, {"width": 8, "sides": JOINT, "before_fusion": False}, processes=2)


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match="must be two groups"):
        context_of({}, sides=[["video"], ["audio"], ["text"]])
    encoders: dict[str, Any] = {slot: part for slot, part in tiny_encoders().items() if slot != "fusion"}
    with pytest.raises(ConfigError, match="before_fusion=false needs a fusion encoder"):
        Contrast(context=BuildContext(encoders=encoders), before_fusion=False)
