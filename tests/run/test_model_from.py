"""model=PATH: sizes, vocabulary and answers of a checkpoint, and weights only where init_from asks for them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from vtp.cli.main import main
from vtp.cli.run import compose
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.weights import save_weights
from vtp.plugins import host
from vtp.run.check import check
from vtp.run.folder import RunFolder
from vtp.run.run import Run
from vtp.storage import DirectoryTransaction

SMALL = {"name": "tiny", "width": 12, "depth": 1, "heads": 2}
SPEC = {
    "encoders": {
        "text": SMALL,
        "video": {**SMALL, "frames": 2, "size": 32},
        "fusion": {"name": "concat", "width": 20, "depth": 1, "heads": 2},
    },
    "objectives": {"qa": {"name": "qa", "weight": 1.0}},
    "masks": {"text": {"probability": 0.4}},
    "answers": ["red", "two"],
}
RUN = ["task=msrvtt_qa", "dataset=shapes", "run_dir=x"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "theirs"
    torch.manual_seed(1)
    model = build_model(SPEC, lookup_in(host().registry), BuildContext(texts=lambda: ["red ball", "two stars", "who"]))
    with DirectoryTransaction(folder, 1 << 20) as inside:
        save_weights(inside, model)
    return folder, model


def test_sizes_come_from_it_and_objectives_are_chosen_anew(checkpoint, tmp_path):
    folder, model = checkpoint
    config = compose([*RUN, f"model={folder}", "objective=[vtc]", "encoder.video.frames=4"])
    check(config, tmp_path)
    video = {**model.spec["encoders"]["video"], "frames": 4}
    assert config["encoder"] == {**model.spec["encoders"], "video": video}
    assert config["masks"] == model.spec["masks"] and config["masks"]["text"]["probability"] == 0.4
    assert list(config["objectives"]) == ["vtc"] and config["model_from"] == str(folder)


def test_another_encoder_goes_before_that_of_the_checkpoint(checkpoint, tmp_path):
    config = compose([*RUN, f"model={checkpoint[0]}", "encoder/video=timm", "encoder.video.model=resnet18"])
    check(config, tmp_path)
    assert config["encoder"]["video"]["name"] == "timm" and "depth" not in config["encoder"]["video"]
    assert config["encoder"]["text"]["width"] == 12


@pytest.mark.parametrize("filled", [False, True])
def test_vocabulary_and_answers_come_from_it_and_weights_only_with_init_from(checkpoint, tmp_path, filled):
    folder, model = checkpoint
    given = [f"init_from={folder}"] if filled else []
    config = compose([*RUN, f"model={folder}", "objective=[qa,vtc]", "mode=train", "task.selection=last", *given])
    config["init_allow_missing"] = ["objectives.vtc.*"]
    run = Run(config, RunFolder(tmp_path), torch.device("cpu"))
    asked = []
    task = SimpleNamespace(
        name="qa", selection="last", answers=("red", "two"), texts=lambda: asked.append(1) or ["new words"], check=id
    )
    task.use_answers = lambda answers: setattr(task, "answers", tuple(answers))
    run.__dict__["task"] = task
    built = run.model
    assert not asked and built.specs()["text"].vocab_size == model.specs()["text"].vocab_size
    assert set(built.objectives) == {"qa", "vtc"}
    ours, theirs = built.state_dict(), model.state_dict()
    names = [name for name in theirs if name.startswith("encoders.") and theirs[name].is_floating_point()]
    assert all(ours[name].shape == theirs[name].shape for name in names)
    assert all(torch.equal(ours[name], theirs[name]) for name in names) is filled


def test_the_answers_of_the_checkpoint_are_given_to_the_task(checkpoint, tmp_path, monkeypatch):
    config = compose([*RUN, f"model={checkpoint[0]}"])
    task = SimpleNamespace(use_answers=lambda answers: taken.append(answers))
    taken = []
    monkeypatch.setattr("vtp.run.run.build", lambda *args, **kwargs: task)
    run = Run(config, RunFolder(tmp_path), torch.device("cpu"))
    assert run.task is task and taken == [["red", "two"]]


def test_what_is_no_checkpoint_is_one_line(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for folder, words in {
        "empty": "model=empty: no checkpoint is in it",
        "runs/none": "model=runs/none: no such folder",
    }.items():
        assert main(["run", *RUN, f"model={folder}"]) == 2
        error = capsys.readouterr().err
        assert words in error and error.startswith("vtp run: ") and len(error.splitlines()) == 1
    assert main(["run", *RUN, "model=bsae"]) == 2
    assert "Did you mean 'base'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "spec", ["{}", '{"encoders": 5}', '{"encoders": {"text": 7}}', '{"encoders": {"video": ["x"]}}']
)
def test_a_checkpoint_that_describes_no_encoders_is_one_line(tmp_path, monkeypatch, capsys, spec):
    monkeypatch.chdir(tmp_path)
    with DirectoryTransaction(tmp_path / "theirs", 1 << 20) as inside:
        (inside / "config.json").write_text(f'{{"format": 1, "spec": {spec}}}')
        (inside / "model.safetensors").write_bytes(b"")
    assert main(["run", *RUN, "model=theirs"]) == 2
    error = capsys.readouterr().err
    assert "config.json is damaged, or was not written by vtp: model: encoders must be a dict" in error
    assert error.startswith("vtp run: ") and len(error.splitlines()) == 1
