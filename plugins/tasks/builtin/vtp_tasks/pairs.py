"""A retrieval split as queries and gallery, and what follows from the scores between them: ranks in both directions,
misses and the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.contracts import Objective, member
from vtp.data.table import media_id
from vtp.errors import ConfigError
from vtp.eval.evaluator import Collected, EvalFunction, Evaluator
from vtp.eval.ledger import Ledger
from vtp.eval.metrics import Ranks, rank_queries
from vtp.types import Modality, Sample

__all__ = [
    "Pairs",
    "Similarities",
    "best_of_sets",
    "check_compares",
    "compare_embeddings",
    "compares",
    "embed",
    "embed_clips",
    "gallery",
    "looked_at",
    "seen_in",
]

Array = npt.NDArray[Any]
_BLOCK = 1 << 24  # cosines of a block of texts: keeps temporary arrays near 100 MB


@dataclass(frozen=True, slots=True)
class Pairs:
    """A split as queries and gallery.

    Attributes:
        videos: the gallery, one sample per clip with its id as sample id and no text, in order of first appearance.
        texts: distinct texts, as samples without media.
        query_ids: one id per query.
        queries: the query texts.
        video_of: int64 (Q,), the clip that a query was written for.
        text_of: int64 (Q,), its row in ``texts``.
    """

    videos: list[Sample]
    texts: list[Sample]
    query_ids: list[str]
    queries: list[str]
    video_of: Array
    text_of: Array

    @classmethod
    def of(cls, samples: Sequence[Sample], videos: Sequence[Sample]) -> Pairs:
        """Queries of ``samples`` about the clips in ``videos``."""
        position = {video.id: i for i, video in enumerate(videos)}
        texts: dict[str, int] = {}
        found = []
        for sample in samples:
            for number, text in enumerate(sample.texts):
                if media_id(sample) in position:
                    query = sample.id if len(sample.texts) == 1 else f"{sample.id}#{number}"
                    found.append((query, text, position[media_id(sample)], texts.setdefault(text, len(texts))))
        return cls(
            list(videos),
            [Sample(f"text {i}", texts=(text,)) for text, i in texts.items()],
            [query for query, *_ in found],
            [text for _, text, *_ in found],
            np.array([video for *_, video, _ in found], dtype=np.int64),
            np.array([text for *_, text in found], dtype=np.int64),
        )

    @property
    def described(self) -> Array:
        """int64, ascending: the clips that have a text. The others are candidates for texts, and nothing could be right
        where they ask."""
        return np.unique(self.video_of)

    def queries_of(self) -> list[Array]:
        """Per clip the rows of its queries."""
        order = np.argsort(self.video_of, kind="stable")
        return np.split(order, np.searchsorted(self.video_of[order], np.arange(1, len(self.videos))))


def best_of_sets(v2t: Array, video_of: Array, clips: int) -> Array:
    """Scores of (G, Q) clips and texts as scores of (G, clips) clips and sets of texts: of each set the best text
    that has a score; NaN for a set without one."""
    out = np.full((len(v2t), clips), -np.inf, np.float32)
    usable = np.where(np.isfinite(v2t), v2t, -np.inf)
    order = np.argsort(video_of, kind="stable")
    present, starts = np.unique(video_of[order], return_index=True)
    if len(present):
        out[:, present] = np.maximum.reduceat(usable[:, order], starts, axis=1)
    return np.where(np.isfinite(out), out, np.nan)


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
        cosines = (rows.reshape(-1, rows.shape[-1]) @ columns).reshape(len(rows), texts.shape[1], len(clips), -1)
        top = cosines.max((1, 3))  # (rows, G)
        out[start : start + step] = top + np.log(np.exp(cosines - top[:, None, :, None]).sum((1, 3)))
    return out


def check_compares(task: str, modality: str, name: str, objective: Any) -> None:
    """Whether an objective compares ``modality`` with text.

    Raises:
        ConfigError: it compares something else.
    """
    if compares(modality, objective):
        return
    compared = _compared(objective)
    asked = f"task.modality={modality} asks for {modality} with text"
    if len(compared) < 2:
        raise ConfigError(
            f"task {task}: {asked}, and the objective {name!r} does not say that it embeds {modality}: its class needs "
            f'the line embeds = {{"{modality}": ("{modality}",)}}, with all modalities that embed(ctx, "{modality}") '
            "reads."
        )
    raise ConfigError(
        f"task {task}: the objective {name!r} compares {' with '.join(sorted(compared))}, and {asked}. Set "
        f"objectives.{name}.modalities=[{modality},text], or task.modality."
    )


def compares(modality: str, objective: Any) -> bool:
    """Whether an objective compares ``modality`` with text."""
    return {modality, "text"} <= _compared(objective)


def _compared(objective: Any) -> set[str]:
    embeds: Mapping[str, tuple[str, ...]] = member(objective, Objective, "embeds")
    return {*embeds, "text"} if embeds else set(member(objective, Objective, "needs"))


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
    return seen, evaluator.run(texts, _embedding(objective, "text"), drop=media, what="texts")


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
    return evaluator.run(clips, _embedding(objective, modality), drop=given, what=what, label=label, strict=not drop)


def looked_at(evaluator: Evaluator, objective: str, modality: Modality) -> tuple[Modality, ...]:
    """The modalities that an objective looks at when it embeds ``modality``, and text."""
    scorer = evaluator.bare_model.objectives[objective]
    embeds: Mapping[str, tuple[str, ...]] = member(scorer, Objective, "embeds")
    read = embeds.get(modality, (modality,)) if embeds else member(scorer, Objective, "needs")
    return tuple(m for m in evaluator.modalities if m in read or m == "text")


def seen_in(collected: Collected, looked_at: Sequence[Modality]) -> list[Modality]:
    """Those of ``looked_at`` that at least one of the clips has, and text."""
    return [m for m in looked_at if m == "text" or (m in collected.present and collected.present[m].any())]


def _embedding(objective: str, modality: Modality) -> EvalFunction:
    return lambda ctx: {"embedding": ctx.model.objectives[objective].embed(ctx, modality)}


def gallery(samples: Sequence[Sample]) -> list[Sample]:
    """One sample per clip, without texts."""
    found: dict[str, Sample] = {}
    for sample in samples:
        name = media_id(sample)
        if name not in found:
            found[name] = Sample(name, sample.video, sample.audio, (), {}, sample.extra)
    return list(found.values())


class Similarities:
    """Similarities of one split and the ranks in both directions.

    Args:
        pairs: queries and gallery.
        samples: what they come from.
        limited: whether a part of the split was left out.
        videos, texts: what was evaluated of the gallery and of the distinct texts.
        sim: (Q, G).
        by_head: whether a matching head gave them.
    """

    def __init__(
        self,
        pairs: Pairs,
        samples: Sequence[Sample],
        limited: bool,
        videos: Collected,
        texts: Collected,
        sim: Array,
        by_head: bool = False,
    ) -> None:
        self.pairs = pairs
        self.samples = samples
        self.limited = limited
        self.videos = videos
        self.texts = texts
        self.by_head = by_head
        self.no_video = ~videos.ledger.mask()
        self.no_text = ~texts.ledger.mask()[pairs.text_of]
        sim = sim.copy()
        sim[self.no_text] = np.nan
        sim[:, self.no_video] = np.nan
        self.sim = sim  # (Q, G), NaN where a side is missing
        forward = rank_queries(sim, pairs.video_of[:, None], missing=self.no_video)
        self.several = len(pairs.query_ids) > len(pairs.described)
        variants = ("any", "set") if self.several else ("any",)
        self.ranks = {variant: (forward, self._back(sim.T, variant)) for variant in variants}
        self.ranks.setdefault("set", self.ranks["any"])  # with one text per clip they are the same

    @classmethod
    def embedded(
        cls, pairs: Pairs, samples: Sequence[Sample], limited: bool, videos: Collected, texts: Collected
    ) -> Similarities:
        """Of the ``embedding`` of videos and texts. One that is no number is missing, with the reason."""
        videos, texts = _without_broken(videos, "embedding"), _without_broken(texts, "embedding")
        width = next((c.arrays["embedding"].shape[-1] for c in (videos, texts) if "embedding" in c.arrays), 1)
        text, video = (collected.full("embedding", 0.0, (width,)) for collected in (texts, videos))
        # distinct texts first and rows copied after: equal texts get equal scores to the last bit, whatever the matrix
        # product does at its edges
        sim = compare_embeddings(text, video)[pairs.text_of]
        return cls(pairs, samples, limited, videos, texts, sim)

    @classmethod
    def matched(
        cls, pairs: Pairs, samples: Sequence[Sample], limited: bool, videos: Collected, scores: Array
    ) -> Similarities:
        """Of the scores (Q, G) of a matching head for all pairs. A clip with one that is no number is missing."""
        broken = np.asarray(~np.isfinite(scores[:, videos.rows]).all(0))
        videos = videos.without(broken, "a score is not a finite number") if broken.any() else videos
        names = tuple(text.id for text in pairs.texts)
        texts = Collected(names, np.arange(len(names)), {}, {}, what="texts")
        return cls(pairs, samples, limited, videos, texts, scores, by_head=True)

    def rank(self, t2v: Array, v2t: Array, variant: str) -> tuple[Ranks, Ranks]:
        """Ranks in both directions from (Q, G) and (G, Q) scores; ``variant`` is ``any`` or ``set``."""
        forward = rank_queries(t2v, self.pairs.video_of[:, None], missing=self.no_video)
        return forward, self._back(v2t, variant)

    def _back(self, v2t: Array, variant: str) -> Ranks:
        asking = self.pairs.described
        if variant == "any":
            return rank_queries(v2t, self.pairs.queries_of(), missing=self.no_text).take(asking)
        scores = best_of_sets(v2t, self.pairs.video_of, len(self.pairs.videos))[:, asking]
        none = np.bincount(self.pairs.video_of[~self.no_text], minlength=len(self.pairs.videos))[asking] == 0
        return rank_queries(scores[asking], np.arange(len(asking))[:, None], missing=none)

    def evaluated_only(self, variant: str) -> tuple[Ranks, Ranks]:
        """The same over what was evaluated: a smaller gallery and fewer queries."""
        videos, queries = ~self.no_video, ~self.no_text & ~self.no_video[self.pairs.video_of]
        place = np.cumsum(videos) - 1
        sim = self.sim[queries][:, videos]
        own = place[self.pairs.video_of[queries]]
        gallery = int(videos.sum())
        asking = np.unique(own)
        if variant == "any":
            back = rank_queries(sim.T[asking], [np.flatnonzero(own == i) for i in asking])
        else:
            back = rank_queries(best_of_sets(sim.T, own, gallery)[asking][:, asking], np.arange(len(asking))[:, None])
        return rank_queries(sim, own[:, None]), back

    def query_misses(self) -> dict[str, str]:
        """Queries whose clip or whose text could not be evaluated."""
        names = [video.id for video in self.pairs.videos]
        found = {}
        for query, video, text in zip(self.pairs.query_ids, self.pairs.video_of, self.pairs.text_of, strict=True):
            reason = self.videos.misses.get(names[video]) or self.texts.misses.get(self.pairs.texts[text].id)
            if reason is not None:
                found[query] = reason
        return found

    def queries_ledger(self) -> Ledger:
        misses = self.query_misses()
        kept = np.array([query not in misses for query in self.pairs.query_ids], dtype=bool)
        present = {"text": int(kept.sum())}
        for modality, here in self.videos.present.items():
            if modality != "text":
                had = np.zeros(len(self.pairs.videos), bool)
                had[self.videos.rows] = here
                present[modality] = int(had[self.pairs.video_of[kept]].sum())
        return Ledger(tuple(self.pairs.query_ids), misses, "queries", present)


def _without_broken(collected: Collected, name: str) -> Collected:
    """Items of which ``name`` is no number are missing."""
    found = collected.arrays.get(name)
    if found is None or np.isfinite(found).all():
        return collected
    broken = np.asarray(~np.isfinite(found.reshape(len(found), -1)).all(1))
    return collected.without(broken, f"the {name} is not a finite number")
