"""``univl_clip_order``: where did a clip that was moved come from? Frame order modelling (HERO, arXiv:2005.00200) over
the clips of a video, as Base-VTP has it.

    clips   (B, n, D)  some of them moved to each other's places
    output  for each clip scores of the places, by a small transformer over [CLS] and the clips
    loss    mean cross-entropy of the moved clips against the places that they came from
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vtp.errors import ConfigError
from vtp.model.blocks import Transformer
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.objective import Objective, masked_mean
from vtp.ranges import Count, Depth, Range
from vtp.types import LossOutput
from vtp_univl.clips import clip_tokens, token_width

__all__ = ["ClipOrder", "moved"]


class ClipOrder(Objective):
    """Order of the clips of a video.

    Args:
        share: of the clips to move, rounded; at least two.
        places: most clips of a video.
        depth: layers of the transformer.
        heads: its attention heads; null = one per 64 channels, or one.
        context: tells the width of the clip tokens.
    """

    needs = frozenset({"video"})

    def __init__(
        self,
        *,
        context: BuildContext,
        share: Annotated[float, Range(least=0, most=1)] = 0.15,
        places: Annotated[int, Range(least=2, most=4096)] = 16,
        depth: Depth = 3,
        heads: Count | None = None,
    ) -> None:
        super().__init__()
        width = token_width(context)
        self.share, self.places = share, places
        self.cls = nn.Parameter(torch.empty(1, width).normal_(std=0.02))
        self.positions = nn.Parameter(torch.empty(1 + places, width).normal_(std=0.02))
        self.temporal = Transformer(width, depth, heads or max(width // 64, 1))
        self.temporal_head = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, places))

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy over the moved clips, and the share of them that is told right."""
        rows = self.rows(ctx)
        x, _ = clip_tokens(ctx)
        clips = x.shape[1]
        if not 2 <= clips <= self.places:
            raise ConfigError(
                f"objective univl_clip_order: a video has {clips} clips here, and it must have 2 to {self.places}. "
                "Give the video encoder more frames or objectives.clip_order.places, or leave the objective out."
            )
        source, chosen = moved(ctx.uniform("univl.clip_order", 2 * self.places)[:, : 2 * clips], self.share)
        x = x.gather(1, source[..., None].expand_as(x))
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.positions[: 1 + clips]
        logits = self.temporal_head(self.temporal(x)[:, 1:])[..., :clips].float()
        losses = cross_entropy(logits.flatten(0, 1), source.flatten(), reduction="none").view_as(source)
        counted = chosen & rows[:, None]
        right = masked_mean((logits.detach().argmax(dim=-1) == source).float(), counted)
        return LossOutput(masked_mean(losses, counted), rows.sum(), {"accuracy": right})


def moved(numbers: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Move some of n things to each other's places: none of them stays.

    Args:
        numbers: uniform float (B, 2 n): which ones, and in which order.
        share: of the things to move, rounded; at least two.

    Returns:
        int64 (B, n), what lies in each place afterwards; and bool (B, n), True = a moved thing lies there.
    """
    rows, count = len(numbers), numbers.shape[1] // 2
    most = max(round(share * count), 2)
    picked = numbers[:, :count].argsort(dim=1)[:, :most]
    cycle = picked.gather(1, numbers[:, count : count + most].argsort(dim=1))
    place = torch.arange(count, device=numbers.device).expand(rows, -1)
    source = place.scatter(1, cycle, cycle.roll(1, dims=1))
    return source, source != place
