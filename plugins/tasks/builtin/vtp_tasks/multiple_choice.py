"""Multiple choice: which of a clip's candidate texts is the right one? (MSRVTT-MC: five captions of 2,990 clips.)

The candidates are scored by the model of a retrieval task: by its embeddings, or by a matching head that reads clip and
text together. The best score is the answer; of several best ones the right one earns 1 / their number.
A question whose clip cannot be decoded, or with a candidate that has no finite score, is a miss.

The benchmarks have no training set: training uses the captions of the data set's retrieval split. A list that holds
test clips (9k for MSRVTT-MC, which shares 1,990 of 2,990 clips with it) is refused as a leak. Data of one's own that
have no captions are trained on the right texts of their training questions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vtp.contracts import Dataset, member, offers
from vtp.data.table import clip_names, media_id
from vtp.errors import ConfigError, DataError, SampleTypeError
from vtp.eval.evaluator import Collected, Evaluator
from vtp.eval.figures import Strip
from vtp.eval.ledger import Ledger
from vtp.eval.metrics import Ranks, TieRule, rank_queries
from vtp.eval.task import ReportTable, TaskResult, resolve_selection
from vtp.model.model import VTPModel
from vtp.ranges import Count, Seed
from vtp.types import Modality, Sample
from vtp_tasks.answers import refuse_unanswered
from vtp_tasks.definitions import find_protocol
from vtp_tasks.examples import strips
from vtp_tasks.lines import note_row, numbers, percent
from vtp_tasks.matching import PAIR_BATCH, match_texts
from vtp_tasks.pairs import check_compares, compare_embeddings, embed, gallery, looked_at, seen_in
from vtp_tasks.recounts import choices as recount_choices
from vtp_tasks.rows import add_counts, compare, facts
from vtp_tasks.subsets import Subsets, check_subsets, withheld

__all__ = ["MultipleChoice"]

log = logging.getLogger("vtp")

Array = npt.NDArray[Any]


class MultipleChoice:
    """The task ``multiple_choice``.

    Args:
        dataset: offers ``samples("mc", split)``: the candidates in ``texts``, the place of the right one in
            ``labels["answer_index"]``; and ``samples("retrieval", "train")`` to train on.
        protocol: name of a protocol of any plugin, or the path of one; None = data of one's own.
        modality: what the texts are compared with: ``video`` or ``audio``.
        objective: what scores: an objective with ``embed(ctx, modality)`` (vtc), or with ``match_logits`` (vtm).
        selection: rule by which the checkpoint is chosen; None = ``val`` if the data set has validation questions,
            else ``last``.
        ties: tie rule. Under ``expected`` a right answer that shares the best score with t others earns 1 / (t + 1).
        pair_batch: pairs of a clip and a text that a matching head reads at once.
        subsets: also score with these modalities of a clip alone, ``[[video], [video, audio]]``, or ``all`` subsets of
            those that the objective looks at; texts always are.
        seed: of the bootstrap.
    """

    kind = "mc"
    monitor: tuple[str, Literal["max", "min"]] = ("accuracy", "max")
    metrics = ("accuracy",)
    recount = staticmethod(recount_choices)

    def __init__(
        self,
        *,
        dataset: Any,
        protocol: str | None = None,
        modality: Literal["video", "audio"] = "video",
        objective: str = "vtc",
        selection: str | None = None,
        ties: TieRule = "expected",
        pair_batch: Count = PAIR_BATCH,
        subsets: Subsets = None,
        seed: Seed = 0,
    ) -> None:
        check_subsets(subsets)
        self.dataset = dataset
        self.protocol = find_protocol(protocol, dataset, self.kind)
        self.name = "multiple_choice" if protocol is None else self.protocol.name
        self.modality: Literal["video", "audio"] = modality
        self.objective = objective
        self.ties: TieRule = ties
        self.pair_batch = pair_batch
        self.subsets = subsets
        self.seed = seed
        self._wanted = selection

    # --- training -------------------------------------------------------------------------------------------------

    def train_samples(self) -> Sequence[Sample]:
        """Clips with texts that fit: the captions of the retrieval split, or where the data set has none, the right
        texts of its training questions."""
        return self._train

    @cached_property
    def _train(self) -> Sequence[Sample]:
        if "retrieval" in member(self.dataset, Dataset, "kinds"):
            captions: Sequence[Sample] = self.dataset.samples("retrieval", "train")
            return captions
        questions: Sequence[Sample] = self.dataset.samples(self.kind, "train")
        right = [_right(question) for question in questions]
        if lacking := right.count(None):
            log.warning("%s: %d training questions have no answer and are left out", self.dataset.name, lacking)
        pairs = zip(questions, right, strict=True)
        return [replace(one, texts=(one.texts[place],), labels={}) for one, place in pairs if place is not None]

    def known_list(self) -> str | None:
        """Name of the known training list that the training clips are exactly, or None."""
        return self.protocol.train_list(clip_names(self.train_samples()))

    @property
    def selection(self) -> str:
        try:
            has_validation = bool(self.samples("val"))
        except SampleTypeError:
            raise
        except DataError:
            has_validation = False
        return resolve_selection(self._wanted, has_validation)

    # --- evaluation -----------------------------------------------------------------------------------------------

    def samples(self, split: str) -> Sequence[Sample]:
        found: Sequence[Sample] = self.dataset.samples(self.kind, split)
        return found

    def evaluate(self, evaluator: Evaluator, split: str = "test", *, detail: bool = True) -> TaskResult:
        self._refuse_unanswered(split, evaluator.limited(self.samples(split)))
        scored = self._score(evaluator, split)
        credit = scored.credit
        result = TaskResult(self.name, split, {"accuracy": percent(credit)}, scored.ledger)
        result.facts = {
            "score_row": "matching head" if self._matches(evaluator) else "raw",
            "dtype": f"float32 scores from a {evaluator.precision} forward pass",
            **facts(self, evaluator, scored.limited),
        }
        if not detail:
            return result
        match = compare(self, evaluator, result, scored.samples, modality=self.modality)
        result.predictions = scored.predictions()
        self._subset_rows(evaluator, split, scored, result)
        add_counts(result, self.recount, self.seed)
        overall = {"model": result.metrics["accuracy"]} | {label: row["accuracy"] for label, row in result.rows.items()}
        result.chart = {label: {"all": accuracy} for label, accuracy in overall.items()}
        low, high = result.intervals["accuracy"]
        notes = (
            scored.ledger.line(),
            match.line(),
            f"accuracy {overall['model']:.2f} % (95 % interval {low:.2f} to {high:.2f}), candidates scored "
            f"by {self.objective}; ties: {self.ties}",
        )
        title = f"{result.title}: the right one of {scored.widths()} texts, accuracy in % ({split})"
        row: tuple[str | float, ...] = ("all", len(scored.samples), *overall.values())
        result.tables = [ReportTable(title, ("", "questions", *overall), (row,), notes)]
        return result

    def predict(self, evaluator: Evaluator, split: str = "test") -> TaskResult:
        scored = self._score(evaluator, split)
        return TaskResult(self.name, split, {}, scored.ledger, scored.predictions(judged=False))

    def examples(self, evaluator: Evaluator, result: TaskResult, count: int = 4) -> list[Strip]:
        """Evenly spaced evaluated questions with the frames the model saw; sounds cannot be shown."""
        if self.modality != "video":
            return []
        return strips(evaluator, self.samples(result.split), result.predictions, count, drop=("audio", "text"))

    def _matches(self, evaluator: Evaluator) -> bool:
        """Whether a matching head scores."""
        return not offers(evaluator.bare_model.objectives[self.objective], "embed")

    def check_split(self, split: str) -> None:
        """Whether every question of the split has an answer, and one of its texts."""
        self._refuse_unanswered(split, self.samples(split))

    def _refuse_unanswered(self, split: str, samples: Sequence[Sample]) -> None:
        hidden = [one for one in samples if one.labels.get("answer_index") is None]
        refuse_unanswered(self.dataset.name, split, len(samples), hidden)
        wrong = [one for one in samples if _right(one) is None]
        if wrong:
            raise DataError(
                f"{self.dataset.name}: {len(wrong)} multiple-choice questions name a right answer that is none of "
                f"their texts (first: {wrong[0].id}: answer {wrong[0].labels['answer_index']} of "
                f"{len(wrong[0].texts)} texts; the first one is 0). Where it is hidden, mode=predict writes what the "
                "model answers."
            )

    def check(self, model: VTPModel) -> None:
        """Whether the model has the objective that scores, and for this modality."""
        objectives = model.objectives
        found = dict(objectives.items()).get(self.objective)
        if found is None or not (offers(found, "embed") or offers(found, "match_logits")):
            raise ConfigError(
                f"task {self.name}: the model has no objective {self.objective!r} that scores texts of a clip (it has: "
                f"{', '.join(objectives) or 'none'}). Add it with objective=[{self.objective}], or set task.objective "
                "to vtc (embeddings) or vtm (a matching head)."
            )
        check_compares(self.name, self.modality, self.objective, found)

    def _subset_rows(self, evaluator: Evaluator, split: str, scored: Choices, result: TaskResult) -> None:
        """Rows that must never be mixed with the headline."""
        used = evaluator.modalities if self._matches(evaluator) else looked_at(evaluator, self.objective, self.modality)
        rows = withheld(self.subsets, seen_in(scored.videos, used), result.warnings, always=("text",))
        for label, drop in rows.items():
            note_row(result.predictions, label, self._score(evaluator, split, drop).credit.tolist())

    def _score(self, evaluator: Evaluator, split: str, drop: Sequence[Modality] = ()) -> Choices:
        table = self.samples(split)
        samples = list(evaluator.limited(table))
        if not samples:
            raise DataError(f"{self.dataset.name}: there is no multiple-choice question in the {split} split.")
        self.check(evaluator.bare_model)
        score = self._by_matching if self._matches(evaluator) else self._by_embedding
        scores, videos, text_misses = score(evaluator, samples, drop)
        return Choices(self, samples, len(samples) < len(table), scores, videos, text_misses)

    def _by_embedding(
        self, evaluator: Evaluator, samples: Sequence[Sample], drop: Sequence[Modality] = ()
    ) -> tuple[list[Array], Collected, dict[str, str]]:
        videos, texts = gallery(samples), _distinct_texts(samples)
        seen, read = embed(evaluator, self.objective, self.modality, videos, list(texts.values()), drop=drop)
        width = next((c.arrays["embedding"].shape[-1] for c in (seen, read) if "embedding" in c.arrays), 1)
        video, text = seen.full("embedding", np.nan, (width,)), read.full("embedding", np.nan, (width,))
        row = {sample.id: i for i, sample in enumerate(videos)}
        column = {caption: i for i, caption in enumerate(texts)}
        places = ((row[media_id(s)], [column[t] for t in s.texts]) for s in samples)
        scores = [compare_embeddings(text[columns], video[[clip]])[:, 0] for clip, columns in places]
        misses = {caption: read.misses[s.id] for caption, s in texts.items() if s.id in read.misses}
        return scores, seen, misses

    def _by_matching(
        self, evaluator: Evaluator, samples: Sequence[Sample], drop: Sequence[Modality] = ()
    ) -> tuple[list[Array], Collected, dict[str, str]]:
        videos, texts = gallery(samples), _distinct_texts(samples)
        row = {sample.id: i for i, sample in enumerate(videos)}
        column = {caption: i for i, caption in enumerate(texts)}
        wanted: list[set[int]] = [set() for _ in videos]
        for sample in samples:
            wanted[row[media_id(sample)]] |= {column[text] for text in sample.texts}
        texts_of = [np.array(sorted(one), np.int64) for one in wanted]
        given = evaluator, videos, list(texts.values()), texts_of, self.objective
        matched, seen = match_texts(*given, drop=drop, pair_batch=self.pair_batch)
        scores = []
        for sample in samples:
            clip = row[media_id(sample)]
            place = {text: i for i, text in enumerate(sorted(wanted[clip]))}
            scores.append(matched[clip, [place[column[text]] for text in sample.texts]])
        return scores, seen, {}


def _right(question: Sample) -> int | None:
    """The place of the right text; None where it is hidden, or none of the texts."""
    place = question.labels.get("answer_index")
    return int(place) if place is not None and place == place and 0 <= int(place) < len(question.texts) else None


def _distinct_texts(samples: Sequence[Sample]) -> dict[str, Sample]:
    """Every text once, as a sample without media: equal candidates tie to the last bit."""
    found: dict[str, Sample] = {}
    for text in (text for sample in samples for text in sample.texts):
        found.setdefault(text, Sample(f"text {len(found)}", texts=(text,)))
    return found


class Choices:
    """Scores of one pass over the questions, judged."""

    def __init__(
        self,
        task: MultipleChoice,
        samples: Sequence[Sample],
        limited: bool,
        scores: list[Array],
        videos: Collected,
        text_misses: dict[str, str],
    ) -> None:
        self.samples = samples
        self.limited = limited
        self.scores = scores
        self.videos = videos
        misses = {}
        for sample, found in zip(samples, scores, strict=True):
            reasons = [videos.misses.get(media_id(sample)), *(text_misses.get(text) for text in sample.texts)]
            reason = next((r for r in reasons if r), None)
            if reason is None and not np.isfinite(found).all():
                reason = "a score is not a finite number"
            if reason is not None:
                misses[sample.id] = reason
        evaluated = [sample for sample in samples if sample.id not in misses]
        present = {"text": len(evaluated)}
        for modality, here in videos.present.items():
            if modality != "text":
                had = {videos.table[row] for row in videos.rows[here]}
                present[modality] = sum(media_id(sample) in had for sample in evaluated)
        self.ledger = Ledger(tuple(sample.id for sample in samples), misses, "questions", present)
        self.right = [_right(sample) for sample in samples]  # None where it is hidden: to be predicted
        # a score that is no number makes a question a miss
        self.ranks: list[Ranks | None] = [
            None if right is None else rank_queries(scores[None], [[right]], missing=np.zeros(len(scores), bool))
            for scores, right in zip(self.scores, self.right, strict=True)
        ]
        credits = [np.nan if ranks is None else float(ranks.hits(1, task.ties)[0]) for ranks in self.ranks]
        self.credit = np.array(credits)  # of each question, float64 (N,) in [0, 1]

    def widths(self) -> str:
        """``5``, or ``2 to 5``."""
        widths = sorted({len(sample.texts) for sample in self.samples})
        return str(widths[0]) if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"

    def predictions(self, judged: bool = True) -> list[dict[str, Any]]:
        """One line per question, missing ones included."""
        lines = []
        for i, (sample, scores, right) in enumerate(zip(self.samples, self.scores, self.right, strict=True)):
            line: dict[str, Any] = {"id": sample.id, "video": media_id(sample), "options": list(sample.texts)}
            ranks = self.ranks[i]
            if judged and right is not None and ranks is not None:
                line |= {"answer_index": right, "answer": sample.texts[right], "credit": float(self.credit[i])}
                line |= numbers(ranks, 0)
            if sample.id in self.ledger.missing:
                line |= {"prediction": None, "missing": self.ledger.missing[sample.id]}
            else:
                best = int(np.argmax(scores))
                line |= {"prediction_index": best, "prediction": sample.texts[best]}
                line["scores"] = [round(float(score), 6) for score in scores]
            lines.append(line)
        return lines
