"""BERT (arXiv:1810.04805) that computes nothing for padding: post-norm, exact GELU, LayerNorm eps 1e-12, and the names
of parameters of Hugging Face transformers.

    embeddings.{word,position,token_type}_embeddings, embeddings.LayerNorm
    encoder.layer.N.attention.self.{query,key,value}, .attention.output.{dense,LayerNorm}
    encoder.layer.N.intermediate.dense, .output.{dense,LayerNorm}
    pooler.dense

x      (B, N, D)        embedded tokens
mask   (B, N)   bool    True = real token
flat   (S, D)           the real tokens of several batches of sequences in one row, the shortest sequences first

Linear layers, LayerNorm and GELU see ``flat`` alone; attention sees sequences of one length at a time. So B x B pairs
of texts and videos cost what their words cost, not what the longest text does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from vtp.errors import ConfigError
from vtp.model.attention import attention

__all__ = ["PRESETS", "Bert", "Embeddings", "Layers", "Pooler", "init_linear", "sizes"]

# width, depth, heads
PRESETS = {"tiny": (128, 2, 4), "base": (768, 12, 12)}


def sizes(where: str, preset: str, width: int | None, depth: int | None, heads: int | None) -> tuple[int, int, int]:
    """Width, depth and heads of a preset, with the numbers that are given in place of its own.

    Raises:
        ConfigError: there is no such preset, or the heads do not divide the width.
    """
    if preset not in PRESETS:
        raise ConfigError(f"{where}: no preset {preset!r}. Choose one of: {', '.join(PRESETS)}.")
    given = zip((width, depth, heads), PRESETS[preset], strict=True)
    chosen = [usual if number is None else number for number, usual in given]
    if chosen[0] % chosen[2]:
        raise ConfigError(f"{where}: width={chosen[0]} must be a multiple of heads={chosen[2]}.")
    return chosen[0], chosen[1], chosen[2]


class Bert(nn.Module):
    """Embeddings, layers and pooler.

    Args:
        vocabulary: number of ids.
        positions: longest sequence that the position table can hold.
        width, depth, heads: D, number of layers, attention heads of each.
        dropout: behind the embeddings, the attention and the feed-forward part.
        attention_dropout: of the attention weights.
        pad_id: whose embedding never changes.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        positions: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        pad_id: int = 0,
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(vocabulary, positions, width, dropout, pad_id)
        self.encoder = Layers(width, depth, heads, dropout, attention_dropout)
        self.pooler = Pooler(width)

    def embed(self, token_ids: Tensor, type_id: int = 0) -> Tensor:
        """See :meth:`Embeddings.forward`."""
        out: Tensor = self.embeddings(token_ids, type_id)
        return out


class Embeddings(nn.Module):
    """Word + position + type, LayerNorm, dropout; arguments as for :class:`Bert`."""

    def __init__(self, vocabulary: int, positions: int, width: int, dropout: float, pad_id: int | None = 0) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width, padding_idx=pad_id)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        for table in (self.word_embeddings, self.position_embeddings, self.token_type_embeddings):
            nn.init.normal_(table.weight, std=0.02)
        if pad_id is not None:
            nn.init.zeros_(self.word_embeddings.weight.data[pad_id])

    def forward(self, words: Tensor, type_id: int = 0) -> Tensor:
        """Ids, int64 (B, N), or vectors in place of word embeddings, (B, N, D) -> (B, N, D). Positions start at 0.

        Raises:
            ConfigError: there are more tokens than positions.
        """
        x = words if words.is_floating_point() else self.word_embeddings(words)
        table = self.position_embeddings.weight
        if x.shape[1] > len(table):
            raise ConfigError(
                f"encoder univl: {x.shape[1]} tokens in a row are more than its {len(table)} positions "
                "(encoder.text.positions). Take fewer or shorter clips, or one token per clip "
                "(encoder.video.tokens=mean)."
            )
        x = x + table[: x.shape[1]] + self.token_type_embeddings.weight[type_id]
        out: Tensor = self.dropout(self.LayerNorm(x))
        return out


