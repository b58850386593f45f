"""Classes as sentences: a model that compares clips with texts classifies without having been trained to.

Each class is written into every prompt (``a video of {}.``), the unit vectors of its sentences are averaged, and the
mean, of unit length again, is compared with the clip (arXiv:2103.00020, "Prompt engineering and ensembling").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.errors import ConfigError, RunError
from vtp.eval.embedding import compare_embeddings, embed
from vtp.eval.evaluator import Collected, Evaluator
from vtp.types import Modality, Sample

__all__ = ["check_prompts", "class_words", "prompt_scores"]

Array = npt.NDArray[Any]


def check_prompts(prompts: Sequence[str] | None) -> None:
    """Whether the class can be written into each prompt.

    Raises:
        ConfigError: one has no place for it, or there is none.
    """
    wrong = [prompt for prompt in prompts or () if prompt.count("{}") != 1]
    if wrong or (prompts is not None and not prompts):
        raise ConfigError(
            f"task.prompts: {f'{wrong[0]!r} does not have' if wrong else 'there is no sentence with'} one {{}} where "
            "the class goes, for example ['a video of {}.']."
        )


def class_words(name: str) -> str:
    """A class as words: ``ApplyEyeMakeup`` and ``apply_eye_makeup`` are ``apply eye makeup``."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return " ".join(re.sub(r"[_/]+", " ", parted).lower().split())


def prompt_scores(
    evaluator: Evaluator,
    objective: str,
    modality: Modality,
    samples: Sequence[Sample],
    classes: Sequence[str],
    prompts: Sequence[str],
    drop: Sequence[Modality] = (),
) -> Collected:
    """``scores`` (N, C) of the items, float32: similarity of clip and class.

    Raises:
        RunError: the model gives no finite embedding of a class.
    """
    sentences = [prompt.replace("{}", class_words(name)) for name in classes for prompt in prompts]
    texts = [Sample(f"prompt {i}", texts=(text,)) for i, text in enumerate(sentences)]
    clips = [replace(sample, texts=()) for sample in samples]
    collected, written = embed(evaluator, objective, modality, clips, texts, "items", drop)
    found = written.full("embedding", np.nan)
    means = found.reshape(len(classes), len(prompts), *found.shape[1:]).mean(1)
    means /= np.maximum(np.linalg.norm(means, axis=-1, keepdims=True), 1e-12)
    if not np.isfinite(means).all():
        raise RunError(
            f"objective {objective}: the embedding of a class is not a finite number (first: "
            f"{classes[int(np.argmin(np.isfinite(means.reshape(len(classes), -1)).all(1)))]!r}), so nothing can be "
            "classified by prompts."
        )
    arrays = dict(collected.arrays)
    if "embedding" in arrays:
        arrays = {"scores": compare_embeddings(arrays["embedding"], means)}
    return replace(collected, arrays=arrays)
