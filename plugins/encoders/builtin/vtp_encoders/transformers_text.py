"""``transformers``: any text encoder of Hugging Face transformers, by hub name or local folder.

token_ids       (B, L) int64      as its tokenizer makes them
attention_mask  (B, L) bool       True = real
tokens          (B, L, D)         last hidden state

SigLIP was trained on texts padded to its 64 positions, without a mask: so it is run, and what stands behind a text is
masked afterwards.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.ranges import Size
from vtp.types import Tokens
from vtp_encoders.huggingface import (
    checkpoint_blocks,
    config_of,
    drop_pooler,
    from_pretrained,
    keeping,
    layer_of_huggingface,
    load,
    load_weights,
    open_empty_rows,
    saved_folder,
    space_of,
)
from vtp_encoders.text_heads import head_of
from vtp_encoders.tokenizers import origin_of, spec_of_transformers

__all__ = ["TransformersText"]

NAME = "transformers"


class TransformersText(nn.Module):
    """Text by BERT, RoBERTa, DeBERTa, ModernBERT, MPNet, the text half of CLIP and SigLIP, the encoder of T5, ...

    Args:
        model: hub name (``bert-base-uncased``) or folder written by ``save_pretrained``. Nothing is downloaded when the
            folder is local or cached.
        pretrained: False takes the architecture and the tokenizer only, with random weights.
        max_length: longest text in tokens, special tokens included; the rest is cut off. No more than the positions of
            the model reach: 77 of CLIP, 512 of BERT.
        pooling: the vector of a text: ``mean`` over its real tokens; or ``cls``, the token that sums it up: its first
            one; the last real one of a model that only looks back (CLIP); the last of all positions of SigLIP, through
            its head; that which VideoPrism puts behind every text. Of SigLIP tokens of all positions are given then.
        projected: tokens go through the model's own projection into the space that its texts share with pictures or
            sounds (CLIP, X-CLIP, CLAP, PE-AV; SigLIP and VideoPrism need none), so that with ``pooling=cls`` the vector
            is the model's own embedding of a text, and objectives compare it as it is (``space``).
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
        projected: bool = False,
    ) -> None:
        super().__init__()
        saved = saved_folder(NAME, context.assets_of("encoders/text"))
        source = saved or os.path.expanduser(model)
        self.tokenizer = load(NAME, source, "tokenizer", lambda: from_pretrained(AutoTokenizer, source))
        config = config_of(NAME, AutoConfig, source)
        if pretrained and saved is None:
            found: Any = load_weights(NAME, _class_of(config), source)
        else:
            cls = _class_of(config)
            make = cls.from_config if hasattr(cls, "from_config") else cls
            found = load(NAME, source, "model", lambda: make(config))
        self.model = _text_half(found)
        self.siglip = str(self.model.config.model_type).startswith("siglip")
        self.ends = str(self.model.config.model_type) == "videoprism_text_model"  # a token behind the last one sums up
        self.projection, width, self.space = None, int(self.model.config.hidden_size), None
        if projected:
            self.projection, width, scale = head_of(NAME, found, self.model.config, model)
            bias = found.logit_bias.item() if hasattr(found, "logit_bias") else None
            self.space = space_of(model, self.model.config, scale, bias) if pooling == "cls" else None
        drop_pooler(self.model)
        if self.siglip and pooling == "mean":
            self.model.head = nn.Identity()
        elif self.siglip:
            self.model.head.requires_grad_(projected)  # of the pooled vector alone, where nothing else may be pooled
        rows = _rows(self.model, model)
        self.width = width
        self.depth = int(self.model.config.num_hidden_layers)
        self.pooling = pooling
        self.spec = spec_of_transformers(NAME, self.tokenizer, max_length, model, rows)
        self.positions = int(self.model.config.max_position_embeddings) if self.siglip else 0
        _check_positions(self, model)
        self.last = pooling == "cls" and not self.siglip and not self.ends and _looks_back(self)

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """(B, L) ids -> Tokens (B, L, D)."""
        if self.siglip:
            length = token_ids.shape[1]
            more = max(self.positions - length, 0)
            token_ids = token_ids.masked_fill(~attention_mask, self.spec.pad_id)
            token_ids = nn.functional.pad(token_ids, (0, more), value=self.spec.pad_id)
            hidden = keeping(self.model(input_ids=token_ids).last_hidden_state, self.model.head)
            if self.pooling == "mean":
                return Tokens(hidden[:, :length], attention_mask)
            return Tokens(hidden, nn.functional.pad(attention_mask, (0, more)))
        numbers = open_empty_rows(attention_mask).long()  # some families compute with them: 1 - mask
        hidden = self.model(input_ids=token_ids, attention_mask=numbers).last_hidden_state
        if self.ends:
            attention_mask = nn.functional.pad(attention_mask, (0, 1), value=self.pooling == "cls")
        return Tokens(hidden if self.projection is None else self.projection(hidden), attention_mask)

    def embed(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """Output of the embedding layer (words, positions, types, LayerNorm), not contextual: Tokens (B, L, D).

        Raises:
            ConfigError: for architectures that have no such layer of their own.
        """
        layer = getattr(self.model, "embeddings", None)
        if layer is None or self.projection is not None:
            raise ConfigError(
                f"encoder {NAME}: {type(self.model).__name__} has no separate embedding layer, which this fusion "
                "encoder needs. Choose a BERT-like text model or another encoder/fusion."
            )
        return Tokens(layer(input_ids=token_ids), attention_mask)

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, D): mean over real tokens, or the token that sums a text up."""
        if self.pooling == "mean":
            return tokens.pooled()
        if self.siglip:
            pooled: Tensor = self.model.head(tokens.x[:, -1])
            return pooled
        if self.ends:
            return tokens.x[:, -1]
        if not self.last:
            return tokens.x[:, 0]
        place = (tokens.attention_mask * torch.arange(tokens.x.shape[1], device=tokens.x.device)).amax(1)
        return tokens.x[torch.arange(place.shape[0], device=place.device), place]

    @property
    def pooled_width(self) -> int:
        """Width of what ``pool`` gives: that of SigLIP's head may be another one."""
        return int(self.model.head.out_features) if self.siglip and self.pooling == "cls" else self.width

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

    def origin(self) -> dict[str, Any]:
        """Hash and size of the vocabulary."""
        return origin_of(self.spec)


