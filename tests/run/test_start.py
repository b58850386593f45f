"""``task.objective`` comes from the checkpoint where the user gives none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vtp.run import start
from vtp.run.start import take_objective

RETRIEVAL = {"name": "retrieval", "objective": "vtc", "rerank_objective": "vtm", "top": 10}


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``checkpoint(trained, objectives)``: a checkpoint that was trained with the node ``task``."""

    def make(trained: dict[str, Any] | None, objectives: tuple[str, ...] = ("siglip", "vtm")) -> str:
        monkeypatch.setattr(start, "checkpoint_folder", Path)
        monkeypatch.setattr(
            "vtp.model.weights.read_config", lambda folder: {"spec": {"objectives": dict.fromkeys(objectives, {})}}
        )
        recorded = {} if trained is None else {"config": {"task": trained}}
        (tmp_path / "provenance.json").write_text(json.dumps(recorded))
        return str(tmp_path)

    return make


def taken(folder: str, *overrides: str, **task: Any) -> dict[str, Any]:
    config = {"checkpoint": folder, "task": {**RETRIEVAL, **task}}
    take_objective(config, overrides)
    return config["task"]


def test_it_is_that_of_the_training(checkpoint: Any) -> None:
    folder = checkpoint({"name": "retrieval", "objective": "siglip", "rerank_objective": "vtm"})
    assert taken(folder) == {**RETRIEVAL, "objective": "siglip"}


def test_also_where_the_model_has_one_of_the_usual_name(checkpoint: Any) -> None:
    folder = checkpoint({"name": "retrieval", "objective": "siglip"}, ("vtc", "siglip"))
    assert taken(folder)["objective"] == "siglip"
    # an experiment is the user's word, if the model can follow it
    assert taken(folder, "experiment=mine")["objective"] == "vtc"
    assert taken(folder, "experiment=mine", objective="other")["objective"] == "siglip"


def test_the_command_line_goes_first(checkpoint: Any) -> None:
    folder = checkpoint({"name": "retrieval", "objective": "siglip"})
    assert taken(folder, "task.objective=vtc")["objective"] == "vtc"


def test_of_pretraining_it_is_that_of_zero_shot(checkpoint: Any) -> None:
    folder = checkpoint({"name": "pretrain", "zero_shot": {"name": "retrieval", "objective": "siglip"}})
    assert taken(folder)["objective"] == "siglip"


@pytest.mark.parametrize(
    "trained",
    [None, {}, {"name": "qa", "objective": "siglip"}, {"name": "retrieval", "objective": "gone"}, {"name": "pretrain"}],
)
def test_otherwise_it_stays(checkpoint: Any, trained: Any) -> None:
    assert taken(checkpoint(trained)) == RETRIEVAL


def test_a_checkpoint_that_cannot_be_read_is_told_later(tmp_path: Path) -> None:
    assert taken(str(tmp_path / "gone")) == RETRIEVAL
