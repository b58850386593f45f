"""The numbers of questions, choices, captions and moments from the lines of predictions.jsonl alone, see
:mod:`vtp.eval.recount` and :mod:`vtp_tasks.lines`; those of retrieval are in :mod:`vtp_tasks.pair_counts`, those of
classification in :mod:`vtp_tasks.class_counts`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.eval.bounds import between, rank_bounds
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.eval.metrics import Ranks, accuracy_by_type
from vtp.eval.recount import Recount
from vtp.types import Sample
from vtp_tasks.caption_metrics import CaptionScores, caption_scores
from vtp_tasks.caption_scores import exact_match, token_f1
from vtp_tasks.lines import Facts, Lines, add_row, derived, items_of, labels_of, lost, of_credits, percent, ranks_of
from vtp_tasks.windows import iou

__all__ = ["CONSTANT", "by_group", "captions", "choices", "few_groups", "moments", "questions"]

Array = npt.NDArray[Any]
MOST_TYPES = 50  # groups of questions, in tables and figures
CONSTANT = "most frequent training caption"  # the row of the one sentence that every clip gets
_SCORES: dict[str, Callable[[str, Sequence[str]], float]] = {"token_f1": token_f1, "exact_match": exact_match}


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
    ranks = ranks_of(lines, facts["answers"])
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
    counted = of_credits(lines, {"accuracy": credit, "top10": ranks.hits(10, ties)})
    counted.metrics = measure(ranks)
    for key, values in groups.items():
        for name in dict.fromkeys(values):
            rows = np.array([value == name for value in values], bool)
            counted.items |= items_of(lines, {f"accuracy/{key}{name}": credit}, rows)
    missing = lost(lines)
    if missing.any():
        counted.bounds = between(measure, *rank_bounds(ranks, 0, missing & known))
    _evaluated_only(counted, lines, credit)
    if padded := facts.get("padded"):
        again = np.arange(-(-len(lines) // padded["processes"]) * padded["processes"]) % len(lines)
        counted.rows[padded["label"]] = {"accuracy": percent(credit[again])}
    _rows_of_credits(counted, lines)
    counted.derived = derived(ranks, ties, "credit")
    counted.samples = [
        Sample(line["id"], None, None, (line["question"],), {"answer": line["answer"]}, {"video_id": line["video"]})
        for line in lines
    ]
    return counted


def choices(lines: Lines, facts: Facts) -> Recount:
    """Of multiple choice: one line per question."""
    ranks, missing = ranks_of(lines, 0), lost(lines)
    credit = ranks.hits(1, facts["tie_rule"])
    counted = of_credits(lines, {"accuracy": credit})
    if missing.any():
        counted.bounds = {"accuracy": (percent(credit), percent(np.where(missing, 1.0, credit)))}
    _evaluated_only(counted, lines, credit)
    chance = np.array([1 / len(line["options"]) for line in lines])
    add_row(counted, "chance", items_of(lines, {"accuracy": chance}))
    _rows_of_credits(counted, lines)
    counted.derived = [{"credit": float(value)} for value in credit]
    counted.samples = [
        Sample(line["id"], None, None, tuple(line["options"]), {"answer_index": line["answer_index"]},
               {"video_id": line["video"]})
        for line in lines
    ]  # fmt: skip
    return counted


def captions(lines: Lines, facts: Facts) -> Recount:
    """Of captioning: one line per clip, scored by :mod:`vtp_tasks.caption_scores` and
    :mod:`vtp_tasks.caption_metrics`; ``rows`` of a line has the sentences of further passes."""
    missing, written = lost(lines), [line["prediction"] for line in lines]
    values, corpus = _judged(lines, written, facts)
    counted = of_credits(lines, values)
    counted.metrics |= corpus.percent()
    counted.items |= items_of(lines, corpus.by_sentence)
    if missing.any():  # what could have been written is not known: the ends of the scales for these clips
        counted.bounds |= {f"bleu{n}": (0.0, 100.0) for n in range(1, 5)}
        for name, found in corpus.by_sentence.items():
            most = 10.0 if name == "cider" else 1.0
            counted.bounds[name] = percent(found), percent(np.where(missing, most, found))
    for name, score in _SCORES.items() if missing.any() else ():
        best = values[name].copy()
        for i in np.flatnonzero(missing):  # nothing could have been written, or a reference
            texts = lines[i]["references"]
            best[i] = max(score(text, texts) for text in texts)
        counted.bounds[name] = percent(values[name]), percent(best)
    constant = facts.get("most_frequent_caption")
    rows: dict[str, tuple[Lines, Sequence[str | None]]] = {}
    if 0 < missing.sum() < len(lines):
        there = [line for line in lines if "missing" not in line]
        rows[EVALUATED_ONLY] = there, [line["prediction"] for line in there]
    rows |= {CONSTANT: (lines, [constant] * len(lines))} if constant is not None else {}
    rows |= {label: (lines, [line["rows"][label] for line in lines]) for label in labels_of(lines)}
    for label, (some, sentences) in rows.items():
        own, scores = _judged(some, sentences, facts)
        further = {name: value for name, value in scores.percent().items() if name.startswith("bleu")}
        add_row(counted, label, items_of(some, own | scores.by_sentence), **further)
    values |= corpus.by_sentence
    counted.derived = [{name: float(found[i]) for name, found in values.items()} for i in range(len(lines))]
    counted.samples = [
        Sample(line["id"], None, None, tuple(line["references"]), {}, {"video_id": line["video"]}) for line in lines
    ]
    return counted


def _judged(lines: Lines, sentences: Sequence[str | None], facts: Facts) -> tuple[dict[str, Array], CaptionScores]:
    """What sentences score against the references of lines; None, of a clip that is missing, scores nothing."""
    written, people = [sentence or "" for sentence in sentences], [line["references"] for line in lines]
    values = {
        name: np.array([float(score(*both)) for both in zip(written, people, strict=True)])
        for name, score in _SCORES.items()
    }
    return values, caption_scores(written, people, facts["meteor_stages"])


def moments(lines: Lines, facts: Facts) -> Recount:
    """Of moment retrieval: one line per moment."""
    missing = lost(lines)
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
    counted = of_credits(lines, values)
    if missing.any():
        counted.bounds = {name: (percent(v), percent(np.where(missing, 1.0, v))) for name, v in values.items()}
        if not missing.all():
            add_row(counted, EVALUATED_ONLY, items_of(lines, values, ~missing))
    whole = np.array(
        [iou(span, np.array([[0.0, line.get("duration", 0.0)]]))[0] for span, line in zip(truth, lines, strict=True)]
    )
    blind = {f"r1/iou{m}": whole >= m for m in (0.5, 0.7, 0.3)} | {"miou": whole}
    add_row(counted, "the whole video", items_of(lines, blind))
    counted.derived = [{"iou": float(one)} for one in values["miou"]]
    counted.samples = [
        Sample(line["id"], None, None, (line["text"],), {"start": line["start"], "end": line["end"]},
               {"video_id": line["video"]})
        for line in lines
    ]  # fmt: skip
    return counted


def _evaluated_only(counted: Recount, lines: Lines, credit: Array) -> None:
    missing = lost(lines)
    if 0 < missing.sum() < len(missing):
        add_row(counted, EVALUATED_ONLY, items_of(lines, {"accuracy": credit}, ~missing))


def _rows_of_credits(counted: Recount, lines: Lines) -> None:
    """The rows of other passes, of which lines hold what each question earned."""
    for label in labels_of(lines):
        credit = np.array([line["rows"][label] for line in lines], np.float64)
        add_row(counted, label, items_of(lines, {"accuracy": credit}))
