"""``tiny``: a word-level tokenizer built from the training texts and a small transformer, trained from scratch. No
download.

token_ids       (B, L) int64       [CLS] w1 .. wn [SEP] [PAD]*
attention_mask  (B, L) bool        True = real
tokens          (B, L, D)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, arange, nn

from vtp.model.blocks import Transformer, layer_of_blocks
from vtp.model.build import BuildContext
from vtp.ranges import Count, Depth, Share, Size
from vtp.types import Tokens
from vtp_encoders.tokenizers import build_tokenizer, origin_of, save_tokenizer, saved_tokenizer, spec_of

__all__ = ["TinyText"]


class TinyText(nn.Module):
    """Words to tokens.

    Args:
        width: D.
        depth: transformer blocks; 0 gives the embeddings alone.
        heads: attention heads.
        max_length: longest text in tokens, [CLS] and [SEP] included; the rest is cut off.
        vocabulary: most words to keep, the most frequent ones first.
        min_count: words that occur less often in the training texts become [UNK].
        dropout: after attention and feed-forward.
        context: gives the training texts, or the saved tokenizer when a checkpoint is restored.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        width: Size = 96,
        depth: Depth = 1,
        heads: Count = 4,
        max_length: Size = 32,
        vocabulary: Count = 10000,
        min_count: Count = 1,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        saved = saved_tokenizer("tiny", context)
        self.tokenizer = build_tokenizer(context.texts(), vocabulary, min_count) if saved is None else saved
        self.spec = spec_of(self.tokenizer, max_length)
        self.width = width
        self.depth = depth
        self.words = nn.Embedding(self.spec.vocab_size, width)
        self.positions = nn.Embedding(max_length, width)
        self.transformer = Transformer(width, depth, heads, mlp_ratio=2.0, dropout=dropout)
        nn.init.normal_(self.words.weight, std=1.0)  # beside what the blocks add, smaller words would drown
        nn.init.normal_(self.positions.weight, std=0.5)

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """(B, L) ids -> Tokens (B, L, D)."""
        tokens = self.embed(token_ids, attention_mask)
        tokens.x = self.transformer(tokens.x, attention_mask)
        return tokens

    def embed(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """Word plus position embedding, not yet contextual: Tokens (B, L, D)."""
        position = arange(token_ids.shape[1], device=token_ids.device)
        return Tokens(self.words(token_ids) + self.positions(position), attention_mask)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, 1..depth blocks, depth + 1 the final norm."""
        return layer_of_blocks(name, self.depth)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks in the backward pass."""
        self.transformer.blocks.checkpointing = True

    def save_assets(self, directory: Path) -> None:
        """Write the tokenizer, so that a checkpoint can be loaded without the training texts."""
        save_tokenizer(self.tokenizer, directory)

    def origin(self) -> dict[str, Any]:
        """Hash and size of the vocabulary."""
        return origin_of(self.spec)
