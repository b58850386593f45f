"""Retrieval between any two sides of a clip, each of one modality or of several (:mod:`vtp_tasks.sides`), in both
directions: by embeddings, or, between clips and texts, by a matching head that reads both together.

Every clip of the split is a candidate once, every text is a query once; equal texts are encoded once, so that they tie
exactly. Only the clip that a text was written for is right; where no side has a text, the clip itself. Where clips have
several texts, the direction to them has two published forms, which differ by many points and are always named:

    any   all texts are ranked one by one, and a clip's best-ranked text counts (the harder one; ALBEF and its family)
    set   each clip's texts are one candidate, scored by its best text (CLIP4Clip on MSVD)

Clips that cannot be decoded are misses in both directions and stay in the gallery.

A matching head scores all pairs ("l2" of UniVL, SNP-S3 and CNVid, beside the "l1" of embeddings), or the first k
candidates of each query by embeddings (re-ranking). All pairs are the headline or a row, re-ranking is a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from vtp.contracts import Table, member, offers
from vtp.data.table import evenly, media_id
from vtp.errors import ConfigError, DataError
from vtp.eval.evaluator import Evaluator
from vtp.eval.figures import Strip
from vtp.eval.metrics import Ranks, TieRule, sanity_warnings
from vtp.eval.search import First
from vtp.eval.task import ReportTable, TaskResult
from vtp.model.model import VTPModel
from vtp.ranges import Count, Natural, Seed, Share
from vtp.types import MODALITIES, Modality, Sample
from vtp_tasks.cuts import add_cuts, cut_lines
from vtp_tasks.definitions import find_protocol, rule_for
from vtp_tasks.examples import frames_of
from vtp_tasks.lines import numbers
from vtp_tasks.matching import PAIR_BATCH, check_matches
from vtp_tasks.pair_counts import KS, rank_metrics
from vtp_tasks.pair_counts import pairs as recount_pairs
from vtp_tasks.pairs import Pairs, Similarities, check_compares, compares, gallery
from vtp_tasks.rerank import score_pairs
from vtp_tasks.rows import References, add_counts, add_references, compare, facts
from vtp_tasks.search_rows import SETS, add_rows, tell_lacking
from vtp_tasks.sides import (
    Modalities,
    Side,
    Space,
    compares_sides,
    direction,
    embed_side,
    find_space,
    read_side,
    spell_side,
)
from vtp_tasks.splits import FromSplits, Splits
from vtp_tasks.subsets import Subsets, check_subsets

__all__ = ["Retrieval"]

Array = npt.NDArray[Any]


class Retrieval(FromSplits):
    """The task ``retrieval``.

    Args:
        dataset: offers ``samples("retrieval", split)``: captions to train on, (text, clip) pairs to evaluate.
        protocol: name of a protocol of any plugin, or the path of one; None = data of one's own.
        query, gallery: what searches and what is searched: ``text``, ``video``, ``audio``, or several of them together
            (``[video, audio]``), which are shown and nothing else. They have none in common. Both directions are
            reported, the headline is that from ``query``. ``gallery=None`` is the clip as the objective takes it, its
            sound too where it looks at that, called ``video``; of ``query=video``, the text.
        objective: what scores the headline: an objective with ``embed(ctx, modality)`` -> (B, E), or (B, n, E) for n
            clips of a video, of unit length (vtc); or one with ``match_logits`` (vtm), which then reads all pairs. None
            = of those that embed, what compares ``query`` with ``gallery``, see :func:`vtp_tasks.sides.find_space`.
        split: which split is reported: ``test`` or ``val``.
        v2t: what is ranked for a clip with several texts: ``any`` or ``set``, see above. The other one becomes a row.
        selection: rule by which the checkpoint is chosen; None = ``val`` if there is a validation split, else ``last``.
        ties: tie rule of all ranks.
        top: candidates per query in the predictions.
        rerank: add a row in which a matching head re-orders the first so many candidates by embeddings; 0 = no.
        exhaustive: add a row in which a matching head orders all candidates.
        rerank_objective: which objective has that head, where ``objective`` embeds.
        embed_objective: which objective embeds, where ``objective`` is a matching head: its own row, and the candidates
            of ``rerank``. None = the first of the model that does, if there is one.
        pair_batch: pairs that a matching head reads at once.
        views: add a row in which the features of so many windows of a video, spread over it, are averaged; 0 = no.
        dsl: add a row with dual softmax over all queries.
        qb_norm: add a row in which scores from text are normalised by a bank of so many training texts; 0 = no.
        subsets: add rows in which only these modalities of a clip are there, ``[[video], [video, audio]]``, or ``all``
            subsets of those that the objective looks at; texts always are.
        references: published results to print beside one's own: label -> metric -> value, such as ``{ALPRO: {t2v/r1:
            33.9}}``. They are nobody's here.
        cuts: also score the cuts of the benchmark that its protocol names and that can be made, see
            :mod:`vtp_tasks.cuts`.
        val_share: share of the training clips held out for validation when ``selection`` is ``val`` and the data set
            has no validation split.
        seed: of the bootstrap, of held-out clips, and of the choice among ties at the edge of the re-ranked candidates.
    """

    kind = "retrieval"
    monitor: tuple[str, Literal["max", "min"]] = ("r_mean", "max")
    recount = staticmethod(recount_pairs)
    renamed: ClassVar[dict[str, str]] = {"modality": "gallery: what is searched, by default with texts"}

    def __init__(
        self,
        *,
        dataset: Any,
        protocol: str | None = None,
        query: Modalities = "text",
        gallery: Modalities | None = None,
        split: Literal["test", "val"] = "test",
        objective: str | None = "vtc",
        v2t: Literal["any", "set"] = "any",
        selection: str | None = None,
        ties: TieRule = "expected",
        top: Count = 10,
        rerank: Natural = 0,
        exhaustive: bool = False,
        rerank_objective: str = "vtm",
        embed_objective: str | None = None,
        pair_batch: Count = PAIR_BATCH,
        views: Natural = 0,
        dsl: bool = False,
        qb_norm: Natural = 0,
        subsets: Subsets = None,
        references: References = None,
        cuts: bool = True,
        val_share: Share | None = None,
        seed: Seed = 0,
    ) -> None:
        if rerank < 0:
            raise ConfigError(f"task.rerank={rerank} must be the number of candidates to re-order, or 0 for none.")
        check_subsets(subsets)
        self.dataset = dataset
        self.protocol = find_protocol(protocol, dataset, self.kind)
        self.name = self.kind if protocol is None else self.protocol.name
        self.query = read_side("task.query", query)
        self.as_taken = gallery is None and "video" not in self.query
        usual = "text" if "video" in self.query else "video"
        self.gallery = read_side("task.gallery", usual if gallery is None else gallery)
        if shared := [m for m in self.query if m in self.gallery]:
            raise ConfigError(
                f"task.query={spell_side(self.query)} and task.gallery={spell_side(self.gallery)} both hold "
                f"{shared[0]}: an item would find itself by it. Name different modalities."
            )
        # one row per text where there are texts, so that clips are the columns; else the queries are the rows
        turned = "text" in self.gallery
        self.sides = (self.gallery, self.query) if turned else (self.query, self.gallery)
        self.directions = direction(*self.sides), direction(*reversed(self.sides))
        self.shown_directions = self.directions[::-1] if turned else self.directions
        self.with_text = "text" in self.sides[0]
        self.what = "videos" if self.sides[1] == ("video",) else "clips"
        self.title = f"{spell_side(self.query)}-{spell_side(self.gallery)}"
        self.objective = objective
        self.v2t = v2t
        self.ties: TieRule = ties
        self.top = top
        self.rerank = rerank
        self.exhaustive = exhaustive
        self.rerank_objective = rerank_objective
        self.embed_objective = embed_objective
        self.pair_batch = pair_batch
        self.views = views
        self.dsl = dsl
        self.qb_norm = qb_norm
        self.subsets = subsets
        self.references = references
        self.cuts = cuts
        self.seed = seed
        self.split = split
        self.splits = Splits(dataset, self.kind, rule_for(split, selection), val_share, seed)

    @property
    def metrics(self) -> tuple[str, ...]:
        names = (*(f"r{k}" for k in KS), "mdr", "mnr")
        return ("r_mean", *(f"{one}/{name}" for one in self.shown_directions for name in names))

    # --- evaluation -----------------------------------------------------------------------------------------------

    def samples(self, split: str) -> Sequence[Sample]:
        """Pairs of a split. Of held-out training clips the first caption is the query."""
        found = self.splits[split]
        if split == "val" and self.splits.held_out:
            return [Sample(s.id, s.video, s.audio, s.texts[:1], s.labels, s.extra) for s in found]
        return found

    def evaluate(self, evaluator: Evaluator, split: str = "test", *, detail: bool = True) -> TaskResult:
        scored = self._score(evaluator, split, self.top if detail else 0)
        result = TaskResult(self.name, split, self.metrics_of(scored.ranks[self.v2t]), scored.queries_ledger())
        result.ledgers = {self.what: scored.videos.ledger}
        result.facts = {
            "score_row": self._score_row(evaluator, scored),
            "query": list(self.query),
            "gallery_side": list(self.gallery),
            "v2t": SETS[self.v2t] if scored.several else "one text per clip" if self.with_text else "no text",
            "dtype": f"float32 {'scores' if scored.by_head else 'similarity of embeddings'} from a "
            f"{evaluator.precision} forward pass",
            "gallery": len(scored.pairs.videos),
            "directions": list(self.directions),
            "v2t_form": self.v2t,
            "candidates": [ranks.gallery for ranks in scored.ranks[self.v2t]],
            "lost_clips": int(scored.no_video.sum()),
            **facts(self, evaluator, scored.limited),
        }
        if not detail:
            return result
        same = not scored.several  # with one text per clip both forms give the same ranks
        if silent := len(scored.pairs.videos) - len(scored.pairs.described):
            back = self.directions[1]
            result.warnings.append(f"{silent} of the {self.what} have no text: {back} is scored on the others")
        shown = self.shown(evaluator)
        result.facts["gallery_shown"] = list(shown)
        tell_lacking(self, evaluator, scored, result)
        sides = {"query": spell_side(self.query), "gallery": spell_side(self.gallery)}
        match = compare(self, evaluator, result, scored.samples, v2t="any" if same else self.v2t, **sides)
        result.predictions = self._predictions(scored)
        for one in self.shown_directions:
            result.warnings += [f"{one}: {doubt}" for doubt in sanity_warnings(_part(result.metrics, one))]
        if self.cuts:
            add_cuts(self, scored, result, heard="audio" in shown)
        add_rows(self, evaluator, scored, result)
        cuts = cut_lines(result, add_counts(result, self.recount, self.seed))
        result.chart = {d: {f"R@{k}": result.metrics[f"{d}/r{k}"] for k in KS} for d in self.shown_directions}
        add_references(result, self.references)
        result.tables = [self._table(result, match.line(), cuts)]
        return result

    def predict(self, evaluator: Evaluator, split: str = "test") -> TaskResult:
        scored = self._score(evaluator, split, self.top)
        lines = self._predictions(scored, judged=False)
        return TaskResult(
            self.name, split, {}, scored.queries_ledger(), lines, ledgers={self.what: scored.videos.ledger}
        )

    def examples(self, evaluator: Evaluator, result: TaskResult, count: int = 4) -> list[Strip]:
        """The right clips of evenly spaced text queries, and which clip came first; sounds cannot be shown."""
        if "video" not in (*self.query, *self.gallery):
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
        """Whether there is a text to search with, or to be found."""
        samples = self.samples(split)
        if self.with_text and len(samples) and next(iter(member(samples, Table, "all_texts")()), None) is None:
            raise DataError(self._no_queries(split, len(samples)))

    def _no_queries(self, split: str, samples: int) -> str:
        return (
            f"{self.dataset.name}: none of the {samples:,} samples of the {split} split has a text, so there is "
            "nothing to search with. Captions stand in a column `caption`, or in KEY.txt beside KEY.mp4 in a shard."
        )

    def _score(self, evaluator: Evaluator, split: str, top: int) -> Similarities:
        table = list(self.samples(split))
        clips = gallery(table)
        if not clips:
            raise DataError(f"{self.dataset.name}: there is no clip in the {split} split to evaluate.")
        if self.with_text and not any(sample.texts for sample in table):
            raise DataError(self._no_queries(split, len(table)))
        pairs = Pairs.of(table, evaluator.limited(clips), self.sides[0])
        chosen = {video.id for video in pairs.videos}
        samples = [sample for sample in table if media_id(sample) in chosen]
        if not self.with_text:  # what a clip is called is no part of the benchmark: an item is the clip alone
            samples = [
                replace(video, texts=("",), extra={**video.extra, "video_id": video.id}) for video in pairs.videos
            ]
        model: VTPModel = evaluator.bare_model
        self.check(model)
        by = self.by_head if self._matches(model) else self.by_embedding
        return by(evaluator, self.objective, pairs, samples, len(chosen) < len(clips), top=top)

    def space(self, model: VTPModel, objective: str | None) -> Space:
        return find_space(self.name, dict(model.objectives.items()), objective, *self.sides)

    def by_embedding(
        self,
        evaluator: Evaluator,
        objective: str | None,
        pairs: Pairs,
        samples: Sequence[Sample],
        limited: bool,
        drop: Sequence[Modality] = (),
        *,
        top: int = 0,
        known: Similarities | None = None,
        label: str = "",
        views: int | None = None,
    ) -> Similarities:
        """With ``drop`` these modalities are withheld; a side that has none of them is taken from ``known``, and
        with ``views`` one without video."""
        space = self.space(evaluator.bare_model, objective)
        rows, columns = self.sides[0], self.shown(evaluator, objective)
        both = []
        for parts, side, asked, what, old in (
            (space.other, columns, pairs.videos, self.what, "videos"),
            (space.one, rows, pairs.texts, "texts" if self.with_text else "queries", "texts"),
        ):
            held = [m for m in drop if m in side]
            again = held or (views is not None and "video" in side)
            if known is not None and not again:
                both.append(getattr(known, old))
            else:
                both.append(embed_side(evaluator, parts, side, asked, what, held, label, views=views))
        return Similarities.embedded(pairs, samples, limited, *both, top=top, shown=evaluator.shown)

    def by_head(
        self,
        evaluator: Evaluator,
        objective: str | None,
        pairs: Pairs,
        samples: Sequence[Sample],
        limited: bool,
        drop: Sequence[Modality] = (),
        *,
        top: int = 0,
        known: Similarities | None = None,
        label: str = "",
    ) -> Similarities:
        every = np.ones((len(pairs.query_ids), len(pairs.videos)), bool)
        drop = tuple(dict.fromkeys((*self.unasked(evaluator, str(objective)), *drop)))
        scores, videos = score_pairs(
            evaluator, pairs, every, str(objective), self.what, drop=drop, pair_batch=self.pair_batch
        )
        return Similarities.matched(pairs, samples, limited, videos, scores, top=top, shown=evaluator.shown)

    def shown(self, evaluator: Evaluator, objective: str | None = None) -> Side:
        """What is shown of a clip to ``objective`` (None: to what scores the headline)."""
        model = evaluator.bare_model
        name = self.objective if objective is None else objective
        if not self.as_taken:
            return self.sides[1]
        if name is not None and not offers(model.objectives[name], "embed"):  # a matching head reads all there is
            looked = set(evaluator.modalities)
        else:
            looked = {*self.space(model, name).beyond} & {*evaluator.modalities}
        return tuple(m for m in MODALITIES if m in self.sides[1] or (m in looked - {"text", *self.query}))

    def unasked(self, evaluator: Evaluator, head: str) -> tuple[Modality, ...]:
        """Modalities of a clip that ``head`` is not shown."""
        shown = self.shown(evaluator, head)
        return tuple(m for m in evaluator.modalities if m != "text" and m not in shown)

    def _matches(self, model: VTPModel) -> bool:
        """Whether the headline is scored by a matching head."""
        return self.objective is not None and not offers(model.objectives[self.objective], "embed")

    def embeds(self, model: VTPModel) -> str | None:
        """The objective whose embeddings stand beside a headline by a matching head, or None."""
        if self.embed_objective is not None:
            return self.embed_objective
        return next((name for name, one in model.objectives.items() if compares_sides(one, *self.sides)), None)

    def check(self, model: VTPModel) -> None:
        """Whether the model has the objectives that embed, match and re-rank."""
        objectives = dict(model.objectives.items())
        found = None if self.objective is None else objectives.get(self.objective)
        if self.objective is not None and (
            found is None or not (offers(found, "embed") or offers(found, "match_logits"))
        ):
            raise ConfigError(
                f"task {self.name}: the model has no objective {self.objective!r} that embeds clips and texts or that "
                f"matches them (it has: {', '.join(objectives) or 'none'}). Add it with objective=[{self.objective}], "
                "or set task.objective."
            )
        if not self._matches(model):
            self.space(model, self.objective)
            if self.rerank or self.exhaustive:
                self._check_head(self.rerank_objective)
                check_matches(model, self.rerank_objective, self.name)
            return
        self._check_head(str(self.objective))
        if not any(compares(m, found) for m in self.sides[1]):
            check_compares(self.name, self.sides[1][0], str(self.objective), found, key="task.gallery")
        name = self.embeds(model)
        if name is None and self.rerank:
            raise ConfigError(
                f"task {self.name}: task.rerank={self.rerank} takes the first candidates by embeddings, and the model "
                f"has no objective that embeds (it has: {', '.join(objectives)}). Train with "
                f"objective=[vtc,{self.objective}], or set task.rerank=0."
            )
        if name is not None and (name not in objectives or not offers(objectives[name], "embed")):
            raise ConfigError(
                f"task {self.name}: task.embed_objective={name}: the model has no such objective that embeds clips and "
                f"texts (it has: {', '.join(objectives)})."
            )

    def _check_head(self, name: str) -> None:
        if self.sides[0] != ("text",):
            raise ConfigError(
                f"task {self.name}: {name} matches texts with clips, and task.query={spell_side(self.query)} and "
                f"task.gallery={spell_side(self.gallery)} are other sides. Set one of them to text alone, or compare "
                "embeddings (task.objective=null task.rerank=0 task.exhaustive=false)."
            )

    def metrics_of(self, ranks: tuple[Ranks, Ranks]) -> dict[str, float]:
        """Flat names ``t2v/r1`` ... and ``r_mean``, the mean of the six R@K, by which checkpoints are chosen."""
        found = rank_metrics(dict(zip(self.directions, ranks, strict=True)), self.ties)
        return {name: found[name] for name in (*self.metrics[1:], "r_mean")}

    def _score_row(self, evaluator: Evaluator, scored: Similarities) -> str:
        if scored.by_head:
            return f"all pairs by {self.objective}"
        names = self.space(evaluator.bare_model, self.objective).names
        how = ["raw"] if len(names) == 1 else ["raw", f"mean of {' and '.join(names)}"]
        views = int(evaluator.facts.get("clips", 1)) * int(evaluator.facts.get("crops", 1))
        how += [f"features of {views} views averaged"] if views > 1 and "video" in self.query + self.gallery else []
        return ", ".join(how)

    def _predictions(self, scored: Similarities, judged: bool = True) -> list[dict[str, Any]]:
        """One line per query and direction: where the right candidate stands and what came first."""
        pairs = scored.pairs
        names = [video.id for video in pairs.videos]
        queries_of = pairs.queries_of()
        lines: dict[str, list[dict[str, Any]]] = {name: [] for name in self.shown_directions}
        both = zip(self.directions, (scored.first, scored.first_back), scored.ranks[self.v2t], strict=True)
        for name, first, found in both:
            ranks, hits = found.values(self.ties), found.hits(1, self.ties)
            forward = name == self.directions[0]
            misses = scored.query_misses() if forward else scored.videos.misses
            labels = names if forward else pairs.query_ids
            for place, row in enumerate(range(len(pairs.query_ids)) if forward else pairs.described):
                own = pairs.query_ids[row] if forward else names[row]
                line: dict[str, Any] = {"id": f"{name}:{own}", "direction": name}
                line["query"] = pairs.queries[row] if forward else own
                if judged:
                    target = [names[pairs.video_of[row]]] if forward else [pairs.query_ids[q] for q in queries_of[row]]
                    line |= {"target": target, "rank": float(ranks[place]), "hit": float(hits[place])}
                    line |= numbers(found, place)
                    if forward and scored.no_text[row]:
                        line["no_text" if self.sides[0] == ("text",) else "no_query"] = True
                line["top"] = _named(first, row, labels)
                if own in misses:
                    line["missing"] = misses[own]
                lines[name].append(line)
        return [line for one in lines.values() for line in one]

    def _table(self, result: TaskResult, protocol_line: str, cuts: Sequence[str]) -> ReportTable:
        columns = [f"{d} {label}" for d in self.shown_directions for label in ("R@1", "R@5", "R@10", "MdR", "MnR")]
        keys = [f"{d}/{name}" for d in self.shown_directions for name in ("r1", "r5", "r10", "mdr", "mnr")]
        rows: list[tuple[str | float | None, ...]] = [
            (str(result.facts["score_row"]), *(result.metrics[key] for key in keys))
        ]
        for further in (result.rows, result.references):
            rows += [(label, *(row.get(key) for key in keys)) for label, row in further.items()]
        sure = {f"{d}/r1": result.intervals[f"{d}/r1"] for d in self.shown_directions}
        spans = [f"{name} 95 % interval {low:.2f} to {high:.2f}" for name, (low, high) in sure.items()]
        notes = (
            result.ledger.line(),
            result.ledgers[self.what].line(),
            protocol_line,
            f"{'; '.join(spans)}; ties: {self.ties}; gallery {result.facts['gallery']:,} {self.what}; "
            f"{self.directions[1]}: {result.facts['v2t']}"
            if self.with_text
            else "the right one is the clip itself",
            *cuts,
        )
        return ReportTable(
            f"{result.title}: {self.title} retrieval ({result.split})", ("scores", *columns), tuple(rows), notes
        )


def _named(first: First, row: int, labels: Sequence[str]) -> list[list[Any]]:
    """The first candidates of an asker as ``[name, score]``."""
    index = first.index[row]
    return [
        [labels[j], round(score, 6)]
        for j, score in zip(index[index >= 0].tolist(), first.scores[row].tolist(), strict=False)
    ]


def _part(metrics: dict[str, float], direction: str) -> dict[str, float]:
    return {name.partition("/")[2]: value for name, value in metrics.items() if name.startswith(f"{direction}/")}