class Pooler(nn.Module):
    """Linear and tanh on one token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        init_linear(self, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        out: Tensor = self.dense(x).tanh()
        return out


class Layers(nn.Module):
    """The stack of layers; arguments as for :class:`Bert`."""

    def __init__(self, width: int, depth: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.random = dropout > 0 or attention_dropout > 0
        self.layer = nn.ModuleList(Layer(width, heads, dropout, attention_dropout) for _ in range(depth))
        init_linear(self, width)

    def run(
        self, parts: Sequence[Tensor], masks: Sequence[Tensor], *, chunk: int | None = None, recompute: bool = False
    ) -> list[Tensor]:
        """Several batches of sequences at once, without padding.

        Args:
            parts: (B_i, N_i, D) each.
            masks: bool (B_i, N_i) each, True = real token. Real tokens need not be neighbours; nothing depends on the
                values of the others.
            chunk: most tokens that pass through the layers together; null = all of them. A longer sequence goes alone.
            recompute: compute the activations again in the backward pass instead of keeping them.

        Returns:
            (B_i, N_i, D) each; zeros in place of padding.
        """
        if torch.compiler.is_exporting():  # a graph knows no lengths
            return [self._padded(x, mask) for x, mask in zip(parts, masks, strict=True)]
        packing = Packing(masks)
        if not packing.lengths:  # the pass still runs, on one token, so that every parameter is part of the graph
            opened = [torch.zeros_like(mask) for mask in masks]
            opened[0][0, 0] = True
            return [out * 0.0 for out in self.run(parts, opened, chunk=chunk, recompute=recompute)]
        x = packing.pack(parts)
        sequences = list(packing.chunks(chunk))
        pieces = torch.split(x, [sum(lengths) for lengths in sequences])
        found = [self._run(piece, lengths, recompute) for piece, lengths in zip(pieces, sequences, strict=True)]
        return packing.unpack(found[0] if len(found) == 1 else torch.cat(found))

    def _run(self, x: Tensor, lengths: Sequence[int], recompute: bool) -> Tensor:
        groups = Groups(lengths, x.device)
        for layer in self.layer:
            if recompute and torch.is_grad_enabled():
                # reentrant checkpointing loses gradients where x itself needs none
                x = checkpoint(layer, x, groups, use_reentrant=False)
            else:
                x = layer(x, groups)
        return x

    def _padded(self, x: Tensor, mask: Tensor) -> Tensor:
        """One batch of sequences with its padding, which the mask hides from attention."""
        whole, flat = Whole(mask), x.flatten(0, 1)
        for layer in self.layer:
            flat = layer(flat, whole)
        return flat.view(x.shape).masked_fill(~mask[..., None], 0.0)

    @torch.no_grad()
    def attention_maps(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention weights of a padded pass, without gradients and dropout: (layers, B, heads, N, N), rows sum to 1
        over real keys; queries of padding have weights as well."""
        groups = Groups([x.shape[1]] * len(x), x.device)
        flat, found = x.flatten(0, 1), []
        layer: Any
        for layer in self.layer:
            sharded = hasattr(layer, "unshard")  # FSDP2 makes a layer whole for its forward alone
            if sharded:
                layer.unshard()
            weights = layer.attention.weights(flat, mask)
            found.append(weights)
            flat = layer.behind(flat, layer.attention.mixed(flat, weights, groups))
            if sharded:
                layer.reshard()
        return torch.stack(found)


