"""What every fusion encoder of this package does first: tokens of all modalities to one width, with a learned embedding
of their modality and, where they are mixed, their positions.

    x (B, N, D_m) -> Linear -> LayerNorm -> + modality (D) + gain (D) * positions (N, D)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from vtp.contracts import Encoder, member
from vtp.errors import ConfigError
from vtp.model.blocks import sincos_table
from vtp.model.build import BuildContext
from vtp.types import MODALITIES, Tokens

__all__ = ["PRESETS", "Projections", "grid_positions", "sizes"]

_LINE = 1024  # places of a sequence that has no grid
# width, depth, heads, hidden width of the feed-forward part over width
PRESETS = {"tiny": (192, 2, 3, 4.0), "small": (384, 4, 6, 4.0), "base": (768, 4, 12, 4.0)}


def sizes(
    name: str, preset: str, width: int | None, depth: int | None, heads: int | None, mlp_ratio: float | None
) -> tuple[int, int, int, float]:
    """Width, depth, heads and mlp_ratio: those given, the others of the preset.

    Raises:
        ConfigError: no such preset, or heads that do not divide the width.
    """
    if preset not in PRESETS:
        raise ConfigError(f"encoder {name}: no preset {preset!r}. Choose one of: {', '.join(PRESETS)}.")
    usual = PRESETS[preset]
    width = usual[0] if width is None else width
    heads = usual[2] if heads is None else heads
    if width % heads:
        nearest = max(1, round(width / heads)) * heads
        raise ConfigError(
            f"encoder {name}: width={width} must be a multiple of heads={heads}. Nearest valid: width={nearest}."
        )
    return width, usual[1] if depth is None else depth, heads, usual[3] if mlp_ratio is None else mlp_ratio


class Projections(nn.Module):
    """Tokens of any modality to the fusion width.

    Args:
        name: of the fusion encoder, for messages.
        width: D.
        positions: add positions; not where tokens are never mixed.
        context: tells the encoders, and so the modalities and their widths.

    Attributes:
        modalities: those of the model, in the order video, audio, text.

    Raises:
        ConfigError: the model has no encoder whose tokens could be fused.
    """

    def __init__(self, name: str, width: int, context: BuildContext, *, positions: bool = True) -> None:
        super().__init__()
        self.modalities = tuple(m for m in MODALITIES if m in context.encoders)
        if not self.modalities:
            raise ConfigError(
                f"encoder {name}: there is nothing to fuse; fill at least one of encoder/text, video, audio."
            )
        widths = {m: int(member(context.encoders[m], Encoder, "width")) for m in self.modalities}
        self.proj = nn.ModuleDict({m: _projection(found, width) for m, found in widths.items()})
        # As large as the features beside them: with the usual 0.02, who speaks is learnt many times more slowly.
        self.modality = nn.ParameterDict({m: nn.Parameter(torch.randn(width) * 0.5) for m in self.modalities})
        gains = self.modalities if positions else ()
        self.gain = nn.ParameterDict({m: nn.Parameter(torch.full((width,), 0.2)) for m in gains})

    def forward(self, modality: str, tokens: Tokens) -> Tensor:
        """All tokens, (B, N, D_m) -> (B, N, D). What stands in place of padding has no meaning, but is finite."""
        x = tokens.x.masked_fill(~tokens.attention_mask[..., None], 0.0)
        x = self._marked(modality, x)
        return x + self.gain[modality] * _positions(tokens, x) if self.gain else x

    def real(self, modality: str, tokens: Tokens) -> Tensor:
        """The real tokens alone, row after row: (sum of their numbers, D)."""
        mask = tokens.attention_mask
        x = self._marked(modality, tokens.x[mask])
        return x + self.gain[modality] * _positions(tokens, x).expand(*mask.shape, -1)[mask] if self.gain else x

    def _marked(self, modality: str, x: Tensor) -> Tensor:
        marked: Tensor = self.proj[modality](x) + self.modality[modality]
        return marked

    def idle(self, passes: Iterable[Iterable[str]]) -> Iterator[nn.Parameter]:
        """Parameters of modalities that none of the passes has; they would get no gradient."""
        given = {m for tokens in passes for m in tokens}
        for m in self.modalities:
            if m not in given:
                yield from self.proj[m].parameters()
                yield self.modality[m]
                if m in self.gain:
                    yield self.gain[m]


def _projection(width: int, fusion_width: int) -> nn.Sequential:
    """To the fusion width. It starts as close to a copy as it can: behind a random mixture features are learnt from
    much later."""
    linear = nn.Linear(width, fusion_width)
    if width == fusion_width:
        nn.init.eye_(linear.weight)
    else:
        nn.init.orthogonal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(linear, nn.LayerNorm(fusion_width, eps=1e-6))


def _positions(tokens: Tokens, like: Tensor) -> Tensor:
    """(1 or B, N, D): of each token, by its place in the grid of its modality."""
    count = tokens.x.shape[1]
    if tokens.grid is None and count <= _LINE:  # one table for all lengths, which an exported graph can cut too
        table = grid_positions((_LINE,), like.shape[-1])[:count].to(like)
    else:
        shape = (count,) if tokens.grid is None else tuple(tokens.grid)
        table = grid_positions(shape, like.shape[-1]).to(like)
    return table[None] if tokens.index is None else table[tokens.index]


@lru_cache(maxsize=64)
def grid_positions(shape: Sequence[int], width: int) -> Tensor:
    """Fixed sine-cosine positions on a grid, float32 (N, width), first axis slowest: every axis has a share of the
    channels. Axes of one place have none.

    Args:
        shape: tokens per axis, a tuple.
        width: of the tokens.
    """
    long = [axis for axis, size in enumerate(shape) if size > 1] or [0]
    share = width // (2 * len(long)) * 2
    table = torch.zeros(*shape, width)
    for place, axis in enumerate(long):
        first = place * share
        last = width if place == len(long) - 1 else first + share
        view = [1] * len(shape) + [last - first]
        view[axis] = shape[axis]
        table[..., first:last] = sincos_table(shape[axis], last - first).view(view)
    return table.flatten(0, -2)
