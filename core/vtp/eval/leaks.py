"""Has the model been trained on what it is tested on? The clips of every training stage travel with the checkpoint and
are compared with the test set.

Two clips are the same when data set and clip id are (``msrvtt:video7010``). Data sets that share clips share a
``media_namespace``, as MSVD's retrieval and QA sets do; by default it is the name of the data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtp.errors import ConfigError, DataError
from vtp.eval.protocol import sha256_lines
from vtp.eval.task import media_id
from vtp.types import Sample

__all__ = ["LeakReport", "check_leaks", "media_names", "train_record"]


def media_names(samples: Iterable[Sample], dataset: Any) -> list[str]:
    """``namespace:clip`` of every clip of a table, sorted and unique."""
    namespace = getattr(dataset, "media_namespace", None) or dataset.name
    return sorted({f"{namespace}:{media_id(sample)}" for sample in samples})


def train_record(stage: str, samples: Sequence[Sample], dataset: Any, list_name: str | None = None) -> dict[str, Any]:
    """What a checkpoint must remember of one training stage; JSON-able. Append it to the records of the stages before.

    Args:
        stage: what people call it, such as the run's folder or ``train``.
        samples: everything that was trained or selected on, validation included.
        dataset: where they come from.
        list_name: name of the known list they are, if any (``train.9k``).
    """
    media = media_names(samples, dataset)
    return {
        "stage": stage,
        "dataset": dataset.name,
        "list": list_name,
        "samples": len(samples),
        "clips": len(media),
        "sha256": sha256_lines(media),
        "media": media,
    }


@dataclass(frozen=True, slots=True)
class LeakReport:
    """Overlap between training stages and a test set.

    Attributes:
        tested: number of test clips.
        found: stage -> names of the test clips it contains, in sorted order; only stages with any.
        unknown: stages that did not record their clips (foreign checkpoints), which can be neither cleared nor accused.
    """

    tested: int
    found: Mapping[str, tuple[str, ...]]
    unknown: tuple[str, ...] = ()

    @property
    def leaked(self) -> frozenset[str]:
        return frozenset(name for names in self.found.values() for name in names)

    def line(self) -> str:
        """``LEAK: 1,990 of 2,990 test clips were in training (stage retrieval: 1,990, first msrvtt:video7010)``; empty
        without one."""
        if not self.found:
            return ""
        stages = "; ".join(
            f"stage {stage}: {len(names):,}, first {', '.join(names[:3])}" for stage, names in self.found.items()
        )
        return f"LEAK: {len(self.leaked):,} of {self.tested:,} test clips were in training ({stages})"

    def record(self) -> dict[str, Any]:
        """What report.json stores."""
        return {
            "leak": bool(self.found),
            "test_clips": self.tested,
            "leaked_clips": len(self.leaked),
            "stages": {stage: {"clips": len(names), "first": list(names[:20])} for stage, names in self.found.items()},
            "stages_without_a_list": list(self.unknown),
        }


def check_leaks(stages: Sequence[Mapping[str, Any]], tested: Sequence[str], *, on_leak: str = "refuse") -> LeakReport:
    """Compare the clips of all training stages with those of a test set.

    Args:
        stages: records of :func:`train_record`, oldest first. One without ``media`` is reported as unknown.
        tested: names from :func:`media_names`.
        on_leak: ``refuse`` raises, ``stamp`` returns the finding for the report and the tables.

    Raises:
        ConfigError: another ``on_leak``.
        DataError: there is an overlap and ``on_leak`` is ``refuse``.
    """
    if on_leak not in ("refuse", "stamp"):
        raise ConfigError(f"data.on_leak={on_leak!r} must be refuse or stamp.")
    test = set(tested)
    found: dict[str, tuple[str, ...]] = {}
    unknown = []
    for number, stage in enumerate(stages, start=1):
        label = str(stage.get("stage") or f"number {number}")
        label = label if label not in found and label not in unknown else f"{label} ({number})"
        if stage.get("media") is None:
            unknown.append(label)
        elif overlap := sorted(test.intersection(stage["media"])):
            found[label] = tuple(overlap)
    report = LeakReport(len(test), found, tuple(unknown))
    if found and on_leak == "refuse":
        raise DataError(
            f"{report.line()}. Such a score would mean nothing. Train on a list without these clips, or set "
            "data.on_leak=stamp: report and tables then "
            "carry the word LEAK."
        )
    return report
