"""Tokens, and fusion encoders at small size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vtp.model.build import BuildContext
from vtp.types import MODALITIES, Fused, Tokens
from vtp_crossformer.bottleneck import Bottleneck
from vtp_crossformer.crossformer import Crossformer
from vtp_crossformer.gate import Gate
from vtp_crossformer.pairwise import Pairwise

WIDTHS = {"video": 12, "audio": 16, "text": 8}
COUNTS = {"video": 6, "audio": 5, "text": 7}  # tokens
SMALL: dict[str, Any] = {"preset": "tiny", "width": 16, "heads": 2}
CASES: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "crossformer": (Crossformer, {}),
    "crossformer padded": (Crossformer, {"packed": False}),
    "pairwise": (Pairwise, {}),
    "bottleneck": (Bottleneck, {}),
    "bottleneck from the second layer on": (Bottleneck, {"start": 1, "tokens": 2}),
    "gate": (Gate, {}),
}
SUBSETS = [[m for i, m in enumerate(MODALITIES) if number >> i & 1] for number in range(1, 8)]


class Width(nn.Module):
    """Stands for an encoder of which only the width is asked."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width


def build(case: str, modalities: Sequence[str] = MODALITIES, seed: int = 0, **more: Any) -> Any:
    """A fusion encoder of one of the CASES."""
    torch.manual_seed(seed)
    cls, options = CASES[case]
    context = BuildContext(encoders={m: Width(WIDTHS[m]) for m in modalities})
    return cls(context=context, **SMALL | options | more)


def some_tokens(rows: int = 4, seed: int = 3) -> dict[str, Tokens]:
    """Tokens of all modalities: video on a grid, of which some places are visible; padded sound and texts."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for m in MODALITIES:
        count = COUNTS[m]
        mask = torch.ones(rows, count, dtype=torch.bool)
        if m != "video":
            for row in range(rows):
                mask[row, 2 + (row * 3) % (count - 1) :] = False
        x = torch.randn(rows, count, WIDTHS[m], generator=generator)
        grid = {"video": (3, 2, 2), "audio": (1, 5), "text": None}[m]
        index = None
        if m == "video":
            index = torch.rand(rows, 12, generator=generator).argsort(1)[:, :count].sort(1).values
        made[m] = Tokens(x, mask, grid, index)
    return made


def without(tokens: Mapping[str, Tokens], gone: Mapping[str, Sequence[int]], fill: float = 0.0) -> dict[str, Tokens]:
    """The same, some rows of some modalities being missing; ``fill`` stands in their places."""
    made = {}
    for m, given in tokens.items():
        x, mask = given.x.clone(), given.attention_mask.clone()
        rows = list(gone.get(m, []))
        x[rows], mask[rows] = fill, False
        made[m] = Tokens(x, mask, given.grid, given.index)
    return made


def real(out: Fused, row: int) -> dict[str, Tensor]:
    """What a row gives: its pooled vector, and its real tokens by modality."""
    found = {m: t.x[row][t.attention_mask[row]] for m, t in out.tokens.items() if t.attention_mask[row].any()}
    return {"pooled": out.pooled[row], **found}


def assert_same(left: Mapping[str, Tensor], right: Mapping[str, Tensor], atol: float = 1e-5) -> None:
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=atol, msg=name)
