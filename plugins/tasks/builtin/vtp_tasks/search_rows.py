"""What stands beside the headline of a retrieval: rows that must never be mixed with it, and what a reader must know of
the items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vtp.eval.evaluator import Evaluator
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.eval.metrics import Ranks
from vtp.eval.scores import DualSoftmax, Embeddings, Scores
from vtp.eval.task import TaskResult
from vtp_tasks.pair_counts import note_ranks
from vtp_tasks.pairs import Similarities, seen_in, without_some
from vtp_tasks.query_bank import BETA, bank_items, bank_scores, normalised
from vtp_tasks.rerank import Order, score_some
from vtp_tasks.sides import embed_side, spell_side
from vtp_tasks.subsets import withheld

if TYPE_CHECKING:
    from vtp_tasks.retrieval import Retrieval

__all__ = ["SETS", "add_rows", "tell_lacking"]

SETS = {"any": "any of a clip's texts", "set": "a clip's texts as one set"}


def add_rows(task: Retrieval, evaluator: Evaluator, scored: Similarities, result: TaskResult) -> None:
    """Rows that must never be mixed with the raw ones: their ranks go into the predictions, to be counted."""
    back = task.directions[1]
    if scored.several:
        other = "set" if task.v2t == "any" else "any"
        note_ranks(result.predictions, result.facts, f"{back}: {SETS[other]}", {back: scored.ranks[other][1]})
    if 0 < result.ledger.coverage < 1:
        there = ~(scored.no_text | scored.no_video[scored.pairs.video_of]), ~scored.no_video
        _note(task, result, EVALUATED_ONLY, scored.within(*there, task.v2t), scored.asking(*there))
    _rows_of_two_stages(task, evaluator, scored, result)
    if task.views:
        _row_of_views(task, evaluator, scored, result)
    if task.dsl:
        label = "DSL (sees all queries at once)"
        missing = scored.no_text, scored.no_video
        by: list[Scores] = [DualSoftmax(scored.scores, over, *missing) for over in (0, 1)]
        _note(task, result, label, scored.rank(by[0], by[1], task.v2t))
    if task.qb_norm:
        _rows_of_a_query_bank(task, evaluator, scored, result)
    given = scored.pairs, scored.samples, scored.limited
    score: Any = task.by_head if scored.by_head else task.by_embedding
    rows, columns = task.sides[0], task.shown(evaluator)
    seen = [*seen_in(scored.texts, rows), *seen_in(scored.videos, columns)]
    alone = [side[0] for side in (rows, columns) if len(side) == 1]
    for label, drop in withheld(task.subsets, seen, result.warnings, always=alone).items():
        part = score(evaluator, task.objective, *given, drop, known=scored, label=label)
        _note(task, result, label, part.ranks[task.v2t])


def _note(
    task: Retrieval, result: TaskResult, label: str, ranks: Sequence[Ranks], asking: Sequence[Any] | None = None
) -> None:
    """A row of both directions: its ranks go into the predictions, of which its numbers are counted."""
    by = dict(zip(task.directions, ranks, strict=True))
    some = None if asking is None else dict(zip(task.directions, asking, strict=True))
    note_ranks(result.predictions, result.facts, label, by, some)


def _rows_of_two_stages(task: Retrieval, evaluator: Evaluator, scored: Similarities, result: TaskResult) -> None:
    """What embeddings, the first candidates re-ordered, and all pairs give, less the headline."""
    given = evaluator, scored.pairs, scored.samples, scored.limited
    matched = scored if scored.by_head else None
    head, first = str(task.objective if scored.by_head else task.rerank_objective), scored
    if scored.by_head:
        embeds = task.embeds(evaluator.bare_model)
        if embeds is None:
            return
        first = task.by_embedding(evaluator, embeds, *given[1:])
        _note(task, result, f"embeddings of {embeds}", first.ranks[task.v2t])
    elif task.exhaustive:
        matched = task.by_head(evaluator, head, *given[1:])
        _note(task, result, f"all pairs by {head}", matched.ranks[task.v2t])
    if task.rerank:
        candidates = first.candidates(task.rerank, task.seed)
        orders = [Order.of(one, back) for one, back in zip(candidates, (False, True), strict=True)]
        queries, clips = (np.concatenate(part) for part in zip(*(order.pairs for order in orders), strict=True))
        if matched is None:
            given_pairs = evaluator, scored.pairs, queries, clips, head, task.what
            how: dict[str, Any] = {"drop": task.unasked(evaluator, head), "pair_batch": task.pair_batch}
            values = score_some(*given_pairs, **how)
        else:
            values = matched.scores.pairs(queries, clips)
        ends = np.split(values, [len(orders[0].askers)])
        new = [order.scores(first.scores, part) for order, part in zip(orders, ends, strict=True)]
        _note(task, result, f"re-rank({task.rerank}) by {head}", first.rank(new[0], new[1], task.v2t))


def _row_of_views(task: Retrieval, evaluator: Evaluator, scored: Similarities, result: TaskResult) -> None:
    """Videos in several windows, of which the features are averaged; the headline keeps those that it was shown."""
    if scored.by_head or "video" not in (*task.query, *task.gallery):
        why = "a matching head gives the headline" if scored.by_head else "no side has a picture"
        result.warnings.append(f"task.views: no row, because {why}.")
        return
    label = f"{task.views} views of a video averaged"
    given = scored.pairs, scored.samples, scored.limited
    part = task.by_embedding(evaluator, task.objective, *given, known=scored, label=label, views=task.views)
    _note(task, result, label, part.ranks[task.v2t])


def _rows_of_a_query_bank(task: Retrieval, evaluator: Evaluator, scored: Similarities, result: TaskResult) -> None:
    """One in each direction, by a bank of training items of the side that asks."""
    if not isinstance(scored.scores, Embeddings) or not task.splits.has_train:
        why = "a matching head gives the headline" if scored.by_head else "there are no training texts here"
        result.warnings.append(f"task.qb_norm: no row, because {why}.")
        return
    space = task.space(evaluator.bare_model, task.objective)
    told: dict[str, Any] = {}
    sides = task.sides[0], task.shown(evaluator)
    ways = zip(task.directions, sides, (space.one, space.other), (scored.first, scored.first_back), strict=True)
    for back, (name, side, parts, first) in enumerate(ways):
        items = bank_items(task.splits["train"], side, task.qb_norm)
        what = "texts" if side == ("text",) else "clips"
        label = f"{name}: QB-Norm (sees {len(items):,} training {what})"
        found = embed_side(evaluator, parts, side, items, f"training {what}", (), "query bank", strict=False)
        if not len(found.rows):
            result.warnings.append(f"task.qb_norm: no row for {name}, because no training {what} could be read.")
            continue
        bank = bank_scores(found.arrays["embedding"], scored.scores, back=bool(back))
        missing = scored.no_text if back else scored.no_video
        by = normalised(scored.scores, bank, first.index[:, 0], missing, back=bool(back))
        ranks = scored.rank(by, by, task.v2t)[back]
        note_ranks(result.predictions, result.facts, label, {name: ranks})
        told[name] = {
            "bank": bank.shape[back], "unread": len(found.misses), "beta": BETA,
            "normalised_queries": int(by.active.sum()),
        }  # fmt: skip
    result.facts["qb_norm"] = told


def tell_lacking(task: Retrieval, evaluator: Evaluator, scored: Similarities, result: TaskResult) -> None:
    """Items of a side of several modalities that lack some, and what an objective was not shown."""
    queries = [f"{scored.pairs.query_ids[row]}" for row in np.unique(scored.pairs.text_of, return_index=True)[1]]
    ids = dict(zip(scored.texts.table, queries, strict=True))
    lacking: dict[str, Any] = {}
    for collected, side, what in (
        (scored.texts, task.sides[0], "queries"),
        (scored.videos, task.shown(evaluator), task.what),
    ):
        for modality, names in without_some(collected, side).items():
            shown = [ids[name] for name in names] if what == "queries" else names
            lacking.setdefault(what, {})[modality] = shown
            others = spell_side([m for m in side if m != modality])
            result.warnings.append(
                f"{len(names):,} of {len(collected.rows):,} {what} have no {modality} (first: {shown[0]}): "
                f"{others} alone speaks for them"
            )
    if lacking:
        result.facts["lacking"] = lacking
    if scored.by_head or task.as_taken:
        return
    space = task.space(evaluator.bare_model, task.objective)
    if beyond := [m for m in space.beyond if m in evaluator.modalities]:
        result.warnings.append(
            f"objective {space.names[0]} can also look at {spell_side(beyond)}, which was withheld: task.gallery="
            f"[{','.join((*task.sides[1], *beyond))}] shows it"
        )
