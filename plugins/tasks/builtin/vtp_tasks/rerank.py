"""Re-ranking: a matching head that reads picture and text together re-orders the first k candidates of each query.

Each clip is decoded and encoded once; the texts that it has to be compared with come to it. The result is a score row
of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vtp.contracts import offers
from vtp.data import Example, collate
from vtp.errors import ConfigError
from vtp.eval.evaluator import Collected, Evaluator
from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.types import Batch, Modality, Sample, Tokens
from vtp_tasks.pairs import Pairs

__all__ = ["Order", "check_matches", "match_texts", "rerank", "score_pairs"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Order:
    """What is re-ordered.

    Attributes:
        sim: (Q, G) raw scores.
        chosen: int64 (Q, k), the first k candidates of each query, -1 where there are fewer.
    """

    sim: Array
    chosen: Array

    def pairs(self) -> set[tuple[int, int]]:
        """(query, candidate) of every pair to be matched."""
        rows, columns = np.nonzero(self.chosen >= 0)
        return set(zip(rows.tolist(), self.chosen[rows, columns].tolist(), strict=True))

    def scores(self, matched: Array) -> Array:
        """(Q, G) scores in the new order: chosen candidates by ``matched`` (Q, G), above all others, which keep theirs.

        Places stand in for scores, equal ones for ties, so that no scale has to be invented: float32 holds integers up
        to 2**24 exactly. A chosen candidate whose match is not a finite number, and every candidate without a raw
        score, is NaN.
        """
        out = np.full(self.sim.shape, np.nan, np.float32)
        for row, (raw, chosen) in enumerate(zip(self.sim, self.chosen, strict=True)):
            chosen = chosen[chosen >= 0]
            rest = np.isfinite(raw)
            rest[chosen] = False
            out[row, rest] = np.unique(raw[rest], return_inverse=True)[1]
            places = np.unique(matched[row, chosen], return_inverse=True)[1] + len(raw)
            out[row, chosen] = np.where(np.isfinite(matched[row, chosen]), places, np.nan)
        return out


def rerank(sim: Array, k: int, seed: int) -> Order:
    """Choose the first ``k`` candidates of every query; among equal scores at the edge chance decides, from
    ``seed``."""
    shuffle = np.random.default_rng(seed).permutation(sim.shape[1])
    usable = np.where(np.isfinite(sim), sim, -np.inf)[:, shuffle]
    chosen = shuffle[np.argsort(-usable, axis=1, kind="stable")[:, :k]]
    chosen[~np.isfinite(np.take_along_axis(sim, chosen, axis=1))] = -1
    return Order(sim, chosen)


def score_pairs(
    evaluator: Evaluator,
    pairs: Pairs,
    wanted: Iterable[tuple[int, int]],
    objective: str,
    task: str,
    what: str = "videos",
) -> Array:
    """Log-odds of "they match" for the wanted (query, clip) pairs, float32 (Q, G); NaN for all others.

    Raises:
        ConfigError: the model has no such objective.
    """
    texts_of: list[set[int]] = [set() for _ in pairs.videos]  # distinct texts: equal captions are matched once
    for query, video in wanted:
        texts_of[video].add(int(pairs.text_of[query]))
    matched, _ = match_texts(evaluator, pairs.videos, pairs.texts, texts_of, objective, task, what)
    by_text = np.full((len(pairs.texts), len(pairs.videos)), np.nan, np.float32)
    for video, texts in enumerate(texts_of):
        by_text[sorted(texts), video] = matched[video, : len(texts)]
    return by_text[pairs.text_of]


def check_matches(model: VTPModel, objective: str, task: str) -> None:
    """Whether the model has an objective that matches texts with clips.

    Raises:
        ConfigError: it has not.
    """
    if objective not in model.objectives or not offers(model.objectives[objective], "match_logits"):
        raise ConfigError(
            f"task {task}: comparing a clip with each text needs an objective that matches texts with clips, and the "
            f"model has no {objective!r} that does (it has: {', '.join(model.objectives)}). Train with "
            f"objective=[vtc,{objective}], or set task.rerank=0."
        )


def match_texts(
    evaluator: Evaluator,
    videos: Sequence[Sample],
    texts: Sequence[Sample],
    texts_of: Sequence[set[int]],
    objective: str,
    task: str,
    what: str = "videos",
    drop: Sequence[Modality] = (),
) -> tuple[Array, Collected]:
    """Log-odds of "they match" for each clip with each of its texts.

    Args:
        videos: the clips.
        texts: samples with one text each.
        texts_of: per clip the rows of ``texts`` to compare it with.
        drop: modalities of the clips to withhold.

    Returns:
        float32 (clips, W), W = the largest number of texts, those of a clip in ascending order, NaN behind them and
        where nothing could be scored; and what was evaluated.
    """
    model = evaluator.bare_model
    width = max(map(len, texts_of))
    position = {video.id: i for i, video in enumerate(videos)}
    spec = model.specs()["text"]

    def match(ctx: ForwardContext) -> dict[str, Tensor]:
        lists = [sorted(texts_of[position[name]]) for name in ctx.batch.ids]
        distinct = sorted({text for one in lists for text in one})
        out = torch.full((len(lists), width), torch.nan, device=ctx.device)
        if not distinct:
            return {"match": out}
        token_ids = spec.tokenize([texts[text].texts[0] for text in distinct])
        examples = [Example(str(text), token_ids=ids) for text, ids in zip(distinct, token_ids, strict=True)]
        together = _Together(ctx, collate(examples, {"text": spec}).to(ctx.device))
        place = {text: i for i, text in enumerate(distinct)}
        video_rows = [row for row, one in enumerate(lists) for _ in one]
        text_rows = [place[text] for one in lists for text in one]
        rows = {
            modality: torch.tensor(text_rows if modality == "text" else video_rows, device=ctx.device)
            for modality in ctx.modalities
        }
        matcher: Any = ctx.model.objectives[objective]
        logits = matcher.match_logits(together, rows).float()  # (R, 2): no match, match
        columns = [column for one in lists for column in range(len(one))]
        out[video_rows, columns] = logits[:, 1] - logits[:, 0]
        return {"match": out}

    label = f"pairs for {objective}"
    collected = evaluator.run(videos, match, drop=("text", *drop), what=what, label=label, strict=not drop)
    return collected.full("match", np.nan, (width,)), collected


class _Together(ForwardContext):
    """A context whose clips and texts come from two batches of different length; everything is paired by explicit
    rows."""

    def __init__(self, clips: ForwardContext, texts: Batch) -> None:
        super().__init__(clips.model, clips.batch)
        self.texts = ForwardContext(clips.model, texts)

    def encode(self, modality: str, view: str, stage: str) -> Tokens:
        return self.texts.encode(modality, view, stage) if modality == "text" else super().encode(modality, view, stage)
