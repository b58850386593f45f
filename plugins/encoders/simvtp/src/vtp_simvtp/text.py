"""``simvtp`` text: the embedding layer of BERT, nothing more. The transformer over it is the fusion encoder, which
video shares.

token_ids       (B, L) int64       [CLS] w1 .. wn [SEP] [PAD]*
attention_mask  (B, L) bool        True = real
tokens          (B, L, D)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.ranges import Count, Depth, Share, Size
from vtp.types import Tokens
from vtp_encoders.tokenizers import load_tokenizer, origin_of, save_tokenizer, spec_of
from vtp_simvtp.vit import width_and_depth

__all__ = ["TextEmbeddings", "WordEmbeddings"]


class WordEmbeddings(nn.Module):
    """Word + position + type-0 embedding, LayerNorm, dropout: (B, L) ids -> (B, L, D). Names as in BERT, and as there
    the embedding of padding never changes."""

    def __init__(self, vocabulary: int, positions: int, width: int, dropout: float, pad_id: int = 0) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width, padding_idx=pad_id)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        for table in (self.word_embeddings, self.position_embeddings, self.token_type_embeddings):
            nn.init.normal_(table.weight, std=0.02)
        nn.init.zeros_(self.word_embeddings.weight.data[pad_id])

    def forward(self, token_ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, D)."""
        x = self.word_embeddings(token_ids) + self.position_embeddings.weight[: token_ids.shape[1]]
        out: Tensor = self.dropout(self.LayerNorm(x + self.token_type_embeddings.weight[0]))
        return out


class TextEmbeddings(nn.Module):
    """Words to tokens, not yet contextual.

    Args:
        preset: tiny, small, base or large; its width is D.
        width: D in place of the preset's.
        depth: blocks of the shared transformer in place of the preset's; only for layer-wise learning rates.
        tokenizer: a name on the Hugging Face hub, a folder with a saved tokenizer, a ``vocab.txt`` of BERT, or
            ``texts`` to build one from the words of the training texts.
        vocabulary: number of ids; null takes the tokenizer's. More than it has is allowed, fewer is not.
        positions: longest text that the position table can hold.
        max_length: longest text in tokens, [CLS] and [SEP] included; the rest is cut off.
        dropout: behind the LayerNorm.
        context: gives the training texts, or the saved tokenizer when a checkpoint is restored.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        preset: str = "base",
        width: Size | None = None,
        depth: Depth | None = None,
        tokenizer: str = "bert-base-uncased",
        vocabulary: Count | None = None,
        positions: Size = 512,
        max_length: Size = 512,
        dropout: Share = 0.1,
    ) -> None:
        super().__init__()
        self.width, self.depth = width_and_depth(preset, width, depth)
        tool = load_tokenizer("simvtp", tokenizer, context)
        if max_length > positions:
            raise ConfigError(f"encoder simvtp: max_length={max_length} is more than positions={positions} can hold.")
        size = vocabulary or tool.get_vocab_size()
        if size < tool.get_vocab_size():
            raise ConfigError(
                f"encoder simvtp: vocabulary={size} is less than the {tool.get_vocab_size()} ids of tokenizer "
                f"{tokenizer}."
            )
        self.tokenizer = tool
        self.spec = spec_of(tool, max_length, size)
        self.embeddings = WordEmbeddings(size, positions, self.width, dropout, self.spec.pad_id)

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """(B, L) ids -> Tokens (B, L, D)."""
        return Tokens(self.embeddings(token_ids), attention_mask)

    def embed(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """The same: there is nothing behind the embedding layer."""
        return self.forward(token_ids, attention_mask)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: this is the embedding of the shared transformer, layer 0."""
        return 0

    def gradient_checkpointing_enable(self) -> None:
        """Nothing to recompute: there are look-ups and a LayerNorm."""

    def save_assets(self, directory: Path) -> None:
        """Write the tokenizer, so that a checkpoint can be loaded without hub or training texts."""
        save_tokenizer(self.tokenizer, directory)

    def origin(self) -> dict[str, Any]:
        """Hash and size of the vocabulary."""
        return origin_of(self.spec)
