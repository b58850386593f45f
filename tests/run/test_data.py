"""The data of a run: what objectives and the task read beside tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from vtp.config import DataConfig, MediaConfig
from vtp.errors import ConfigError, DataError, PluginError
from vtp.model.model import VTPModel
from vtp.model.objective import Objective
from vtp.run.data import RunData
from vtp.types import Sample, TextSpec

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
    assert reads == {"source": "objective one", "texts": "objective one", "video_id": "objective one"}
    train = next(iter(run.train_loader(SPECS, 4, reads)))
    test = next(iter(run.eval_loader(SPECS, run.train_table, reads=reads)))
    for batch in (train, test):
        assert sorted(batch.extra) == ["category", "source", "text", "texts", "video_id"]
        assert batch.extra["source"] == [f"q.csv:{i}" for i in batch.extra["category"]]
        assert batch.extra["video_id"] == batch.ids


def test_a_name_that_no_sample_has_is_told_before_training(tmp_path):
    with pytest.raises(
        DataError, match="^objective mined reads 'weights', and no training sample has it.*category, sou"
    ):
        data(tmp_path).train_loader(SPECS, 4, {"source": "objective vtc", "weights": "objective mined"})
    task = Questions()
    task.reads = frozenset({"tags"})
    with pytest.raises(DataError, match="^task questions reads 'tags', and no training sample has it"):
        data(tmp_path, task).train_loader(SPECS, 4)


def test_reads_is_a_set_of_names(tmp_path):
    wrong = Reader()
    wrong.reads = "source"
    with pytest.raises(PluginError, match="objective wrong: reads='source' must be a set of names"):
        VTPModel({}, {"wrong": wrong}).reads()


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
