"""Masked significant semantic modelling as a mask of words (SNP-S3, arXiv:2401.17773): what a text is about is hidden
first.

Of the N words of a text k = N p are hidden, rounded up from a fraction of 0.3 on. They are drawn among the significant
ones; where those are fewer, all of them are, and the rest is drawn among the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from vtp.model.context import ForwardContext
from vtp.model.masking import replace_words
from vtp_snps3.significant import Significant, ordinary_words

__all__ = ["SignificantWordMask", "masked_number", "select_significant"]


@dataclass(frozen=True)
class SignificantWordMask:
    """Hides significant words first; built by :class:`vtp_snps3.mssm.MSSM`, shared by all objectives.

    The view has other ``token_ids``; ``labels`` int64 (B, L), the original id where a word was chosen, -100 elsewhere;
    and ``significant`` bool (B, L).

    Args:
        significant: the significant words.
        probability: p, in [0, 1].
        replace: ``bert`` makes 80 % of the chosen words [MASK], 10 % a random significant word, and leaves 10 % as they
            are; ``mask`` makes all of them [MASK].
        inflect: that random word takes a random form of its lemma.
        used: by name of the view, how often other objectives asked for it.
    """

    significant: Significant
    probability: float = 0.15
    replace: str = "bert"
    inflect: bool = True
    used: dict[str, int] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """``mssm0.15``."""
        return f"mssm{self.probability:g}{'' if self.replace == 'bert' else self.replace}"

    def view(self, ctx: ForwardContext) -> str:
        """Make the view and return its name."""
        self.used[self.name] = self.used.get(self.name, 0) + 1
        return self.make(ctx)

    def make(self, ctx: ForwardContext) -> str:
        """:meth:`view` for the objective that brings the mask."""
        ctx.view("text", self.name, lambda inputs: inputs | self._draw(ctx, inputs["token_ids"]))
        return self.name

    def _draw(self, ctx: ForwardContext, ids: Tensor) -> dict[str, Tensor]:
        spec = self.significant.spec
        words = ordinary_words(ctx, spec)
        significant = self.significant.tokens(ctx) & words
        longest = max(spec.max_length, ids.shape[1])  # padding must not change what is drawn
        drawn = ctx.uniform("snps3.mssm", 4 * longest).view(len(ids), 4, longest)[:, :, : ids.shape[1]]
        order, action, word, form = drawn.unbind(1)
        count = masked_number(longest, self.probability, str(ctx.device))[words.sum(dim=1)]
        selected = select_significant(words, significant, count, order)
        if self.replace == "mask":
            action = torch.zeros_like(action)
        others = self.significant.replacements(word, form, inflect=self.inflect)
        masked, labels = replace_words(ids, selected, action, others, spec.mask_id)
        return {"token_ids": masked, "labels": labels, "significant": significant}


@lru_cache(maxsize=64)
def masked_number(longest: int, probability: float, device: str = "cpu") -> Tensor:
    """How many words of a text are hidden, int64 (``longest`` + 1,), by its number of words N: the whole part of N p,
    and one more where the fraction is at least 0.3. In double precision, as published: 22 words give 3.3 and hide 3."""
    found = []
    for words in range(longest + 1):
        whole = int(words * probability)
        found.append(min(whole + (words * probability - whole >= 0.3), words))
    return torch.tensor(found, device=device)


def select_significant(words: Tensor, significant: Tensor, count: Tensor, numbers: Tensor) -> Tensor:
    """Draw ``count`` words per text without replacement, significant ones first.

    Args:
        words: bool (B, L), what may be drawn.
        significant: bool (B, L), some of these.
        count: int64 (B,), at most as many as there are words.
        numbers: uniform float (B, L).

    Returns:
        bool (B, L).
    """
    late = numbers.double() + (~significant).double() + 2.0 * (~words).double()
    rank = late.argsort(dim=1, stable=True).argsort(dim=1)
    return (rank < count[:, None]) & words