def _class_of(config: Any) -> Any:
    """What loads the weights: ``T5EncoderModel`` for a folder that was saved by it, which has no decoder to load; the
    text tower of SigLIP, X-CLIP, VideoPrism or CLAP, which AutoModel does not know by itself.
    """
    unknown = (
        transformers.SiglipTextConfig,
        transformers.Siglip2TextConfig,
        transformers.XCLIPTextConfig,
        transformers.VideoPrismTextConfig,
        transformers.ClapTextConfig,
    )
    if isinstance(config, unknown):
        return getattr(transformers, type(config).__name__.replace("Config", "Model"))
    names = getattr(config, "architectures", None) or [""]
    alone = getattr(transformers, names[0], None) if names[0].endswith("EncoderModel") else None
    return AutoModel if alone is None else alone


def _text_half(model: Any) -> Any:
    """The part that reads text: the text tower of CLIP and its like, the encoder of T5 and its like."""
    # not asked from the configuration: that of a T5 encoder denies having a decoder
    if hasattr(model, "decoder") or type(model).__name__.endswith("EncoderModel"):
        return model.get_encoder()
    return getattr(model, "text_model", model)


def _rows(model: Any, name: str) -> int:
    """Ids that the model has an embedding for."""
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError) as error:  # patches of pictures; characters by several hashes
        raise ConfigError(
            f"encoder {NAME}: {name!r} is a {type(model).__name__}, which has no table of word embeddings, so it is no "
            "text encoder that can be used here."
        ) from error


def _check_positions(encoder: TransformersText, model: str) -> None:
    """Refuse a ``max_length`` that the positions of the model do not reach.

    The model is asked: configurations give a number where there is no limit (relative and rotary positions), and one
    that is 2 too high where padding takes places in the table (RoBERTa).
    """
    longest = encoder.spec.max_length
    said = getattr(encoder.model.config, "max_position_embeddings", None)
    if isinstance(said, int) and longest + max(encoder.spec.pad_id, 1) < said:
        return
    # One more than there should be tells as much as a longer text; without a table, some length does.
    length = min(longest, said + 1 if isinstance(said, int) and said > 0 else 512)
    reason = _fault_at(encoder, length)
    if not reason:
        return
    fits, fails = 0, length
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (fits, middle) if _fault_at(encoder, middle) else (middle, fails)
    if fits == 0:
        raise ConfigError(f"encoder {NAME}: {model!r} cannot encode a text ({reason}). Is it a model of texts?")
    raise ConfigError(
        f"encoder {NAME}: max_length={longest} is more than the positions of {model!r} reach, which is {fits} tokens. "
        f"Give encoder.text.max_length={fits} or less."
    )


def _fault_at(encoder: TransformersText, length: int) -> str:
    """What goes wrong with a text of ``length`` tokens; nothing if it is encoded."""
    words = encoder.spec.tokenize([" ".join("abcde")])[0]
    ids = torch.tensor([words * (length // len(words) + 1)])[:, :length]
    training = encoder.training
    try:
        with torch.no_grad():
            encoder.eval()(ids, torch.ones_like(ids, dtype=torch.bool))
    except Exception as error:  # IndexError, ValueError, RuntimeError: each family has its own
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        encoder.train(training)
    return ""


def _looks_back(encoder: TransformersText) -> bool:
    """Whether the first token of a text knows nothing of the others."""
    ids = torch.tensor(encoder.spec.tokenize([" ".join("abcde")]))
    other = ids.clone()
    other[:, 1:] = ids[:, :1]
    training = encoder.training
    with torch.no_grad():
        rows = torch.cat([ids, other])
        first = encoder.eval()(rows, torch.ones_like(rows, dtype=torch.bool)).x[:, 0]
    encoder.train(training)
    return torch.allclose(first[0], first[1], rtol=0, atol=1e-6)
