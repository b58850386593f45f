from __future__ import annotations

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vtp.errors import DataError, PluginError
from vtp.model.build import BuildContext
from vtp.model.model import VTPModel
from vtp.model.objective import Objective
from vtp.model.weights import load_model, load_weights, read_config, save_weights


class Tied(Objective):
    """A head whose output layer is another part's tensor, and a buffer."""

    def __init__(self, shared: nn.Parameter, answers: int = 5):
        super().__init__()
        self.decoder = nn.Linear(4, 20, bias=False)
        self.decoder.weight = shared
        self.answers = nn.Linear(4, answers)
        self.register_buffer("queue", torch.arange(6.0))
        self.register_buffer("mask", torch.tensor([True, False]))


@pytest.fixture
def make(stubs):
    def build(seed: int, answers: int = 5) -> VTPModel:
        torch.manual_seed(seed)
        text = stubs.Words()
        head = Tied(text.words.weight, answers)
        head.queue += seed
        spec = {
            "encoders": {"text": {"name": "words"}},
            "objectives": {"tied": {"name": "tied"}},
            "answers": ["a", "b"],
        }
        return VTPModel({"text": text, "video": stubs.Frames()}, {"tied": head}, spec=spec)

    return build


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(model, wanted):
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


def test_round_trip_is_exact_and_shared_tensors_are_written_once(tmp_path, make):
    one, two = make(1), make(2)
    save_weights(tmp_path / "w", one, {"run": "r1"})
    report = load_weights(tmp_path / "w", two)
    assert_same(two, one.state_dict())
    assert two.objectives["tied"].decoder.weight is two.encoders["text"].words.weight
    assert sorted(report.loaded) == sorted(two.state_dict()) and not report.missing and not report.unused
    names = set(load_file(tmp_path / "w" / "model.safetensors"))
    assert len(names & {"encoders.text.words.weight", "objectives.tied.decoder.weight"}) == 1
    assert json.loads((tmp_path / "w" / "provenance.json").read_text()) == {"run": "r1"}


def test_shared_tensors_load_into_a_model_that_does_not_share_them(tmp_path, make):
    one, two = make(1), make(2)
    save_weights(tmp_path / "w", one)
    two.objectives["tied"].decoder.weight = nn.Parameter(torch.zeros(20, 4))
    load_weights(tmp_path / "w", two)
    assert_same(two, one.state_dict())


def test_a_file_that_disagrees_about_a_shared_tensor_is_refused(tmp_path, make):
    one = make(1)
    save_weights(tmp_path / "w", one)
    tensors = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    tensors["objectives.tied.decoder.weight"] += 1
    save_file(tensors, tmp_path / "w" / "model.safetensors")
    with pytest.raises(DataError, match="are one tensor in the model but differ in the file"):
        load_weights(tmp_path / "w", make(2))


def test_overlapping_views_are_saved_as_copies(tmp_path, make):
    model = make(1)
    whole = torch.arange(6.0)
    save_weights(tmp_path / "w", model, state_dict={"a": whole, "b": whole[2:], "c": whole.view(2, 3)})
    found = load_file(tmp_path / "w" / "model.safetensors")
    assert torch.equal(found["b"], whole[2:]) and torch.equal(found["c"], whole.view(2, 3))


def test_config_names_spec_version_and_plugins(tmp_path, make):
    save_weights(tmp_path / "w", make(1))
    config = read_config(tmp_path / "w")
    assert config["spec"]["answers"] == ["a", "b"] and config["format"] == 1
    assert {"distribution", "version", "package"} == set(config["plugins"][0])


def test_everything_that_does_not_fit_is_listed_and_nothing_is_changed(tmp_path, make):
    save_weights(tmp_path / "w", make(1))
    tensors = load_file(tmp_path / "w" / "model.safetensors")
    del tensors["encoders.video.proj.bias"]
    tensors["encoders.video.proj.weight"] = torch.zeros(4, 9)
    tensors["extra.weight"] = torch.zeros(1)
    save_file(tensors, tmp_path / "w" / "model.safetensors")
    two = make(2)
    before = state(two)
    with pytest.raises(DataError) as caught:
        load_weights(tmp_path / "w", two)
    message = str(caught.value)
    assert "encoders.video.proj.weight has shape (4, 9) in the file, (4, 3) in the model" in message
    assert "1 tensors of the model are not in the file: encoders.video.proj.bias" in message
    assert "1 tensors of the file are not in the model: extra.weight" in message
    assert_same(two, before)


