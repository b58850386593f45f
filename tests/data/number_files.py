"""A decoder of files that are numbers, and tables of such files: what the tests of loaders look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vtp.data import Pipeline, TrainLoader
from vtp.media import MediaError, VideoInfo, Wanted
from vtp.types import AudioSpec, Batch, Clip, MediaRef, Sample, TextSpec, VideoSpec


def tokenize(texts: list[str]) -> list[list[int]]:
    return [[1, *(int(word) + 10 for word in text.split() if word.isdigit()), 2] for text in texts]


TEXT = TextSpec(
    tokenize, pad_id=0, mask_id=3, cls_id=1, sep_id=2, special_ids=(0, 1, 2, 3), vocab_size=999, max_length=8
)
SPECS: dict[Any, Any] = {"video": VideoSpec(frames=3, size=8), "audio": AudioSpec(100, 0.5), "text": TEXT}


class NumberReader:
    """A decoder without files: pixel value and sound are the number in the path. ``bad`` numbers cannot be read.

    ``tries`` (a file) gets one line per open, so that opens in worker processes are seen too.
    """

    def __init__(self, bad: Sequence[int] = (), tries: Path | None = None, silent: Sequence[int] = ()) -> None:
        self.bad = frozenset(bad)
        self.tries = tries
        self.silent = frozenset(silent)

    def read(self, ref: MediaRef, wanted: Wanted) -> Clip:
        assert isinstance(ref.path, str)
        if self.tries is not None:
            with open(self.tries, "a") as file:
                file.write(ref.path + "\n")
        number = int(ref.path.rsplit("/", 1)[-1])
        if number in self.bad:
            raise MediaError("moov atom not found", "invalid", "fake")
        clip = Clip()
        size, rate = wanted.size, wanted.sample_rate
        if wanted.video:
            info = VideoInfo(0, "fake", 16, 16, 10.0, np.arange(100) / 10, 10.0)
            assert wanted.times is not None and isinstance(size, int)
            shown = wanted.positions(info)
            rows = np.arange(size)[None, :, None, None]
            clip.frames = np.broadcast_to(
                (number + shown[:, None, None, None] + rows) % 256, (len(shown), size, size, 3)
            )
            clip.frames = clip.frames.astype(np.uint8)
            clip.timestamps = info.timestamps[shown]
        if rate is not None and number in self.silent:
            clip.missing["audio"] = "no audio stream"
        elif rate is not None:
            clip.waveform = np.full((1, 80), number / 1000, np.float32) + np.arange(80, dtype=np.float32)
            clip.sample_rate = rate
        return clip


def table(count: int, per_file: int = 1) -> list[Sample]:
    """Sample k shows file k // per_file; its captions are "k 0" and "k 1"."""
    return [
        Sample(f"s{k}", (ref := MediaRef(f"/v/{k // per_file}")), ref, (f"{k} 0", f"{k} 1"), labels={"answer": k})
        for k in range(count)
    ]


def pipeline(train: bool = True, reader: Any = None, **options: Any) -> Pipeline:
    return Pipeline(
        options.pop("specs", SPECS),
        train=train,
        labels=lambda s: {"answer": s.labels["answer"]},
        reader=reader or NumberReader(),
        **options,
    )


def take(batches: TrainLoader, count: int) -> list[Batch]:
    iterator = iter(batches)
    taken = [next(iterator) for _ in range(count)]
    iterator.close()  # type: ignore[attr-defined]  # a generator: ends the workers
    return taken


def fingerprint(batch: Batch) -> tuple[Any, ...]:
    """Everything in a batch, comparable with ==."""
    tensors = [(m, k, v.tolist()) for m, inputs in batch.inputs.items() for k, v in inputs.items()]
    labels = {k: v.tolist() for k, v in batch.labels.items()}
    return batch.ids, tensors, labels, batch.extra, batch.row_offset, batch.global_rows, batch.step
