"""``univl`` text: BERT. The fusion encoder uses the same layers, and reads the embedding layer of this one.

token_ids       (B, L) int64       [CLS] w1 .. wn [SEP] [PAD]*
attention_mask  (B, L) bool        True = real
tokens          (B, L, D)          last hidden state; zeros in place of padding
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vtp.errors import ConfigError
from vtp.model.blocks import connected_zero
from vtp.model.build import BuildContext
from vtp.ranges import Count, Depth, Share, Size
from vtp.types import Tokens
from vtp_encoders.tokenizers import load_tokenizer, origin_of, save_tokenizer, spec_of
from vtp_univl.bert import Bert, sizes

__all__ = ["UniVLText", "layer_of_bert"]


class UniVLText(nn.Module):
    """BERT over words; a text is the pooled [CLS] (arXiv:2002.06353, text encoder).

    Args:
        preset: tiny (width 128, depth 2, 4 heads) or base (768, 12, 12).
        width, depth, heads: numbers in place of the preset's.
        tokenizer: a name on the Hugging Face hub, a folder with a saved tokenizer, a ``vocab.txt`` of BERT, or
            ``texts`` to build one from the words of the training texts.
        pretrained: folder of a BERT that ``save_pretrained`` wrote, or a name on the hub: the weights to start from.
            Null starts from random ones.
        vocabulary: number of ids; null takes the tokenizer's. More than it has is allowed, fewer is not.
        positions: longest sequence that the position table can hold, of texts and of the clips in the fusion encoder.
        max_length: longest text in tokens, [CLS] and [SEP] included; the rest is cut off.
        dropout: behind the embeddings, the attention and the feed-forward part.
        attention_dropout: of the attention weights. Above 0, training uses PyTorch's attention whatever ``kernels``
            says.
        context: gives the training texts, or the saved tokenizer when a checkpoint is restored.

    Attributes:
        bert: the parts, named as in Hugging Face transformers.
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
        pretrained: str | None = None,
        vocabulary: Count | None = None,
        positions: Size = 512,
        max_length: Size = 30,
        dropout: Share = 0.1,
        attention_dropout: Share = 0.1,
    ) -> None:
        super().__init__()
        where = "encoder univl (text)"
        self.width, self.depth, self.heads = sizes(where, preset, width, depth, heads)
        if max_length > positions:
            raise ConfigError(f"{where}: max_length={max_length} is more than positions={positions} can hold.")
        self.tokenizer = load_tokenizer("univl", tokenizer, context)
        known = self.tokenizer.get_vocab_size()
        rows = vocabulary or known
        if rows < known:
            raise ConfigError(f"{where}: vocabulary={rows} is less than the {known} ids of tokenizer {tokenizer}.")
        self.spec = spec_of(self.tokenizer, max_length, rows)
        self.bert = Bert(
            vocabulary=rows,
            positions=positions,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            dropout=dropout,
            attention_dropout=attention_dropout,
            pad_id=self.spec.pad_id,
        )
        self.checkpointing = False
        if pretrained is not None and context.assets is None:
            _load(self.bert, pretrained, self.heads)

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """(B, L) ids -> Tokens (B, L, D)."""
        x = self.bert.embed(token_ids)
        (out,) = self.bert.encoder.run([x], [attention_mask], recompute=self.checkpointing)
        if self.training and torch.is_grad_enabled():  # whoever reads the tokens alone leaves the pooler out
            idle = [p for p in self.bert.pooler.parameters() if type(p) is nn.Parameter]  # a sharded one is a DTensor
            out = out + connected_zero(idle, out)
        return Tokens(out, attention_mask)

    def embed(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """Output of the embedding layer: Tokens (B, L, D)."""
        return Tokens(self.bert.embed(token_ids), attention_mask)

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, D): Linear and tanh on [CLS]. The text feature is this at unit length."""
        out: Tensor = self.bert.pooler(tokens.x[:, 0])
        return out

    def attentions(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Attention weights of a pass of its own, without gradients and dropout: (layers, B, heads, L, L)."""
        training = self.training
        self.eval()
        with torch.no_grad():
            found = self.bert.encoder.attention_maps(self.bert.embed(token_ids), attention_mask)
        self.train(training)
        return found

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, 1..depth layers, depth + 1 the pooler."""
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


def layer_of_bert(name: str, depth: int) -> int:
    """Layer of a parameter of :class:`vtp_univl.bert.Bert`: 0 embeddings, 1..depth layers, depth + 1 behind them."""
    parts = name.split(".")
    if "layer" in parts:
        return int(parts[parts.index("layer") + 1]) + 1
    return 0 if "embeddings" in parts else depth + 1


def _load(bert: Bert, source: str, heads: int) -> None:
    """Fill ``bert`` from a BERT of Hugging Face transformers. A pooler that the file lacks stays as it is.

    Raises:
        ConfigError: nothing is to be had from there, it is another kind of model, or one of other sizes.
    """
    from transformers import AutoConfig, BertModel

    from vtp_encoders.huggingface import config_of, load_weights

    folder = os.path.expanduser(source)
    config: Any = config_of("univl", AutoConfig, folder)
    if config.model_type != "bert":
        raise ConfigError(f"encoder univl: pretrained={source} is a {config.model_type}, and must be a BERT.")
    embeddings = bert.embeddings
    ours = {
        "vocabulary": embeddings.word_embeddings.num_embeddings,
        "positions": embeddings.position_embeddings.num_embeddings,
        "width": embeddings.word_embeddings.embedding_dim,
        "depth": len(bert.encoder.layer),
        "heads": heads,
    }
    theirs = {
        "vocabulary": config.vocab_size,
        "positions": config.max_position_embeddings,
        "width": config.hidden_size,
        "depth": config.num_hidden_layers,
        "heads": config.num_attention_heads,
    }
    if wrong := [name for name in ours if ours[name] != theirs[name]]:
        have = ", ".join(f"{name}={ours[name]}" for name in wrong)
        want = " ".join(f"encoder.text.{name}={theirs[name]}" for name in wrong)
        raise ConfigError(f"encoder univl: pretrained={source} has other sizes than {have}. Give {want}.")
    if config.intermediate_size != 4 * config.hidden_size or config.hidden_act != "gelu":
        raise ConfigError(
            f"encoder univl: pretrained={source} has intermediate_size={config.intermediate_size} and "
            f"hidden_act={config.hidden_act}; it must be 4 * hidden_size and gelu, as in BERT."
        )
    found = load_weights("univl", BertModel, folder).state_dict()
    state = {name: value for name, value in found.items() if name in bert.state_dict()}
    bert.load_state_dict(state, strict=True)
