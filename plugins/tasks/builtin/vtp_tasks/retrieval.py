"""Retrieval of video (or of sound) by text and of text by video, with an embedding of each clip and of each text.

Every clip of the split is a candidate once, every text is a query once; equal texts are encoded once, so that they tie
exactly. Only the clip that a text was written for is right. Where clips have several texts, the other direction has two
published forms, which differ by many points and are always named:

    any   all texts are ranked one by one, and a clip's best-ranked text counts (the harder one; ALBEF and its family)
    set   each clip's texts are one candidate, scored by its best text (CLIP4Clip on MSVD)

Clips that cannot be decoded are misses in both directions and stay in the gallery.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vtp.contracts import Table, member, offers
from vtp.data.table import clip_names, evenly, media_id
from vtp.errors import ConfigError, DataError
from vtp.eval.evaluator import Evaluator
from vtp.eval.figures import Strip
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.eval.metrics import Ranks, TieRule, dual_softmax, retrieval_metrics, sanity_warnings
from vtp.eval.task import ReportTable, TaskResult
from vtp.model.model import VTPModel
from vtp.ranges import Count, Natural, Seed, Share
from vtp.types import Sample
from vtp_tasks.definitions import find_protocol, rule_for
from vtp_tasks.examples import frames_of
from vtp_tasks.pairs import (
    Pairs,
    Similarities,
    check_compares,
    embed,
    embed_clips,
    gallery,
    looked_at,
    seen_in,
    without_broken,
)
from vtp_tasks.rerank import check_matches, rerank, score_pairs
from vtp_tasks.rows import compare, facts, interval
from vtp_tasks.splits import Splits
from vtp_tasks.subsets import Subsets, check_subsets, withheld

__all__ = ["Retrieval"]

Array = npt.NDArray[Any]
KS = (1, 5, 10)
DIRECTIONS = {"video": ("t2v", "v2t"), "audio": ("t2a", "a2t")}  # from text, to text
WHAT = {"video": ("videos", "text-video"), "audio": ("clips", "text-audio")}
SETS = {"any": "any of a clip's texts", "set": "a clip's texts as one set"}


class Retrieval:
    """The task ``retrieval``.

    Args:
        dataset: offers ``samples("retrieval", split)``: captions to train on, (text, clip) pairs to evaluate.
        protocol: name of a protocol of any plugin, or the path of one; None = data of one's own.
        modality: what is searched with texts: ``video`` or ``audio``.
        objective: the objective with ``embed(ctx, modality)`` -> (B, E) of unit length.
        split: which split is reported: ``test`` or ``val``.
        v2t: what is ranked for a clip with several texts: ``any`` or ``set``, see above. The other one becomes a row.
        selection: rule by which the checkpoint is chosen; None = ``val`` if there is a validation split, else ``last``.
        ties: tie rule of all ranks.
        top: candidates per query in the predictions.
        rerank: add a row in which ``match_logits`` of ``rerank_objective`` re-orders the first so many candidates; 0 =
            no.
        rerank_objective: which objective that is.
        dsl: add a row with dual softmax over all queries.
        subsets: add rows in which only these modalities of a clip are there, ``[[video], [video, audio]]``, or ``all``
            subsets of those that the objective looks at; texts always are.
        val_share: share of the training clips held out for validation when ``selection`` is ``val`` and the data set
            has no validation split.
        seed: of the bootstrap, of held-out clips, and of the choice among ties at the edge of the re-ranked candidates.
    """

    kind = "retrieval"
    monitor: tuple[str, Literal["max", "min"]] = ("r_mean", "max")

    def __init__(
        self,
        *,
        dataset: Any,
        protocol: str | None = None,
        modality: Literal["video", "audio"] = "video",
        split: Literal["test", "val"] = "test",
        objective: str = "vtc",
        v2t: Literal["any", "set"] = "any",
        selection: str | None = None,
        ties: TieRule = "expected",
        top: Count = 10,
        rerank: Natural = 0,
        rerank_objective: str = "vtm",
        dsl: bool = False,
        subsets: Subsets = None,
        val_share: Share | None = None,
        seed: Seed = 0,
    ) -> None:
        if rerank < 0:
            raise ConfigError(f"task.rerank={rerank} must be the number of candidates to re-order, or 0 for none.")
        check_subsets(subsets)
        self.dataset = dataset
        self.protocol = find_protocol(protocol, dataset, self.kind)
        self.name = self.kind if protocol is None else self.protocol.name
        self.modality: Literal["video", "audio"] = modality
        self.directions = DIRECTIONS[modality]
        self.what, self.title = WHAT[modality]
        self.objective = objective
        self.v2t = v2t
        self.ties: TieRule = ties
        self.top = top
        self.rerank = rerank
        self.rerank_objective = rerank_objective
        self.dsl = dsl
        self.subsets = subsets
        self.seed = seed
        self.split = split
        self.splits = Splits(dataset, self.kind, rule_for(split, selection), val_share, seed)

    @property
    def metrics(self) -> tuple[str, ...]:
        names = (*(f"r{k}" for k in KS), "mdr", "mnr")
        return ("r_mean", *(f"{direction}/{name}" for direction in self.directions for name in names))

    # --- training -------------------------------------------------------------------------------------------------

    def train_samples(self) -> Sequence[Sample]:
        return self.splits["train"]

    def known_list(self) -> str | None:
        """Name of the known training list that the training clips are exactly, or None."""
        return self.protocol.train_list(clip_names(self.splits["train"]))

    @property
    def selection(self) -> str:
        return self.splits.selection

    # --- evaluation -----------------------------------------------------------------------------------------------

    def samples(self, split: str) -> Sequence[Sample]:
        """Pairs of a split. Of held-out training clips the first caption is the query."""
        found = self.splits[split]
        if split == "val" and self.splits.held_out:
            return [Sample(s.id, s.video, s.audio, s.texts[:1], s.labels, s.extra) for s in found]
        return found

    def evaluate(self, evaluator: Evaluator, split: str = "test", *, detail: bool = True) -> TaskResult:
        scored = self._score(evaluator, split)
        result = TaskResult(self.name, split, self._metrics(scored.ranks[self.v2t]), scored.queries_ledger())
        result.ledgers = {self.what: scored.videos.ledger}
        result.facts = {
            "score_row": "raw",
            "v2t": SETS[self.v2t] if scored.several else "one text per clip",
            "dtype": f"float32 similarity of embeddings from a {evaluator.precision} forward pass",
            "gallery": len(scored.pairs.videos),
            **facts(self, evaluator, scored.limited),
        }
        if not detail:
            return result
        same = not scored.several  # with one text per clip both forms give the same ranks
        if silent := len(scored.pairs.videos) - len(scored.pairs.described):
            back = self.directions[1]
            result.warnings.append(f"{silent} of the {self.what} have no text: {back} is scored on the others")
        match = compare(
            self, evaluator, result, scored.samples, modality=self.modality, v2t="any" if same else self.v2t
        )
        result.predictions = self._predictions(scored)
        for direction, ranks in zip(self.directions, scored.ranks[self.v2t], strict=True):
            result.intervals[f"{direction}/r1"] = interval(ranks.hits(1, self.ties), self.seed)
            result.warnings += [f"{direction}: {doubt}" for doubt in sanity_warnings(_part(result.metrics, direction))]
        self._further_rows(evaluator, scored, result)
        result.chart = {d: {f"R@{k}": result.metrics[f"{d}/r{k}"] for k in KS} for d in self.directions}
        result.tables = [self._table(result, match.line())]
        return result

    def predict(self, evaluator: Evaluator, split: str = "test") -> TaskResult:
        scored = self._score(evaluator, split)
        lines = self._predictions(scored, judged=False)
        return TaskResult(
            self.name, split, {}, scored.queries_ledger(), lines, ledgers={self.what: scored.videos.ledger}
        )

    def examples(self, evaluator: Evaluator, result: TaskResult, count: int = 4) -> list[Strip]:
        """The right clips of evenly spaced text queries, and which clip came first; sounds cannot be shown."""
        if self.modality != "video":
            return []
        clips = {video.id: video for video in gallery(self.samples(result.split))}
        from_text = [line for line in result.predictions if line["direction"] == self.directions[0]]
        lines = [line for line in from_text if "missing" not in line]
        chosen = {line["target"][0]: line for line in evenly(lines, count)}
        wanted = [clips[name] for name in chosen]
        collected = evaluator.run(wanted, frames_of, drop=("audio", "text"), what="videos", label="example clips")
        return [
            Strip(frames, chosen[name]["query"], name, chosen[name]["top"][0][0], chosen[name]["hit"] > 0.5)
            for name, frames in zip(collected.ids, collected.arrays.get("frames", ()), strict=True)
        ]

    def check_split(self, split: str) -> None:
        """Whether there is a text to search with."""
        samples = self.samples(split)
        if len(samples) and next(iter(member(samples, Table, "all_texts")()), None) is None:
            raise DataError(self._no_queries(split, len(samples)))

    def _no_queries(self, split: str, samples: int) -> str:
        return (
            f"{self.dataset.name}: none of the {samples:,} samples of the {split} split has a text, so there is "
            "nothing to search with. Captions stand in a column `caption`, or in KEY.txt beside KEY.mp4 in a shard."
        )

    def _score(self, evaluator: Evaluator, split: str) -> Similarities:
        table = list(self.samples(split))
        clips = gallery(table)
        if not clips:
            raise DataError(f"{self.dataset.name}: there is no clip in the {split} split to evaluate.")
        if not any(sample.texts for sample in table):
            raise DataError(self._no_queries(split, len(table)))
        pairs = Pairs.of(table, evaluator.limited(clips))
        chosen = {video.id for video in pairs.videos}
        samples = [sample for sample in table if media_id(sample) in chosen]
        self.check(evaluator.bare_model)
        videos, texts = embed(evaluator, self.objective, self.modality, pairs.videos, pairs.texts, self.what)
        return Similarities(pairs, samples, len(chosen) < len(clips), without_broken(videos), without_broken(texts))

    def check(self, model: VTPModel) -> None:
        """Whether the model has the objectives that embed and re-rank."""
        objectives = model.objectives
        if self.objective not in objectives or not offers(objectives[self.objective], "embed"):
            raise ConfigError(
                f"task {self.name}: the model has no objective {self.objective!r} that embeds clips and texts (it has: "
                f"{', '.join(objectives) or 'none'}). Add it with objective=[{self.objective}], or set task.objective."
            )
        check_compares(self.name, self.modality, self.objective, objectives[self.objective])
        if self.rerank:
            check_matches(model, self.rerank_objective, self.name)

    def _metrics(self, ranks: tuple[Ranks, Ranks]) -> dict[str, float]:
        """Flat names ``t2v/r1`` ... and ``r_mean``, the mean of the six R@K, by which checkpoints are chosen."""
        parts = [retrieval_metrics(one, ties=self.ties, ks=KS) for one in ranks]
        found = {
            f"{d}/{name}": value for d, part in zip(self.directions, parts, strict=True) for name, value in part.items()
        }
        return found | {"r_mean": float(np.mean([found[f"{d}/r{k}"] for d in self.directions for k in KS]))}

    def _further_rows(self, evaluator: Evaluator, scored: Similarities, result: TaskResult) -> None:
        """Rows that must never be mixed with the raw ones."""
        back = self.directions[1]
        if scored.several:
            other = "set" if self.v2t == "any" else "any"
            all_metrics = self._metrics(scored.ranks[other])
            result.rows[f"{back}: {SETS[other]}"] = {
                name: value for name, value in all_metrics.items() if name.startswith(back)
            }
        if 0 < result.ledger.coverage < 1:
            result.rows[EVALUATED_ONLY] = self._metrics(scored.evaluated_only(self.v2t))
        if self.rerank:
            orders = [rerank(sim, self.rerank, self.seed) for sim in (scored.sim, scored.sim.T)]
            pairs = orders[0].pairs() | {(query, video) for video, query in orders[1].pairs()}
            matched = score_pairs(evaluator, scored.pairs, pairs, self.rerank_objective, self.name, self.what)
            result.rows[f"re-rank({self.rerank}) by {self.rerank_objective}"] = self._metrics(
                scored.rank(orders[0].scores(matched), orders[1].scores(matched.T), self.v2t)
            )
        if self.dsl:
            label = "DSL (sees all queries at once)"
            scores = dual_softmax(scored.sim), dual_softmax(scored.sim.T)
            result.rows[label] = self._metrics(scored.rank(*scores, self.v2t))
        seen = seen_in(scored.videos, looked_at(evaluator, self.objective, self.modality))
        for label, drop in withheld(self.subsets, seen, result.warnings, always=("text",)).items():
            clips = embed_clips(evaluator, self.objective, self.modality, scored.pairs.videos, self.what, drop, label)
            part = Similarities(scored.pairs, scored.samples, scored.limited, without_broken(clips), scored.texts)
            result.rows[label] = self._metrics(part.ranks[self.v2t])

    def _predictions(self, scored: Similarities, judged: bool = True) -> list[dict[str, Any]]:
        """One line per query and direction: where the right candidate stands and what came first."""
        pairs = scored.pairs
        names = [video.id for video in pairs.videos]
        queries_of = pairs.queries_of()
        lines = []
        both = zip(self.directions, (scored.sim, scored.sim.T), scored.ranks[self.v2t], strict=True)
        for direction, sim, found in both:
            ranks, hits = found.values(self.ties), found.hits(1, self.ties)
            forward = direction == self.directions[0]
            misses = scored.query_misses() if forward else scored.videos.misses
            for place, row in enumerate(range(len(sim)) if forward else pairs.described):
                scores = sim[row]
                own = pairs.query_ids[row] if forward else names[row]
                line: dict[str, Any] = {"id": f"{direction}:{own}", "direction": direction}
                line["query"] = pairs.queries[row] if forward else own
                if judged:
                    target = [names[pairs.video_of[row]]] if forward else [pairs.query_ids[q] for q in queries_of[row]]
                    line |= {"target": target, "rank": float(ranks[place]), "hit": float(hits[place])}
                best = np.argsort(np.where(np.isfinite(scores), -scores, np.inf), kind="stable")[: self.top]
                labels = names if forward else pairs.query_ids
                line["top"] = [[labels[j], round(float(scores[j]), 6)] for j in best if np.isfinite(scores[j])]
                if own in misses:
                    line["missing"] = misses[own]
                lines.append(line)
        return lines

    def _table(self, result: TaskResult, protocol_line: str) -> ReportTable:
        columns = [f"{d} {label}" for d in self.directions for label in ("R@1", "R@5", "R@10", "MdR", "MnR")]
        keys = [f"{d}/{name}" for d in self.directions for name in ("r1", "r5", "r10", "mdr", "mnr")]
        rows: list[tuple[str | float | None, ...]] = [("raw", *(result.metrics[key] for key in keys))]
        rows += [(label, *(row.get(key) for key in keys)) for label, row in result.rows.items()]
        spans = [f"{name} 95 % interval {low:.2f} to {high:.2f}" for name, (low, high) in result.intervals.items()]
        notes = (
            result.ledger.line(),
            result.ledgers[self.what].line(),
            protocol_line,
            f"{'; '.join(spans)}; ties: {self.ties}; gallery {result.facts['gallery']:,} {self.what}; "
            f"{self.directions[1]}: {result.facts['v2t']}",
        )
        return ReportTable(
            f"{result.title}: {self.title} retrieval ({result.split})", ("scores", *columns), tuple(rows), notes
        )


def _part(metrics: dict[str, float], direction: str) -> dict[str, float]:
    return {name.partition("/")[2]: value for name, value in metrics.items() if name.startswith(f"{direction}/")}
