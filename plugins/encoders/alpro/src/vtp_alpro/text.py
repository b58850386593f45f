"""``alpro`` text: the first layers of a BERT (arXiv:2112.09583, "ALPRO Architecture"); the fusion encoder has the rest.

token_ids       (B, L) int64       [CLS] w1 .. wn [SEP] [PAD]*
attention_mask  (B, L) bool        True = real
tokens          (B, L, D)          zeros in place of padding; a text is its [CLS]
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
from vtp_univl.bert import Embeddings, Layers, sizes
from vtp_univl.text import layer_of_bert

__all__ = ["LAYERS", "ALPROText"]

LAYERS = {"tiny": 2, "base": 6}  # of texts, and as many of pairs


class ALPROText(nn.Module):
    """Embeddings and layers of BERT over words.

    Args:
        preset: tiny (width 128, 2 layers, 4 heads) or base (768, 6, 12).
        width, depth, heads: numbers in place of the preset's.
        tokenizer: a name on the Hugging Face hub, a folder with a saved tokenizer, a ``vocab.txt`` of BERT, or
            ``texts`` to build one from the words of the training texts.
        vocabulary: number of ids; null takes the tokenizer's. More than it has is allowed, fewer is not.
        positions: longest sequence that the position table can hold.
        max_length: longest text in tokens, [CLS] and [SEP] included; the rest is cut off.
        dropout: behind the embeddings, the attention and the feed-forward part.
        attention_dropout: of the attention weights.
        context: gives the training texts, or the saved tokenizer when a checkpoint is restored.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        preset: str = "base",
        width: Size | None = None,
        depth: Depth | None = None,
        heads: Count | None = None,
        tokenizer: str = "bert-base-uncased",
        vocabulary: Count | None = None,
        positions: Size = 512,
        max_length: Size = 40,
        dropout: Share = 0.1,
        attention_dropout: Share = 0.1,
    ) -> None:
        super().__init__()
        where = "encoder alpro (text)"
        self.width, self.depth, heads = sizes(where, preset, width, depth or LAYERS.get(preset), heads)
        if max_length > positions:
            raise ConfigError(f"{where}: max_length={max_length} is more than positions={positions} can hold.")
        self.tokenizer = load_tokenizer("alpro", tokenizer, context)
        known = self.tokenizer.get_vocab_size()
        rows = vocabulary or known
        if rows < known:
            raise ConfigError(f"{where}: vocabulary={rows} is less than the {known} ids of tokenizer {tokenizer}.")
        self.spec = spec_of(self.tokenizer, max_length, rows)
        self.heads = heads
        self.embeddings = Embeddings(rows, positions, self.width, dropout, self.spec.pad_id)
        self.encoder = Layers(self.width, self.depth, heads, dropout, attention_dropout)
        self.checkpointing = False

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """(B, L) ids -> Tokens (B, L, D)."""
        x = self.embeddings(token_ids)
        (out,) = self.encoder.run([x], [attention_mask], recompute=self.checkpointing)
        return Tokens(out, attention_mask)

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, D): the [CLS]."""
        return tokens.x[:, 0]

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, 1..depth layers."""
        return layer_of_bert(name, self.depth)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the layers in the backward pass."""
        self.checkpointing = True

    def save_assets(self, directory: Path) -> None:
        """Write the tokenizer, so that a checkpoint can be loaded without hub or training texts."""
        save_tokenizer(self.tokenizer, directory)

    def origin(self) -> dict[str, Any]:
        """Hash and size of the vocabulary."""
        return origin_of(self.spec)
