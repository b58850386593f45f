"""The numbers of each task from the lines of predictions.jsonl alone, see :mod:`vtp.eval.recount`.

``higher`` and ``tied`` of a line are the wrong candidates that scored strictly higher than the right one and exactly
the same, ``positives`` the right ones that share the best score (1 where it is left out). A line without ``higher`` is
a miss; ``missing`` says why an item was not evaluated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.eval.bounds import between, rank_bounds
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.eval.metrics import Ranks, accuracy_by_type, retrieval_metrics
from vtp.eval.recount import Items, Recount
from vtp.types import Sample
from vtp_tasks.caption_metrics import caption_scores
from vtp_tasks.caption_scores import exact_match, token_f1
from vtp_tasks.rows import percent
from vtp_tasks.windows import iou

__all__ = [
    "Classes",
    "average_precision",
    "by_group",
    "captions",
    "choices",
    "classes",
    "few_groups",
    "moments",
    "numbers",
    "pairs",
    "questions",
]

Array = npt.NDArray[Any]
Lines = Sequence[Mapping[str, Any]]
Facts = Mapping[str, Any]
KS = (1, 5, 10)
MOST_TYPES = 50  # groups of questions, in tables and figures


def numbers(ranks: Ranks, place: int) -> dict[str, int]:
    """What a line tells of the rank in this place: nothing of a miss."""
    if ranks.miss[place]:
        return {}
    found = {"higher": int(ranks.higher[place]), "tied": int(ranks.tied[place])}
    several = int(ranks.positives[place])
    return found if several == 1 else {**found, "positives": several}


def few_groups(groups: list[str]) -> list[str]:
    """At most so many groups as a table or a chart can show: rare ones together are ``other``."""
    counts = Counter(groups)
    if len(counts) <= MOST_TYPES:
        return groups
    kept = {group for group, _ in counts.most_common(MOST_TYPES - 1)}
    return [group if group in kept else "other" for group in groups]


def by_group(credit: Any, groups: Sequence[str]) -> dict[str, float]:
    """Accuracy in percent by group, the most frequent first."""
    return {group: accuracy for group, (accuracy, _) in accuracy_by_type(credit, groups).items()}


def questions(lines: Lines, facts: Facts) -> Recount:
    """Of question answering: one line per question."""
    ties = facts["tie_rule"]
    known = np.array([line["in_vocabulary"] for line in lines], bool)
    ranks = _ranks(lines, facts["answers"])
    keys = [key for key in facts["breakdown"] if all(key in line.get("groups", {}) for line in lines)]
    groups = {"": few_groups([str(line["type"]) for line in lines])}
    groups |= {f"{key}=": few_groups([line["groups"][key] for line in lines]) for key in keys}

    def measure(one: Ranks) -> dict[str, float]:
        credit = one.hits(1, ties)
        found = {"accuracy": percent(credit), "top10": percent(one.hits(10, ties)), "in_vocabulary": percent(known)}
        for key, values in groups.items():
            found |= {f"accuracy/{key}{name}": value for name, value in by_group(credit, values).items()}
        return found

    credit = ranks.hits(1, ties)
    counted = _of_credits(lines, measure(ranks), {"accuracy": credit, "top10": ranks.hits(10, ties)})
    whole = counted.items["accuracy"]
    for key, values in groups.items():
        for name in dict.fromkeys(values):
            rows = [row for row, value in enumerate(values) if value == name]
            ids, clips = ([named[row] for row in rows] for named in (whole.ids, whole.clips))
            counted.items[f"accuracy/{key}{name}"] = Items(ids, clips, credit[rows])
    missing = _lost(lines)
    if missing.any():
        counted.bounds = between(measure, *rank_bounds(ranks, 0, missing & known))
    _evaluated_only(counted, missing, credit)
    if padded := facts.get("padded"):
        again = np.arange(-(-len(lines) // padded["processes"]) * padded["processes"]) % len(lines)
        counted.rows[padded["label"]] = {"accuracy": percent(credit[again])}
    counted.rows |= _rows(lines)
    counted.derived = _derived(ranks, ties, "credit")
    counted.samples = [
        Sample(line["id"], None, None, (line["question"],), {"answer": line["answer"]}, {"video_id": line["video"]})
        for line in lines
    ]
    return counted


def choices(lines: Lines, facts: Facts) -> Recount:
    """Of multiple choice: one line per question."""
    ranks, missing = _ranks(lines, 0), _lost(lines)
    credit = ranks.hits(1, facts["tie_rule"])
    counted = _of_credits(lines, {"accuracy": percent(credit)}, {"accuracy": credit})
    if missing.any():
        counted.bounds = {"accuracy": (percent(credit), percent(np.where(missing, 1.0, credit)))}
    _evaluated_only(counted, missing, credit)
    counted.rows["chance"] = {"accuracy": percent([1 / len(line["options"]) for line in lines])}
    counted.rows |= _rows(lines)
    counted.derived = [{"credit": float(value)} for value in credit]
    counted.samples = [
        Sample(line["id"], None, None, tuple(line["options"]), {"answer_index": line["answer_index"]},
               {"video_id": line["video"]})
        for line in lines
    ]  # fmt: skip
    return counted


def captions(lines: Lines, facts: Facts) -> Recount:
    """Of captioning: one line per clip, scored by :mod:`vtp_tasks.caption_scores` and
    :mod:`vtp_tasks.caption_metrics`."""
    scores: dict[str, Callable[[str, Sequence[str]], float]] = {"token_f1": token_f1, "exact_match": exact_match}
    missing = _lost(lines)
    values = {
        name: np.array([float(score(line["prediction"] or "", line["references"])) for line in lines])
        for name, score in scores.items()
    }
    written, people = [line["prediction"] or "" for line in lines], [line["references"] for line in lines]
    corpus = caption_scores(written, people, facts["meteor_stages"])
    counted = _of_credits(lines, {name: percent(found) for name, found in values.items()}, values)
    counted.metrics |= corpus.percent()
    whole = counted.items["token_f1"]
    counted.items |= {name: Items(whole.ids, whole.clips, found) for name, found in corpus.by_sentence.items()}
    if missing.any():  # what could have been written is not known: the ends of the scales for these clips
        counted.bounds |= {f"bleu{n}": (0.0, 100.0) for n in range(1, 5)}
        for name, found in corpus.by_sentence.items():
            most = 10.0 if name == "cider" else 1.0
            counted.bounds[name] = percent(found), percent(np.where(missing, most, found))
    for name, score in scores.items() if missing.any() else ():
        best = values[name].copy()
        for i in np.flatnonzero(missing):  # nothing could have been written, or a reference
            texts = lines[i]["references"]
            best[i] = max(score(text, texts) for text in texts)
        counted.bounds[name] = percent(values[name]), percent(best)
    values |= corpus.by_sentence
    counted.derived = [{name: float(found[i]) for name, found in values.items()} for i in range(len(lines))]
    counted.samples = [
        Sample(line["id"], None, None, tuple(line["references"]), {}, {"video_id": line["video"]}) for line in lines
    ]
    return counted


@dataclass(slots=True)
class Classes:
    """Items with their classes and what was scored.

    Attributes:
        classes: of each item, N.
        ranks: of the best of them.
        known: bool (N,), whether the model knows one of them.
        ties: tie rule of ranks.
        several: whether an item may have several.
        index: class -> column of ``scores``.
        scores: (N, C), NaN where missing; needed for several classes alone.
    """

    classes: Sequence[Sequence[str]]
    ranks: Ranks
    known: Array
    ties: Any
    several: bool
    index: Mapping[str, int]
    scores: Array | None = None

    def metrics(self, rows: Array | None = None) -> dict[str, float]:
        """In percent, over the items of ``rows`` (bool (N,)), None = all of them."""
        ranks = self.ranks if rows is None else self.ranks.take(rows)
        found = {"top1": percent(ranks.hits(1, self.ties)), "top5": percent(ranks.hits(5, self.ties))}
        if self.several and self.scores is None:
            return found
        values = [value for value, _ in self.by_class(rows).values()]
        mean = {"map" if self.several else "mean_class": float(np.mean(values)) if values else float("nan")}
        return mean | found if self.several else found | mean

    def by_class(self, rows: Array | None = None) -> dict[str, tuple[float, int]]:
        """Class -> (average precision, or top-1, in percent; its items), most items first; classes that no item of
        ``rows`` has are left out."""
        places: list[int] = list(range(len(self.classes))) if rows is None else np.flatnonzero(rows).tolist()
        if not self.several:
            credit = self.ranks.hits(1, self.ties)
            known = [place for place in places if self.classes[place]]
            return accuracy_by_type(credit[known], [self.classes[place][0] for place in known])
        items: dict[str, list[int]] = {}
        for row, place in enumerate(places):
            for name in self.classes[place]:
                items.setdefault(name, []).append(row)
        found = {}
        for name in sorted(items, key=lambda name: (-len(items[name]), name)):
            right = np.zeros(len(places), bool)
            right[items[name]] = True
            column = self.index.get(name)
            known_scores = self.scores if column is not None else None
            value = 0.0 if known_scores is None else average_precision(known_scores[places, column], right)
            found[name] = (100 * value, len(items[name]))
        return found

    def flat(self) -> dict[str, float]:
        """All metrics, and the first of them by class."""
        found = self.metrics()
        if self.several and self.scores is None:
            return found
        first = "map" if self.several else "top1"
        return found | {f"{first}/{name}": value for name, (value, _) in self.by_class().items()}

    def ends(self, missing: Array) -> tuple[Classes, Classes]:
        """The worst and the best: of a missing item all scores are unknown. At best those of its classes are above all
        others and of the other classes it is never found, at worst the other way round."""
        right = np.zeros((len(self.classes), max(len(self.index), 1)), bool)
        for row, names in enumerate(self.classes):
            right[row, [self.index[name] for name in names if name in self.index]] = True
        ends = []
        both = zip(rank_bounds(self.ranks, 0, missing & self.known), (~right, right), strict=True)
        for ranks, found in both:
            scores = None if self.scores is None else self.scores.copy()
            if scores is not None:
                scores[missing] = np.where(found[missing], np.finfo(np.float32).max, np.nan)
            ends.append(replace(self, ranks=ranks, scores=scores))
        return ends[0], ends[1]


def classes(lines: Lines, facts: Facts) -> Recount:
    """Of classification: one line per item."""
    ties, several, missing = facts["tie_rule"], facts["several"], _lost(lines)
    index = {name: place for place, name in enumerate(facts["class_names"] or ())}
    scores = None
    if several and all("scores" in line or "missing" in line for line in lines):
        nothing = [np.nan] * len(index)
        scores = np.array([line.get("scores", nothing) for line in lines], np.float32).reshape(len(lines), len(index))
    known = np.array([line["known"] for line in lines], bool)
    found = [line["classes"] for line in lines]
    table = Classes(found, _ranks(lines, facts["classes"]), known, ties, several, index, scores)
    credits = {f"top{k}": table.ranks.hits(k, ties) for k in (1, 5)}
    counted = _of_credits(lines, table.flat(), credits)
    whole = counted.items["top1"]
    for name in () if several else table.by_class():
        rows = [row for row, own in enumerate(found) if name in own]
        ids, clips = ([named[row] for row in rows] for named in (whole.ids, whole.clips))
        counted.items[f"top1/{name}"] = Items(ids, clips, whole.values[rows])
    if missing.any():
        counted.bounds = between(Classes.flat, *table.ends(missing))
    if 0 < missing.sum() < len(lines) and (scores is not None or not several):
        counted.rows[EVALUATED_ONLY] = table.metrics(~missing)
    counted.derived = _derived(table.ranks, ties, "credit")
    counted.samples = [
        Sample(line["id"], None, None, ("",), {}, {"labels": line["classes"], "video_id": line["video"]})
        for line in lines
    ]
    return counted


def average_precision(scores: Array, right: Array) -> float:
    """Area under the steps of precision over recall, in [0, 1].

    Items of one score are found together, so the value depends on no order. Those without a finite score are not found.

    Args:
        scores: float (N,).
        right: bool (N,), the items of the class; NaN is returned where there is none.
    """
    if not right.any():
        return float("nan")
    found = np.isfinite(scores)
    order = np.argsort(-scores[found], kind="stable")
    ordered, hits = scores[found][order], right[found][order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(ordered) else np.zeros(0, np.int64)
    recalled = np.cumsum(hits)[ends]
    precision = recalled / (ends + 1)
    return float((np.diff(recalled, prepend=0) * precision).sum() / right.sum())


def moments(lines: Lines, facts: Facts) -> Recount:
    """Of moment retrieval: one line per moment."""
    missing = _lost(lines)
    truth = [(line["start"], line["end"]) for line in lines]
    first = [iou(span, np.array(line.get("best", ()))) for span, line in zip(truth, lines, strict=True)]
    five = [
        iou(span, np.array([window[:2] for window in line.get("top", ())][:5]))
        for span, line in zip(truth, lines, strict=True)
    ]
    values = {
        f"r1/iou{m}": np.array([(one >= m).mean() if len(one) else 0.0 for one in first]) for m in (0.5, 0.7, 0.3)
    }
    values["miou"] = np.array([one.mean() if len(one) else 0.0 for one in first])
    values |= {f"r5/iou{m}": np.array([float((one >= m).any()) for one in five]) for m in (0.5, 0.7)}
    counted = _of_credits(lines, {name: percent(found) for name, found in values.items()}, values)
    if missing.any():
        counted.bounds = {name: (percent(v), percent(np.where(missing, 1.0, v))) for name, v in values.items()}
        if not missing.all():
            counted.rows[EVALUATED_ONLY] = {name: percent(v[~missing]) for name, v in values.items()}
    whole = np.array(
        [iou(span, np.array([[0.0, line.get("duration", 0.0)]]))[0] for span, line in zip(truth, lines, strict=True)]
    )
    counted.rows["the whole video"] = {f"r1/iou{m}": percent(whole >= m) for m in (0.5, 0.7, 0.3)}
    counted.rows["the whole video"]["miou"] = percent(whole)
    counted.derived = [{"iou": float(one)} for one in values["miou"]]
    counted.samples = [
        Sample(line["id"], None, None, (line["text"],), {"start": line["start"], "end": line["end"]},
               {"video_id": line["video"]})
        for line in lines
    ]  # fmt: skip
    return counted


def pairs(lines: Lines, facts: Facts) -> Recount:
    """Of retrieval: one line per item of the first of ``directions`` that asks (a text, where there are texts), and one
    per clip that asks in the other."""
    ties, names = facts["tie_rule"], facts["directions"]
    both = [[line for line in lines if line["direction"] == name] for name in names]
    found = [_ranks(some, count) for some, count in zip(both, facts["candidates"], strict=True)]

    def measure(ranks: Sequence[Ranks]) -> dict[str, float]:
        parts = [retrieval_metrics(one, ties=ties, ks=KS) for one in ranks]
        flat = {f"{d}/{key}": value for d, part in zip(names, parts, strict=True) for key, value in part.items()}
        return flat | {"r_mean": float(np.mean([flat[f"{d}/r{k}"] for d in names for k in KS]))}

    clips = [[line["target"][0] for line in both[0]], [line["query"] for line in both[1]]]
    counted = Recount(measure(found), expected=len(both[0]), missing=_reasons(both[0], names[0]))
    for name, some, ranks, about in zip(names, both, found, clips, strict=True):
        ids = [line["id"] for line in some]
        counted.items |= {f"{name}/r{k}": Items(ids, about, ranks.hits(k, ties)) for k in KS}
        counted.items[f"{name}/mdr"] = Items(ids, about, ranks.values(ties), 1.0, median=True, falls=True)
        counted.items[f"{name}/mnr"] = Items(ids, about, ranks.values(ties), 1.0, falls=True)
    if facts["lost_clips"] or counted.missing:
        counted.bounds = between(measure, *zip(*_pair_bounds(both, found, clips, facts), strict=True))
    derived = {
        line["id"]: one
        for some, ranks in zip(both, found, strict=True)
        for line, one in zip(some, _derived(ranks, ties, "hit"), strict=True)
    }
    counted.derived = [derived[line["id"]] for line in lines]
    told = "text" in (*facts.get("query", ("text",)), *facts.get("gallery_side", ()))  # else an item is the clip alone
    counted.samples = [
        Sample(line["id"], None, None, (line["query"] if told else "",), {}, {"video_id": line["target"][0]})
        for line in both[0]
    ]
    return counted


def _pair_bounds(
    both: Sequence[Lines], found: Sequence[Ranks], clips: Sequence[Sequence[str]], facts: Facts
) -> list[tuple[Ranks, Ranks]]:
    """In both directions the worst and the best ranks over all scores of what is missing."""
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


def _lost(lines: Lines) -> npt.NDArray[np.bool_]:
    return np.array(["missing" in line for line in lines], bool)


def _reasons(lines: Lines, direction: str = "") -> dict[str, str]:
    """id -> why it was not evaluated; of retrieval without the direction before it."""
    prefix = f"{direction}:" if direction else ""
    return {line["id"].removeprefix(prefix): line["missing"] for line in lines if "missing" in line}


def _ranks(lines: Lines, gallery: int) -> Ranks:
    higher, tied = (np.array([line.get(key, 0) for line in lines], np.int64) for key in ("higher", "tied"))
    positives = np.array([line.get("positives", 1) for line in lines], np.int64)
    return Ranks(higher, tied, positives, np.array(["higher" not in line for line in lines], bool), gallery)


def _of_credits(lines: Lines, metrics: dict[str, float], credits: Mapping[str, Array]) -> Recount:
    ids, clips = [line["id"] for line in lines], [line["video"] for line in lines]
    items = {name: Items(ids, clips, values) for name, values in credits.items()}
    return Recount(metrics, items, expected=len(lines), missing=_reasons(lines))


def _evaluated_only(counted: Recount, missing: Array, credit: Array) -> None:
    if 0 < missing.sum() < len(missing):
        counted.rows[EVALUATED_ONLY] = {"accuracy": percent(credit[~missing])}


def _rows(lines: Lines) -> dict[str, dict[str, float]]:
    """The rows of other passes, of which lines hold what each question earned."""
    labels = lines[0].get("rows", {}) if lines else {}
    return {label: {"accuracy": percent([line["rows"][label] for line in lines])} for label in labels}


def _derived(ranks: Ranks, ties: Any, credit: str) -> list[dict[str, Any]]:
    both = zip(ranks.hits(1, ties), ranks.values(ties), strict=True)
    return [{credit: float(hit), "rank": float(rank)} for hit, rank in both]
