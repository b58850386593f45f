"""``transformers``: any text encoder of Hugging Face transformers, by hub name or local folder.

token_ids       (B, L) int64      as its tokenizer makes them
attention_mask  (B, L) bool       True = real
tokens          (B, L, D)         last hidden state
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.ranges import Size
from vtp.types import Tokens
from vtp_encoders.huggingface import (
    checkpoint_blocks,
    drop_pooler,
    layer_of_huggingface,
    load,
    load_weights,
    saved_folder,
)
from vtp_encoders.tokenizers import spec_of_transformers

__all__ = ["TransformersText"]

NAME = "transformers"


class TransformersText(nn.Module):
    """Text by BERT, RoBERTa, DeBERTa, MPNet, the text half of CLIP, the encoder of T5, ...

    Args:
        model: hub name (``bert-base-uncased``) or folder written by ``save_pretrained``. Nothing is downloaded when the
            folder is local or cached.
        pretrained: False takes the architecture and the tokenizer only, with random weights.
        max_length: longest text in tokens, special tokens included; the rest is cut off.
        pooling: the vector of a text: ``mean`` over its real tokens, or ``cls``, its first token.
        context: gives the saved configuration and tokenizer when a checkpoint is restored; then nothing is downloaded.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str = "bert-base-uncased",
        pretrained: bool = True,
        max_length: Size = 40,
        pooling: Literal["mean", "cls"] = "mean",
    ) -> None:
        super().__init__()
        saved = saved_folder(NAME, context.assets_of("encoders/text"))
        source = saved or os.path.expanduser(model)
        self.tokenizer = load(NAME, source, "tokenizer", lambda: AutoTokenizer.from_pretrained(source))
        if pretrained and saved is None:
            found: Any = load_weights(NAME, AutoModel, source)
        else:
            config = load(NAME, source, "configuration", lambda: AutoConfig.from_pretrained(source))
            found = AutoModel.from_config(config)
        self.model = _text_half(found)
        drop_pooler(self.model)
        self.width = int(self.model.config.hidden_size)
        self.depth = int(self.model.config.num_hidden_layers)
        self.pooling = pooling
        rows = int(self.model.get_input_embeddings().weight.shape[0])
        self.spec = spec_of_transformers(NAME, self.tokenizer, max_length, model, rows)

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """(B, L) ids -> Tokens (B, L, D)."""
        hidden = self.model(input_ids=token_ids, attention_mask=_open_empty_rows(attention_mask)).last_hidden_state
        return Tokens(hidden, attention_mask)

    def embed(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """Output of the embedding layer (words, positions, types, LayerNorm), not contextual: Tokens (B, L, D).

        Raises:
            ConfigError: for architectures that have no such layer of their own.
        """
        layer = getattr(self.model, "embeddings", None)
        if layer is None:
            raise ConfigError(
                f"encoder {NAME}: {type(self.model).__name__} has no separate embedding layer, which this fusion "
                "encoder needs. Choose a BERT-like text model or another encoder/fusion."
            )
        return Tokens(layer(input_ids=token_ids), attention_mask)

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, D): mean over real tokens, or the first one."""
        return tokens.pooled() if self.pooling == "mean" else tokens.x[:, 0]

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, 1..depth layers, depth + 1 behind them."""
        return layer_of_huggingface(name, self.depth)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the layers in the backward pass."""
        checkpoint_blocks(self.model)

    def save_assets(self, directory: Path) -> None:
        """Write configuration and tokenizer, so that a checkpoint can be loaded without the hub."""
        self.model.config.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)


def _text_half(model: Any) -> Any:
    """The part that reads text: the text tower of CLIP and its like, the encoder of T5 and its like."""
    if hasattr(model, "decoder"):  # not asked from the configuration: that of a T5 encoder denies having one
        return model.get_encoder()
    return getattr(model, "text_model", model)


def _open_empty_rows(attention_mask: Tensor) -> Tensor:
    """Rows without any real token get one: a softmax over nothing would be NaN in some attention kernels. What comes
    out of them is masked.
    """
    opened = attention_mask.clone()
    opened[:, 0] |= ~attention_mask.any(dim=1)
    return opened
