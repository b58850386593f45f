"""Real clips and broken files through the whole path: worker process, decoder process, augmentation, batch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from vtp.data import BadFiles, EvalLoader, Pipeline, TrainLoader
from vtp.media import MediaReader
from vtp.types import AudioSpec, Batch, MediaRef, Sample, TextSpec, VideoSpec

pytestmark = pytest.mark.data

GOOD = ("msrvtt/video9770.mp4", "msrvtt/video9771.mp4", "decoder/h265_video.mp4", "msvd/WTf5EgVY5uU_124_128.avi")
TEXT = TextSpec(lambda texts: [[1, len(text), 2] for text in texts], 0, 3, 1, 2, (0, 1, 2, 3), 999, 8)
SPECS = {"video": VideoSpec(frames=4, size=32), "audio": AudioSpec(16000, 2.0), "text": TEXT}


@pytest.fixture
def samples(tmp_path: Path, shared_data: Path) -> list[Sample]:
    """Four good files and four that are none; the caption of sample k has k + 1 letters."""
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("these are not the frames you are looking for\n" * 20)
    (tmp_path / "half.mp4").write_bytes((shared_data / "videos" / GOOD[0]).read_bytes()[:3000])
    os.mkfifo(tmp_path / "pipe.mp4")
    paths = [shared_data / "videos" / name for name in GOOD] + sorted(tmp_path.iterdir())
    refs = [MediaRef(str(path)) for path in paths]
    return [Sample(f"s{k}", ref, ref, ("x" * (k + 1),), {"n": k}) for k, ref in enumerate(refs)]


def batches(samples: list[Sample], workers: int, ledger: BadFiles, count: int = 3) -> list[Batch]:
    pipeline = Pipeline(SPECS, train=True, labels=lambda s: dict(s.labels), reader=MediaReader(timeout_s=60))
    iterator = iter(TrainLoader(samples, pipeline, global_batch=6, workers=workers, bad=ledger))
    taken = [next(iterator) for _ in range(count)]
    iterator.close()  # type: ignore[attr-defined]
    return taken


def test_training_gives_true_pairs_whatever_the_workers(
    tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]
) -> None:
    run = tmp_path_factory.mktemp("run")
    results = [batches(samples, workers, BadFiles(run / f"{workers}.jsonl", 1.0)) for workers in (0, 2)]
    for one, two in zip(*results, strict=True):
        assert one.ids == two.ids
        for modality, inputs in one.inputs.items():
            for name, tensor in inputs.items():
                assert torch.equal(tensor, two.inputs[modality][name])
        for row, name in enumerate(one.ids):
            number = int(name[1:])
            assert number < 4 and one.labels["n"][row] == number
            assert one.inputs["text"]["token_ids"][row].tolist() == [1, number + 1, 2]
            assert bool(one.present["audio"][row]) == (number == 0)  # only video9770 has sound
    for workers in (0, 2):
        reasons = {Path(e["path"]).name: e["reason"] for e in BadFiles(run / f"{workers}.jsonl").entries()}
        assert reasons["empty.mp4"] == "the file is empty"
        assert "pipe, socket or device" in reasons["pipe.mp4"]
        assert set(reasons) <= {"empty.mp4", "text.mp4", "half.mp4", "pipe.mp4"}


def test_evaluation_reports_each_broken_file(samples: list[Sample]) -> None:
    loader = EvalLoader(
        samples, Pipeline(SPECS, train=False, reader=MediaReader(timeout_s=60)), batch_size=3, workers=1
    )
    assert [name for batch in loader for name in batch.ids] == ["s0", "s1", "s2", "s3"]
    assert set(loader.misses) == {"s4", "s5", "s6", "s7"} and all(loader.misses.values())
