"""What objectives that embed give for clips and texts, and how alike two sets of embeddings are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.contracts import Objective, member
from vtp.eval.evaluator import Collected, EvalFunction, Evaluator
from vtp.eval.scores import log_sum_exp
from vtp.types import Modality, Sample

__all__ = ["compare_embeddings", "compared_by", "compares", "embed", "embed_clips", "embedding", "looked_at"]

Array = npt.NDArray[Any]
_BLOCK = 1 << 24  # cosines of a block of texts: keeps temporary arrays near 100 MB


def compare_embeddings(texts: Array, clips: Array) -> Array:
    """Similarities (N, G) of N texts and G clips, float32, from embeddings of unit length.

    (N, E) and (G, E) give cosines. Where a clip (or a text) has n vectors, (G, n, E), it is the logarithm of the sum of
    the exponentials of its n cosines, without a temperature: the multi-clip similarity of UniVL and SNP-S3.
    """
    if texts.ndim == clips.ndim == 2:
        found: Array = texts.astype(np.float32) @ clips.astype(np.float32).T
        return found
    texts, clips = (x.astype(np.float32).reshape(len(x), -1, x.shape[-1]) for x in (texts, clips))
    out = np.empty((len(texts), len(clips)), np.float32)
    columns = clips.reshape(-1, clips.shape[-1]).T  # (E, G n)
    step = max(1, _BLOCK // max(columns.shape[1] * texts.shape[1], 1))
    for start in range(0, len(texts), step):
        rows = texts[start : start + step]
        out[start : start + step] = log_sum_exp(rows.reshape(-1, rows.shape[-1]) @ columns, len(rows), len(clips))
    return out


def compares(modality: str, objective: Any) -> bool:
    """Whether an objective compares ``modality`` with text."""
    return {modality, "text"} <= compared_by(objective)


def compared_by(objective: Any) -> set[str]:
    """The modalities that an objective has embeddings of."""
    embeds: Mapping[str, tuple[str, ...]] = member(objective, Objective, "embeds")
    needs, slots = (member(objective, Objective, name) for name in ("needs", "slots"))
    if not embeds:
        return set(needs)
    return {*embeds} | ({"text"} & {*(needs if slots is None else slots)})


def embed(
    evaluator: Evaluator,
    objective: str,
    modality: Modality,
    clips: Sequence[Sample],
    texts: Sequence[Sample],
    what: str = "videos",
    drop: Sequence[Modality] = (),
) -> tuple[Collected, Collected]:
    """``embedding`` of every clip, see :func:`embed_clips`, and of every text; ``what`` names the clips."""
    seen = embed_clips(evaluator, objective, modality, clips, what, drop)
    media = tuple(m for m in evaluator.modalities if m != "text")
    return seen, evaluator.run(texts, embedding(objective, "text"), drop=media, what="texts")


def embed_clips(
    evaluator: Evaluator,
    objective: str,
    modality: Modality,
    clips: Sequence[Sample],
    what: str = "videos",
    drop: Sequence[Modality] = (),
    label: str = "",
) -> Collected:
    """``embedding`` of every clip, (N, E), or (N, n, E) where the objective gives n vectors for each, without the
    modalities of ``drop`` and those that the objective does not look at, which are not read."""
    unused = [m for m in evaluator.modalities if m not in looked_at(evaluator, objective, modality)]
    given = tuple(dict.fromkeys(("text", *unused, *drop)))
    return evaluator.run(clips, embedding(objective, modality), drop=given, what=what, label=label, strict=not drop)


def looked_at(evaluator: Evaluator, objective: str, modality: Modality) -> tuple[Modality, ...]:
    """The modalities that an objective looks at when it embeds ``modality``, and text."""
    scorer = evaluator.bare_model.objectives[objective]
    embeds: Mapping[str, tuple[str, ...]] = member(scorer, Objective, "embeds")
    read = embeds.get(modality, (modality,)) if embeds else member(scorer, Objective, "needs")
    return tuple(m for m in evaluator.modalities if m in read or m == "text")


def embedding(objective: str, modality: Modality) -> EvalFunction:
    """What :meth:`Evaluator.run` computes: ``embedding`` of every row."""
    return lambda ctx: {"embedding": ctx.model.objectives[objective].embed(ctx, modality)}
