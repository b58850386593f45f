"""Answer lists and what can be answered without looking, counted over training questions."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from vtp.errors import DataError
from vtp.types import Sample

__all__ = ["AnswerPrior", "answer_list", "answer_of", "classes_of", "refuse_unanswered"]


def answer_of(sample: Sample) -> str | None:
    """The answer of a question; None where it is hidden: absent, empty or no number."""
    answer = sample.labels.get("answer")
    text = "" if answer is None or answer != answer else str(answer)
    return text if text.strip() else None


def classes_of(sample: Sample) -> tuple[str, ...] | None:
    """The classes of a clip: the list ``labels`` among its labels or in ``extra``, which may be empty, or its one
    ``labels["answer"]``; None where they are hidden."""
    several = sample.labels.get("labels", sample.extra.get("labels"))
    if several is not None:
        return tuple(dict.fromkeys(map(str, several)))
    one = answer_of(sample)
    return None if one is None else (one,)


def refuse_unanswered(dataset: str, split: str, questions: int, lacking: Sequence[Sample]) -> None:
    """Refuse to score questions whose answers are not known.

    Raises:
        DataError: says how many, and what to do.
    """
    if lacking:
        raise DataError(
            f"{dataset}: {len(lacking):,} of {questions:,} questions of the {split} split have no answer (first: "
            f"{lacking[0].id}), so they cannot be scored. mode=predict writes what the model answers; to score the "
            "others, take these rows out of the file."
        )


def answer_list(answers: Iterable[str], size: int | None = None) -> tuple[str, ...]:
    """The ``size`` most frequent answers (None = all), most frequent first, ties in order of first appearance."""
    most_frequent = Counter(answers).most_common(size)  # keeps the order of insertion among equals
    return tuple(answer for answer, _ in most_frequent)


class AnswerPrior:
    """What can be answered without looking: counted over the training questions, in one pass.

    ``majority`` is the most frequent answer; calling it with a question gives the most frequent answer to exactly that
    question, or ``majority`` when it was never asked.

    Attributes:
        answers: distinct answers in order of appearance.
        given: int64 (N,), the place in ``answers`` of each question's answer, -1 where there is none.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        by_question: dict[str, Counter[int]] = {}
        place: dict[str, int] = {}
        given = array("q")
        for sample in samples:
            text = answer_of(sample)
            if text is None:
                given.append(-1)
                continue
            answer = place.setdefault(text, len(place))
            by_question.setdefault(_key(sample.texts[0]), Counter())[answer] += 1
            given.append(answer)
        if not place:
            raise DataError("there are no training questions with an answer to count answers of")
        self.answers = list(place)
        self.given = np.frombuffer(given, np.int64)
        self.counts = np.bincount(self.given[self.given >= 0], minlength=len(place))
        self.majority = self.answers[int(self.counts.argmax())]  # the first of equals
        self._answers = {q: self.answers[counts.most_common(1)[0][0]] for q, counts in by_question.items()}

    def by_frequency(self) -> tuple[str, ...]:
        """All answers, most frequent first, equals in order of appearance."""
        return tuple(self.answers[i] for i in np.argsort(-self.counts, kind="stable"))

    def __call__(self, question: str) -> str:
        return self._answers.get(_key(question), self.majority)


def _key(question: str) -> str:
    return " ".join(question.lower().rstrip("? ").split())