def test_what_was_allowed_is_reported(tmp_path, make):
    one, two = make(1, answers=7), make(2)
    save_weights(tmp_path / "w", one)
    kept = state(two)
    with pytest.raises(DataError, match="objectives.tied.answers.weight has shape"):
        load_weights(tmp_path / "w", two)
    report = load_weights(tmp_path / "w", two, allow_missing=["objectives.tied.answers.*"])
    assert sorted(report.missing) == ["objectives.tied.answers.bias", "objectives.tied.answers.weight"]
    assert report.reshaped["objectives.tied.answers.weight"] == "(7, 4) in the file, (5, 4) in the model"
    assert torch.equal(two.objectives["tied"].answers.weight, kept["objectives.tied.answers.weight"])
    assert torch.equal(two.encoders["text"].words.weight, one.encoders["text"].words.weight)
    assert "kept their own values" in str(report)


def test_a_tied_tensor_may_be_excused_by_any_of_its_names(tmp_path, make):
    save_weights(tmp_path / "w", make(1), state_dict={"encoders.video.proj.weight": torch.ones(4, 3)})
    report = load_weights(
        tmp_path / "w", make(2), allow_missing=["objectives.*", "encoders.video.proj.bias"]
    )  # the words are "objectives.tied.decoder.weight" as well
    assert "encoders.text.words.weight" in report.missing


def test_prefixes_can_be_renamed(tmp_path, make):
    one, two = make(1), make(2)
    tensors = {f"module.{name}".replace("encoders.video", "vision"): t.clone() for name, t in one.state_dict().items()}
    del tensors["module.objectives.tied.decoder.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="init_map=.old: new."):
        load_weights(tmp_path / "model.safetensors", two)
    report = load_weights(tmp_path, two, init_map={"module": "", "module.vision": "encoders.video"})
    assert_same(two, one.state_dict())
    assert not report.unused
    with pytest.raises(DataError, match="nothing in .* starts with 'modul'.*Names there start with: module.encoders"):
        load_weights(tmp_path, two, init_map={"modul": ""})
    with pytest.raises(DataError, match="the same name same"):
        load_weights(tmp_path, two, init_map=dict.fromkeys(tensors, "same"))


def test_extra_tensors_of_a_larger_model_can_be_left(tmp_path, make, stubs):
    save_weights(tmp_path / "w", make(1))
    small = VTPModel({"video": stubs.Frames()})
    with pytest.raises(DataError, match="tensors of the file are not in the model"):
        load_weights(tmp_path / "w", small)
    report = load_weights(tmp_path / "w", small, allow_unused=["*"])
    assert "encoders.text.words.weight" in report.unused and len(report.loaded) == 2


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_named(tmp_path, make, keep):
    save_weights(tmp_path / "w", make(1))
    file = tmp_path / "w" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"model.safetensors \(\d+ bytes\) cannot be read.*truncated"):
        load_weights(tmp_path / "w", make(2))


def test_a_damaged_header_is_no_crash(tmp_path, make):
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(DataError, match="cannot be read"):
        load_weights(file, make(1))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.ckpt", "pytorch_model.bin"])
def test_pickles_are_refused_unread(tmp_path, make, name):
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="never unpickles.*vtp import"):
        load_weights(tmp_path / name, make(1))


def test_a_pickle_under_our_name_is_not_executed(tmp_path, make):
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="cannot be read"):
        load_weights(tmp_path, make(1))


def test_wrong_folders_say_what_a_checkpoint_is(tmp_path, make):
    with pytest.raises(DataError, match="there is no such folder"):
        load_weights(tmp_path / "nowhere", make(1))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds no model.safetensors \(it holds: notes.txt\)"):
        load_weights(tmp_path, make(1))
    with pytest.raises(DataError, match="not a vtp checkpoint"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="config.json cannot be read"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DataError, match="no model specification"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"format": 99, "vtp": "7.0", "spec": {}}')
    with pytest.raises(DataError, match="format 99.*written by vtp 7.0"):
        read_config(tmp_path)


def test_a_checkpoint_builds_itself_with_its_assets(tmp_path, stubs):
    class Text(stubs.Words):
        def __init__(self, *, context: BuildContext):
            super().__init__()
            saved = context.assets_of("encoders/text")
            self.note = "fresh" if saved is None else (saved / "note.txt").read_text()

        def save_assets(self, directory):
            (directory / "note.txt").write_text("kept")

    model = VTPModel({"text": Text(context=BuildContext())}, spec={"encoders": {"text": {"name": "words"}}})
    save_weights(tmp_path / "w", model)
    again = load_model(tmp_path / "w", lambda kind, name, slot: Text)
    assert again.encoders["text"].note == "kept"
    assert_same(again, model.state_dict())

    def nothing(kind, name, slot):
        raise PluginError("no plugin offers encoder 'words'")

    with pytest.raises(DataError, match="cannot be built here .it was written with .*no plugin offers"):
        load_model(tmp_path / "w", nothing)
