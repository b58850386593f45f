"""Retrieval of video (or of sound) by text and of text by video: by embeddings of clips and of texts, or by a matching
head that reads both together.

Every clip of the split is a candidate once, every text is a query once; equal texts are encoded once, so that they tie
exactly. Only the clip that a text was written for is right. Where clips have several texts, the other direction has two
published forms, which differ by many points and are always named:

    any   all texts are ranked one by one, and a clip's best-ranked text counts (the harder one; ALBEF and its family)
    set   each clip's texts are one candidate, scored by its best text (CLIP4Clip on MSVD)

Clips that cannot be decoded are misses in both directions and stay in the gallery.

A matching head scores all pairs ("l2" of UniVL, SNP-S3 and CNVid, beside the "l1" of embeddings), or the first k
candidates of each query by embeddings (re-ranking). All pairs are the headline or a row, re-ranking is a row.
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
from vtp.eval.metrics import Ranks, TieRule, retrieval_metrics, sanity_warnings
from vtp.eval.scores import DualSoftmax, Embeddings, Scores
from vtp.eval.search import First
from vtp.eval.task import ReportTable, TaskResult
from vtp.model.model import VTPModel
from vtp.ranges import Count, Natural, Seed, Share
from vtp.types import Modality, Sample
from vtp_tasks.cuts import add_cuts
from vtp_tasks.definitions import find_protocol, rule_for
from vtp_tasks.examples import frames_of
from vtp_tasks.matching import PAIR_BATCH, check_matches
from vtp_tasks.pairs import (
    Pairs,
    Similarities,
    check_compares,
    compares,
    embed,
    embed_clips,
    gallery,
    looked_at,
    seen_in,
)
from vtp_tasks.query_bank import BETA, bank_of, normalised
from vtp_tasks.recounts import KS, numbers
from vtp_tasks.recounts import pairs as recount_pairs
from vtp_tasks.rerank import Order, score_pairs, score_some
from vtp_tasks.rows import References, add_counts, add_references, compare, facts
from vtp_tasks.splits import Splits
from vtp_tasks.subsets import Subsets, check_subsets, withheld

__all__ = ["Retrieval"]

Array = npt.NDArray[Any]
DIRECTIONS = {"video": ("t2v", "v2t"), "audio": ("t2a", "a2t")}  # from text, to text
WHAT = {"video": ("videos", "text-video"), "audio": ("clips", "text-audio")}
SETS = {"any": "any of a clip's texts", "set": "a clip's texts as one set"}


class Retrieval:
    """The task ``retrieval``.

    Args:
        dataset: offers ``samples("retrieval", split)``: captions to train on, (text, clip) pairs to evaluate.
        protocol: name of a protocol of any plugin, or the path of one; None = data of one's own.
        modality: what is searched with texts: ``video`` or ``audio``.
        objective: what scores the headline: an objective with ``embed(ctx, modality)`` -> (B, E), or (B, n, E) for n
            clips of a video, of unit length (vtc); or one with ``match_logits`` (vtm), which then reads all pairs.
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
        exhaustive: bool = False,
        rerank_objective: str = "vtm",
        embed_objective: str | None = None,
        pair_batch: Count = PAIR_BATCH,
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
        self.modality: Literal["video", "audio"] = modality
        self.directions = DIRECTIONS[modality]
        self.what, self.title = WHAT[modality]
        self.objective = objective
        self.v2t = v2t
        self.ties: TieRule = ties
        self.top = top
        self.rerank = rerank
        self.exhaustive = exhaustive
        self.rerank_objective = rerank_objective
        self.embed_objective = embed_objective
        self.pair_batch = pair_batch
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
        scored = self._score(evaluator, split, self.top if detail else 0)
        result = TaskResult(self.name, split, self.metrics_of(scored.ranks[self.v2t]), scored.queries_ledger())
        result.ledgers = {self.what: scored.videos.ledger}
        result.facts = {
            "score_row": f"all pairs by {self.objective}" if scored.by_head else "raw",
            "v2t": SETS[self.v2t] if scored.several else "one text per clip",
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
        match = compare(
            self, evaluator, result, scored.samples, modality=self.modality, v2t="any" if same else self.v2t
        )
        result.predictions = self._predictions(scored)
        add_counts(result, self.recount, self.seed)
        for direction in self.directions:
            result.warnings += [f"{direction}: {doubt}" for doubt in sanity_warnings(_part(result.metrics, direction))]
        cuts = add_cuts(self, evaluator, scored, result) if self.cuts else []
        self._further_rows(evaluator, scored, result)
        result.chart = {d: {f"R@{k}": result.metrics[f"{d}/r{k}"] for k in KS} for d in self.directions}
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

    def _score(self, evaluator: Evaluator, split: str, top: int) -> Similarities:
        table = list(self.samples(split))
        clips = gallery(table)
        if not clips:
            raise DataError(f"{self.dataset.name}: there is no clip in the {split} split to evaluate.")
        if not any(sample.texts for sample in table):
            raise DataError(self._no_queries(split, len(table)))
        pairs = Pairs.of(table, evaluator.limited(clips))
        chosen = {video.id for video in pairs.videos}
        samples = [sample for sample in table if media_id(sample) in chosen]
        model: VTPModel = evaluator.bare_model
        self.check(model)
        by = self._by_head if self._matches(model) else self._by_embedding
        return by(evaluator, self.objective, pairs, samples, len(chosen) < len(clips), top=top)

    def _by_embedding(
        self,
        evaluator: Evaluator,
        objective: str,
        pairs: Pairs,
        samples: Sequence[Sample],
        limited: bool,
        *,
        top: int = 0,
    ) -> Similarities:
        found = embed(evaluator, objective, self.modality, pairs.videos, pairs.texts, self.what)
        return Similarities.embedded(pairs, samples, limited, *found, top=top, shown=evaluator.shown)

    def _by_head(
        self,
        evaluator: Evaluator,
        objective: str,
        pairs: Pairs,
        samples: Sequence[Sample],
        limited: bool,
        drop: Sequence[Modality] = (),
        *,
        top: int = 0,
    ) -> Similarities:
        every = np.ones((len(pairs.query_ids), len(pairs.videos)), bool)
        how: dict[str, Any] = {"drop": drop, "pair_batch": self.pair_batch}
        scores, videos = score_pairs(evaluator, pairs, every, objective, self.what, **how)
        return Similarities.matched(pairs, samples, limited, videos, scores, top=top, shown=evaluator.shown)

    def _matches(self, model: VTPModel) -> bool:
        """Whether the headline is scored by a matching head."""
        return not offers(model.objectives[self.objective], "embed")

    def _embeds(self, model: VTPModel) -> str | None:
        """The objective whose embeddings stand beside a headline by a matching head, or None."""
        if self.embed_objective is not None:
            return self.embed_objective
        able = (name for name, one in model.objectives.items() if offers(one, "embed"))
        return next((name for name in able if compares(self.modality, model.objectives[name])), None)

    def check(self, model: VTPModel) -> None:
        """Whether the model has the objectives that embed, match and re-rank."""
        objectives = model.objectives
        found = dict(objectives.items()).get(self.objective)
        if found is None or not (offers(found, "embed") or offers(found, "match_logits")):
            raise ConfigError(
                f"task {self.name}: the model has no objective {self.objective!r} that embeds clips and texts or that "
                f"matches them (it has: {', '.join(objectives) or 'none'}). Add it with objective=[{self.objective}], "
                "or set task.objective."
            )
        check_compares(self.name, self.modality, self.objective, found)
        if not self._matches(model):
            if self.rerank or self.exhaustive:
                check_matches(model, self.rerank_objective, self.name)
            return
        name = self._embeds(model)
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

    def metrics_of(self, ranks: tuple[Ranks, Ranks]) -> dict[str, float]:
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
            all_metrics = self.metrics_of(scored.ranks[other])
            result.rows[f"{back}: {SETS[other]}"] = {
                name: value for name, value in all_metrics.items() if name.startswith(back)
            }
        if 0 < result.ledger.coverage < 1:
            result.rows[EVALUATED_ONLY] = self.metrics_of(scored.evaluated_only(self.v2t))
        self._rows_of_two_stages(evaluator, scored, result)
        if self.dsl:
            label = "DSL (sees all queries at once)"
            missing = scored.no_text, scored.no_video
            by: list[Scores] = [DualSoftmax(scored.scores, over, *missing) for over in (0, 1)]
            result.rows[label] = self.metrics_of(scored.rank(by[0], by[1], self.v2t))
        if self.qb_norm:
            self._row_of_a_query_bank(evaluator, scored, result)
        used = evaluator.modalities if scored.by_head else looked_at(evaluator, self.objective, self.modality)
        given = scored.pairs, scored.samples, scored.limited
        for label, drop in withheld(
            self.subsets, seen_in(scored.videos, used), result.warnings, always=("text",)
        ).items():
            if scored.by_head:
                part = self._by_head(evaluator, self.objective, *given, drop)
            else:
                clips = embed_clips(evaluator, self.objective, self.modality, given[0].videos, self.what, drop, label)
                part = Similarities.embedded(*given, clips, scored.texts)
            result.rows[label] = self.metrics_of(part.ranks[self.v2t])

    def _row_of_a_query_bank(self, evaluator: Evaluator, scored: Similarities, result: TaskResult) -> None:
        there = self.directions[0]
        label = f"{there}: QB-Norm (sees {self.qb_norm:,} training texts)"
        if not isinstance(scored.scores, Embeddings) or not self.splits.has_train:
            why = "a matching head gives the headline" if scored.by_head else "there are no training texts here"
            result.warnings.append(f"task.qb_norm: no row, because {why}.")
            return
        texts = member(self.splits["train"], Table, "all_texts")()
        bank = bank_of(evaluator, self.objective, texts, self.qb_norm, scored.scores)
        by = normalised(scored.scores, bank, scored.first.index[:, 0], scored.no_video)
        found = self.metrics_of(scored.rank(by, by, self.v2t))
        result.rows[label] = {name: value for name, value in found.items() if name.startswith(f"{there}/")}
        result.facts["qb_norm"] = {"bank": bank.shape[0], "beta": BETA, "normalised_queries": int(by.rows.sum())}

    def _rows_of_two_stages(self, evaluator: Evaluator, scored: Similarities, result: TaskResult) -> None:
        """What embeddings, the first candidates re-ordered, and all pairs give, less the headline."""
        given = evaluator, scored.pairs, scored.samples, scored.limited
        matched = scored if scored.by_head else None
        head, first = (self.objective if scored.by_head else self.rerank_objective), scored
        if scored.by_head:
            embeds = self._embeds(evaluator.bare_model)
            if embeds is None:
                return
            first = self._by_embedding(evaluator, embeds, *given[1:])
            result.rows[f"embeddings of {embeds}"] = self.metrics_of(first.ranks[self.v2t])
        elif self.exhaustive:
            matched = self._by_head(evaluator, head, *given[1:])
            result.rows[f"all pairs by {head}"] = self.metrics_of(matched.ranks[self.v2t])
        if self.rerank:
            candidates = first.candidates(self.rerank, self.seed)
            orders = [Order.of(one, back) for one, back in zip(candidates, (False, True), strict=True)]
            queries, clips = (np.concatenate(part) for part in zip(*(order.pairs for order in orders), strict=True))
            if matched is None:
                given_pairs = evaluator, scored.pairs, queries, clips, head, self.what
                values = score_some(*given_pairs, pair_batch=self.pair_batch)
            else:
                values = matched.scores.pairs(queries, clips)
            ends = np.split(values, [len(orders[0].askers)])
            new = [order.scores(first.scores, part) for order, part in zip(orders, ends, strict=True)]
            result.rows[f"re-rank({self.rerank}) by {head}"] = self.metrics_of(first.rank(new[0], new[1], self.v2t))

    def _predictions(self, scored: Similarities, judged: bool = True) -> list[dict[str, Any]]:
        """One line per query and direction: where the right candidate stands and what came first."""
        pairs = scored.pairs
        names = [video.id for video in pairs.videos]
        queries_of = pairs.queries_of()
        lines = []
        both = zip(self.directions, (scored.first, scored.first_back), scored.ranks[self.v2t], strict=True)
        for direction, first, found in both:
            ranks, hits = found.values(self.ties), found.hits(1, self.ties)
            forward = direction == self.directions[0]
            misses = scored.query_misses() if forward else scored.videos.misses
            labels = names if forward else pairs.query_ids
            for place, row in enumerate(range(len(pairs.query_ids)) if forward else pairs.described):
                own = pairs.query_ids[row] if forward else names[row]
                line: dict[str, Any] = {"id": f"{direction}:{own}", "direction": direction}
                line["query"] = pairs.queries[row] if forward else own
                if judged:
                    target = [names[pairs.video_of[row]]] if forward else [pairs.query_ids[q] for q in queries_of[row]]
                    line |= {"target": target, "rank": float(ranks[place]), "hit": float(hits[place])}
                    line |= numbers(found, place)
                    if forward and scored.no_text[row]:
                        line["no_text"] = True
                line["top"] = _named(first, row, labels)
                if own in misses:
                    line["missing"] = misses[own]
                lines.append(line)
        return lines

    def _table(self, result: TaskResult, protocol_line: str, cuts: Sequence[str]) -> ReportTable:
        columns = [f"{d} {label}" for d in self.directions for label in ("R@1", "R@5", "R@10", "MdR", "MnR")]
        keys = [f"{d}/{name}" for d in self.directions for name in ("r1", "r5", "r10", "mdr", "mnr")]
        rows: list[tuple[str | float | None, ...]] = [
            (str(result.facts["score_row"]), *(result.metrics[key] for key in keys))
        ]
        for further in (result.rows, result.references):
            rows += [(label, *(row.get(key) for key in keys)) for label, row in further.items()]
        sure = {f"{d}/r1": result.intervals[f"{d}/r1"] for d in self.directions}
        spans = [f"{name} 95 % interval {low:.2f} to {high:.2f}" for name, (low, high) in sure.items()]
        notes = (
            result.ledger.line(),
            result.ledgers[self.what].line(),
            protocol_line,
            f"{'; '.join(spans)}; ties: {self.ties}; gallery {result.facts['gallery']:,} {self.what}; "
            f"{self.directions[1]}: {result.facts['v2t']}",
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
