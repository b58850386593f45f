"""A retrieval split as queries and gallery, and what follows from the scores between them: ranks in both directions,
misses and the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.data.table import media_id
from vtp.errors import ConfigError
from vtp.eval.embedding import compare_embeddings, compared_by, compares, embed, looked_at
from vtp.eval.evaluator import Collected
from vtp.eval.ledger import Ledger
from vtp.eval.metrics import Ranks
from vtp.eval.scores import Embeddings, Matrix, Scores, Shuffled
from vtp.eval.search import First, Found, search
from vtp.types import Modality, Sample

__all__ = [
    "Pairs",
    "Similarities",
    "check_compares",
    "compares",
    "compare_embeddings",
    "embed",
    "gallery",
    "looked_at",
    "seen_in",
    "without_broken",
    "without_some",
]

Array = npt.NDArray[Any]
_ROWS = 4096  # embeddings that are looked at at once


@dataclass(frozen=True, slots=True)
class Pairs:
    """A split as queries and gallery.

    Attributes:
        videos: the gallery, one sample per clip with its id as sample id and no text, in order of first appearance.
        texts: what asks, each once: distinct texts as samples without media, texts with the media of their clips, or
            clips.
        query_ids: one id per query.
        queries: the query texts; of clips that ask their ids.
        video_of: int64 (Q,), the clip that a query is about.
        text_of: int64 (Q,), its row in ``texts``.
    """

    videos: list[Sample]
    texts: list[Sample]
    query_ids: list[str]
    queries: list[str]
    video_of: Array
    text_of: Array

    @classmethod
    def of(cls, samples: Sequence[Sample], videos: Sequence[Sample], asking: Sequence[Modality] = ("text",)) -> Pairs:
        """Queries of ``samples`` about the clips in ``videos``: a query per text, with the media of its clip where
        ``asking`` names more than text; without text one per clip."""
        position = {video.id: i for i, video in enumerate(videos)}
        if "text" not in asking:
            own = np.arange(len(videos), dtype=np.int64)
            names = [video.id for video in videos]
            return cls(list(videos), list(videos), names, list(names), own, own)
        alone = tuple(asking) == ("text",)
        texts: dict[tuple[str, int], int] = {}
        found = []
        for sample in samples:
            for number, text in enumerate(sample.texts):
                if media_id(sample) in position:
                    query = sample.id if len(sample.texts) == 1 else f"{sample.id}#{number}"
                    video = position[media_id(sample)]
                    key = text, -1 if alone else video
                    found.append((query, text, video, texts.setdefault(key, len(texts))))
        return cls(
            list(videos),
            [_with_text(f"text {i}", text, None if alone else videos[at]) for (text, at), i in texts.items()],
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


def check_compares(task: str, modality: str, name: str, objective: Any, *, key: str = "task.modality") -> None:
    """Whether an objective compares ``modality`` with text; ``key`` is the option that asks for it.

    Raises:
        ConfigError: it compares something else.
    """
    if compares(modality, objective):
        return
    compared = compared_by(objective)
    asked = f"{key}={modality} asks for {modality} with text"
    if len(compared) < 2:
        raise ConfigError(
            f"task {task}: {asked}, and the objective {name!r} does not say that it embeds {modality}: its class needs "
            f'the line embeds = {{"{modality}": ("{modality}",)}}, with all modalities that embed(ctx, "{modality}") '
            "reads."
        )
    raise ConfigError(
        f"task {task}: the objective {name!r} compares {' with '.join(sorted(compared))}, and {asked}. Set "
        f"objectives.{name}.modalities=[{modality},text], or {key}."
    )


def _with_text(name: str, text: str, clip: Sample | None) -> Sample:
    return (
        Sample(name, texts=(text,)) if clip is None else Sample(name, clip.video, clip.audio, (text,), {}, clip.extra)
    )


def seen_in(collected: Collected, shown: Sequence[Modality]) -> list[Modality]:
    """Those of ``shown`` that at least one of the items has, and text."""
    return [m for m in shown if m == "text" or (m in collected.present and collected.present[m].any())]


def without_some(collected: Collected, side: Sequence[Modality]) -> dict[str, list[str]]:
    """Modality of a side of several -> the evaluated items that lack it, for which the others speak."""
    found: dict[str, list[str]] = {}
    for modality in side if len(side) > 1 else ():
        here = collected.present.get(modality)
        if modality != "text" and here is not None and not here.all():
            found[modality] = [name for name, has in zip(collected.ids, here, strict=True) if not has]
    return found


def gallery(samples: Sequence[Sample]) -> list[Sample]:
    """One sample per clip, without texts."""
    found: dict[str, Sample] = {}
    for sample in samples:
        name = media_id(sample)
        if name not in found:
            found[name] = Sample(name, sample.video, sample.audio, (), {}, sample.extra)
    return list(found.values())


class Similarities:
    """Scores of one split and the ranks in both directions.

    Args:
        pairs: queries and gallery.
        samples: what they come from.
        limited: whether a part of the split was left out.
        videos, texts: what was evaluated of the gallery and of the distinct texts.
        scores: of the queries (rows) and the gallery (columns).
        by_head: whether a matching head gave them.
        top: how many first candidates to keep, ``first`` of queries and ``first_back`` of clips.
        shown: whether there is a progress bar.
    """

    def __init__(
        self,
        pairs: Pairs,
        samples: Sequence[Sample],
        limited: bool,
        videos: Collected,
        texts: Collected,
        scores: Scores,
        *,
        by_head: bool = False,
        top: int = 0,
        shown: bool = False,
    ) -> None:
        self.pairs = pairs
        self.samples = samples
        self.limited = limited
        self.videos = videos
        self.texts = texts
        self.scores = scores
        self.by_head = by_head
        self.shown = shown
        self.no_video = ~videos.ledger.mask()
        self.no_text = ~texts.ledger.mask()[pairs.text_of]
        self.several = len(pairs.query_ids) > len(pairs.described)
        found = self._search(scores, self.no_text, self.no_video, top)
        self.ranks = {variant: self._directions(found, variant) for variant in ("any", "set")}
        self.first: First = found.first
        self.first_back: First = found.first_back

    @classmethod
    def embedded(
        cls,
        pairs: Pairs,
        samples: Sequence[Sample],
        limited: bool,
        videos: Collected,
        texts: Collected,
        **options: Any,
    ) -> Similarities:
        """Of the ``embedding`` of videos and texts. One that is no number is missing, with the reason."""
        videos, texts = without_broken(videos, "embedding"), without_broken(texts, "embedding")
        width = next((c.arrays["embedding"].shape[-1] for c in (videos, texts) if "embedding" in c.arrays), 1)
        none = np.zeros((1, width), np.float32)
        text, video = (c.arrays["embedding"] if len(c.rows) else none for c in (texts, videos))
        scores = Embeddings(text, video, _row_of(texts)[pairs.text_of], _row_of(videos))
        return cls(pairs, samples, limited, videos, texts, scores, **options)

    @classmethod
    def matched(
        cls, pairs: Pairs, samples: Sequence[Sample], limited: bool, videos: Collected, scores: Array, **options: Any
    ) -> Similarities:
        """Of the scores (Q, G) of a matching head for all pairs. A clip with one that is no number is missing."""
        broken = np.asarray(~np.isfinite(scores[:, videos.rows]).all(0))
        videos = videos.without(broken, "a score is not a finite number") if broken.any() else videos
        names = tuple(text.id for text in pairs.texts)
        texts = Collected(names, np.arange(len(names)), {}, {}, what="texts")
        return cls(pairs, samples, limited, videos, texts, Matrix(scores), by_head=True, **options)

    def rank(self, t2v: Scores, v2t: Scores, variant: str) -> tuple[Ranks, Ranks]:
        """Ranks in both directions by other scores, of texts that ask and of clips that ask; ``variant`` is ``any`` or
        ``set``."""
        found = [self._search(scores, self.no_text, self.no_video) for scores in ((t2v,) if t2v is v2t else (t2v, v2t))]
        return self._directions(found[0], variant)[0], self._directions(found[-1], variant)[1]

    def candidates(self, k: int, seed: int) -> tuple[First, First]:
        """The first k clips of every text and the first k texts of every clip; among equal scores at the edge chance
        decides, from ``seed``."""
        rng = np.random.default_rng(seed)
        clips, texts = rng.permutation(len(self.pairs.videos)), rng.permutation(len(self.pairs.query_ids))
        found = search(
            Shuffled(self.scores, texts, clips),
            *(np.zeros(0, np.int64),) * 2,
            missing_rows=self.no_text[texts],
            missing_columns=self.no_video[clips],
            top=k,
            label=f"first {k} candidates",
            shown=self.shown,
        )
        return _in_place(found.first, texts, clips), _in_place(found.first_back, clips, texts)

    def within(self, queries: Array, videos: Array, variant: str) -> tuple[Ranks, Ranks]:
        """The same over some queries, bool (Q,), and clips, bool (G,): queries about other clips take no part, and what
        is missing of the rest is a miss."""
        asked = queries & videos[self.pairs.video_of]
        unread = self.no_text | self.no_video[self.pairs.video_of]
        found = self._search(self.scores, unread | ~asked, self.no_video | ~videos)
        asking = np.unique(self.pairs.video_of[asked])
        back, candidates = (found.back, asked.sum())
        if variant == "set" and found.sets is not None:
            back, candidates = found.sets, len(asking)
        forward = replace(found.forward.take(asked), gallery=int(videos.sum()))
        return forward, replace(back.take(asking), gallery=int(candidates))

    def asking(self, queries: Array, videos: Array) -> tuple[Array, Array]:
        """Which take part in :meth:`within`: bool (Q,) of the queries, and bool of the clips of ``described``."""
        asked = queries & videos[self.pairs.video_of]
        return asked, np.isin(self.pairs.described, self.pairs.video_of[asked])

    def _search(self, scores: Scores, no_text: Array, no_video: Array, top: int = 0) -> Found:
        return search(
            scores,
            np.arange(len(self.pairs.query_ids)),
            self.pairs.video_of,
            missing_rows=no_text,
            missing_columns=no_video,
            sets=self.pairs.video_of if self.several else None,
            top=top,
            label=f"compare {len(no_text):,} texts with {len(no_video):,} {self.videos.what}",
            shown=self.shown,
        )

    def _directions(self, found: Found, variant: str) -> tuple[Ranks, Ranks]:
        """With one text per clip both variants are the same."""
        back = found.sets if variant == "set" and found.sets is not None else found.back
        return found.forward, back.take(self.pairs.described)

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
        present: dict[str, int] = {}
        for collected, of in ((self.videos, self.pairs.video_of), (self.texts, self.pairs.text_of)):
            for modality, here in collected.present.items():
                had = np.zeros(len(collected.table), bool)
                had[collected.rows] = here
                present[modality] = max(present.get(modality, 0), int(had[of[kept]].sum()))
        if self.by_head:
            present["text"] = int(kept.sum())
        return Ledger(tuple(self.pairs.query_ids), misses, "queries", present)


def _in_place(first: First, askers: Array, candidates: Array) -> First:
    """What was found in another order of askers and candidates, in the first one."""
    index, scores = np.empty_like(first.index), np.empty_like(first.scores)
    index[askers] = np.where(first.index >= 0, candidates[first.index], -1)
    scores[askers] = first.scores
    return First(index, scores)


def _row_of(collected: Collected) -> Array:
    """int64 (N,): which of the evaluated rows an item of the table is; 0 for one that is missing."""
    out = np.zeros(len(collected.table), np.int64)
    out[collected.rows] = np.arange(len(collected.rows))
    return out


def without_broken(collected: Collected, name: str) -> Collected:
    """Items of which ``name`` is no number are missing."""
    found = collected.arrays.get(name)
    if found is None:
        return collected
    broken = np.zeros(len(found), bool)
    for start in range(0, len(found), _ROWS):
        part = found[start : start + _ROWS]
        broken[start : start + _ROWS] = ~np.isfinite(part.reshape(len(part), -1)).all(1)
    return collected.without(broken, f"the {name} is not a finite number") if broken.any() else collected
