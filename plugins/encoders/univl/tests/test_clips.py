"""Clip tokens and features of encoders that know clips, that have a grid, and that have neither."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.testing.inputs import batch_for, tiny_encoders
from vtp.types import Tokens, VideoSpec
from vtp_univl.clips import by_moment, clip_features, clip_tokens, feature_width


class Clips(nn.Module):
    """An encoder that knows clips: three tokens, whose features are another space of width 2."""

    spec = VideoSpec(frames=3, size=8)
    width, clip_width = 5, 2

    def forward(self, video: torch.Tensor) -> Tokens:
        x = video.mean(dim=(-1, -2))[..., :1].expand(-1, -1, 5) + torch.arange(5.0)
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool))

    def clip_features(self, tokens: Tokens) -> torch.Tensor:
        return normalize(tokens.x[..., :2], dim=-1)


def test_a_clip_is_a_moment_of_the_grid() -> None:
    """Against loops, with tokens that are padding and a moment without real ones."""
    x = torch.randn(2, 12, 4)
    mask = torch.rand(2, 12) < 0.6
    mask[1, 4:8] = False
    got, real = by_moment(Tokens(x, mask, (3, 2, 2)))
    for row in range(2):
        for moment in range(3):
            kept = [x[row, i] for i in range(4 * moment, 4 * moment + 4) if mask[row, i]]
            want = torch.stack(kept).mean(0) if kept else torch.zeros(4)
            torch.testing.assert_close(got[row, moment], want)
            assert real[row, moment] == bool(kept)


def test_visible_tokens_keep_their_moments() -> None:
    """Of a masked view only some tokens are there, in any order; the mean is that of the visible ones."""
    x = torch.randn(1, 3, 4)
    index = torch.tensor([[9, 1, 2]])
    got, real = by_moment(Tokens(x, torch.ones(1, 3, dtype=torch.bool), (3, 2, 2), index))
    torch.testing.assert_close(got[0, 0], x[0, 1:].mean(0))
    torch.testing.assert_close(got[0, 2], x[0, 0])
    assert real.tolist() == [[True, False, True]]


def test_without_a_grid_a_video_is_one_clip() -> None:
    x, mask = torch.randn(2, 6, 4), torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    got, real = by_moment(Tokens(x, mask))
    torch.testing.assert_close(got[:, 0], torch.stack([x[0].mean(0), x[1, :2].mean(0)]))
    assert real.tolist() == [[True], [True]]
    kept, its_mask = by_moment(Tokens(x, mask), whole=False)
    assert kept is x and its_mask is mask


@pytest.mark.parametrize("own", [True, False])
def test_an_encoder_tells_its_own_features(own: bool) -> None:
    encoders: dict[str, Any] = {**tiny_encoders(), **({"video": Clips()} if own else {})}
    model = VTPModel(encoders).eval()
    batch = batch_for(model.specs(), 3, {}, {"video": [1]})
    ctx = ForwardContext(model, batch)
    x, mask = clip_tokens(ctx)
    features = clip_features(ctx)
    assert x.shape[:2] == mask.shape == features.shape[:2]
    assert mask[0].all() and not mask[1].any()
    torch.testing.assert_close(features.norm(dim=-1)[mask], torch.ones(int(mask.sum())))
    if own:
        assert x.shape == (3, 3, 5)
        torch.testing.assert_close(features, normalize(x[..., :2], dim=-1))
    else:
        torch.testing.assert_close(features[0], normalize(x[0], dim=-1))

    class Context:
        pass

    context: Any = Context()
    context.encoders = encoders
    assert features.shape[-1] == feature_width(context)
