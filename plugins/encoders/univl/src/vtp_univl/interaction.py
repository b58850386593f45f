"""Similarity of a text and a video over their tokens, and NegNCE (DMAE, arXiv:2309.11082).

    A[t, u] = <word t, frame u>;  r_t = max over u, q_u = max over t
    sim     = (mean of r_t weighted by the words + mean of q_u weighted by the frames) / 2

All tokens are of unit length. Compared are all N texts with all M videos, or text i with video i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vtp.model.objective import masked_mean

__all__ = ["cross_entropy", "matched_similarity", "neg_nce", "token_similarity"]


def token_similarity(
    words: Tensor,
    frames: Tensor,
    word_mask: Tensor,
    frame_mask: Tensor,
    *,
    nfc: bool = False,
    weights: tuple[Tensor, Tensor] | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Token-wise similarity of every text with every video, float (N, M).

    Args:
        words: float (N, L, E), of unit length.
        frames: float (M, U, E), of unit length.
        word_mask: float (N, L): 0 = padding, 1 = a word, 2 = one that counts twice (a content word).
        frame_mask: bool or float (M, U), 1 = real.
        nfc: neighbour frames count: a word's best frame is joined by the frame most like that one, with half of the
            likeness of both frames as its weight.
        weights: float (N, L) and (M, U), each row summing to 1 over its real tokens (``wti``); None weighs real tokens
            equally (``ti``).
        chunk: so many texts are compared at a time, and compared again in the backward pass, so that N * M * L * U
            numbers are never kept at once; None compares all of them at once.
    """
    word_mask, frame_mask = word_mask.to(words.dtype), frame_mask.to(frames.dtype)
    neighbours = _neighbours(frames, frame_mask) if nfc else None
    by_word, by_frame = _shares(word_mask, frame_mask, weights)

    def compare(some: Tensor, mask: Tensor, share: Tensor) -> Tensor:
        like = torch.einsum("nle,mue->nmlu", some, frames)
        like = like * mask.clamp(max=1)[:, None, :, None] * frame_mask[:, None, :]
        return _pooled(like, share[:, None], by_frame, neighbours)

    parts = (words, word_mask, by_word)
    if chunk is None or chunk >= len(words):
        return compare(*parts)
    pieces = zip(*(torch.split(part, chunk) for part in parts), strict=True)
    return torch.cat([_recomputed(compare, piece) for piece in pieces])


def matched_similarity(
    words: Tensor,
    frames: Tensor,
    word_mask: Tensor,
    frame_mask: Tensor,
    *,
    nfc: bool = False,
    weights: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """:func:`token_similarity` of text i with video i alone, float (N,)."""
    word_mask, frame_mask = word_mask.to(words.dtype), frame_mask.to(frames.dtype)
    like = torch.einsum("nle,nue->nlu", words, frames) * word_mask.clamp(max=1)[:, :, None] * frame_mask[:, None, :]
    by_word, by_frame = _shares(word_mask, frame_mask, weights)
    return _pooled(like, by_word, by_frame, _neighbours(frames, frame_mask) if nfc else None)


def neg_nce(sim: Tensor, rows: Tensor | None = None, *, scale: float = 100.0, weight: float = 0.5) -> Tensor:
    """NegNCE, a scalar: the cross-entropy of each row, and what is to be said against its hard negatives.

        P = softmax of scale * sim over each row, kept in [1e-6, 1 - 1e-6]
        H = pairs i != j with sim[i, j] > sim[i, i] or sim[i, j] > sim[j, j]
        mean over i of -log P[i, i] + weight * mean over H of -log(1 - P[i, j])

    Without hard negatives the second term is 0. For the other direction pass the transpose.

    Args:
        sim: float (N, N), the diagonal holding the pairs that belong together; -inf for pairs that are not compared.
        rows: bool (N,), rows that take part; None = all of them.
        scale: of the logits.
        weight: of the hard negatives.
    """
    share = (scale * sim).softmax(dim=1).clamp(1e-6, 1 - 1e-6)
    own = sim.diagonal()
    hard = (sim > own[:, None]) | (sim > own[None, :])
    hard.fill_diagonal_(False)
    if rows is not None:
        hard &= rows[:, None] & rows[None, :]
    against = masked_mean(-torch.log1p(-share), hard)
    return _mean(-share.diagonal().log(), rows) + weight * against


def cross_entropy(sim: Tensor, rows: Tensor | None = None, *, scale: float = 100.0) -> Tensor:
    """Mean over the rows that take part of -log softmax(scale * sim)[i, i], a scalar; as :func:`neg_nce` otherwise."""
    logits = scale * sim
    return _mean(logits.logsumexp(dim=1) - logits.diagonal(), rows)


def _mean(values: Tensor, rows: Tensor | None) -> Tensor:
    return values.mean() if rows is None else masked_mean(values, rows)


def _shares(word_mask: Tensor, frame_mask: Tensor, weights: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """What each word and each frame counts, (N, L) and (M, U)."""
    if weights is not None:
        return weights[0] * word_mask, weights[1] * frame_mask
    words, frames = (mask / mask.sum(dim=1, keepdim=True).clamp(min=1) for mask in (word_mask, frame_mask))
    return words, frames


def _neighbours(frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The other frame most like each one, int64 (M, U), and half of their likeness (M, U): 0 where no other frame is
    like it at all, and where one of them is padding."""
    like = torch.einsum("mue,mve->muv", frames, frames)
    own = torch.eye(like.shape[1], dtype=torch.bool, device=like.device)
    padding = frame_mask == 0
    value, place = like.masked_fill(own | padding[:, None, :] | padding[:, :, None], 0.0).max(dim=2)
    return place, 0.5 * value


def _pooled(like: Tensor, by_word: Tensor, by_frame: Tensor, neighbours: tuple[Tensor, Tensor] | None) -> Tensor:
    """Likenesses (..., L, U) -> (...); shares that broadcast against (..., L) and (..., U)."""
    to_words, best = like.max(dim=-1)
    if neighbours is not None:
        place, half = (each.expand(*like.shape[:-2], -1) for each in neighbours)
        beside = like.gather(-1, place.gather(-1, best)[..., None])[..., 0]
        to_words = to_words + half.gather(-1, best) * beside
    to_frames = like.amax(dim=-2)
    return ((to_words * by_word).sum(dim=-1) + (to_frames * by_frame).sum(dim=-1)) / 2


def _recomputed(function: Callable[..., Tensor], inputs: Iterable[Tensor]) -> Tensor:
    made: Tensor = checkpoint(function, *inputs, use_reentrant=False)
    return made
