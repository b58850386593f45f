"""``qwen3_vl``: Qwen3-VL as an embedder of texts (Qwen3-VL-Embedding, arXiv:2601.04720), by transformers.

token_ids       (B, L) int64      of the whole conversation around a text, in its chat template
attention_mask  (B, L) bool       True = real
tokens          (B, L, D)         last hidden state
pool            (B, D)            the last real token, of unit length

One language model reads clips and texts, as it was trained: the weights are those of ``encoders.video``.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from torch import Tensor

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.ranges import Size
from vtp.types import Tokens
from vtp_encoders.huggingface import layer_of_huggingface, open_empty_rows, space_of
from vtp_encoders.qwen3_vl import INSTRUCTION, NAME, Qwen3VL, Qwen3VLVideo
from vtp_encoders.tokenizers import Within, spec_of_transformers

__all__ = ["Qwen3VLText"]


class Qwen3VLText(Qwen3VL):
    """Texts, read by Qwen3-VL: by the one in ``encoders.video`` where that is the same model, else by one of its own.

    Args:
        model: hub name (``Qwen/Qwen3-VL-Embedding-2B``) or folder written by ``save_pretrained``.
        pretrained: False takes the architecture only, with random weights.
        max_length: longest conversation in tokens, the instruction included; the text is cut off, not the template.
        instruction: what it is told to do with a text.
        context: gives the encoder of clips, and the saved configuration when a checkpoint is restored.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str = "Qwen/Qwen3-VL-Embedding-2B",
        pretrained: bool = True,
        max_length: Size = 256,
        instruction: str = INSTRUCTION,
    ) -> None:
        super().__init__()
        reader: Any = context.encoders.get("video")
        self.shared = isinstance(reader, Qwen3VLVideo) and reader.space.name == model
        if self.shared:
            self.__dict__["model"], self.settings = reader.model, reader.settings  # used, and no part of this module
        else:
            self.model = self.load("text", model, pretrained, context)
            self.model.register_module("visual", None)
        config = self.model.config
        self.space = space_of(model, config, None)
        self.width, self.depth = int(config.text_config.hidden_size), int(config.text_config.num_hidden_layers)
        before, after = self.conversation(instruction, {"type": "text", "text": "\0"}).split("\0")
        rows = len(self.model.get_input_embeddings().weight)
        spec = spec_of_transformers(NAME, self.settings.tokenizer, max_length, model, rows)
        within = Within(self.settings.tokenizer, before, after, max_length)
        self.spec = replace(spec, tokenize=within, words=None)

    def __deepcopy__(self, memo: dict[int, Any]) -> Qwen3VLText:
        if self.shared:
            raise ConfigError(
                f"encoder {NAME}: texts are read with the weights of encoders.video, so no objective can keep a moving "
                "average of encoders.text. Choose another objective."
            )
        copy = type(self).__new__(type(self))
        memo[id(self)] = copy
        copy.__dict__ |= deepcopy(self.__dict__, memo)
        return copy

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """(B, L) -> Tokens (B, L, D)."""
        real = open_empty_rows(attention_mask).long()
        hidden = self.model.language_model(input_ids=token_ids, attention_mask=real).last_hidden_state
        return Tokens(hidden, attention_mask)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, 1..depth layers, depth + 1 behind them."""
        return layer_of_huggingface(name, self.depth)
