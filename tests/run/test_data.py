"""The data of a run: what objectives and the task read beside tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from vtp.config import DataConfig, MediaConfig
from vtp.contracts import Read
from vtp.errors import ConfigError, DataError, PluginError
from vtp.media.info import VideoInfo
from vtp.media.sampling import random_segment
from vtp.model.model import VTPModel
from vtp.model.objective import Objective
from vtp.run.data import RunData
from vtp.types import Field, MediaRef, Sample, TextSpec, VideoSpec

SPECS: dict[Any, Any] = {"text": TextSpec(lambda texts: [[1, 2] for _ in texts], 0, 3, 1, 2, (0, 1, 2, 3), 9, 4)}


class Questions:
    """Text alone, so that nothing has to be on the disk."""

    name = "questions"
    reads = frozenset({"category"})

    def train_samples(self) -> Sequence[Sample]:
        return [Sample(f"q{i}", texts=("who",), extra={"category": i, "source": f"q.csv:{i}"}) for i in range(4)]


class Reader(Objective):
    reads = frozenset({"source", "video_id", "texts"})


def data(tmp_path, task=None) -> RunData:
    return RunData(DataConfig(workers=0), MediaConfig(), task or Questions(), seed=0, folder=tmp_path, wanted=())


def test_batches_hold_what_objectives_and_the_task_read(tmp_path):
    run, reads = data(tmp_path), VTPModel({}, {"one": Reader(), "two": Objective()}).reads()
    assert reads == dict.fromkeys(("source", "texts", "video_id"), Read("objective one"))
    train = next(iter(run.train_loader(SPECS, 4, reads)))
    test = next(iter(run.eval_loader(SPECS, run.train_table, reads=reads)))
    for batch in (train, test):
        assert sorted(batch.extra) == ["category", "source", "text", "texts", "video_id"]
        assert batch.extra["source"] == [f"q.csv:{i}" for i in batch.extra["category"]]
        assert batch.extra["video_id"] == batch.ids


@pytest.mark.parametrize("eval_batch", [1, 3, 8])
def test_test_items_are_computed_in_the_same_blocks_whatever_loads_them(eval_batch, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "vtp")
    texts = [Sample(f"q{i}", texts=("who",), extra={"category": i, "source": "q.csv"}) for i in range(10)]
    blocks: dict[int, list[list[str]]] = {}
    for world in (1, 2, 3):
        monkeypatch.setattr("vtp.distributed.world_size", lambda world=world: world)
        blocks[world] = []
        for rank in range(world):
            monkeypatch.setattr("vtp.distributed.rank", lambda rank=rank: rank)
            config = DataConfig(workers=0, eval_batch=eval_batch, eval_block=4)
            run = RunData(config, MediaConfig(), Questions(), seed=0, folder=tmp_path, wanted=())
            blocks[world] += [batch.ids for batch in run.eval_loader(SPECS, texts)]
    assert blocks[1] == blocks[2] == blocks[3] == [[f"q{i}" for i in range(n, min(n + 4, 10))] for n in (0, 4, 8)]
    assert ("set data.eval_block where memory is short" in caplog.text) == (eval_batch < 4)


def test_a_name_that_no_sample_has_is_told_before_training(tmp_path):
    with pytest.raises(
        DataError, match="^objective mined reads 'weights', and no training sample has it.*category, sou"
    ):
        data(tmp_path).train_loader(SPECS, 4, {"source": Read("objective vtc"), "weights": Read("objective mined")})
    task = Questions()
    task.reads = frozenset({"tags"})
    with pytest.raises(DataError, match="^task questions reads 'tags', and no training sample has it"):
        data(tmp_path, task).train_loader(SPECS, 4)


def test_reads_is_a_set_of_names(tmp_path):
    wrong = Reader()
    wrong.reads = "source"
    with pytest.raises(PluginError, match="objective wrong: reads='source' must be a set of names"):
        VTPModel({}, {"wrong": wrong}).reads()
    for how in ("pad", 3, Field):
        wrong.reads = {"source": None, "boxes": how}
        with pytest.raises(PluginError, match=r"objective wrong: reads\['boxes'\]=.* must be None \(as it is\), a vtp"):
            VTPModel({}, {"wrong": wrong}).reads()


def test_tensors_that_objectives_and_the_task_read(tmp_path):
    task, objective = Questions(), Reader()
    task.reads = {"category": Field((), "int64"), "source": None}
    objective.reads = {"category": None}
    run, reads = data(tmp_path, task), VTPModel({}, {"one": objective}).reads()
    for batch in (
        next(iter(run.train_loader(SPECS, 4, reads))),
        next(iter(run.eval_loader(SPECS, run.train_table, reads=reads))),
    ):
        assert batch.fields["category"].tolist() == batch.extra["category"]
        assert sorted(batch.extra) == ["category", "source", "text", "video_id"]


def test_an_array_in_a_sample_is_something(tmp_path):
    class Arrays(Questions):
        reads = {"feature": Field((2,))}

        def train_samples(self):
            return [Sample(f"q{i}", texts=("who",), extra={"feature": np.zeros(2)}) for i in range(4)]

    assert next(iter(data(tmp_path, Arrays()).train_loader(SPECS, 4))).fields["feature"].shape == (4, 2)


def test_modality_dropout_is_for_training_and_for_what_the_model_takes_in(tmp_path):
    run = data(tmp_path)
    run.data = DataConfig(workers=0, modality_dropout={"text": 0.9})
    loader = run.train_loader(SPECS, 4)
    assert loader.modality_dropout == {"text": 0.9} and next(iter(loader)).present["text"].all()  # they have no other
    run.data = DataConfig(workers=0, modality_dropout={"audio": 0.9})
    with pytest.raises(
        ConfigError, match=r"data.modality_dropout: the model takes in text, and no audio.*encoder/audio="
    ):
        run.train_loader(SPECS, 4)


class Films:
    """Files that are not there: nothing is decoded."""

    name = "films"

    def train_samples(self) -> Sequence[Sample]:
        return [Sample(f"f{i}", video=MediaRef(f"f{i}.mp4")) for i in range(4)]


@pytest.mark.parametrize("stride", [None, 2])
@pytest.mark.parametrize("sampler", ["auto", "segment"])
def test_train_clips_are_windows_of_neighbours_in_training_and_evaluation(tmp_path, stride, sampler):
    """Of 40 frames: with auto the encoder's stride or every frame; with another sampler its frames, in order."""
    run = data(tmp_path, Films())
    run.data = DataConfig(workers=0, train_clips=2, eval_clips=4, sampler=sampler)
    specs: Any = {"video": VideoSpec(frames=4, size=8, stride=stride)}
    info = VideoInfo(0, "fake", 16, 16, 10.0, np.arange(40) / 10, 4.0)
    for train, clips in ((True, 2), (False, 4)):
        pipeline = run._pipeline(specs, train=train)
        picks = pipeline.sampler(info, frames=4, stride=stride, generator=np.random.default_rng(0) if train else None)
        windows = info.positions(picks).reshape(clips, 4)
        assert (pipeline.clips, pipeline.views) == (clips, clips)
        if sampler == "auto":
            assert (np.diff(windows) == (stride or 1)).all() and (np.diff(windows[:, 0]) > 0).all()
        else:
            parts = windows.ravel() // (40 / (4 * clips))
            assert parts.astype(int).tolist() == list(range(4 * clips))
        frames = np.zeros((clips * 4, 9, 12, 3), np.uint8)
        assert pipeline.transform(frames, 0 if train else None).shape == (clips, 4, 8, 8, 3)


