"""vtp.load: runs, folders, options and names on the hub, without executing anything."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import vtp
from vtp.errors import ConfigError, DataError, RunError
from vtp.model.weights import read_config
from vtp.use.card import model_card
from vtp.use.loading import _split

pytestmark = pytest.mark.usefixtures("in_process")


def test_options_are_told_apart_at_their_commas():
    assert _split("model=dual, objective=[vtc,mlm],a={b: 1, c: 2},d='x,y'") == [
        "model=dual", "objective=[vtc,mlm]", "a={b: 1, c: 2}", "d='x,y'",
    ]  # fmt: skip


@pytest.mark.slow
def test_options_with_the_weights_of_a_checkpoint(dual, dual_folder, clips):
    options = f"model={dual_folder},init_from={dual_folder},init_allow_missing=[objectives.*]"
    model = vtp.load(options, device="cpu", workers=0)
    assert [*model.module.objectives] == ["vtc"]  # chosen because nothing else was
    for name, tensor in dual.module.encoders.state_dict().items():
        assert torch.equal(tensor, model.module.encoders.state_dict()[name]), name
    assert model.encode(videos=[clips / "a.mp4"]).videos.shape == (1, 128)


def test_loading_draws_no_random_numbers(dual_folder):
    torch.manual_seed(5)
    want = torch.rand(1)
    torch.manual_seed(5)
    vtp.load(dual_folder, device="cpu")
    assert torch.equal(torch.rand(1), want)


def test_averaged_weights_are_taken(write, dual, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write(tmp_path / "averaged", dual.module.spec)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor * 0.5 for name, tensor in tensors.items()}, folder / "ema.safetensors")
    model = vtp.load(folder, device="cpu")
    name = "objectives.vtc.proj.text.weight"
    assert torch.equal(model.module.state_dict()[name], tensors[name] * 0.5)
    assert torch.equal(vtp.load(model.save(tmp_path / "b"), device="cpu").module.state_dict()[name], tensors[name] / 2)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("outputs/2026/nothing/here", "there is no folder outputs/2026/nothing/here. Give a run"),
        ("model=duall", "duall"),
        ("seed=1", "choose no encoder"),
        (Path(__file__).parent, "no checkpoint is in it. Give a run folder"),
        ("", "load: '' must be a folder, a name on the hub, or options"),
        (None, "load: None must be a folder"),
        ("model=dual", "a tokenizer is to be built from the training texts"),
    ],
)
def test_what_cannot_be_loaded_is_a_mistake_of_the_user(source, said):
    with pytest.raises((ConfigError, DataError), match=said):
        vtp.load(source, device="cpu")


@pytest.mark.parametrize("how", [{"precision": "fp8"}, {"workers": -1}, {"device": "cuda:77"}, {"device": "xpu"}])
def test_wrong_options_are_refused(dual_folder, how):
    with pytest.raises(ConfigError):
        vtp.load(dual_folder, **{"device": "cpu", **how})


def test_provenance_cannot_say_what_cannot_be(write, dual, tmp_path):
    folder = write(tmp_path / "odd", dual.module.spec, {"config": {"data": {"eval_clips": 0}}})
    with pytest.raises(DataError, match=r"provenance\.json says what cannot be: data\.eval_clips=0"):
        vtp.load(folder, device="cpu")


# -- the hub ---------------------------------------------------------------------------------------------------------


def in_cache(cache, name, folder, revision="main"):
    """Put a folder where huggingface_hub keeps what it downloaded from ``name``."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / revision).write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)
    return repository / "snapshots" / commit


def test_a_name_on_the_hub_comes_from_its_cache_without_network(dual, clips, tmp_path):
    snapshot = in_cache(tmp_path / "hub", "people/clips", dual.save(tmp_path / "model"))
    (snapshot / "modeling.py").write_text("raise SystemExit('executed')")
    for model in (
        vtp.load("people/clips", device="cpu", workers=0, cache_dir=tmp_path / "hub"),
        vtp.Model.from_pretrained("people/clips", device="cpu", workers=0, cache_dir=tmp_path / "hub"),
    ):
        assert model.fingerprint == dual.fingerprint
        got = model.encode(videos=[clips / "a.mp4"]).videos
        assert got.tobytes() == dual.encode(videos=[clips / "a.mp4"]).videos.tobytes()


def test_a_name_that_nobody_has_is_said(tmp_path):
    with pytest.raises(DataError, match="there is no folder people/none, and nothing of this name comes from the hub"):
        vtp.load("people/none", device="cpu", cache_dir=tmp_path)


def test_downloads_are_safetensors_json_and_assets(monkeypatch, tmp_path, dual):
    asked = {}
    saved = dual.save(tmp_path / "model")

    def download(name, **how):
        asked.update(how, name=name)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    vtp.load("people/clips", revision="v1", device="cpu")
    from huggingface_hub.utils import filter_repo_objects

    offered = ["config.json", "model.safetensors", "a.py", "pytorch_model.bin", "assets/encoders/text/vocab.txt"]
    offered += ["assets/x.py", "assets/encoders/text/x.pkl", "manifest.json", "video.mp4", "README.md"]
    patterns = {key: asked[key] for key in ("allow_patterns", "ignore_patterns")}
    assert [*filter_repo_objects(offered, **patterns)] == [
        "config.json", "model.safetensors", "assets/encoders/text/vocab.txt", "manifest.json", "README.md",
    ]  # fmt: skip
    assert (asked["name"], asked["revision"]) == ("people/clips", "v1")