class Packing:
    """Where the real tokens of several batches of sequences lie in one row, the shortest sequences first.

    Args:
        masks: bool (B_i, N_i) each, True = real token.

    Attributes:
        lengths: of the sequences, rising; those without a token are left out.
    """

    def __init__(self, masks: Sequence[Tensor]) -> None:
        self.shapes = [(len(mask), mask.shape[1]) for mask in masks]
        device = masks[0].device
        told = [mask.cpu() for mask in masks]  # where tokens are decides how large tensors are, so the host must know
        counts = torch.cat([mask.sum(dim=1) for mask in told])
        order = counts.argsort(stable=True)
        self.lengths: list[int] = [length for length in counts[order].tolist() if length]
        places = torch.cat([mask.flatten() for mask in told]).nonzero()[:, 0]  # of real tokens, row by row
        starts = counts.cumsum(0) - counts
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        first = (counts[order].cumsum(0) - counts[order])[rank]  # where each sequence begins in the result
        index = torch.empty_like(places)
        index[torch.arange(len(places)) + torch.repeat_interleave(first - starts, counts)] = places
        self.index = index.to(device, non_blocking=True)

    def pack(self, parts: Sequence[Tensor]) -> Tensor:
        """(B_i, N_i, D) each -> (S, D)."""
        flat = [part.flatten(0, 1) for part in parts]
        rows = flat[0] if len(flat) == 1 else torch.cat(flat)
        return rows.index_select(0, self.index)

    def unpack(self, x: Tensor) -> list[Tensor]:
        """The way back; zeros in place of padding."""
        total = sum(rows * length for rows, length in self.shapes)
        whole = x.new_zeros(total, x.shape[1]).index_copy(0, self.index, x)
        pieces = torch.split(whole, [rows * length for rows, length in self.shapes])
        return [piece.view(*shape, -1) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def chunks(self, most: int | None) -> Iterator[list[int]]:
        """Lengths of neighbouring sequences with at most so many tokens together."""
        if most is None:
            yield self.lengths
            return
        taken: list[int] = []
        for length in self.lengths:
            if taken and sum(taken) + length > most:
                yield taken
                taken = []
            taken.append(length)
        yield taken


class Groups:
    """Which sequences of a row of tokens pass through attention together.

    On a CPU those of one length, without a mask. Elsewhere all of them, padded to the longest: attention is a small
    part of the work, and many small calls would keep the device waiting.

    Args:
        lengths: of the sequences, rising.
        device: where the tokens lie.
        together: pad all of them; None = not on a CPU.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device, together: bool | None = None) -> None:
        self.equal = [(len(list(group)), length) for length, group in groupby(lengths)]
        padded = device.type != "cpu" if together is None else together
        self.mask: Tensor | None = None  # bool (sequences, longest), True = real
        if padded and len(self.equal) > 1:
            told = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
            self.mask = told.to(device, non_blocking=True)
            self.places = told.flatten().nonzero()[:, 0].to(device, non_blocking=True)

    def split(self, x: Tensor, heads: int) -> list[Tensor]:
        """(S, D) -> (rows, heads, length, D / heads) of each group."""
        if self.mask is not None:
            whole = x.new_zeros(self.mask.numel(), x.shape[1]).index_copy(0, self.places, x)
            return [whole.view(*self.mask.shape, heads, -1).transpose(1, 2)]
        pieces = torch.split(x, [rows * length for rows, length in self.equal])
        return [
            piece.view(rows, length, heads, -1).transpose(1, 2)
            for piece, (rows, length) in zip(pieces, self.equal, strict=True)
        ]

    def join(self, found: Sequence[Tensor]) -> Tensor:
        """The way back."""
        flat = [out.transpose(1, 2).flatten(2).flatten(0, 1) for out in found]
        if self.mask is not None:
            return flat[0].index_select(0, self.places)
        return flat[0] if len(flat) == 1 else torch.cat(flat)


class Whole(Groups):
    """A batch of sequences with its padding.

    Args:
        mask: bool (B, N), True = real.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def split(self, x: Tensor, heads: int) -> list[Tensor]:
        """(B * N, D) -> (B, heads, N, D / heads)."""
        assert self.mask is not None
        return [x.view(*self.mask.shape, heads, -1).transpose(1, 2)]

    def join(self, found: Sequence[Tensor]) -> Tensor:
        """The way back."""
        return found[0].transpose(1, 2).flatten(2).flatten(0, 1)


class Layer(nn.Module):
    """Attention and a feed-forward part, each followed by a LayerNorm over the sum with its input."""

    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout, attention_dropout)
        self.intermediate = _Dense(width, 4 * width)
        self.output = _Output(4 * width, width, dropout)

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        """(S, D) -> (S, D)."""
        return self.behind(x, self.attention(x, groups))

    def behind(self, x: Tensor, mixed: Tensor) -> Tensor:
        """What follows attention: ``x`` is the input of the layer, ``mixed`` what attention made of it."""
        x = self.attention.output(mixed, x)
        out: Tensor = self.output(nn.functional.gelu(self.intermediate.dense(x)), x)
        return out


class SelfAttention(nn.Module):
    """Multi-head attention inside each sequence."""

    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = attention_dropout
        self.add_module("self", nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")}))
        self.output = _Output(width, width, dropout)

    def _split(self, name: str, x: Tensor, groups: Groups) -> list[Tensor]:
        return groups.split(self._modules["self"][name](x), self.heads)  # type: ignore[index]

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        """(S, D) -> (S, D), before the output layer."""
        q, k, v = (self._split(name, x, groups) for name in ("query", "key", "value"))
        return groups.join([self._attend(*qkv, mask=groups.mask) for qkv in zip(q, k, v, strict=True)])

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None) -> Tensor:
        if not (self.training and self.dropout > 0):
            return attention(q, k, v, key_mask=mask)
        allowed = None if mask is None else mask[:, None, None, :]  # every sequence has a token
        return scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=self.dropout)

    def weights(self, x: Tensor, mask: Tensor) -> Tensor:
        """Weights (B, heads, N, N) of sequences of one length, (B * N, D), over keys that ``mask`` (B, N) allows."""
        groups = Groups([mask.shape[1]] * len(mask), x.device)
        q, k = (self._split(name, x, groups)[0] for name in ("query", "key"))
        logits = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        found: Tensor = logits.masked_fill(~mask[:, None, None, :], -torch.inf).softmax(dim=-1).nan_to_num(0.0)
        return found

    def mixed(self, x: Tensor, weights: Tensor, groups: Groups) -> Tensor:
        """Values averaged by ``weights``, (B * N, D)."""
        return groups.join([weights @ self._split("value", x, groups)[0]])


class _Dense(nn.Module):
    """A linear layer under the name that Hugging Face gives it."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)


class _Output(nn.Module):
    """Linear, dropout, and LayerNorm over the sum with the input of the branch."""

    def __init__(self, inner: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dropout(self.dense(y)) + x)
        return out


def init_linear(module: nn.Module, width: int) -> None:
    """Normal weights, zero biases: std 0.02 as BERT starts, from its width of 768 on; in narrower ones 1/sqrt(width), a
    gain of one. Behind the two layers of a tiny model BERT's own would leave next to nothing of clips in [CLS]."""
    std = 0.02 if width >= 768 else width**-0.5
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=std)
            nn.init.zeros_(part.bias)
