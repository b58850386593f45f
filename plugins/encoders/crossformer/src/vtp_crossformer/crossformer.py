"""``crossformer``: one pre-norm transformer over the real tokens of every modality that a row has, and a learned joint
token. The interface is that of simple-multimodal; the design is vtp's own.

    [joint ; video ; audio ; text]   this order; of each row only what is real
    tokens  (B, N_m, D) per modality, 0 in place of padding
    pooled  (B, D), the joint token

A row without a modality is a shorter sequence, so its result is that of a batch that never had the modality. A softmax
over nothing cannot happen: the joint token is always there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from vtp.model.blocks import Blocks, connected_zero, layer_of_blocks
from vtp.model.build import BuildContext
from vtp.ranges import Count, Depth, Positive, Share, Size
from vtp.types import MODALITIES, Fused, Tokens
from vtp_crossformer.packing import Packing, run_packed
from vtp_crossformer.projections import Projections, sizes

__all__ = ["Crossformer"]


class Crossformer(nn.Module):
    """Fusion by self-attention over all real tokens; works for any subset of the modalities, per row.

    Args:
        preset: ``tiny`` (width 192, depth 2, 3 heads, mlp_ratio 4), ``small`` (384, 4, 6, 4), ``base`` (768, 4, 12, 4).
        width, depth, heads, mlp_ratio: override the preset's numbers; mlp_ratio is the hidden width of the feed-forward
            part over D.
        dropout: after attention and feed-forward.
        packed: run real tokens only, sequences of one length at a time, instead of padding all of them to the longest;
            None = on a CPU. On a GPU the lengths must be waited for, and many lengths are many calls.
        context: tells the widths of the encoders.

    Attributes:
        takes_many: whether several passes may be asked for in one call: not with dropout, whose draws would differ.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        preset: str = "base",
        width: Size | None = None,
        depth: Depth | None = None,
        heads: Count | None = None,
        mlp_ratio: Positive | None = None,
        dropout: Share = 0.0,
        packed: bool | None = None,
    ) -> None:
        super().__init__()
        self.width, self.depth, n_heads, ratio = sizes("crossformer", preset, width, depth, heads, mlp_ratio)
        self.packed = packed
        self.takes_many = not dropout
        self.projections = Projections("crossformer", self.width, context)
        self.joint = nn.Parameter(torch.randn(self.width) * 0.02)
        self.blocks = Blocks(self.width, self.depth, n_heads, ratio, dropout=dropout)
        self.norm = nn.LayerNorm(self.width, eps=1e-6)

    def forward(self, tokens: Mapping[str, Tokens] | Sequence[Mapping[str, Tokens]]) -> Fused | list[Fused]:
        """Tokens per modality (R rows each) -> the same after fusion, and ``pooled`` (R, D).

        A list of such dicts gives the list of results: the passes run together.
        """
        passes = [tokens] if isinstance(tokens, Mapping) else list(tokens)
        joint: Tensor = self.joint
        if torch.is_grad_enabled():
            joint = joint + connected_zero(self.projections.idle(passes), joint)
        packed = joint.device.type == "cpu" if self.packed is None else self.packed
        packed = packed and not torch.compiler.is_exporting()  # a graph knows no lengths
        found = self._packed(passes, joint) if packed else self._padded(passes, joint)
        return found[0] if isinstance(tokens, Mapping) else found

    def _padded(self, passes: Sequence[Mapping[str, Tokens]], joint: Tensor) -> list[Fused]:
        parts, masks = [], []
        for tokens in passes:
            names = _names(tokens)
            first = joint.expand(tokens[names[0]].x.shape[0], 1, -1)
            made = [first, *(self.projections(m, tokens[m]) for m in names)]
            parts.append(torch.cat([part.to(made[-1].dtype) for part in made], dim=1))
            masks.append(_mask(tokens))
        out = [self.norm(x) for x in self.blocks.run(parts, masks)]
        return [
            _fused(tokens, x[:, 1:].masked_fill(~mask[:, 1:, None], 0.0), x[:, 0])
            for tokens, x, mask in zip(passes, out, masks, strict=True)
        ]

    def _packed(self, passes: Sequence[Mapping[str, Tokens]], joint: Tensor) -> list[Fused]:
        masks = [_mask(tokens) for tokens in passes]
        packing = Packing(masks)
        flat, places, start = [], [], 0
        for tokens, mask, cells in zip(passes, masks, packing.cells, strict=True):
            kept = [joint.expand(len(mask), -1), *(self.projections.real(m, tokens[m]) for m in _names(tokens))]
            flat += kept
            places.append(_places(tokens, mask, start).flatten()[cells])
            start += sum(len(part) for part in kept)
        x = torch.cat([part.to(flat[-1].dtype) for part in flat])[torch.cat(places)]
        firsts, others = run_packed(self.blocks, x, packing)
        found = []
        for tokens, mask, cells, rows, first, other in zip(
            passes, masks, packing.cells, packing.rows, firsts, others, strict=True
        ):
            pooled = self.norm(first)[rows.argsort()]
            cells = cells[cells % mask.shape[1] > 0]
            whole = other.new_zeros(mask.numel(), self.width).index_copy(0, cells, self.norm(other))
            found.append(_fused(tokens, whole.view(*mask.shape, -1)[:, 1:], pooled))
        return found

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 projections, 1..depth blocks, depth + 1 the final norm."""
        return layer_of_blocks(name, self.depth)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks in the backward pass."""
        self.blocks.checkpointing = True


def _names(tokens: Mapping[str, Tokens]) -> list[str]:
    return [m for m in MODALITIES if m in tokens]


def _mask(tokens: Mapping[str, Tokens]) -> Tensor:
    """bool (B, 1 + N): the joint token, which is always there, and the tokens of every modality."""
    masks = [tokens[m].attention_mask for m in _names(tokens)]
    return torch.cat([torch.ones_like(masks[0][:, :1]), *masks], dim=1)


def _places(tokens: Mapping[str, Tokens], mask: Tensor, start: int) -> Tensor:
    """int64 (B, 1 + N): where each real token of the rows lies when first come all joint tokens, from ``start`` on,
    then all real tokens of the first modality, row after row, and so on; -1 for padding."""
    place = torch.full(mask.shape, -1, device=mask.device)
    columns = [1, *(tokens[m].x.shape[1] for m in _names(tokens))]
    for part, own in zip(torch.split(mask, columns, 1), torch.split(place, columns, 1), strict=True):
        count = int(part.sum())
        own[part] = torch.arange(start, start + count, device=mask.device)
        start += count
    return place


def _fused(tokens: Mapping[str, Tokens], x: Tensor, pooled: Tensor) -> Fused:
    """Cut (B, N, D) into the modalities again."""
    names = _names(tokens)
    pieces = torch.split(x, [tokens[m].x.shape[1] for m in names], 1)
    return Fused({m: replace(tokens[m], x=piece) for m, piece in zip(names, pieces, strict=True)}, pooled)
