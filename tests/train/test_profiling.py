"""``profile=true``: what it counts, what it writes, and that it changes nothing else."""

from __future__ import annotations

import csv
import json
import re

import pytest
import torch
from toy_training import ToyLoader, history, toy_model

from vtp.errors import ConfigError
from vtp.train import TrainConfig, Trainer
from vtp.train.profiling import Profile, ProfileSteps, peak_flops

CPU = torch.device("cpu")


def train(folder, steps=9, profile="2,3,2", objectives=("qa",), **options):
    callbacks = [] if profile is None else [Profile(folder / "profile", profile)]
    config = TrainConfig(
        steps=steps, global_batch=16, tensorboard=False, log_every=1, save_every=0, clip_norm=None, **options
    )
    trainer = Trainer(toy_model(objectives=objectives), ToyLoader(), config, folder, callbacks=callbacks, device=CPU)
    trainer.fit()
    return callbacks[0].result if callbacks else None


def test_operations_are_those_of_the_formula(tmp_path):
    """2 n m k per matrix product; backward costs the same for the weights and once more for the inputs, if those need
    a gradient."""
    result = train(tmp_path)
    tokens = 16 * 4
    embed = 2 * 2 * tokens * 8 * 16
    layers = 2 * 3 * 2 * tokens * 16 * 16
    head = 3 * 2 * 16 * 16 * 4
    assert result["gflop_per_step"] * 1e9 == embed + layers + head
    assert result["steps"] == {"first": 2, "timed": 3, "traced": 2, "from": 3}
    assert result["gflop_per_s"] == pytest.approx(result["gflop_per_step"] / (result["step_ms"] / 1e3))
    assert result["mfu_of_matmul"] == pytest.approx(result["gflop_per_s"] / result["matmul_gflop_per_s"])
    assert result["mfu"] is None and result["peak_memory_mb"] > 10  # no data sheet for a CPU
    assert result["clips_per_s"] == pytest.approx(16 / (result["step_ms"] / 1e3))
    assert 0 <= result["data_wait_share"] <= 1


def test_waiting_for_data_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(ToyLoader.__init__, "__defaults__", (64, 16, 0, 1, 0.05))
    result = train(tmp_path)
    assert result["step_ms"] >= 50 and result["data_wait_share"] > 0.5
    trace = json.loads(next((tmp_path / "profile").glob("*.pt.trace.json")).read_text())
    events = [event for event in trace["traceEvents"] if "dur" in event]
    waits = [event for event in events if event.get("name", "").endswith("#wait for data")]
    assert [event["dur"] >= 50_000 for event in waits] == [True, True]


def test_the_files_are_those_that_the_message_names(tmp_path, capsys):
    result = train(tmp_path)
    folder = tmp_path / "profile"
    said = capsys.readouterr().err
    assert "the 10 most expensive operators" in said and "aten::" in said and "GFLOP/s" in said
    assert "load scripts from the" in said  # what an offline user needs is on the screen and in the folder
    assert json.loads((folder / "profile.json").read_text()) == result
    with open(folder / "operators.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["operator"] for row in rows} >= {"aten::addmm", "aten::mm", "wait for data"}
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1, abs=1e-3)
    times = [float(row["ms_per_step"]) for row in rows]
    assert times == sorted(times, reverse=True)
    addmm = next(row for row in rows if row["operator"] == "aten::addmm")
    assert float(addmm["calls_per_step"]) == 4  # embed, two layers, head
    (trace,) = folder.glob("*.pt.trace.json")
    # the form that TensorBoard's profiler plugin looks for: worker.time.pt.trace.json
    assert re.fullmatch(r"[^.]+(?:\.\d+)?\.pt\.trace\.json", trace.name)
    names = [event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]]
    assert sum(name.startswith("ProfilerStep#") for name in names) >= 2


def test_a_run_with_a_profile_is_equal_to_one_without(tmp_path):
    train(tmp_path / "a", objectives=("vtc", "qa"), seed=3)
    train(tmp_path / "b", objectives=("vtc", "qa"), seed=3, profile=None)
    lines = [[{k: v for k, v in line.items() if k != "timing"} for line in history(tmp_path / n)] for n in "ab"]
    assert lines[0] == lines[1] and len(lines[0]) == 9


def test_steps_of_the_key():
    assert ProfileSteps.parse(False) is None and ProfileSteps.parse(None) is None
    assert ProfileSteps.parse(True) == ProfileSteps(10, 10, 5)
    assert ProfileSteps.parse("20, 10,5", 100) == ProfileSteps(20, 10, 5)
    short = ProfileSteps.parse(True, 14)
    assert short.total <= 14 and min(short.first, short.timed, short.traced) >= 1
    for wrong in ("yes", "10,5", "5,0,1", "5,1,0"):
        with pytest.raises(ConfigError, match="must be true, or three numbers"):
            ProfileSteps.parse(wrong)
    with pytest.raises(ConfigError, match="needs 37 training steps, this run has 30"):
        ProfileSteps.parse("20,10,5", 30)
    with pytest.raises(ConfigError, match="this run has 4"):
        ProfileSteps.parse(True, 4)


def test_a_run_that_ends_early_says_that_the_profile_is_not_there(tmp_path, caplog):
    profile = Profile(tmp_path, "1,1,5")
    config = TrainConfig(steps=9, global_batch=16, tensorboard=False, save_every=0)
    trainer = Trainer(toy_model(), ToyLoader(), config, tmp_path, callbacks=[profile], device=CPU)
    trainer.evaluations.exhausted = lambda: trainer.step >= 4  # as train.patience does
    trainer.fit()
    assert profile.result is None and "before the profile was complete" in caplog.text
    assert not torch.autograd.profiler._is_profiler_enabled  # nothing is left running


def test_data_sheets():
    assert peak_flops("NVIDIA H200", "bf16") == 989e12
    assert peak_flops("NVIDIA GeForce GTX 480", "fp32") is None