@pytest.mark.parametrize("card_there", [False, True])
def test_uploading(monkeypatch, dual, tmp_path, card_there):
    calls = {}

    class Api:
        def __init__(self, token=None):
            calls["token"] = token

        def create_repo(self, name, private=None, exist_ok=False):
            calls["made"] = (name, private, exist_ok)
            return f"https://hub/{name}"

        def file_exists(self, name, file, revision=None):
            return card_there

        def upload_folder(self, *, repo_id, folder_path, revision, commit_message):
            shutil.copytree(folder_path, tmp_path / "uploaded")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert dual.push_to_hub("people/clips", private=True, token="t") == "https://hub/people/clips"
    assert calls == {"token": "t", "made": ("people/clips", True, True)}
    assert (tmp_path / "uploaded" / "README.md").exists() is not card_there
    if not card_there:
        assert 'vtp.load("people/clips")' in (tmp_path / "uploaded" / "README.md").read_text()
    assert vtp.load(tmp_path / "uploaded", device="cpu").fingerprint == dual.fingerprint


def test_what_was_not_uploaded_is_one_line(monkeypatch, dual):
    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, name, private=None, exist_ok=False):
            raise OSError("Name or service not known\nand more")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(RunError, match=r"people/clips was not uploaded to the hub \(Name or service not known\)"):
        dual.push_to_hub("people/clips")
    for name in ("clips", "two words/clips", "a/b/c", ""):
        with pytest.raises(ConfigError, match="^push_to_hub: "):
            dual.push_to_hub(name)


# -- the card --------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_folder(write, dual, tmp_path):
    """A run folder with one checkpoint and its report."""
    stage = {"stage": "train", "dataset": "csv", "list": "train.9k", "samples": 7, "clips": 5, "sha256": "ab" * 32}
    stage |= {"media": ["csv:a"]}
    checkpoint = write(tmp_path / "run" / "checkpoints" / "best", dual.module.spec, {"stages": [stage]})
    from vtp.eval.report import checkpoint_hash

    report = {
        "task": "retrieval",
        "split": "test",
        "metrics": {"t2v/r1": 12.5},
        "intervals": {"t2v/r1": [10.0, 15.0]},
        "incomplete": True,
        "selection": "last",
        "protocol": {"name": "msrvtt_1ka", "official": True, "differences": [], "sha256": {"test": "cd" * 32}},
        "ledger": {"expected": 1000, "evaluated": 998, "missing": {"video1": "gone"}},
        "warnings": ["a | warning\nof two lines"],
        "checkpoint": {"sha256": checkpoint_hash(checkpoint)},
    }
    (tmp_path / "run" / "report.json").write_text(json.dumps(report))
    return SimpleNamespace(path=tmp_path / "run", checkpoint=checkpoint, report=report)


def test_a_card_tells_protocol_coverage_training_lists_and_limits(run_folder, tmp_path):
    model = vtp.load(run_folder.path, device="cpu")
    card = (model.save(tmp_path / "saved") / "README.md").read_text()
    for said in (
        "| train | csv | train.9k | 7 | 5 | `" + "ab" * 32,
        "protocol msrvtt_1ka (the published protocol)",
        "sha256 of test: `" + "cd" * 32,
        "INCOMPLETE",
        "expected 1000, evaluated 998",
        "| t2v/r1 | 12.50 | 10.00 to 15.00 |",
        "It sees 2 frames",
        "- a \\| warning of two lines",
    ):
        assert said in card, said
    again = vtp.load(tmp_path / "saved", device="cpu")
    assert (again.save(tmp_path / "twice") / "README.md").read_text() == card.replace("saved", "twice")
    assert read_config(tmp_path / "twice")["spec"] == model.module.spec


def test_a_card_tells_what_of_a_frame_is_seen_and_what_a_model_does(dual, fused):
    def said(model):
        return model_card(model, "mine")

    assert "Frames are cut to 32 x 32 pixels" in said(dual) and "model.answer(" not in said(dual)
    assert 'model.answer("a.mp4", "what is it").text' in said(fused) and 'model.caption("a.mp4")' in said(fused)
    many = vtp.Model(dual.module, {"config": {"data": {"eval_clips": 4, "eval_crops": 3}}})
    assert "It sees 8 frames" in said(many) and "3 squares of 32 x 32" in said(many) and "are cut" not in said(many)
    spec = dual.module.encoders["video"].spec
    dual.module.encoders["video"].spec = replace(spec, squeeze=True)
    try:
        assert "Frames are squeezed to 32 x 32" in said(dual) and "are cut" not in said(dual)
    finally:
        dual.module.encoders["video"].spec = spec


def test_a_report_of_other_weights_is_not_told(run_folder, tmp_path):
    run_folder.report["checkpoint"]["sha256"] = "0" * 64
    (run_folder.path / "report.json").write_text(json.dumps(run_folder.report))
    card = (vtp.load(run_folder.path, device="cpu").save(tmp_path / "saved") / "README.md").read_text()
    assert "There is no evaluation of these weights" in card and "12.50" not in card
