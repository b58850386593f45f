"""A few items for the figure of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vtp.data.table import evenly
from vtp.eval.evaluator import Evaluator
from vtp.eval.figures import Strip
from vtp.eval.looking import shown_frames
from vtp.types import Modality, Sample

__all__ = ["frames_of", "strips"]


def frames_of(ctx: Any) -> dict[str, Tensor]:
    """Evaluation function: the frames that the model is shown, uint8 (B, T, H, W, 3); of several views the first."""
    frames = shown_frames(ctx)
    return {"frames": frames if frames.ndim == 5 else frames[:, 0]}


def strips(
    evaluator: Evaluator,
    samples: Sequence[Sample],
    predictions: Sequence[dict[str, Any]],
    count: int,
    drop: Sequence[Modality] = (),
    question: str = "which text?",
) -> list[Strip]:
    """Evenly spaced evaluated questions with the frames that the model saw.

    Args:
        evaluator: that scored them.
        samples: all questions.
        predictions: a line for each, with ``id``, ``prediction`` and where they are known ``question``, ``answer``,
            ``credit``.
        count: how many.
        drop: modalities that need not be read for a picture.
        question: what is asked where a line does not say it.
    """
    by_id = {sample.id: sample for sample in samples}
    chosen = {line["id"]: line for line in evenly([x for x in predictions if "missing" not in x], count)}
    wanted = [by_id[name] for name in chosen]
    collected = evaluator.run(wanted, frames_of, drop=drop, what="questions", label="example clips")
    lines = [chosen[name] for name in collected.ids]
    return [
        Strip(
            frames,
            line.get("question", question),
            line.get("answer"),
            line["prediction"],
            line.get("credit", 0.0) > 0.5,
        )
        for line, frames in zip(lines, collected.arrays.get("frames", ()), strict=True)
    ]
