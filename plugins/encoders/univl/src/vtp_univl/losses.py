"""Losses of UniVL and CNVid as functions: plain tensors in, plain tensors out.

    clip_similarity, level1          <text, clip> and its log-sum-exp over the clips of a video
    mil_nce_of_clips                 in-batch VTC
    moco_losses, enqueue             VTC with queues
    mil_nce_of_slots                 VTM: scores of a text with the videos of its slots
    hardness, candidates, easiness   hard mining and its weights
    word_importance                  attentive masking

Shapes: N rows of the whole step, n clips of a video, E width of the features, K columns of a queue.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "candidates",
    "clip_similarity",
    "easiness",
    "enqueue",
    "hardness",
    "level1",
    "mil_nce_of_clips",
    "mil_nce_of_slots",
    "moco_losses",
    "word_importance",
]


def clip_similarity(text: Tensor, video: Tensor) -> Tensor:
    """Cosines (T, V, n) of texts (T, E) and clips (V, n, E), all of unit length."""
    return (text @ video.flatten(0, 1).T).view(len(text), *video.shape[:2])


def level1(text: Tensor, video: Tensor) -> Tensor:
    """Similarity (T, V) of texts (T, E) and videos of n clips (V, n, E): log-sum-exp of their cosines, without a
    temperature."""
    return clip_similarity(text, video).logsumexp(dim=2)


def mil_nce_of_clips(sim: Tensor, excluded: Tensor | None = None) -> Tensor:
    """MIL-NCE (arXiv:1912.06430) of texts against videos of n clips as UniVL has it, per video float (N,): that of the
    matrix (N n, N n) in which each text stands n times, at the middle clip c of each video b:

        -log( n e^S[b,b,c] / ( n sum_a e^S[a,b,c] + sum_{b' != b, c'} e^S[b,b',c'] ) )

    So the middle clip is compared with all texts, each counted n times, and its text with all clips of other videos.

    Args:
        sim: float (N, N, n), texts and clips, divided by the temperature.
        excluded: bool (N, N), symmetric: text a and video b are no negatives of each other. Its diagonal is not read.
    """
    rows, _, clips = sim.shape
    own = torch.eye(rows, dtype=torch.bool, device=sim.device)
    left_out = own if excluded is None else excluded | own
    middle = sim[:, :, clips // 2].T + math.log(clips)  # (video, text)
    against = middle.masked_fill(left_out & ~own, -torch.inf)
    others = sim.masked_fill(left_out[..., None], -torch.inf).flatten(1)
    return torch.cat([against, others], dim=1).logsumexp(dim=1) - middle.diagonal()


def moco_losses(
    text: Tensor,
    video: Tensor,
    keys: tuple[Tensor, Tensor],
    queues: tuple[Tensor, Tensor],
    temperature: float,
    known: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Texts and clips against keys and queues of keys (MoCo, arXiv:1911.05722, across modalities).

    Args:
        text, video: queries (N, E) and (N, n, E) of unit length.
        keys: of the same texts and clips, likewise, without gradient.
        queues: (E, K) of text keys and of clip keys.
        temperature: divides the cosines.
        known: bool (N, K) each, which columns of the two queues are no negatives of a row.

    Returns:
        losses of the texts (N,), whose n clips are all positive, and of the clips (N, n).
    """
    key_text, key_video = keys
    text_queue, video_queue = queues
    texts = torch.einsum("be,bne->bn", text, key_video) / temperature  # (N, n)
    far_texts = text @ video_queue / temperature  # (N, K)
    clips = torch.einsum("bne,be->bn", video, key_text) / temperature  # (N, n)
    far_clips = video @ text_queue / temperature  # (N, n, K)
    if known is not None:
        far_clips = far_clips.masked_fill(known[0][:, None], -torch.inf)
        far_texts = far_texts.masked_fill(known[1], -torch.inf)
    of_texts = torch.cat([texts, far_texts], dim=1).logsumexp(dim=1) - texts.logsumexp(dim=1)
    of_clips = torch.cat([clips[..., None], far_clips], dim=2).logsumexp(dim=2) - clips
    return of_texts, of_clips


