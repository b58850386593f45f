"""Stand-ins for model, loader and data set, so that what a task reports can be compared with what is known."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from vtp.contracts import Task, member
from vtp.errors import DataError
from vtp.eval.evaluator import Evaluator
from vtp.types import AudioSpec, Batch, Sample, TextSpec, VideoSpec

sys.path.insert(0, str(Path(__file__).parent))  # matching_models: the processes of a test import it too

SPECS = {
    "video": VideoSpec(frames=4, size=8),
    "audio": AudioSpec(sample_rate=8000, seconds=1.0),
    "text": TextSpec(lambda texts: [[1] for _ in texts], 0, 1, 2, 3, (0, 1, 2, 3), 10, 8),
}


class FakeLoader:
    """One process, ``size`` rows per batch; the clips in ``broken`` cannot be read. Texts travel in ``extra``."""

    def __init__(self, samples, drop, *, labels, size=3, broken=(), silent=(), views=1):
        self.samples, self.drop, self.labels, self.size = samples, drop, labels, size
        self.broken, self.silent, self.views = broken, silent, views
        self.misses: dict[str, str] = {}

    def __iter__(self) -> Iterator[Batch]:
        self.misses = {}
        readable = []
        for sample in self.samples:
            if sample.video is not None and "video" not in self.drop and sample.video.path in self.broken:
                self.misses[sample.id] = "moov atom not found"
            elif not any(has and m not in self.drop for m, has in self._holds(sample).items()):
                self.misses[sample.id] = "the sample has none of the wanted modalities"
            else:
                readable.append(sample)
        for start in range(0, len(readable), self.size):
            yield self._batch(readable[start : start + self.size])

    def _holds(self, sample: Sample) -> dict[str, bool]:
        heard = sample.audio is not None and sample.audio.path not in self.silent
        return {"video": sample.video is not None, "audio": heard, "text": bool(sample.texts)}

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        rows = len(samples)
        has = [self._holds(sample) for sample in samples]
        present = {m: torch.tensor([one[m] and m not in self.drop for one in has]) for m in SPECS}
        labels = [self.labels(sample) for sample in samples]
        names = sorted({name for row in labels for name in row})
        return Batch(
            ids=[s.id for s in samples],
            inputs={"video": {"frames": torch.full((rows, 4, 8, 8, 3), 7, dtype=torch.uint8)}},
            present=present,
            labels={name: torch.tensor([row[name] for row in labels]) for name in names},
            extra={"sample": list(samples), "views": [self.views] * rows},
        )


class FakeModel(nn.Module):
    """``objectives`` are functions of the context: the whole model."""

    def __init__(self, specs=SPECS, **objectives: object) -> None:
        super().__init__()
        self.objectives = objectives
        self._specs = specs

    def specs(self):
        return self._specs

    def forward(self, batch, run):
        def inputs(modality):  # as ForwardContext.inputs, with mean 0 and standard deviation 1
            return {modality: batch.inputs[modality]["frames"].movedim(-1, -3).float() / 255}

        return run(SimpleNamespace(batch=batch, model=self, inputs=inputs, present=lambda m: batch.present[m]))


class FakeDataset:
    """Tables given by the test; a split that is not given is empty, ``missing`` ones raise as absent files do."""

    def __init__(self, name="toy", missing=(), **splits):
        self.name, self.splits, self.missing = name, splits, missing

    def samples(self, kind, split):
        if split in self.missing:
            raise DataError(f"{self.name}: no file for {split}")
        return self.splits.get(split, [])


@pytest.fixture
def make_evaluator() -> Callable[..., Evaluator]:
    def make(model: nn.Module, task, *, broken=(), silent=(), size=3, **options) -> Evaluator:
        def make_loader(samples, drop, views=1):
            labels = member(task, Task, "labels")
            return FakeLoader(samples, drop, labels=labels, size=size, broken=broken, silent=silent, views=views)

        return Evaluator(model, make_loader, **options)

    return make


@pytest.fixture
def fake_model() -> type[FakeModel]:
    return FakeModel


@pytest.fixture
def fake_dataset() -> type[FakeDataset]:
    return FakeDataset


@pytest.fixture
def logits_from() -> Callable[[Callable[[Sample, dict[str, bool]], Sequence[float]]], object]:
    """An objective ``qa`` whose logits are computed per sample from the sample and what is present."""

    def wrap(function):
        def logits(ctx) -> Tensor:
            rows = []
            for i, sample in enumerate(ctx.batch.extra["sample"]):
                rows.append(list(function(sample, {m: bool(here[i]) for m, here in ctx.batch.present.items()})))
            return torch.tensor(rows)

        return SimpleNamespace(logits=logits)

    return wrap
