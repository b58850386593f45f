"""Matching: true mismatches for every batch size, and losses right for any subset of modalities per row."""

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
from vtp.types import MODALITIES, Batch
from vtp_crossformer.match import Match

GROUPINGS = [
    [["video"], ["text", "audio"]],
    [["video", "audio"], ["text"]],
    [["audio"], ["text", "video"]],
    [["video"], ["audio"]],
    [["video"], ["audio"], ["text"]],
]
MICRO = {"micro-batches": "negatives come from the own micro-batch"}


def model_with(**options: Any) -> VTPModel:
    torch.manual_seed(0)
    encoders = tiny_encoders()
    return VTPModel(encoders, {"match": Match(context=BuildContext(encoders=dict(encoders)), **options)})


def batch_of(
    model: VTPModel, rows: int, missing: Mapping[str, Sequence[int]] | None = None, clips: Sequence[int] | None = None
) -> Batch:
    """Rows about the given clips; those of one clip say different things."""
    batch = batch_for(model.specs(), rows, {}, missing or {})
    batch.extra["video_id"] = [f"clip{c}" for c in (clips or range(rows))]
    return batch


def drawn(model: VTPModel, batch: Batch) -> tuple[Any, ForwardContext]:
    return model.objectives["match"], ForwardContext(model, batch)


def said(batch: Batch, row: int) -> list[int]:
    words = batch.inputs["text"]
    return words["token_ids"][row][words["attention_mask"][row]].tolist()


@pytest.mark.parametrize("groups", GROUPINGS, ids=str)
def test_negatives_are_true_mismatches_for_every_batch_size(groups: list[list[str]]) -> None:
    """Brute force, with repeated clips, equal texts, and rows that lack things."""
    model = model_with(groups=groups)
    named = [m for group in groups for m in group]
    for rows in range(1, 33):
        generator = torch.Generator().manual_seed(rows)
        missing = {m: torch.nonzero(torch.rand(rows, generator=generator) < 0.3)[:, 0].tolist() for m in MODALITIES}
        batch = batch_of(model, rows, missing, torch.randint(max(rows // 2, 1), (rows,), generator=generator).tolist())
        if rows > 3:
            for tensors in batch.inputs["text"].values():
                tensors[3] = tensors[0]
            batch.present["text"][3] = batch.present["text"][0]
        objective, ctx = drawn(model, batch)
        taking, moved = objective.rows(ctx), objective.negatives(ctx)
        clips, there = batch.extra["video_id"], {m: batch.present[m].tolist() for m in MODALITIES}

        def fits(
            i: int, j: int, group: list[str], batch: Batch = batch, clips: Any = clips, there: Any = there
        ) -> bool:
            rest = [m for m in named if m not in group]
            full = all(any(there[m][row] for m in part) for part in (group, rest) for row in (i, j))
            alike = all(there[m][i] == there[m][j] for m in group)
            both = "text" in named and there["text"][i] and there["text"][j]
            return full and alike and clips[i] != clips[j] and not (both and said(batch, i) == said(batch, j))

        movable = groups[1:] if len(groups) == 2 else groups
        for i in range(rows):
            partners = [any(fits(i, j, group) for j in range(rows)) for group in movable]
            assert bool(taking[i]) == any(partners), (rows, i)
            changed = [group for group in movable if int(moved[group[0]][i]) != i]
            assert all(len({int(moved[m][i]) for m in group}) == 1 for group in movable)
            if taking[i]:
                (group,) = changed
                assert fits(i, int(moved[group[0]][i]), group), (rows, i)


@pytest.mark.parametrize("groups", GROUPINGS, ids=str)
@pytest.mark.parametrize("rows", [2, 3, 8])
def test_where_nothing_is_missing_every_row_has_one_negative(groups: list[list[str]], rows: int) -> None:
    model = model_with(groups=groups)
    objective, ctx = drawn(model, batch_of(model, rows))
    assert objective.rows(ctx).all() and objective.count(ctx) == 2 * rows
    if len(groups) == 2:  # a permutation without fixed points
        assert sorted(objective.negatives(ctx)[groups[1][0]].tolist()) == list(range(rows))


def test_with_three_groups_each_is_replaced_about_as_often() -> None:
    model = model_with(groups=GROUPINGS[4])
    batch = batch_of(model, 300)
    objective, ctx = drawn(model, batch)
    moved = objective.negatives(ctx)
    counts = [int((moved[m] != torch.arange(300)).sum()) for m in MODALITIES]
    assert sum(counts) == 300 and min(counts) > 70


def test_the_loss_is_cross_entropy_over_both_kinds_of_pairs() -> None:
    """One row at a time, from what the head says of each pair."""
    model = model_with()
    batch = batch_of(model, 5, {"audio": [1, 4], "video": [2]})
    objective, ctx = drawn(model, batch)
    out = objective(ctx)
    moved = objective.negatives(ctx)
    own = torch.arange(5)
    terms: list[Tensor] = []
    for rows, right in (({}, 1), (moved, 0)):
        pairs = {m: rows.get(m, own) for m in MODALITIES}
        logits = objective.match_logits(ForwardContext(model, batch), pairs)
        terms += [-logits[i].log_softmax(0)[right] for i in range(5) if i != 2]
    torch.testing.assert_close(out.loss, torch.stack(terms).mean())
    assert out.weight == 8


def test_absent_rows_change_nothing() -> None:
    """A row that takes no part is in no denominator."""
    model = model_with()
    objective, ctx = drawn(model, batch_of(model, 4, {"text": [3], "audio": [3]}))
    loss = objective(ctx).loss
    one = batch_of(model, 4, {"text": [3], "audio": [3]})
    one.inputs["video"]["frames"][3] = 9
    objective, ctx = drawn(model, one)
    torch.testing.assert_close(objective(ctx).loss, loss)


def test_a_single_row_costs_nothing() -> None:
    model = model_with()
    objective, ctx = drawn(model, batch_of(model, 1))
    out = objective(ctx)
    assert out.loss == 0 and out.weight == 0
    out.loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in objective.parameters())


@pytest.mark.parametrize(
    "options", [{"groups": g} for g in GROUPINGS[::4]] + [{"token": "text_cls", "hidden": 4}], ids=str
)
def test_the_contract(options: dict[str, Any]) -> None:
    check_objective(Match, options, skip=MICRO)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"groups": [["video", "text"]]}, "two or three groups"),
        ({"groups": [["video"], ["text", "video"]]}, "two or three groups"),
        ({"groups": [["video"], ["smell"]]}, "two or three groups"),
        ({"groups": [["video"], []]}, "two or three groups"),
        ({"groups": [["video"], ["audio"]], "token": "text_cls"}, "needs text in one of the groups"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        model_with(**options)


def test_a_group_needs_its_encoders() -> None:
    encoders: dict[str, Any] = {slot: part for slot, part in tiny_encoders().items() if slot != "audio"}
    with pytest.raises(ConfigError, match="needs an encoder for audio"):
        Match(context=BuildContext(encoders=encoders))