def test_without_train_clips_evaluation_is_what_it_was(tmp_path):
    run = data(tmp_path, Films())
    run.data = DataConfig(workers=0, eval_clips=2)
    specs: Any = {"video": VideoSpec(frames=5, size=8)}
    info = VideoInfo(0, "fake", 16, 16, 10.0, np.arange(100) / 10, 10.0)
    pipeline = run._pipeline(specs, train=False)
    picks = pipeline.sampler(info, frames=5, stride=None, generator=None)
    assert picks.tolist() == [5, 25, 45, 65, 85, 15, 35, 55, 75, 95]
    assert run._pipeline(specs, train=True).sampler is random_segment and run._pipeline(specs, train=True).views == 1


def test_a_sampler_without_a_number_of_frames_has_no_windows():
    (wrong,) = DataConfig(train_clips=2, sampler="every").validate()
    assert wrong == "data.train_clips=2 needs a sampler that takes a set number of frames, not every"
    (wrong,) = DataConfig(train_clips=0).validate()
    assert wrong == "data.train_clips=0 must be at least 1"


@pytest.mark.parametrize("clips", [1, 2])
def test_in_evaluation_a_centre_crop_is_cut_from_a_larger_picture(clips, tmp_path):
    """A picture 40 high and 80 wide whose middle 8 columns are white: of 20 x 40 the centre 10 x 10 holds 4 of them."""
    run = data(tmp_path)
    run.data = DataConfig(workers=0, eval_resize=20, eval_clips=clips)
    pipeline = run._pipeline({"video": VideoSpec(frames=2, size=10)}, train=False)
    frames = np.zeros((2 * clips, 40, 80, 3), np.uint8)
    frames[:, :, 36:44] = 255
    cut = pipeline.transform(frames, None)
    assert cut.shape == ((2, 10, 10, 3) if clips == 1 else (2, 2, 10, 10, 3))
    assert pipeline.transform.decode_size == 20
    bright = cut.reshape(-1, 10, 10, 3)[0, 5, :, 0] > 127
    assert bright.tolist() == [False] * 3 + [True] * 4 + [False] * 3


def test_a_picture_smaller_than_its_crop_is_refused(tmp_path):
    run = data(tmp_path)
    run.data = DataConfig(workers=0, eval_resize=9)
    with pytest.raises(ConfigError, match="data.eval_resize=9 is less than the 10 pixels"):
        run._pipeline({"video": VideoSpec(frames=2, size=10)}, train=False)