@torch.no_grad()
def enqueue(queue: Tensor, pointer: Tensor, keys: Tensor) -> None:
    """Write keys over the oldest columns of a queue, in place. Those that do not fit before the end are written up to
    it: nothing is cut in two.

    Args:
        queue: (E, K), or (K,) of numbers that go with them.
        pointer: int64 (1,), where to write next.
        keys: (k, E) or (k,); of more than K the last K count.
    """
    size = queue.shape[-1]
    keys = keys[-size:].to(queue.dtype)
    end = min(int(pointer) + len(keys), size)
    queue[..., end - len(keys) : end] = keys.T if keys.dim() > 1 else keys
    pointer.fill_(end % size)


def mil_nce_of_slots(scores: Tensor, slot: Tensor, everyone: Tensor, together: Tensor) -> Tensor:
    """MIL-NCE of texts against the videos in their slots, float (B,). Rows that are compared with each other have one
    slot each, in which their own video stands; k are the rows together with i:

        -log( e^s[i, slot of i] / ( sum_k e^s[k, slot of i] + sum_{c != slot of i} e^s[i, c] ) )

    With all videos in all rows, in their order, it is MIL-NCE of a square matrix.

    Args:
        scores: float (B, C), -inf for a slot that does not count.
        slot: int64 (B,), where the own video of each row stands.
        everyone: float (M, C), scores of all rows among which the B lie.
        together: bool (B, M), which rows are compared with each of the B.
    """
    own = torch.zeros_like(scores, dtype=torch.bool).scatter(1, slot[:, None], True)
    columns = everyone.T[slot].masked_fill(~together, -torch.inf)
    others = scores.masked_fill(own, -torch.inf)
    return torch.cat([columns, others], dim=1).logsumexp(dim=1) - scores.gather(1, slot[:, None])[:, 0]


def hardness(sim: Tensor, own: Tensor, method: Literal["top_k", "nearliest"]) -> Tensor:
    """How hard each video is for a text, float (B, M), the largest being the hardest: ``top_k`` the similarity itself,
    ``nearliest`` how near it is to that of the own video.

    Args:
        sim: float (B, M), :func:`level1`.
        own: int64 (B,), the column of the own video.
    """
    return sim if method == "top_k" else -(sim - sim.gather(1, own[:, None])).abs()


def candidates(hard: Tensor, allowed: Tensor, count: int) -> Tensor:
    """The ``count`` hardest allowed videos of each text, distinct, the hardest first and ties by the lower index, int64
    (B, count); where fewer are allowed, others follow.

    Args:
        hard: float (B, M), :func:`hardness`.
        allowed: bool (B, M).
    """
    return hard.masked_fill(~allowed, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :count]


def easiness(own: Tensor, among: Tensor, members: Tensor, centre: Literal["mean", "median"]) -> Tensor:
    """Weights of mined rows, float (B,): 1 up to the centre of the similarities of texts with their own videos, less
    above it, down to 0.2: what is easy already counts less.

        1 if d <= centre else max((centre - min) / (d - min), 0.2)

    Args:
        own: float (B,), the similarities d.
        among: float (M,), those of all rows.
        members: bool (B, M), the rows over which the centre and the minimum are taken.
        centre: mean or median.
    """
    there = torch.where(members, among, torch.nan)
    middle = there.nanmean(dim=1) if centre == "mean" else there.nanquantile(0.5, dim=1)
    least = torch.where(members, among, torch.inf).amin(dim=1)
    share = (middle - least) / (own - least)
    return torch.where(own > middle, share.clamp(min=0.2), 1.0)


def word_importance(attention: Tensor, queries: Tensor | None = None) -> Tensor:
    """Attention that each token of a text receives, float (B, L): summed over layers and queries, mean over heads.

    Args:
        attention: float (layers, B, heads, L, L), from query to key.
        queries: bool (B, L), the queries that count; None = all of them, padding too.
    """
    if queries is not None:
        attention = attention * queries[:, None, :, None]
    return attention.mean(dim=2).sum(dim=(0, 2))
