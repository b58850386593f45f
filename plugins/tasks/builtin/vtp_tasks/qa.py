"""Open-ended question answering as classification over a list of answers.

The list comes from the training answers alone, most frequent first, unless ``task.answers_from=all`` adds those of the
other splits, as MUSIC-AVQA gathered its own; the report says which. Training questions with another answer are dropped
and counted; test questions with another answer are scored and wrong. What a question is about is its first word; a data
set may add finer types, by default in ``extra["question_type"]``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from vtp.contracts import Table, member, offers
from vtp.data.table import first_word, media_id, select
from vtp.errors import ConfigError, DataError
from vtp.eval.evaluator import Collected, Evaluator
from vtp.eval.figures import Strip
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.eval.metrics import Ranks, TieRule, accuracy_by_type
from vtp.eval.task import ReportTable, TaskResult
from vtp.model.model import VTPModel
from vtp.ranges import Count, Seed, Share
from vtp.types import IGNORE, Modality, Sample
from vtp_tasks.answers import AnswerPrior, answer_list, answer_of, refuse_unanswered
from vtp_tasks.definitions import find_protocol, rule_for
from vtp_tasks.examples import strips
from vtp_tasks.lines import note_row, numbers, percent
from vtp_tasks.recounts import by_group, few_groups
from vtp_tasks.recounts import questions as recount_questions
from vtp_tasks.rows import References, add_counts, add_references, compare, facts
from vtp_tasks.splits import FromSplits, Splits
from vtp_tasks.subsets import Subsets, check_subsets, withheld

__all__ = ["QuestionAnswering"]

log = logging.getLogger("vtp")

BREAKDOWN = ("question_type",)  # tables without it are not broken down
MODALITIES_OF = "modalities"  # in breakdown: which of video and audio the clip of a question really has
ABLATE_UP_TO = 5000  # test questions: above, scoring them again per modality is a decision of the user


class QuestionAnswering(FromSplits):
    """The task ``qa``.

    Args:
        dataset: offers ``samples("qa", split)``: one question in ``texts``, its answer in ``labels["answer"]``.
        protocol: name of a protocol of any plugin, or the path of one; None = data of one's own.
        split: which split is reported: ``test`` or ``val``.
        answers: size of the answer list; None = every training answer.
        answers_from: ``train``, or ``all`` to add the answers that only other splits have behind them.
        breakdown: keys of ``extra`` by which accuracy is broken down, where every question has them; the first one
            heads the table, the others follow. ``question_group`` is what stands before the ``/`` of a question type,
            ``modalities`` what the clip had when it was read: ``video+audio``, ``video``, ``audio`` or ``none``.
        objective: the objective whose ``logits(ctx)`` (B, answers) are scored.
        selection: rule by which the checkpoint is chosen; None = ``val`` if there is a validation split, else ``last``.
        ties: tie rule. Under ``expected`` a right answer that shares the best score with t others earns 1 / (t + 1).
        top: answers per question in the predictions.
        references: published results to print beside one's own: label -> metric (``accuracy``, ``accuracy/what``) ->
            value. They are nobody's here.
        padded: also count as a sampler does that gives so many processes equally many questions: the first ones twice.
        val_share: share of the training clips held out for validation when ``selection`` is ``val`` and the data set
            has no validation split; None = refuse that.
        ablate: also score with each modality withheld, one at a time; None = with at most 5,000 questions and without
            ``subsets``.
        subsets: also score with these modalities alone, ``[[video, text], [text]]``, or ``all`` subsets.
        seed: of the bootstrap and of the held-out clips.
    """

    kind = "qa"
    monitor: tuple[str, Literal["max", "min"]] = ("accuracy", "max")
    metrics = ("accuracy", "top10", "in_vocabulary")
    recount = staticmethod(recount_questions)

    def __init__(
        self,
        *,
        dataset: Any,
        protocol: str | None = None,
        split: Literal["test", "val"] = "test",
        answers: Count | None = 1500,
        answers_from: Literal["train", "all"] = "train",
        breakdown: Sequence[str] = BREAKDOWN,
        objective: str = "qa",
        selection: str | None = None,
        ties: TieRule = "expected",
        top: Count = 5,
        ablate: bool | None = None,
        subsets: Subsets = None,
        references: References = None,
        padded: Count | None = None,
        val_share: Share | None = None,
        seed: Seed = 0,
    ) -> None:
        if answers is not None and answers < 1:
            raise ConfigError(f"task.answers={answers} must be at least 1, or null for every training answer.")
        check_subsets(subsets)
        self.dataset = dataset
        self.protocol = find_protocol(protocol, dataset, self.kind)
        self.name = self.kind if protocol is None else self.protocol.name
        self.split = split
        self.size = answers
        self.answers_from = answers_from
        self.breakdown = tuple(breakdown)
        self.objective = objective
        self.ties: TieRule = ties
        self.top = top
        self.ablate = ablate
        self.subsets = subsets
        self.references = references
        self.padded = padded
        self.seed = seed
        self.splits = Splits(dataset, self.kind, rule_for(split, selection), val_share, seed)
        self._given_answers: tuple[str, ...] | None = None

    # --- training -------------------------------------------------------------------------------------------------

    @cached_property
    def _prior(self) -> AnswerPrior:
        return AnswerPrior(self.splits["train"])

    @cached_property
    def _has_answers(self) -> bool:
        """Whether there are training questions with answers; scoring a checkpoint needs none."""
        return self.splits.has_train and any(answer_of(sample) is not None for sample in self.splits["train"])

    @cached_property
    def _counted_answers(self) -> tuple[str, ...]:
        found = dict.fromkeys(self._prior.by_frequency())
        if self.answers_from == "all":
            for split in ("val", "test"):
                answers = (answer_of(sample) for sample in self.splits[split])
                found |= dict.fromkeys(answer_list(answer for answer in answers if answer is not None))
        return tuple(found)[: self.size]

    @property
    def answers(self) -> tuple[str, ...]:
        return self._counted_answers if self._given_answers is None else self._given_answers

    def use_answers(self, answers: Sequence[str]) -> None:
        self._given_answers = tuple(answers) or None
        self.__dict__.pop("_index", None)

    def _answers_came_from(self) -> str | None:
        """``train``, or ``all`` if the list holds answers that only other splits have; None = nobody knows. The list
        of a checkpoint is judged by what is in it."""
        if self._given_answers is None:
            return self.answers_from
        if not self._has_answers:
            return None
        strange = set(self._given_answers) - set(self._prior.answers)
        if not strange:
            return "train"
        elsewhere = {answer_of(sample) for split in ("val", "test") for sample in self.splits[split]}
        return "all" if strange <= elsewhere else None

    @cached_property
    def _index(self) -> dict[str, int]:
        return {answer: i for i, answer in enumerate(self.answers)}

    @property
    def _in_list(self) -> Any:
        """bool (N,): training questions whose answer is in the list; without an answer, it is not."""
        return np.array([*(answer in self._index for answer in self._prior.answers), False])[self._prior.given]

    def train_samples(self) -> Sequence[Sample]:
        kept = self._in_list
        if self.unanswered:
            log.warning("%s: %d training questions have no answer and are left out", self.dataset.name, self.unanswered)
        return self.splits["train"] if kept.all() else select(self.splits["train"], np.flatnonzero(kept))

    @property
    def dropped(self) -> int:
        """Training questions whose answer is not in the list."""
        return int((~self._in_list).sum())

    @property
    def unanswered(self) -> int:
        """Training questions without an answer; they are among :attr:`dropped`."""
        return int((self._prior.given < 0).sum())

    def texts(self) -> Iterable[str]:
        texts: Iterable[str] = member(self.splits["train"], Table, "all_texts")()
        return texts

    def labels(self, sample: Sample) -> dict[str, int | float]:
        answer = answer_of(sample)
        return {"answer": IGNORE if answer is None else self._index.get(answer, IGNORE)}

    # --- evaluation -----------------------------------------------------------------------------------------------

    def samples(self, split: str) -> Sequence[Sample]:
        return self.splits[split]

    def evaluate(self, evaluator: Evaluator, split: str = "test", *, detail: bool = True) -> TaskResult:
        table = self.samples(split)
        samples = list(evaluator.limited(table))
        if not samples:
            raise DataError(f"{self.dataset.name}: there is no question in the {split} split to evaluate.")
        self._refuse_unanswered(split, samples)
        scored = self._score(evaluator, samples)
        result = TaskResult(self.name, split, scored.metrics(), scored.collected.ledger)
        result.facts = {
            "score_row": "raw",
            "dtype": f"float32 scores from a {evaluator.precision} forward pass",
            "answers": len(self.answers),
            "answers_from": "checkpoint" if self._given_answers else self.answers_from,
            "breakdown": list(self.breakdown),
            **facts(self, evaluator, len(samples) < len(table)),
        }
        if not detail:
            return result
        match = compare(self, evaluator, result, samples, answers_from=self._answers_came_from())
        result.facts["train_questions_dropped"] = self.dropped if self._has_answers else None
        if self._has_answers and self.unanswered:
            result.facts["train_questions_without_an_answer"] = self.unanswered
        result.predictions = scored.predictions(self.top)
        self._compare(evaluator, scored, result)
        add_counts(result, self.recount, self.seed)
        result.tables = [self._table(result, scored, match.line()), *self._further_tables(result, scored)]
        return result

    def predict(self, evaluator: Evaluator, split: str = "test") -> TaskResult:
        samples = evaluator.limited(self.samples(split))
        scored = self._score(evaluator, samples)
        return TaskResult(
            self.name, split, {}, scored.collected.ledger, predictions=scored.predictions(self.top, judged=False)
        )

    def examples(self, evaluator: Evaluator, result: TaskResult, count: int = 4) -> list[Strip]:
        """Evenly spaced evaluated questions with the frames the model saw."""
        return strips(evaluator, self.samples(result.split), result.predictions, count)

    def check_split(self, split: str) -> None:
        """Whether every question of the split has an answer, and any of them what the table is broken down by."""
        samples = self.samples(split)
        self._refuse_unanswered(split, samples)
        asked = [key for key in self.breakdown if key not in (*BREAKDOWN, MODALITIES_OF)]
        absent = [key for key in asked if all(_extra(sample, key) is None for sample in samples)]
        if absent and len(samples):
            there = ", ".join(sorted({key for sample in samples for key in sample.extra}))
            wrong = " or ".join(absent)
            raise ConfigError(f"task.breakdown: no question of the {split} split has {wrong}. There are: {there}.")

    def _refuse_unanswered(self, split: str, samples: Sequence[Sample]) -> None:
        lacking = [sample for sample in samples if answer_of(sample) is None]
        refuse_unanswered(self.dataset.name, split, len(samples), lacking)

    def check(self, model: VTPModel) -> None:
        """Whether the model has the objective whose answers are scored."""
        objectives = model.objectives
        if self.objective not in objectives or not offers(objectives[self.objective], "logits"):
            raise ConfigError(
                f"task {self.name}: the model has no objective {self.objective!r} that scores answers (it has: "
                f"{', '.join(objectives) or 'none'}). Add it with objective=[{self.objective}], or set task.objective."
            )

    def _score(
        self, evaluator: Evaluator, samples: Sequence[Sample], drop: Sequence[Modality] = (), label: str = "questions"
    ) -> Judged:
        self.check(evaluator.bare_model)
        collected = evaluator.run(samples, self._forward, drop=drop, what="questions", label=label, strict=not drop)
        return Judged(self, samples, _scores_that_are_not_numbers_are_missing(collected))

    def _forward(self, ctx: Any) -> dict[str, torch.Tensor]:
        """Per question: the best answers with their probabilities, and where the right one stands."""
        logits = ctx.model.objectives[self.objective].logits(ctx).float()  # (B, A)
        if logits.shape[1] != len(self.answers):
            raise ConfigError(
                f"task {self.name}: the answer list has {len(self.answers):,} answers, but objective "
                f"{self.objective!r} scores {logits.shape[1]:,}. Both must come from one run: set task.answers as it "
                "was there."
            )
        finite = logits.isfinite().all(1)
        logits = torch.where(finite[:, None], logits, torch.zeros_like(logits))
        width = min(max(self.top, 1), logits.shape[1])
        best_first = logits.sort(dim=1, descending=True, stable=True).indices  # stable: ties keep the list's order
        top = best_first[:, :width]
        gold = ctx.batch.labels.get("answer", torch.full((len(logits),), IGNORE, device=logits.device))
        right = logits.gather(1, gold.clamp(min=0)[:, None])  # (B, 1)
        return {
            "finite": finite,
            "top": top,
            "probability": logits.softmax(1).gather(1, top),
            "higher": (logits > right).sum(1),
            "tied": (logits == right).sum(1) - 1,
        }

    def _compare(self, evaluator: Evaluator, scored: Judged, result: TaskResult) -> None:
        """Baselines and ablations: what the number has to be compared with."""
        groups = scored.groups()
        result.chart["model"] = by_group(scored.credit, groups)
        add_references(result, self.references)
        if self.padded is not None:
            again = np.arange(-(-len(scored.credit) // self.padded) * self.padded) % len(scored.credit)
            label = f"{len(again):,} questions, padded to {self.padded} processes"
            result.chart[label] = by_group(scored.credit[again], [groups[row] for row in again])
            result.facts["padded"] = {"label": label, "processes": self.padded}
        credits: dict[str, np.ndarray] = {}
        if self._has_answers:
            prior = self._prior
            for label, guess in (("question-only prior", prior), ("majority answer", lambda question: prior.majority)):
                right = [float(guess(s.texts[0]) == str(s.labels["answer"])) for s in scored.samples]
                credits[label] = np.array(right)
        # taking away what no question has would only repeat the headline
        present = scored.collected.present
        modalities = [m for m in evaluator.modalities if m in present and present[m].any()]
        few = len(scored.samples) <= ABLATE_UP_TO and self.subsets is None
        rows = withheld(self.subsets, modalities, result.warnings, names={"text": "question"})
        if (few if self.ablate is None else self.ablate) and len(modalities) > 1:
            rows |= {f"without {'question' if m == 'text' else m}": (m,) for m in modalities}
        for label, drop in rows.items():
            credits[label] = self._score(evaluator, scored.samples, drop=drop, label=label).credit
        for label, credit in credits.items():
            note_row(result.predictions, label, credit.tolist())
        result.chart |= {label: by_group(credit, groups) for label, credit in credits.items()}

    def _table(self, result: TaskResult, scored: Judged, protocol_line: str) -> ReportTable:
        labels = list(result.chart)
        counts = Counter(scored.groups())
        overall = {"model": result.metrics["accuracy"]} | {label: row["accuracy"] for label, row in result.rows.items()}
        told = result.references.values()
        rows: list[tuple[str | float | int | None, ...]] = [
            (
                group,
                counts[group],
                *(result.chart[label].get(group) for label in labels),
                *(values.get(f"accuracy/{group}") for values in told),
            )
            for group in result.chart["model"]
        ]
        everything = (*(overall[label] for label in labels), *(values.get("accuracy") for values in told))
        rows.append(("all", len(scored.samples), *everything))
        low, high = result.intervals["accuracy"]
        notes = [
            result.ledger.line(),
            protocol_line,
            f"accuracy {result.metrics['accuracy']:.2f} % (95 % interval {low:.2f} to {high:.2f}), top-10 "
            f"{result.metrics['top10']:.2f} %, answer list {len(self.answers):,} long and holding "
            f"{result.metrics['in_vocabulary']:.2f} % of the right answers; ties: {self.ties}",
        ]
        if EVALUATED_ONLY in result.rows:
            notes.append(f"{EVALUATED_ONLY}: {result.rows[EVALUATED_ONLY]['accuracy']:.2f} %")
        return ReportTable(
            f"{result.title}: accuracy in % by question type ({result.split})",
            ("type", "questions", *labels, *result.references),
            tuple(rows),
            tuple(notes),
        )

    def _further_tables(self, result: TaskResult, scored: Judged) -> list[ReportTable]:
        """Accuracy by every further key of ``breakdown``."""
        tables = []
        for key in scored.breakdowns():
            if key == scored.head():
                continue
            by_value = accuracy_by_type(scored.credit, few_groups(scored.values(key)))
            rows = [(value, count, accuracy) for value, (accuracy, count) in by_value.items()]
            title = f"{result.title}: accuracy in % by {key.replace('_', ' ')} ({result.split})"
            tables.append(ReportTable(title, (key, "questions", "model"), tuple(rows)))
        return tables


class Judged:
    """Answers of one pass over the questions, judged."""

    def __init__(self, task: QuestionAnswering, samples: Sequence[Sample], collected: Collected) -> None:
        self.task = task
        self.samples = samples
        self.collected = collected
        known = np.array([task.labels(sample)["answer"] != IGNORE for sample in samples])
        self.in_vocabulary = known
        evaluated = collected.ledger.mask()
        self.ranks = Ranks(
            higher=collected.full("higher", 0).astype(np.int64),
            tied=collected.full("tied", 0).astype(np.int64),
            positives=np.ones(len(samples), np.int64),
            miss=~(known & evaluated),
            gallery=len(task.answers),
        )
        self.credit = self.ranks.hits(1, task.ties)

    def metrics(self) -> dict[str, float]:
        return {
            "accuracy": percent(self.credit),
            "top10": percent(self.ranks.hits(10, self.task.ties)),
            "in_vocabulary": percent(self.in_vocabulary),
        }

    def breakdowns(self) -> list[str]:
        """The keys of ``breakdown`` that every question has."""
        return [
            key
            for key in self.task.breakdown
            if key == MODALITIES_OF or all(_extra(sample, key) is not None for sample in self.samples)
        ]

    def values(self, key: str) -> list[str]:
        if key == MODALITIES_OF:
            return self._modalities()
        return [str(_extra(sample, key)) for sample in self.samples]

    def _modalities(self) -> list[str]:
        """Per question what its clip has; ``missing`` where nothing could be read."""
        found = ["missing"] * len(self.samples)
        there = self.collected.present
        for place, row in enumerate(self.collected.rows):
            found[row] = "+".join(m for m in ("video", "audio") if m in there and there[m][place]) or "none"
        return found

    def groups(self) -> list[str]:
        """What the table is broken down by: the data set's own question types where every question has one, else first
        words."""
        key = self.head()
        return self.types if key is None else few_groups(self.values(key))

    def head(self) -> str | None:
        """What of ``breakdown`` heads the table: the first of what questions are told apart by."""
        return next((key for key in self.breakdowns() if key != MODALITIES_OF), None)

    @property
    def types(self) -> list[str]:
        return few_groups([first_word(sample.texts[0]) for sample in self.samples])

    def predictions(self, top: int, judged: bool = True) -> list[dict[str, Any]]:
        """One line per question, missing ones included."""
        where = {name: row for row, name in enumerate(self.collected.ids)}
        ranks = self.ranks.values(self.task.ties)
        groups = {key: self.values(key) for key in self.breakdowns()} if judged else {}
        lines = []
        for i, sample in enumerate(self.samples):
            line: dict[str, Any] = {
                "id": sample.id,
                "video": media_id(sample),
                "question": sample.texts[0] if sample.texts else None,
            }
            line["type"] = first_word(sample.texts[0]) if sample.texts else None
            line |= {key: sample.extra[key] for key in self.task.breakdown if key in sample.extra}
            if judged:
                line |= {"answer": str(sample.labels["answer"]), "in_vocabulary": bool(self.in_vocabulary[i])}
                line |= {"credit": float(self.credit[i]), "rank": float(ranks[i]), **numbers(self.ranks, i)}
                line |= {"groups": {key: values[i] for key, values in groups.items()}} if groups else {}
            if sample.id in where:
                row = where[sample.id]
                best, chance = self.collected.arrays["top"][row][:top], self.collected.arrays["probability"][row][:top]
                line["prediction"] = self.task.answers[int(best[0])]
                line["top"] = [
                    [self.task.answers[int(a)], round(float(p), 6)] for a, p in zip(best, chance, strict=True)
                ]
            else:
                line |= {"prediction": None, "missing": self.collected.misses[sample.id]}
            lines.append(line)
        return lines


def _extra(sample: Sample, key: str) -> Any:
    """What a question says under ``key``. ``question_group`` is the first part of a type such as
    ``Audio-Visual/Counting``."""
    if key != "question_group" or key in sample.extra:
        return sample.extra.get(key)
    group, slash, _ = str(sample.extra.get("question_type", "")).partition("/")
    return group if slash else None


def _scores_that_are_not_numbers_are_missing(collected: Collected) -> Collected:
    finite = collected.arrays.get("finite")
    if finite is None or finite.all():
        return collected
    return collected.without(~finite, "scores are not finite numbers")
