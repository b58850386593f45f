"""Classification: which of a list of classes does a clip show? One each (UCF101), or several.

Every item of the split is scored. With one class each: ``top1`` and ``top5``, the share of items whose class is among
the first, and ``mean_class``, the mean over classes of top-1. With several: ``map``, the mean over classes of the
average precision, and ``top1``, ``top5``, the shares of items with a right class among the first.

    average precision of a class = sum over its items of (the precision among all that score at least as high) / items

An item that cannot be decoded is a miss: it is in no first k, and no average precision finds it. A class that the
model does not know is never right: its items are misses, its average precision is 0.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from vtp.contracts import Table, member, offers
from vtp.data.table import media_id, select
from vtp.errors import ConfigError, DataError
from vtp.eval.evaluator import Collected, Evaluator
from vtp.eval.figures import Strip
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.eval.metrics import Ranks, TieRule, rank_queries
from vtp.eval.task import ReportTable, TaskResult
from vtp.model.model import VTPModel
from vtp.ranges import Count, Seed, Share
from vtp.types import IGNORE, Modality, Sample
from vtp_tasks.answers import classes_of
from vtp_tasks.class_counts import BLIND, Classes, average_precision, classes
from vtp_tasks.definitions import find_protocol, rule_for
from vtp_tasks.examples import strips
from vtp_tasks.lines import note_row, numbers, short_numbers
from vtp_tasks.pairs import check_compares
from vtp_tasks.rows import add_counts, compare, facts
from vtp_tasks.splits import FromSplits, Splits
from vtp_tasks.subsets import Subsets, check_subsets, withheld
from vtp_tasks.zero_shot import check_prompts, prompt_scores

__all__ = ["Classification", "average_precision"]

log = logging.getLogger("vtp")

Array = npt.NDArray[Any]
MOST_CLASSES = 50  # in a table; report.json has all
MOST_SCORES = 5_000_000  # of several classes, in predictions.jsonl


class Classification(FromSplits):
    """The task ``classification``.

    Args:
        dataset: offers ``samples("classification", split)``: the class in ``labels["answer"]``, or a list of them under
            ``labels`` (in ``labels`` or ``extra``); what is told of the clip in ``texts``, an empty text where nothing
            is. Its ``class_names`` are the order of the classes, if it has that attribute.
        protocol: name of a protocol of any plugin, or the path of one; None = data of one's own.
        split: which split is reported: ``test`` or ``val``.
        several: whether an item may have several classes, or none; None = where the data give lists.
        classes_from: ``train``, or ``all`` to add the classes that only other splits have.
        objective: the objective whose ``logits(ctx)`` (B, classes) are scored.
        selection: rule by which the checkpoint is chosen; None = ``val`` if there is a validation split, else ``last``.
        ties: tie rule of top-k. Average precision does not depend on one: items of equal scores are found together.
        top: classes per item in the predictions.
        val_share: share of the training clips held out for validation when ``selection`` is ``val`` and the data set
            has no validation split; None = refuse that.
        subsets: also score with these modalities alone, ``[[video], [audio]]``, or ``all`` subsets.
        prompts: classify without training: sentences with one ``{}``, into which the classes are written and which
            ``objective`` (vtc) compares with the clip; None = by the logits of ``objective``.
        modality: what prompts are compared with: ``video`` or ``audio``.
        seed: of the bootstrap and of the held-out clips.
    """

    kind = "classification"
    recount = staticmethod(classes)

    def __init__(
        self,
        *,
        dataset: Any,
        protocol: str | None = None,
        split: Literal["test", "val"] = "test",
        several: bool | None = None,
        classes_from: Literal["train", "all"] = "train",
        objective: str = "classification",
        selection: str | None = None,
        ties: TieRule = "expected",
        top: Count = 5,
        subsets: Subsets = None,
        prompts: list[str] | None = None,
        modality: Literal["video", "audio"] = "video",
        val_share: Share | None = None,
        seed: Seed = 0,
    ) -> None:
        check_subsets(subsets)
        check_prompts(prompts)
        self.dataset = dataset
        self.protocol = find_protocol(protocol, dataset, self.kind)
        self.name = self.kind if protocol is None else self.protocol.name
        self.split = split
        self.classes_from = classes_from
        self.objective = objective
        self.ties: TieRule = ties
        self.top = top
        self.subsets = subsets
        self.prompts = prompts
        self.modality: Literal["video", "audio"] = modality
        self.seed = seed
        self.splits = Splits(dataset, self.kind, rule_for(split, selection), val_share, seed)
        self._several = several
        self._given_classes: tuple[str, ...] | None = None

    @cached_property
    def several(self) -> bool:
        """Whether an item may have several classes."""
        if self._several is not None:
            return self._several
        tables = chain(("train",) if self.splits.has_train else (), (self.split,))
        items = (sample for split in tables for sample in self.splits[split])
        return any("labels" in {**sample.labels, **sample.extra} for sample in items)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("map", "top1", "top5") if self.several else ("top1", "top5", "mean_class")

    @property
    def monitor(self) -> tuple[str, Literal["max", "min"]]:
        return self.metrics[0], "max"

    # --- training -------------------------------------------------------------------------------------------------

    @cached_property
    def _counts(self) -> Counter[str]:
        """Training items per class, and under "" how many have none that is known."""
        found: Counter[str] = Counter()
        for sample in self.splits["train"]:
            found.update(self._classes(sample) or ("",))
        return found

    @cached_property
    def _counted_classes(self) -> tuple[str, ...]:
        found = {name for name in self._counts if name}
        if self.classes_from == "all":
            items = (sample for split in ("val", "test") for sample in self.splits[split])
            found.update(name for sample in items for name in self._classes(sample) or ())
        if not found:
            raise DataError(f"{self.dataset.name}: there are no training items with a class.")
        told = tuple(getattr(self.dataset, "class_names", ()))
        return (*told, *_in_order(found - {*told}))

    @property
    def answers(self) -> tuple[str, ...]:
        """The classes: as the data set lists them, else in the order of the alphabet, or of numbers."""
        return self._counted_classes if self._given_classes is None else self._given_classes

    def use_answers(self, answers: Sequence[str]) -> None:
        if self.prompts is not None:
            return  # those of a checkpoint are of another task
        self._given_classes = tuple(answers) or None
        self.__dict__.pop("_index", None)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.answers)}

    def _classes(self, sample: Sample) -> tuple[str, ...] | None:
        """The classes of an item; None where they are hidden.

        Raises:
            DataError: several, where ``task.several=false`` says that there is one.
        """
        found = classes_of(sample)
        if found is not None and len(found) != 1 and not self.several:
            raise DataError(
                f"{self.dataset.name}: {sample.id} has {len(found)} classes, and task.several=false says that every "
                "item has one. Leave task.several out."
            )
        return found

    def train_samples(self) -> Sequence[Sample]:
        if self.prompts is not None:
            raise ConfigError(
                f"task {self.name}: task.prompts classifies without training. Use mode=eval checkpoint=RUN with a "
                "model that compares clips with texts, or task.prompts=null to train a classifier."
            )
        table = self.splits["train"]
        kept = np.array([self._is_learnt(sample) for sample in table], bool)
        if lacking := int((~kept).sum()):
            log.warning("%s: %d training items without a known class are left out", self.dataset.name, lacking)
        return table if kept.all() else select(table, np.flatnonzero(kept))

    def _is_learnt(self, sample: Sample) -> bool:
        found = self._classes(sample)
        return found is not None and (self.several or found[0] in self._index)

    def texts(self) -> Iterable[str]:
        """What is told of the clips, and the classes: for a tokenizer built from scratch."""
        texts: Iterable[str] = member(self.splits["train"], Table, "all_texts")()
        return chain(texts, self.answers)

    def labels(self, sample: Sample) -> dict[str, Any]:
        found = self._classes(sample)
        if not self.several:
            return {"class": IGNORE if found is None else self._index.get(found[0], IGNORE)}
        if found is None:
            return {"class": [float("nan")] * len(self.answers)}
        row = [0.0] * len(self.answers)
        for name in found:
            if name in self._index:
                row[self._index[name]] = 1.0
        return {"class": row}

    # --- evaluation -----------------------------------------------------------------------------------------------

    def samples(self, split: str) -> Sequence[Sample]:
        return self.splits[split]

    def evaluate(self, evaluator: Evaluator, split: str = "test", *, detail: bool = True) -> TaskResult:
        table = self.samples(split)
        samples = list(evaluator.limited(table))
        if not samples:
            raise DataError(f"{self.dataset.name}: there is no item in the {split} split to classify.")
        self._refuse_hidden(split, samples)
        scored = self._score(evaluator, samples)
        result = TaskResult(self.name, split, scored.metrics(), scored.collected.ledger)
        result.facts = {
            "score_row": "raw" if self.prompts is None else "similarity with the mean of the prompts of each class",
            "prompts": self.prompts,
            "dtype": f"float32 scores from a {evaluator.precision} forward pass",
            "classes": len(self.answers),
            "classes_from": "checkpoint" if self._given_classes else self.classes_from,
            "several": self.several,
            "class_names": list(self.answers) if self.several else None,
            **facts(self, evaluator, len(samples) < len(table)),
        }
        if not detail:
            return result
        match = compare(self, evaluator, result, samples, classes_from=self._classes_came_from())
        result.predictions = scored.predictions(self.top)
        if unknown := sorted({name for found in scored.classes for name in found} - {*self.answers}):
            result.warnings.append(f"{len(unknown)} classes of the {split} split are not known to the model: {unknown}")
        by_class = scored.by_class()
        self._further_rows(evaluator, scored, result)
        add_counts(result, self.recount, self.seed)
        overall = {"model": result.metrics} | result.rows
        names = {"map": "mAP", "top1": "top-1", "top5": "top-5", "mean_class": "mean over classes"}
        result.chart = {
            label: {names[key]: row[key] for key in self.metrics if key in row} for label, row in overall.items()
        }
        result.tables = [self._table(result, scored, overall, match.line(), names), _class_table(result, by_class)]
        return result

    def predict(self, evaluator: Evaluator, split: str = "test") -> TaskResult:
        samples = evaluator.limited(self.samples(split))
        scored = self._score(evaluator, samples)
        lines = scored.predictions(self.top, judged=False)
        return TaskResult(self.name, split, {}, scored.collected.ledger, predictions=lines)

    def examples(self, evaluator: Evaluator, result: TaskResult, count: int = 4) -> list[Strip]:
        """Evenly spaced evaluated items with the frames the model saw; sounds cannot be shown."""
        if "video" not in evaluator.modalities:
            return []
        lines = [{**line, "answer": ", ".join(line["classes"])} for line in result.predictions]
        given = evaluator, self.samples(result.split), lines, count
        return strips(*given, drop=("audio", "text"), question="which class?")

    def check_split(self, split: str) -> None:
        """Whether the classes of every item of the split are known."""
        self._refuse_hidden(split, self.samples(split))

    def _refuse_hidden(self, split: str, samples: Sequence[Sample]) -> None:
        hidden = [sample.id for sample in samples if self._classes(sample) is None]
        if hidden:
            raise DataError(
                f"{self.dataset.name}: {len(hidden):,} of {len(samples):,} items of the {split} split have no class "
                f"(first: {hidden[0]}), so they cannot be scored. mode=predict writes what the model says; to score "
                "the others, take these rows out of the file."
            )

    def check(self, model: VTPModel) -> None:
        """Whether the model has the objective whose classes are scored."""
        objectives = model.objectives
        if self.prompts is not None:
            found = dict(objectives.items()).get(self.objective)
            if found is None or not offers(found, "embed"):
                raise ConfigError(
                    f"task {self.name}: task.prompts needs an objective that embeds clips and texts, and the model has "
                    f"no {self.objective!r} that does (it has: {', '.join(objectives) or 'none'}). Train with "
                    "objective=[vtc], or set task.objective."
                )
            check_compares(self.name, self.modality, self.objective, found)
            return
        if self.objective not in objectives or not offers(objectives[self.objective], "logits"):
            raise ConfigError(
                f"task {self.name}: the model has no objective {self.objective!r} that scores classes (it has: "
                f"{', '.join(objectives) or 'none'}). Add it with objective=[{self.objective}], or set task.objective."
            )

    def _classes_came_from(self) -> str | None:
        """``train``, or ``all`` if there are classes that no training item has; None = nobody knows."""
        if self._given_classes is None:
            return self.classes_from
        if not self.splits.has_train:
            return None
        told = {*getattr(self.dataset, "class_names", ())}
        return "train" if {*self._given_classes} <= {*self._counts} | told else "all"

    def _score(
        self, evaluator: Evaluator, samples: Sequence[Sample], drop: Sequence[Modality] = (), label: str = "items"
    ) -> _Judged:
        self.check(evaluator.bare_model)
        if self.prompts is None:
            collected = evaluator.run(samples, self._forward, drop=drop, what="items", label=label, strict=not drop)
        else:
            given = evaluator, self.objective, self.modality, samples, self.answers, self.prompts
            collected = prompt_scores(*given, drop)
        scores = collected.arrays.get("scores")
        if scores is not None and not np.isfinite(scores).all():
            broken = np.asarray(~np.isfinite(scores).all(1))
            collected = collected.without(broken, "scores are not finite numbers")
        return _Judged(self, samples, collected)

    def _forward(self, ctx: Any) -> dict[str, torch.Tensor]:
        logits = ctx.model.objectives[self.objective].logits(ctx).float()  # (B, C)
        if logits.shape[1] != len(self.answers):
            raise ConfigError(
                f"task {self.name}: there are {len(self.answers):,} classes, but objective {self.objective!r} scores "
                f"{logits.shape[1]:,}. Both must come from one run."
            )
        return {"scores": logits}

    def _further_rows(self, evaluator: Evaluator, scored: _Judged, result: TaskResult) -> None:
        """What the number has to be compared with."""
        mask = scored.collected.ledger.mask()
        if 0 < result.ledger.coverage < 1:
            result.rows[EVALUATED_ONLY] = scored.metrics(mask)
        if self.prompts is None and self.splits.has_train and self._counts:
            self._note(result, BLIND, self._blind(scored))
        seen = [m for m in evaluator.modalities if m in scored.collected.present and scored.collected.present[m].any()]
        for label, drop in withheld(self.subsets, seen, result.warnings).items():
            self._note(result, label, self._score(evaluator, scored.samples, drop, label))

    @staticmethod
    def _note(result: TaskResult, label: str, scored: _Judged) -> None:
        """A row, of which lines hold what it is counted from; with too many scores for that, as it is."""
        result.rows[label] = scored.metrics()
        note_row(result.predictions, label, scored.told(label != BLIND))

    def _blind(self, scored: _Judged) -> _Judged:
        """Saying the same of every item, each class as often as training has it."""
        known = np.array([float(self._counts.get(name, 0)) for name in self.answers], np.float32)
        same = np.tile(known, (len(scored.samples), 1))
        table = tuple(sample.id for sample in scored.samples)
        return _Judged(
            self, scored.samples, Collected(table, np.arange(len(table)), {"scores": same}, {}, what="items")
        )

    def _table(
        self,
        result: TaskResult,
        scored: _Judged,
        overall: dict[str, dict[str, float]],
        protocol_line: str,
        names: dict[str, str],
    ) -> ReportTable:
        rows = [(label, *(row.get(key) for key in self.metrics)) for label, row in overall.items()]
        low, high = result.intervals["top1"]
        notes = (
            result.ledger.line(),
            protocol_line,
            f"{len(self.answers):,} classes, {'several' if self.several else 'one'} each; top-1 95 % interval "
            f"{low:.2f} to {high:.2f}; ties: {self.ties}",
        )
        title = f"{result.title}: classes of {len(scored.samples):,} clips, in % ({result.split})"
        return ReportTable(title, ("", *(names[key] for key in self.metrics)), tuple(rows), notes)


class _Judged:
    """Scores of one pass over the items, judged.

    Args:
        task: whose classes they are.
        samples: the items, N.
        collected: their ``scores`` (M, C), of those that were evaluated.
    """

    def __init__(self, task: Classification, samples: Sequence[Sample], collected: Collected) -> None:
        self.task = task
        self.samples = samples
        self.collected = collected
        count = len(task.answers)
        self.scores = collected.full("scores", np.nan, (count,))  # (N, C)
        self.classes = [task._classes(sample) or () for sample in samples]
        self.right = [[task._index[name] for name in found if name in task._index] for found in self.classes]
        self.ranks: Ranks = rank_queries(self.scores, self.right, missing=np.zeros(count, bool))

    @property
    def table(self) -> Classes:
        """As lines tell it."""
        known = np.array([bool(found) for found in self.right], bool)
        several = self.task.several
        scores = self.scores if several else None
        return Classes(self.classes, self.ranks, known, self.task.ties, several, self.task._index, scores)

    def metrics(self, rows: Array | None = None) -> dict[str, float]:
        """In percent, over the items of ``rows`` (bool (N,)), None = all of them."""
        return self.table.metrics(rows)

    def by_class(self, rows: Array | None = None) -> dict[str, tuple[float, int]]:
        """See :meth:`vtp_tasks.class_counts.Classes.by_class`."""
        return self.table.by_class(rows)

    @property
    def keeps_scores(self) -> bool:
        """Whether lines hold the scores: several classes need them."""
        return self.task.several and self.scores.size <= MOST_SCORES

    def told(self, with_scores: bool) -> Iterator[dict[str, Any] | None]:
        """What a row of each line holds; None of an item that is missing."""
        for i, sample in enumerate(self.samples):
            if sample.id in self.collected.misses:
                yield None
                continue
            told: dict[str, Any] = {"rank": short_numbers(self.ranks, i)}
            yield told | {"scores": self.scores[i].tolist()} if self.keeps_scores and with_scores else told

    def predictions(self, top: int, judged: bool = True) -> list[dict[str, Any]]:
        """One line per item, missing ones included."""
        credit, ranks = self.ranks.hits(1, self.task.ties), self.ranks.values(self.task.ties)
        shares = torch.from_numpy(self.scores)
        shares = shares.sigmoid() if self.task.several else shares.softmax(1)
        lines = []
        for i, sample in enumerate(self.samples):
            line: dict[str, Any] = {"id": sample.id, "video": media_id(sample)}
            if judged:
                line |= {"classes": list(self.classes[i]), "credit": float(credit[i]), "rank": float(ranks[i])}
                line |= {"known": bool(self.right[i]), **numbers(self.ranks, i)}
                if self.keeps_scores and sample.id not in self.collected.misses:
                    line["scores"] = self.scores[i].tolist()
            if sample.id in self.collected.misses:
                line |= {"prediction": None, "missing": self.collected.misses[sample.id]}
            else:
                best = np.argsort(-self.scores[i], kind="stable")[:top].tolist()
                line["prediction"] = self.task.answers[best[0]]
                line["top"] = [[self.task.answers[j], round(float(shares[i, j]), 6)] for j in best]
            lines.append(line)
        return lines


def _in_order(names: Iterable[str]) -> list[str]:
    """Numbers by their value, and then texts by the alphabet."""
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def _class_table(result: TaskResult, by_class: dict[str, tuple[float, int]]) -> ReportTable:
    rows = [(name, count, value) for name, (value, count) in by_class.items()]
    notes = (f"{len(rows) - MOST_CLASSES} more in report.json",) if len(rows) > MOST_CLASSES else ()
    what = "average precision" if result.facts["several"] else "top-1"
    title = f"{result.title}: {what} by class, in % ({result.split})"
    return ReportTable(title, ("class", "items", "model"), tuple(rows[:MOST_CLASSES]), notes)
