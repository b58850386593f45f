"""Which tokens of a batch belong to significant words, and which words may stand in for them.

A table of words that are one token each is looked up by token id. Where the tokenizer splits words, all tokens of a
word count: words are looked for in the text, the longest first, from the beginning of a word of the tokenizer to the
end of one (Chinese by characters: a word is several of those), and what was found for a text is kept.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.types import TextSpec
from vtp_snps3.counting import table_of_texts
from vtp_snps3.words import Word, WordTable, load_table, save_table
from vtp_univl.content_words import ContentWords, Words

__all__ = ["Significant", "ordinary_words"]

log = logging.getLogger("vtp")

_KNOWN = 65536  # texts whose significant tokens are kept


class Significant:
    """The significant words of a table.

    Args:
        table: of the words.
        top_k: how many are significant.
        spec: of the text encoder.
        released: by the released rule (:meth:`WordTable.significant`).
        source: what the table was read from, None = the training texts.

    Attributes:
        whole, source: as given.
        table: its significant rows.

    Raises:
        ConfigError: no word of it was counted, or words are to be looked for in texts and the tokenizer knows none.
    """

    def __init__(
        self, table: WordTable, top_k: int, spec: TextSpec, *, released: bool = False, source: str | None = None
    ) -> None:
        self.whole = table
        self.table = replace(table, words=table.significant(top_k, released=released))
        self.source = source
        self.spec = spec
        if not self.table.words:
            raise ConfigError(
                f"words: no word of {source or 'the training texts'} was counted, so none is significant. Make a table "
                "from captions like those of the training: vtp mine-words DATASET OUT."
            )
        if table.split and spec.words is None:
            raise ConfigError(
                f"words: {source} has words of several tokens, and the tokenizer of this text encoder does not tell "
                "where words begin. Choose another encoder/text."
            )
        self._spans = ContentWords(_Finder(self.table.words), spec, "words") if table.split else None
        self._kept = frozenset(self.table.words)
        self._known = {word.word: word.ids for word in table.words}
        special = set(spec.special_ids)
        self._flags = torch.zeros(spec.vocab_size, dtype=torch.bool)
        self._flags[[i for word in self.table.words for i in word.ids if i not in special]] = True
        self._placed: dict[tuple[str, torch.device], Tensor] = {}
        self._found: dict[str, Tensor] = {}  # captions come again in every epoch

    @classmethod
    def of(cls, context: BuildContext, words: str | None, top_k: int, owner: str) -> Significant:
        """That of an objective.

        Args:
            context: of its constructor; gives the training texts, or the table that a checkpoint keeps of a training
                with the same ``words``.
            words: file of a table, None = the words of the training texts, by count.
            owner: name of the objective, for messages and for the file in a checkpoint.
        """
        spec: TextSpec = context.encoders["text"].spec
        kept = sorted(context.assets.glob(f"objectives/*/{_file(owner, words)}")) if context.assets is not None else []
        if kept:
            table = load_table(kept[0], spec)
        elif words is not None:
            table = load_table(words, spec)
        else:
            table = table_of_texts(context.texts(), spec, owner)
        found = cls(table, top_k, spec, released=context.variant == "released", source=words)
        log.info(
            "%s: %d significant words of %s (%s)", owner, len(found.table.words), words or "the training texts", found
        )
        return found

    def __str__(self) -> str:
        """What tells one table from another."""
        table = self.table
        hashes = f"vocabulary {table.vocabulary[:12]}, corpus {table.corpus[:12]}, tagger {table.tagger}"
        return f"{table.tokenizer}, {hashes}" if table.tokenizer else hashes

    def origin(self) -> dict[str, Any]:
        """The header of the table, with the name of its file (None = the training texts) and how many of its words are
        significant."""
        name = None if self.source is None else Path(self.source).name
        return {"words": {"file": name, **self.table.header(), "significant": len(self.table.words)}}

    def save(self, folder: Path, owner: str) -> None:
        """Write the significant rows, and those of other forms of their lemmas, beside the tensors of a checkpoint."""
        forms = {form for word in self.table.words for form in word.same_lemma}
        kept = [word for word in self.whole.words if word.word in forms or word in self._kept]
        save_table(replace(self.table, words=tuple(kept)), folder / _file(owner, self.source))

    def tokens(self, ctx: ForwardContext) -> Tensor:
        """bool (B, L): tokens of significant words. Special tokens and padding are none."""
        inputs = ctx.inputs("text")
        ids, real = inputs["token_ids"], inputs["attention_mask"]
        if self._spans is None:
            flags: Tensor = self._at("flags", ctx.device, self._flags)[ids] & real
            return flags
        out = torch.zeros(2, *ids.shape, dtype=torch.int64)
        for row, text in enumerate(ctx.batch.extra.get("text", [None] * len(ids))):
            if text:
                found = self._tokens_of(text)[:, : ids.shape[1]]
                out[:, row, : found.shape[1]] = found
        known, counts = out.to(ctx.device, non_blocking=True).unbind()
        same = ((known == ids) | ~real).all(dim=1, keepdim=True)  # a text may be withheld (data.modality_dropout)
        return (counts == 2) & real & same

    def replacements(self, word: Tensor, entry: Tensor, *, inflect: bool) -> Tensor:
        """Ids that stand in for masked words: those of a random significant word.

        Args:
            word, entry: uniform in [0, 1), any one shape: which word, and which of its forms.
            inflect: a random word of its lemma, itself where none is known; else itself.

        Returns:
            int64 of that shape. Of a word of several tokens it is one of them.
        """
        name = "forms" if inflect else "words"
        if ("flat" + name, torch.device("cpu")) not in self._placed:
            forms = [self._forms(row) if inflect else row.ids for row in self.table.words]
            self._placed["flat" + name, torch.device("cpu")] = torch.tensor([i for row in forms for i in row])
            sizes = torch.tensor([len(row) for row in forms])
            self._placed[name, torch.device("cpu")] = torch.stack([sizes.cumsum(0) - sizes, sizes])
        flat, (start, size) = (self._at(key, word.device) for key in ("flat" + name, name))
        drawn = _drawn(word, len(self.table.words))
        found: Tensor = flat[start[drawn] + _drawn(entry, size[drawn])]
        return found

    def _tokens_of(self, text: str) -> Tensor:
        """int64 (2, L): the ids of a text, and 2 for each that counts."""
        assert self._spans is not None
        found = self._found.get(text)
        if found is None:
            if len(self._found) >= _KNOWN:
                self._found.clear()
            found = self._found[text] = torch.tensor([self.spec.tokenize([text])[0], self._spans.counts(text)])
        return found

    def _forms(self, row: Word) -> Sequence[int]:
        """Ids of the vocabulary's words with the lemma of a word."""
        found = []
        for word in row.same_lemma:
            own = self._known.get(word)
            if own is None and self.spec.words is not None:
                own = tuple(i for _, ids in self.spec.words(word) for i in ids)
            if own is not None and len(own) == 1 and own[0] not in self.spec.special_ids:
                found.append(own[0])
        return found or row.ids

    def _at(self, name: str, device: torch.device, made: Tensor | None = None) -> Tensor:
        """A tensor of this table on a device, copied once."""
        key = (name, device)
        if key not in self._placed:
            made = self._placed[name, torch.device("cpu")] if made is None else made
            self._placed[key] = made.to(device)
        return self._placed[key]


