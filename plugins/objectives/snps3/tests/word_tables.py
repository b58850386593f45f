"""Tokenizers, tables of words for them, and models of a text encoder alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn

from vtp.model.context import ForwardContext
from vtp.model.masking import Masker
from vtp.model.model import VTPModel
from vtp.testing.inputs import TinyText, tiny_encoders
from vtp.types import Batch, TextSpec, Tokens
from vtp_encoders.tokenizers import build_tokenizer, spec_of, vocabulary_hash
from vtp_snps3.words import Word, WordTable, ranked

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = ["a red cube rolls to the left", "two green balls stand still", "the red ball"]


def read_ids(ids: Sequence[int]) -> str:
    """Ids as words; a function of this module can be sent to other processes."""
    return " ".join(f"w{i}" for i in ids)


def numbered_spec(
    vocabulary: int = 300, length: int = 64, special: Sequence[int] = (0, 100, 101, 102, 103)
) -> TextSpec:
    """The special ids of BERT among ids without a tokenizer."""
    return TextSpec(len, 0, 103, 101, 102, tuple(special), vocabulary, length, detokenize=read_ids)  # type: ignore[arg-type]


def table_of(spec: TextSpec, totals: Mapping[tuple[int, ...], int], **lemmas: Sequence[str]) -> WordTable:
    """Ids of words -> their counts; a word is called w7, or w7_8."""
    names = {ids: "w" + "_".join(map(str, ids)) for ids in totals}
    words = [
        Word(ids, names[ids], names[ids], total, same_lemma=tuple(lemmas.get(names[ids], ())))
        for ids, total in totals.items()
    ]
    words = [replace(word, rank=rank) for rank, word in enumerate(ranked(words))]
    return WordTable("", vocabulary_hash(spec), "0" * 64, "none", "en", {}, tuple(words))


def ranked_table(spec: TextSpec, rank: Tensor) -> WordTable:
    """The table with these ranks, len(rank) being that of words which were never counted."""
    return table_of(spec, {(i,): (len(rank) - place) for i, place in enumerate(rank.tolist()) if place < len(rank)})


class TextOnly(nn.Module):
    """A text encoder that has a spec and little else."""

    def __init__(self, spec: TextSpec, width: int = 4) -> None:
        super().__init__()
        self.spec = spec
        self.width = self.pooled_width = width
        self.table = nn.Embedding(spec.vocab_size, width)

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        return Tokens(self.table(token_ids), attention_mask)


def context_of(
    spec: TextSpec, rows: Sequence[Sequence[int]], texts: Sequence[str] = (), mask: Masker | None = None, step: int = 0
) -> ForwardContext:
    """One batch of texts, padded to the longest."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[spec.pad_id] * (longest - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    inputs = {"token_ids": ids, "attention_mask": torch.arange(longest) < lengths[:, None]}
    there = torch.ones(len(rows), dtype=torch.bool)
    batch = Batch([str(i) for i in range(len(rows))], {"text": inputs}, {"text": there}, step=step)
    if texts:
        batch.extra = {"text": list(texts)}
    return ForwardContext(VTPModel({"text": TextOnly(spec)}, masks={"text": mask} if mask else {}), batch)


def tiny_with_words() -> dict[str, nn.Module]:
    """The small encoders of vtp.testing, whose tokenizer reads ids."""
    encoders = tiny_encoders()
    text: Any = TinyText()
    text.spec = replace(text.spec, detokenize=read_ids)
    return {**encoders, "text": text}


def words_spec(texts: Sequence[str] = TEXTS, length: int = 16) -> TextSpec:
    """Whole words of texts."""
    return spec_of(build_tokenizer(texts), length)


def byte_pairs(folder: Path, length: int = 16) -> TextSpec:
    """Pairs of bytes: ``dog`` behind a space is one token, ``doggy`` begins with it, ``cat`` is two."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "d"), ("o", "g"), ("Ġd", "og"), ("g", "y"), ("a", "t")]
    tokens = [*SPECIAL, *letters, *("".join(pair) for pair in merges)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return spec_of(tokenizer, length)


def named_table(spec: TextSpec, totals: Mapping[str, int]) -> WordTable:
    """Words -> their counts, with all tokens of each, as behind a space."""
    assert spec.words is not None
    words = []
    for word, total in totals.items():
        ids = tuple(i for _, found in spec.words(word) for i in found)
        words.append(Word(ids, word, word, total))
    words = [replace(word, rank=rank) for rank, word in enumerate(ranked(words))]
    return WordTable("", vocabulary_hash(spec), "0" * 64, "none", "en", {}, tuple(words))
