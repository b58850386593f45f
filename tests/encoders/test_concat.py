from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import nn

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.types import MODALITIES, Tokens
from vtp_encoders.concat import PRESETS, Concat

WIDTHS = {"video": 6, "audio": 5, "text": 4}
COUNTS = {"video": 7, "audio": 3, "text": 5}
SUBSETS = [s for n in (1, 2, 3) for s in combinations(MODALITIES, n)]


class Wide(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width


@pytest.fixture
def fusion():
    torch.manual_seed(0)
    encoders = {m: Wide(w) for m, w in WIDTHS.items()}
    return Concat(context=BuildContext(encoders=encoders), width=8, heads=2, depth=2)


def tokens(modalities=MODALITIES, rows=3):
    return {
        m: Tokens(torch.randn(rows, COUNTS[m], WIDTHS[m]), torch.ones(rows, COUNTS[m], dtype=torch.bool))
        for m in modalities
    }


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_any_subset_works_forward_and_backward(fusion, subset):
    given = tokens(subset)
    out = fusion(given)
    assert out.pooled.shape == (3, 8) and list(out.tokens) == list(subset)
    for m in subset:
        assert out.tokens[m].x.shape == (3, COUNTS[m], 8)
        assert torch.equal(out.tokens[m].attention_mask, given[m].attention_mask)
    (out.pooled.sum() + sum(t.x.square().sum() for t in out.tokens.values())).backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if any(f"{m}" in name.split(".")[1:2] for m in set(MODALITIES) - set(subset)):
            assert (parameter.grad == 0).all(), name  # in the graph, without influence


def test_a_missing_modality_equals_one_that_was_never_there(fusion):
    given = tokens()
    given["audio"].attention_mask[1] = False
    out = fusion(given)
    without = fusion({m: given[m] for m in ("video", "text")})
    torch.testing.assert_close(out.pooled[1], without.pooled[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.tokens["text"].x[1], without.tokens["text"].x[1], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(out.pooled[0], without.pooled[0], atol=1e-4)


def test_nothing_at_all_is_finite(fusion):
    given = tokens()
    for t in given.values():
        t.attention_mask[:] = False
        t.x.requires_grad_()
    pooled = fusion(given).pooled
    assert pooled.isfinite().all()
    pooled.sum().backward()
    assert all((t.x.grad == 0).all() for t in given.values())


def test_order_is_cls_video_audio_text_whatever_was_given(fusion):
    given = tokens()
    seen = []
    fusion.transformer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    out = fusion(given)
    again = fusion({m: given[m] for m in reversed(MODALITIES)})
    torch.testing.assert_close(out.pooled, again.pooled, rtol=0, atol=0)
    x = seen[0]
    torch.testing.assert_close(x[:, 0], fusion.cls[:, 0].expand(3, -1))
    start = 1
    for m in MODALITIES:
        expected = fusion.proj[m](given[m].x) + fusion.modality[m]
        torch.testing.assert_close(x[:, start : start + COUNTS[m]], expected)
        start += COUNTS[m]


def test_grid_and_index_pass_through(fusion):
    given = tokens(("video",))
    given["video"].index = torch.arange(7).expand(3, 7)
    given["video"].grid = (14, 1, 1)
    out = fusion(given).tokens["video"]
    assert out.index is given["video"].index and out.grid == (14, 1, 1)


def test_presets_and_overrides():
    context = BuildContext(encoders={"text": Wide(4)})
    small = Concat(context=context, preset="small", depth=1)
    assert (small.depth, small.width, small.transformer.blocks[0].attention.heads) == (1, *PRESETS["small"][1:3])
    with pytest.raises(ConfigError, match="no preset 'big'. Choose one of: tiny, small, base"):
        Concat(context=context, preset="big")
    with pytest.raises(ConfigError, match="nothing to fuse"):
        Concat(context=BuildContext())
