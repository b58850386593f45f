"""Triplet partial margins of DMAE (arXiv:2309.11082, "TPM-CL"): a pair must be more alike than what is left of it when
the most important tokens are taken out.

    w    importance of each frame to the sentence, and of each word to the frames; sums to 1
    V'   V with its most important frames zeroed, those whose weights sum to less than the threshold; X' likewise
    t_g  sum of w * words, of unit length; t_g' the same over X'

    kinds 2 and 4   (sentence, V) > (sentence, V')   and   (t_g, V) > (t_g, V')
    kinds 3 and 4   (t_g, V) > (t_g', V)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

__all__ = ["TokenImportance", "margin_loss", "partial_margins", "without_important"]


class TokenImportance(nn.Module):
    """Weights of ``tokens`` tokens, given ``queries`` tokens of the other modality.

    Args:
        queries: n_q, number of query tokens.
        tokens: n_k, number of tokens that are weighed.
        width: D of both.
    """

    def __init__(self, queries: int, tokens: int, width: int) -> None:
        super().__init__()
        self.qk_proj = nn.Linear(queries, tokens, bias=False)
        self.attn_proj = nn.Sequential(
            nn.LayerNorm([tokens, 2 * width]),
            nn.Linear(2 * width, width // 2, bias=False),
            nn.GELU(),
            nn.Linear(width // 2, 1, bias=False),
        )

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(B, n_q, D) and (B, n_k, D) -> float (B, n_k), each row summing to 1."""
        spread = self.qk_proj(queries.transpose(1, 2)).transpose(1, 2)
        scores = self.attn_proj(torch.cat([spread, tokens], dim=2))[..., 0].sigmoid()
        weights: Tensor = scores / scores.sum(dim=1, keepdim=True)
        return weights


def partial_margins(
    sentence: Tensor,
    words: Tensor,
    frames: Tensor,
    word_weights: Tensor,
    frame_weights: Tensor,
    similarity: Callable[[Tensor, Tensor], Tensor],
    *,
    kind: Literal[2, 3, 4] = 4,
    threshold: float = 0.6,
    margin: float = 0.6,
) -> Tensor:
    """The sum of the margin losses of each pair that belongs together, float (B,).

    Args:
        sentence: float (B, 1, D), of unit length.
        words: float (B, L, D), of unit length, 0 where padded.
        frames: float (B, U, D), of unit length, 0 where padded.
        word_weights: float (B, L), importance of each word, :class:`TokenImportance`.
        frame_weights: float (B, U), of each frame.
        similarity: of one text token per row (B, 1, D) with frames (B, U, D) -> (B,).
        kind: which losses, see above.
        threshold: share of the importance that is taken out, in (0, 1].
        margin: of similarity.
    """
    pooled = normalize(_pool(words, word_weights), dim=2)
    whole = similarity(pooled, frames)
    loss = torch.zeros_like(whole)
    if kind in (2, 4):
        rest, _ = without_important(frames, frame_weights, threshold)
        loss = loss + margin_loss(similarity(sentence, frames), similarity(sentence, rest), margin)
        loss = loss + margin_loss(whole, similarity(pooled, rest), margin)
    if kind in (3, 4):
        rest, _ = without_important(words, word_weights, threshold)
        loss = loss + margin_loss(whole, similarity(_pool(rest, word_weights), frames), margin)
    return loss


def without_important(tokens: Tensor, weights: Tensor, threshold: float = 0.6) -> tuple[Tensor, Tensor]:
    """Zero the most important tokens: by falling weight, as long as the weights sum to less than ``threshold``.

    Args:
        tokens: float (B, N, D).
        weights: float (B, N), each row summing to 1.
        threshold: in (0, 1].

    Returns:
        The tokens (B, N, D), and bool (B, N), True = kept.
    """
    ordered, place = weights.detach().sort(dim=1, descending=True, stable=True)
    kept = torch.ones_like(weights, dtype=torch.bool).scatter(1, place, ordered.cumsum(dim=1) >= threshold)
    return tokens * kept[..., None], kept


def margin_loss(better: Tensor, worse: Tensor, margin: float = 0.6) -> Tensor:
    """max(0, margin - (better - worse)), float (B,)."""
    return (margin - (better - worse)).clamp(min=0)


def _pool(tokens: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum, (B, 1, D)."""
    return (weights[..., None] * tokens).sum(dim=1, keepdim=True)
