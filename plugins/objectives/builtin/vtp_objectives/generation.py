"""Greedy and beam search by the generation of transformers, over the decoder of ``caption``.

transformers wants a model of its own kind: :class:`_Writer` is one around a decoder, made for a call. It is asked for
the word behind each of B * beams unfinished texts; keys and values of earlier words are kept in its cache, those of the
memory are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vtp_objectives.caption_decoder import CaptionDecoder

__all__ = ["generate"]


def generate(
    decoder: CaptionDecoder,
    memory: Tensor,
    memory_mask: Tensor,
    *,
    start: int,
    end: int,
    pad: int,
    never: Sequence[int] = (),
    beams: int = 1,
    length_penalty: float = 1.0,
    min_length: int = 0,
    max_length: int,
) -> tuple[Tensor, Tensor]:
    """Write a text for every row of a memory.

    Args:
        decoder: in evaluation mode, else dropout writes along.
        memory: (B, N, M).
        memory_mask: bool (B, N).
        start, end, pad: ids of the words before the first and behind the last one, and of what follows.
        never: ids that are not written; ``end`` among them is.
        beams: width of the beam; 1 is greedy.
        length_penalty: finished texts compete by log-probability / length ** length_penalty, the end counted.
        min_length: words before the end at least.
        max_length: words at most, the end counted.

    Returns:
        int64 (B, ``max_length``), without start and end, padded with ``pad``; and float32 (B,), the mean
        log-probability of a word, the end counted.
    """
    rows, device = len(memory), memory.device
    if not rows:
        return torch.full((0, max_length), pad, device=device), memory.new_zeros(0, dtype=torch.float32)
    writer = _writer_class()(decoder)
    begin = torch.full((rows, 1), start, dtype=torch.int64, device=device)
    from transformers import DynamicCache, GenerationConfig

    banned = sorted({*never, pad} - {end})
    config = GenerationConfig(
        max_new_tokens=max_length,
        min_new_tokens=min(min_length, max_length - 1) or None,
        num_beams=beams,
        length_penalty=length_penalty if beams > 1 else None,
        early_stopping="never" if beams > 1 else None,
        do_sample=False,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=pad,
        suppress_tokens=banned or None,
    )
    written = writer.generate(
        begin,
        generation_config=config,
        past_key_values=DynamicCache(),
        seen=decoder.look(memory),
        memory_mask=memory_mask,
    )
    words = begin.new_full((rows, max_length), pad)
    words[:, : written.shape[1] - 1] = written[:, 1:]
    ended = (words == end).cumsum(dim=1) > 0
    scores = _mean_log_probability(decoder, begin, words, memory, memory_mask, end)
    return words.masked_fill(ended, pad), scores


def _mean_log_probability(
    decoder: CaptionDecoder, begin: Tensor, words: Tensor, memory: Tensor, memory_mask: Tensor, end: int
) -> Tensor:
    """float32 (B,): of the words up to the first end. NaN where the decoder gives NaN."""
    is_end = words == end
    counted = is_end.cumsum(dim=1) - is_end.long() == 0  # the first end is the last that counts
    hidden = decoder(torch.cat([begin, words[:, :-1]], dim=1), memory, memory_mask)
    found = decoder.logits(hidden).float().log_softmax(dim=-1).gather(2, words[..., None])[..., 0]
    return found.masked_fill(~counted, 0.0).sum(dim=1) / counted.sum(dim=1)


@cache
def _writer_class() -> type[Any]:
    """The class, once it is needed: importing transformers takes seconds."""
    from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutputWithPast

    class _Writer(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
        """A decoder as a language model of transformers, with the memory as further arguments of each call."""

        config_class = PretrainedConfig
        main_input_name = "input_ids"

        def __init__(self, decoder: CaptionDecoder) -> None:
            words = decoder.words
            super().__init__(
                PretrainedConfig(
                    vocab_size=words.num_embeddings,
                    hidden_size=words.embedding_dim,
                    num_hidden_layers=len(decoder.layers),
                    num_attention_heads=decoder.layers[0].heads,
                )
            )
            self.decoder = decoder

        def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
            past = kwargs["past_key_values"]
            given = {key: kwargs[key] for key in ("past_key_values", "seen", "memory_mask")}
            return {"input_ids": input_ids[:, past.get_seq_length() :], **given}

        def forward(
            self, input_ids: Tensor, past_key_values: Any, seen: Tensor, memory_mask: Tensor, return_dict: bool = True
        ) -> CausalLMOutputWithPast:
            hidden = self.decoder.step(input_ids, seen, memory_mask, past_key_values)
            logits = self.decoder.logits(hidden[:, -1:]).float().nan_to_num()  # the score tells of NaN
            return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)

    return _Writer
