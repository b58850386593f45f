"""The caption decoder: a causal transformer that writes words and looks at the tokens of a clip.

    words    (B, L) int64       [start] w1 .. wn
    memory   (B, N, M)          what is described: fused tokens of a clip
    hidden   (B, L, D)          the state after each word; depends on that word and those before it alone
    logits   (..., V)           of the word that follows

Decoder of UniVL (arXiv:2002.06353): 3 layers over the output of the cross encoder, one table of words for input and
output. Layers are pre-norm as all blocks of vtp.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from vtp.errors import ConfigError
from vtp.model.attention import attention

__all__ = ["CaptionDecoder"]


class CaptionDecoder(nn.Module):
    """Words and a memory to states, and states to scores of the next word.

    Args:
        words: the table of word embeddings, (V, D); also the output layer (arXiv:1608.05859).
        positions: most words, the start among them.
        memory_width: M.
        depth: layers.
        heads: attention heads; must divide D.
        mlp_ratio: hidden width of the feed-forward part over D.
        dropout: of the embeddings and after attention and feed-forward.

    Raises:
        ConfigError: heads do not divide D.
    """

    def __init__(
        self,
        words: nn.Embedding,
        positions: int,
        memory_width: int,
        *,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = words.embedding_dim
        if width % heads:
            raise ConfigError(f"objective caption: width={width} must be a multiple of heads={heads}.")
        self.words = words
        self.positions = nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(_Layer(width, memory_width, heads, mlp_ratio, dropout) for _ in range(depth))
        self.final = nn.LayerNorm(width)
        scaled = nn.LayerNorm(width)
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), scaled)
        self.bias = nn.Parameter(torch.zeros(words.num_embeddings))
        spread = float(words.weight.detach().float().std()) or 1.0
        nn.init.normal_(self.positions.weight, std=0.5 * spread)
        # whatever the scale of a table that others use too, logits begin with a variance of about 1
        nn.init.constant_(scaled.weight, 1.0 / (spread * math.sqrt(width)))

    def forward(self, token_ids: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """States after each word, (B, L, D).

        Args:
            token_ids: int64 (B, L), the start first; words behind the end may be anything.
            memory: (B, N, M).
            memory_mask: bool (B, N), True = real; a row without any is written blindly.
        """
        return self.step(token_ids, self.look(memory), memory_mask)

    def look(self, memory: Tensor) -> Tensor:
        """Keys and values of the memory for all layers, (B, depth, 2, H, N, D / H): computed once per clip, however
        many words follow. Each layer reads its own part."""
        return torch.stack([layer.look(memory) for layer in self._layers()], dim=1)

    def step(self, token_ids: Tensor, seen: Tensor, memory_mask: Tensor, past: Any = None) -> Tensor:
        """States after each of some more words, (B, L, D).

        Args:
            token_ids: int64 (B, L), the words behind those in ``past``: one, where there are some.
            seen: what :meth:`look` gave.
            memory_mask: bool (B, N).
            past: a ``Cache`` of transformers with keys and values of earlier words, which gets those of these words.
        """
        start = 0 if past is None else int(past.get_seq_length())
        places = torch.arange(start, start + token_ids.shape[1], device=token_ids.device)
        x = self.dropout(self.norm(self.words(token_ids) + self.positions(places)))
        for number, layer in enumerate(self._layers()):
            x = layer(x, seen[:, number], memory_mask, past, number)
        out: Tensor = self.final(x)
        return out

    def _layers(self) -> Iterator[_Layer]:
        yield from self.layers  # type: ignore[misc]

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next word, (..., V)."""
        return linear(self.transform(hidden), self.words.weight, self.bias)


class _Layer(nn.Module):
    """Attention to earlier words, attention to the memory, feed-forward, each behind a LayerNorm."""

    def __init__(self, width: int, memory_width: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(memory_width, 2 * width)
        self.cross_proj = nn.Linear(width, width)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def look(self, memory: Tensor) -> Tensor:
        """(B, N, M) -> keys and values (B, 2, H, N, D / H)."""
        made: Tensor = self.key_value(memory)
        return made.view(*memory.shape[:2], 2, self.heads, -1).permute(0, 2, 3, 1, 4)

    def forward(self, x: Tensor, seen: Tensor, memory_mask: Tensor, past: Any, number: int) -> Tensor:
        rows, length = x.shape[:2]
        q, k, v = self.qkv(self.norm1(x)).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = past.update(k, v, number)
        # Texts are padded behind their end, where no real word looks: no mask but the causal one. A single word may
        # look at everything before it.
        y = scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)
        x = x + self.dropout(self.proj(y.transpose(1, 2).flatten(2)))
        q = self.query(self.norm2(x)).view(rows, length, self.heads, -1).transpose(1, 2)
        y = attention(q, seen[:, 0], seen[:, 1], key_mask=memory_mask)
        x = x + self.dropout(self.cross_proj(y.transpose(1, 2).flatten(2)))
        out: Tensor = x + self.dropout(self.mlp(self.norm3(x)))
        return out
