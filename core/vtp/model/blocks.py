"""Transformer parts that encoders are composed of. Pre-norm, exact GELU, LayerNorm eps 1e-6 (the ViT convention):

    x = x + drop_path(gamma_1 * dropout(attention(norm1(x))));  x = x + drop_path(gamma_2 * dropout(mlp(norm2(x))))

x        (B, N, D)
key_mask (B, N)     bool, True = real token, None = all of them

Several batches of sequences run together: their tokens lie in one row, (L, D), and a :class:`Layout` says where.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from vtp.errors import ConfigError
from vtp.model.attention import attention

__all__ = [
    "Attention",
    "Block",
    "Blocks",
    "Layout",
    "Transformer",
    "connected_zero",
    "init_weights",
    "layer_of_blocks",
    "sincos_table",
    "visible_index",
]

Names = Literal["vtp", "beit"]
# of the attention, of the two layers of the feed-forward part and what is between them
_NAMES = {"vtp": ("attention", "0", "1", "2"), "beit": ("attn", "fc1", "act", "fc2")}


class Transformer(nn.Module):
    """``depth`` blocks and a final LayerNorm; arguments as for :class:`Blocks`."""

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = Blocks(width, depth, heads, mlp_ratio, dropout=dropout)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D); padded keys influence nobody."""
        out: Tensor = self.norm(self.blocks(x, key_mask))
        return out


