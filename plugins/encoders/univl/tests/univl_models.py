"""Small parts of UniVL, and what plain Hugging Face BERT makes of the same weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from vtp.model.build import BuildContext
from vtp.types import Tokens
from vtp_univl.fusion import UniVLFusion
from vtp_univl.text import UniVLText

TEXTS = ["a red cube rolls to the left", "two green balls", "a man walks his old dog through the rain in the park"]
WIDTH = 24
SIZE: dict[str, Any] = {"width": WIDTH, "depth": 2, "heads": 2, "positions": 40}


class Video(nn.Module):
    """Stands for a video encoder: it has a width."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.width = width


def text_encoder(seed: int = 0, **options: Any) -> UniVLText:
    """A small text encoder without dropout, in evaluation mode."""
    torch.manual_seed(seed)
    given = SIZE | {"tokenizer": "texts", "max_length": 16, "dropout": 0.0, "attention_dropout": 0.0} | options
    encoder = UniVLText(context=BuildContext(texts=lambda: TEXTS), **given)
    for parameter in encoder.parameters():  # biases and norms that start at 0 and 1 would hide mistakes
        nn.init.normal_(parameter, std=0.2)
    return encoder.eval()


def fusion_encoder(text: UniVLText, video: int = WIDTH, **options: Any) -> UniVLFusion:
    """A fusion encoder over it."""
    encoders: dict[str, Any] = {"text": text, "video": Video(video)}
    return UniVLFusion(context=BuildContext(encoders=encoders), **options).eval()


def words(text: UniVLText, texts: list[str] | None = None) -> dict[str, Tensor]:
    """Ids and mask of texts, padded to the longest."""
    ids = text.spec.tokenize(TEXTS if texts is None else texts)
    longest = max(map(len, ids))
    table = torch.full((len(ids), longest), text.spec.pad_id)
    for row, found in zip(table, ids, strict=True):
        row[: len(found)] = torch.tensor(found)
    return {"token_ids": table, "attention_mask": table != text.spec.pad_id}


def clips(rows: int = 3, count: int = 4, width: int = WIDTH, seed: int = 1) -> Tokens:
    """Random clip tokens, all of them real."""
    generator = torch.Generator().manual_seed(seed)
    return Tokens(torch.randn(rows, count, width, generator=generator), torch.ones(rows, count, dtype=torch.bool))


def plain_bert(text: UniVLText) -> BertModel:
    """Hugging Face's BERT with the weights of ``text``: keys must fit as they are."""
    config = BertConfig(
        vocab_size=text.spec.vocab_size,
        hidden_size=text.width,
        num_hidden_layers=text.depth,
        num_attention_heads=text.heads,
        intermediate_size=4 * text.width,
        max_position_embeddings=SIZE["positions"],
        pad_token_id=text.spec.pad_id,
    )
    model = BertModel(config).eval()
    model.load_state_dict(text.bert.state_dict(), strict=True)
    return model
