"""The canonical lines of the built-in tasks: what of a sample must be equal for two items to be the same."""

from __future__ import annotations

from vtp.data.table import media_id
from vtp.eval.forms import canonical_text
from vtp.types import Sample
from vtp_tasks.answers import classes_of

__all__ = ["captions", "choices", "classes", "moments", "queries", "questions"]


def captions(sample: Sample) -> list[str]:
    """Clip and caption; every text of a sample is a reference."""
    return [f"{media_id(sample)}\t{canonical_text(text)}" for text in sample.texts]


def moments(sample: Sample) -> list[str]:
    """Clip, ``labels["start"]`` and ``labels["end"]`` in seconds to a millisecond, and text."""
    start, end = (f"{float(sample.labels[key]):.3f}" for key in ("start", "end"))
    return [f"{media_id(sample)}\t{start}\t{end}\t{canonical_text(text)}" for text in sample.texts]


def queries(sample: Sample) -> list[str]:
    """Clip and text; every text of a sample is a query."""
    return [f"{media_id(sample)}\t{canonical_text(text)}" for text in sample.texts]


def questions(sample: Sample) -> list[str]:
    """Clip, question and ``labels["answer"]``."""
    answer = str(sample.labels.get("answer", ""))
    return ["\t".join([media_id(sample), canonical_text(sample.texts[0]), canonical_text(answer)])]


def choices(sample: Sample) -> list[str]:
    """Clip, place of the right option (``labels["answer_index"]``) and options."""
    right = str(sample.labels.get("answer_index", ""))
    return ["\t".join([media_id(sample), right, *map(canonical_text, sample.texts)])]


def classes(sample: Sample) -> list[str]:
    """Clip and its classes in the order of the alphabet."""
    return ["\t".join([media_id(sample), *sorted(map(canonical_text, classes_of(sample) or ()))])]