class Blocks(nn.ModuleList):
    """``depth`` blocks; calling it runs them all.

    Args:
        width: D.
        depth: number of blocks.
        heads: attention heads; must divide ``width``.
        mlp_ratio: hidden width of the feed-forward part over D.
        dropout: after attention and feed-forward, 0 = none.
        drop_path: share of rows whose residual branch is dropped in the last block; it grows linearly from 0 in the
            first.
        init_values: start of a learned factor per channel on both branches (LayerScale); 0 = none.
        names: of the parameters. ``beit`` are those of BEiT, MAE and VideoMAE: ``attn.qkv`` without a bias, ``q_bias``
            and ``v_bias`` beside it (a bias of the keys would change no softmax), ``mlp.fc1``, ``mlp.fc2``. ``vtp``:
            ``attention.qkv`` with one bias, ``mlp.0``, ``mlp.2``.

    Attributes:
        checkpointing: compute the activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        *,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        init_values: float = 0.0,
        names: Names = "vtp",
    ) -> None:
        hidden = int(width * mlp_ratio)
        if heads < 1 or width % heads or hidden < 1:  # asked here too: without blocks, no attention would tell
            raise ConfigError(f"width={width} must be a multiple of heads={heads}, and mlp_ratio={mlp_ratio} above 0.")
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        super().__init__(Block(width, heads, mlp_ratio, dropout, rate, init_values, names) for rate in rates)
        self.checkpointing = False

    def forward(self, x: Tensor, key_mask: Tensor | None = None, first: int = 0) -> Tensor:
        """(B, N, D) -> (B, N - first, D): the tokens from ``first`` on; padded keys influence nobody."""
        return self.run([x], [key_mask], first)[0]

    def run(self, parts: Sequence[Tensor], key_masks: Sequence[Tensor | None], first: int = 0) -> list[Tensor]:
        """Several batches of sequences (B_i, N_i, D) at once: attention inside each, everything else over all their
        tokens in one matrix product. The same numbers as one call for each, with a quarter of the weight gradients to
        add up.

        Args:
            parts: the batches.
            key_masks: bool (B_i, N_i) of each, True = real token, None = all of them.
            first: of each sequence only the tokens from this one on are wanted: the last block attends to all of them
                and computes nothing else for the others.
        """
        if not len(self):
            return [part[:, first:] for part in parts]
        layout = Layout([(part.shape[0], part.shape[1]) for part in parts], key_masks)
        x = layout.pack(parts)
        for i, block in enumerate(self, start=1):
            arguments = (x, layout, first if i == len(self) else 0)
            if self.checkpointing and torch.is_grad_enabled():
                # reentrant checkpointing loses gradients where x itself needs none
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)
        if first:
            layout = layout.without(first)
        return [part.view(*size, part.shape[-1]) for part, size in zip(layout.split(x), layout.sizes, strict=True)]


class Layout:
    """Where batches of sequences lie in one row of tokens (sum of B_i * N_i, D).

    Args:
        sizes: (B_i, N_i) of each batch.
        key_masks: bool (B_i, N_i) of each, True = real token, None = all of them.

    Attributes:
        sizes: as given.
        calls: the calls of attention that it takes, as (B, N, key mask). Neighbours of one length share a call.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], key_masks: Sequence[Tensor | None]) -> None:
        self.sizes = list(sizes)
        self.calls: list[tuple[int, int, Tensor | None]] = []
        for (rows, length), mask in zip(sizes, key_masks, strict=True):
            if self.calls and self.calls[-1][1] == length and (self.calls[-1][2] is None) == (mask is None):
                before, _, other = self.calls.pop()
                rows, mask = before + rows, None if mask is None or other is None else torch.cat([other, mask])
            self.calls.append((rows, length, mask))

    def pack(self, parts: Sequence[Tensor]) -> Tensor:
        """(B_i, N_i, D) each -> all tokens in one row."""
        flat = [part.flatten(0, 1) for part in parts]
        return flat[0] if len(flat) == 1 else torch.cat(flat)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The tokens of each batch, (B_i * N_i, D)."""
        return (x,) if len(self.sizes) == 1 else torch.split(x, [rows * length for rows, length in self.sizes])

    def drop(self, x: Tensor, first: int) -> Tensor:
        """The tokens from ``first`` on of each sequence, in one row."""
        parts = zip(self.split(x), self.sizes, strict=True)
        return self.pack([part.view(*size, part.shape[-1])[:, first:] for part, size in parts])

    def without(self, first: int) -> Layout:
        """The layout of what :meth:`drop` returns; it is not for attention."""
        return Layout([(rows, length - first) for rows, length in self.sizes], [None] * len(self.sizes))

    def per_row(self, device: torch.device) -> Tensor:
        """One uniform number per sequence, repeated for its tokens: (sum of B_i * N_i, 1)."""
        drawn = [torch.rand(rows, 1, device=device).expand(rows, length).reshape(-1, 1) for rows, length in self.sizes]
        return torch.cat(drawn)


class Block(nn.Module):
    """Attention and a feed-forward part, each behind a LayerNorm; arguments as for :class:`Blocks`."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        init_values: float = 0.0,
        names: Names = "vtp",
    ) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self._attention, first, between, second = _NAMES[names]
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.add_module(self._attention, Attention(width, heads, one_bias=names == "vtp"))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        layers = {first: nn.Linear(width, hidden), between: nn.GELU(), second: nn.Linear(hidden, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.drop_path = drop_path
        self.gamma_1 = nn.Parameter(torch.full((width,), init_values)) if init_values > 0 else None
        self.gamma_2 = nn.Parameter(torch.full((width,), init_values)) if init_values > 0 else None

    def forward(self, x: Tensor, layout: Layout, first: int = 0) -> Tensor:
        """All tokens in one row, (L, D) -> (L, D); of each sequence the tokens from ``first`` on."""
        y = getattr(self, self._attention)(self.norm1(x), layout, first)
        if first:
            x, layout = layout.drop(x, first), layout.without(first)
        x = x + self._branch(y, self.gamma_1, layout)
        return x + self._branch(self.mlp(self.norm2(x)), self.gamma_2, layout)

    def _branch(self, y: Tensor, gamma: Tensor | None, layout: Layout) -> Tensor:
        y = self.dropout(y)
        if gamma is not None:
            y = gamma * y
        if not (self.training and self.drop_path > 0):
            return y
        keep = 1.0 - self.drop_path
        return y * (layout.per_row(y.device) < keep).to(y.dtype).div_(keep)


class Attention(nn.Module):
    """Multi-head self-attention; the rows of ``qkv.weight`` are q, k, v, each heads * head width.

    Args:
        width: D.
        heads: must divide ``width``.
        one_bias: ``qkv`` has a bias; False puts ``q_bias`` and ``v_bias`` beside it.

    Raises:
        ConfigError: heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, one_bias: bool = True) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ConfigError(f"attention: width={width} must be a multiple of heads={heads}.")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=one_bias)
        if not one_bias:
            self.q_bias = nn.Parameter(torch.zeros(width))
            self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, layout: Layout, first: int = 0) -> Tensor:
        """All tokens in one row, (L, D) -> (L, D); attention stays inside each sequence, and only the tokens from
        ``first`` on ask."""
        weight, width = self.qkv.weight, x.shape[-1]
        bias = self.qkv.bias
        if bias is None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        sizes = [(rows, length) for rows, length, _ in layout.calls]
        if first:
            asking = linear(layout.drop(x, first), weight[:width], bias[:width])
            queries = _heads(asking, [(rows, length - first) for rows, length in sizes], 1, self.heads)
            others = _heads(linear(x, weight[width:], bias[width:]), sizes, 2, self.heads)
            triples = zip(queries, others[0::2], others[1::2], strict=True)
        else:
            whole = linear(x, weight, bias) if self.qkv.bias is None else self.qkv(x)  # for hooks and LoRA
            made = _heads(whole, sizes, 3, self.heads)
            triples = zip(made[0::3], made[1::3], made[2::3], strict=True)
        masks = [mask for _, _, mask in layout.calls]
        found = [attention(*qkv, key_mask=mask) for qkv, mask in zip(triples, masks, strict=True)]
        tokens = [out.transpose(1, 2).flatten(2).flatten(0, 1) for out in found]
        out: Tensor = self.proj(tokens[0] if len(tokens) == 1 else torch.cat(tokens))
        return out


class _Heads(torch.autograd.Function):
    """(L, pieces * H * D) -> ``pieces`` views (B_i, H, N_i, D) per batch of sequences.

    The gradient is put together in one copy; that of the same split and chunk in plain PyTorch takes two.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *layout: Any) -> tuple[Tensor, ...]:
        ctx.layout, ctx.shape = layout, x.shape
        return tuple(_head_views(x, *layout))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        out = grads[0].new_empty(ctx.shape)
        for view, grad in zip(_head_views(out, *ctx.layout), grads, strict=True):
            view.copy_(grad)
        return out, None, None, None


_heads: Callable[..., tuple[Tensor, ...]] = _Heads.apply


def _head_views(x: Tensor, sizes: Sequence[tuple[int, int]], pieces: int, heads: int) -> Iterator[Tensor]:
    """(B_i, H, N_i, D) of each piece of each batch, in the memory of ``x`` (L, pieces * H * D)."""
    parts = (x,) if len(sizes) == 1 else torch.split(x, [rows * length for rows, length in sizes])
    for part, (rows, length) in zip(parts, sizes, strict=True):
        yield from part.view(rows, length, pieces, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def sincos_table(positions: int, width: int) -> Tensor:
    """Fixed sine-cosine positions, float32 (positions, width): sin in even columns, cos in odd ones (arXiv:1706.03762).

    Angles are computed in float64: in float32 the error reaches 2e-5 at position 1567.
    """
    column = torch.arange(width, dtype=torch.float64)
    rate = torch.exp(-math.log(10000.0) * 2 * torch.div(column, 2, rounding_mode="floor") / width)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * rate
    table = torch.where(torch.arange(width) % 2 == 0, angle.sin(), angle.cos())
    return table.float()


def layer_of_blocks(name: str, depth: int, prefix: str = "blocks.") -> int:
    """Layer number of a parameter for layer-wise learning-rate decay: 0 before the blocks, 1..depth inside, depth + 1
    after.

    Args:
        name: parameter name inside the encoder, such as ``transformer.blocks.3.mlp.0.weight``.
        depth: number of blocks.
        prefix: what stands before the block number. Names after the last block (a final norm) must contain ``norm``
            right behind the module that holds the blocks; everything else without a block number counts as embedding.
    """
    before, found, after = name.partition(prefix)
    if found and after.split(".", 1)[0].isdigit():
        return int(after.split(".", 1)[0]) + 1
    return depth + 1 if name.startswith(("transformer.norm.", "norm.", "final.")) else 0


def visible_index(mask: Tensor) -> Tensor:
    """int64 (B, N_vis): positions of the tokens that ``mask`` (bool (B, N), True = hidden) leaves visible, ascending.

    Raises:
        ValueError: if rows hide different numbers of tokens; they could not be stacked.
    """
    counts = (~mask).sum(dim=1).tolist()
    if len(set(counts)) > 1:
        raise ValueError(f"a mask must leave the same number of tokens visible in every row, got {counts}")
    return mask.int().argsort(dim=1, stable=True)[:, : counts[0]]


def init_weights(module: nn.Module, std: float | None = None) -> None:
    """Initialise the linear layers and LayerNorms below ``module``: weights xavier-uniform (pre-training), or normal
    with ``std`` cut at two of them (fine-tuning); biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            if std is None:
                nn.init.xavier_uniform_(part.weight)
            else:
                nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


def connected_zero(tensors: Iterable[Tensor], like: Tensor) -> Tensor:
    """A zero, scalar like ``like``, whose gradient for each of ``tensors`` is zero and not None."""
    zero = like.new_zeros(())
    for tensor in tensors:
        if tensor.requires_grad:
            zero = zero + tensor.reshape(-1)[:1].sum().to(zero.dtype) * 0.0
    return zero
