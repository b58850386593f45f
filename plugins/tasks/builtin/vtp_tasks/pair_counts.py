"""The numbers of retrieval from the lines of predictions.jsonl alone, see :mod:`vtp.eval.recount` and
:mod:`vtp_tasks.lines`: the headline, and every row beside it, of which each line holds the rank.

``facts["rows"]`` has what lines cannot tell of a row: among how many ``candidates`` each direction ranks, and of which
``cut`` of the benchmark it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.eval.bounds import between, rank_bounds
from vtp.eval.forms import Form, sha256_lines
from vtp.eval.metrics import Ranks, TieRule, retrieval_metrics
from vtp.eval.recount import Items, Recount
from vtp.types import Sample
from vtp_tasks.lines import Facts, Lines, derived, ranks_of, ranks_of_row, reasons, short_numbers

__all__ = ["KS", "note_ranks", "pairs", "rank_metrics"]

Array = npt.NDArray[Any]
KS = (1, 5, 10)


def rank_metrics(ranks: Mapping[str, Ranks], ties: TieRule) -> dict[str, float]:
    """Flat names ``t2v/r1`` ... of ranks by direction; of both directions also ``r_mean``, the mean of the six R@K."""
    parts = {name: retrieval_metrics(one, ties=ties, ks=KS) for name, one in ranks.items()}
    found = {f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()}
    mean = float(np.mean([found[f"{name}/r{k}"] for name in ranks for k in KS]))
    return found | {"r_mean": mean} if len(ranks) == 2 else found


def note_ranks(
    lines: Sequence[dict[str, Any]],
    facts: dict[str, Any],
    label: str,
    ranks: Mapping[str, Ranks],
    asking: Mapping[str, Array] | None = None,
    **told: Any,
) -> None:
    """Write the ranks of a row into lines, and into ``facts["rows"]`` what lines cannot tell.

    Args:
        lines: of all queries.
        facts: of the result.
        label: of the row.
        ranks: by direction, of those that take part, in the order of the lines.
        asking: by direction, bool, which of its lines take part; None = all.
        told: more to tell of the row.
    """
    facts.setdefault("rows", {})[label] = {"candidates": {name: one.gallery for name, one in ranks.items()}, **told}
    for name, one in ranks.items():
        own = [line for line in lines if line["direction"] == name]
        places = np.arange(len(own)) if asking is None else np.flatnonzero(asking[name])
        for place, row in enumerate(places.tolist()):
            own[row].setdefault("rows", {})[label] = short_numbers(one, place)


def pairs(lines: Lines, facts: Facts) -> Recount:
    """Of retrieval: one line per item of the first of ``directions`` that asks (a text, where there are texts), and one
    per clip that asks in the other."""
    ties, names = facts["tie_rule"], facts["directions"]
    both = [[line for line in lines if line["direction"] == name] for name in names]
    found = [ranks_of(some, count) for some, count in zip(both, facts["candidates"], strict=True)]

    def measure(ranks: Sequence[Ranks]) -> dict[str, float]:
        return rank_metrics(dict(zip(names, ranks, strict=True)), ties)

    counted = Recount(measure(found), expected=len(both[0]), missing=reasons(both[0], names[0]))
    for name, some, ranks in zip(names, both, found, strict=True):
        counted.items |= _items(name, some, ranks, ties, back=name == names[1])
    if facts["lost_clips"] or counted.missing:
        counted.bounds = between(measure, *zip(*_bounds(both, found, facts), strict=True))
    fields = {
        line["id"]: one
        for some, ranks in zip(both, found, strict=True)
        for line, one in zip(some, derived(ranks, ties, "hit"), strict=True)
    }
    counted.derived = [fields[line["id"]] for line in lines]
    told = "text" in (*facts.get("query", ("text",)), *facts.get("gallery_side", ()))  # else an item is the clip alone
    counted.samples = [
        Sample(line["id"], None, None, (line["query"] if told else "",), {}, {"video_id": line["target"][0]})
        for line in both[0]
    ]
    for label, row in facts.get("rows", {}).items():
        _add_row(counted, label, row, dict(zip(names, both, strict=True)), ties)
        if "cut" in row:
            counted.cuts[row["cut"]] = _cut(
                counted, label, row, dict(zip(names, zip(both, found, strict=True), strict=True)), ties
            )
    return counted


def _clip(line: Mapping[str, Any], back: bool) -> str:
    """The clip that a line is about."""
    return str(line["query"] if back else line["target"][0])


def _items(name: str, lines: Lines, ranks: Ranks, ties: TieRule, *, back: bool) -> dict[str, Items]:
    ids, clips = [line["id"] for line in lines], [_clip(line, back) for line in lines]
    among, values = ranks.gallery, ranks.values(ties)
    found = {f"{name}/r{k}": Items(ids, clips, ranks.hits(k, ties), among=among) for k in KS}
    found[f"{name}/mdr"] = Items(ids, clips, values, 1.0, median=True, falls=True, among=among)
    return found | {f"{name}/mnr": Items(ids, clips, values, 1.0, falls=True, among=among)}


def _add_row(counted: Recount, label: str, row: Mapping[str, Any], both: Mapping[str, Lines], ties: TieRule) -> None:
    """A row of the report from the lines that take part in it."""
    names = list(both)
    ranks: dict[str, Ranks] = {}
    items: dict[str, Items] = {}
    for name in names:
        if name in row["candidates"]:
            asking = [line for line in both[name] if label in line.get("rows", ())]
            ranks[name] = ranks_of_row([line["rows"][label] for line in asking], row["candidates"][name])
            items |= _items(name, asking, ranks[name], ties, back=name == names[1])
    counted.rows[label] = rank_metrics(ranks, ties)
    counted.row_items[label] = items


def _cut(
    counted: Recount, label: str, row: Mapping[str, Any], found: Mapping[str, tuple[Lines, Ranks]], ties: TieRule
) -> dict[str, Any]:
    """What the report says of a cut: its own numbers, and of R@1 by direction how far they are from those of the whole
    set, which has two parts: other queries (in the whole gallery), and fewer candidates."""
    asking = {
        name: np.array([label in line.get("rows", ()) for line in lines], bool) for name, (lines, _) in found.items()
    }
    same_gallery = rank_metrics({name: ranks.take(asking[name]) for name, (_, ranks) in found.items()}, ties)
    whole, cut = counted.metrics, counted.rows[label]
    forward = next(iter(asking.values()))
    samples = [sample for sample, asked in zip(counted.samples, forward, strict=True) if asked]
    form = Form.find("retrieval")
    queries = form.lines(samples)[form.counted]
    return {
        "counts": {"videos": next(iter(row["candidates"].values())), form.counted: len(queries)},
        "sha256": {form.counted: sha256_lines(queries)},
        "metrics": cut,
        "difference": {
            name: {
                "total": cut[name] - whole[name],
                "other_queries": same_gallery[name] - whole[name],
                "fewer_candidates": cut[name] - same_gallery[name],
            }
            for name in (f"{direction}/r1" for direction in found)
        },
    }


def _bounds(both: Sequence[Lines], found: Sequence[Ranks], facts: Facts) -> list[tuple[Ranks, Ranks]]:
    """In both directions the worst and the best ranks over all scores of what is missing."""
    clips = [[_clip(line, back) for line in lines] for lines, back in zip(both, (False, True), strict=True)]
    gone = {line["query"] for line in both[1] if "missing" in line}
    no_clip = np.array([name in gone for name in clips[0]], bool)
    silent_texts = [bool(line.get("no_text") or line.get("no_query")) for line in both[0]]
    counts = Counter(name for name, silent in zip(clips[0], silent_texts, strict=True) if silent)
    silent = np.array([counts[name] for name in clips[1]], np.int64)
    there = rank_bounds(found[0], int(facts["lost_clips"]) - no_clip, no_clip | np.array(silent_texts, bool))
    sets = facts["v2t_form"] == "set"
    others = int((silent > 0).sum()) - (silent > 0) if sets else silent.sum() - silent
    unknown = np.array(["missing" in line for line in both[1]], bool) | (silent > 0)
    own = 0 if sets else silent
    return [there, rank_bounds(found[1], others, unknown, own=own, ties=facts["tie_rule"])]