def ordinary_words(ctx: ForwardContext, spec: TextSpec) -> Tensor:
    """bool (B, L): tokens that are neither special nor padding, in rows that have a text."""
    inputs = ctx.inputs("text")
    special = torch.tensor(spec.special_ids, device=ctx.device)
    return inputs["attention_mask"] & ~torch.isin(inputs["token_ids"], special) & ctx.present("text")[:, None]


class _Finder:
    """Tells which words of a text are significant, or part of a significant one. A class, so that it can be pickled."""

    def __init__(self, words: Sequence[Word]) -> None:
        self.words = frozenset(word.word for word in words)
        self.longest = max(len(word.word) for word in words)

    def __call__(self, text: str, words: Words) -> list[bool]:
        found = [False] * len(words)
        place = 0
        while place < len(words):
            start, end = words[place]
            last = 0  # words that the longest match has
            for count in range(1, len(words) - place + 1):
                if count > 1 and words[place + count - 1][0] != end:  # a space between
                    break
                end = words[place + count - 1][1]
                if end - start > self.longest:
                    break
                if (whole := text[start:end]) in self.words or whole.lower() in self.words:
                    last = count
            found[place : place + last] = [True] * last
            place += max(last, 1)
        return found


def _drawn(uniform: Tensor, count: Tensor | int) -> Tensor:
    """Integers below ``count``, from uniform numbers in [0, 1)."""
    found = (uniform.double() * count).long()
    return found.clamp(max=count - 1) if isinstance(count, int) else found.minimum(count - 1)


def _file(owner: str, words: str | None) -> str:
    """Name of the table that a checkpoint keeps: another one that was given has another name."""
    given = "" if words is None else f"_{hashlib.sha256(words.encode()).hexdigest()[:8]}"
    return f"{owner}_words{given}.json"
