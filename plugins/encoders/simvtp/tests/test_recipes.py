"""Option files and experiments: they compose, hold the released hyper-parameters, and build."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

import vtp_simvtp
from vtp.cli.main import main
from vtp.cli.run import compose
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.plugins import host
from vtp.train.config import TrainConfig

CONF = Path(vtp_simvtp.__file__).parent / "conf"
FILES = [f for f in CONF.glob("encoder/*/*.yaml") if "defaults" not in yaml.safe_load(f.read_text())]


@pytest.mark.parametrize("file", FILES, ids=lambda file: "/".join(file.relative_to(CONF).parts))
def test_option_files_state_what_the_classes_default_to(file):
    options = yaml.safe_load(file.read_text())
    kind = "/".join(file.relative_to(CONF).parts[:-1])
    target = host().registry.get(kind, options.pop("name")).load()
    parameters = {name: p.default for name, p in inspect.signature(target).parameters.items() if name != "context"}
    options.pop("weight", None)
    assert options == parameters


def test_the_preset_of_the_video_encoder_sets_all_parts():
    found = compose(["model=simvtp", "encoder.video.preset=small"])
    assert {found["encoder"][slot]["preset"] for slot in ("video", "text", "fusion")} == {"small"}


@pytest.mark.parametrize("name", ["tiny_pretrain", "tiny_finetune"])
def test_tiny_recipes_build(name):
    found = compose([f"experiment=simvtp/{name}"])
    assert TrainConfig(**found["train"]).validate() == []
    spec = {"encoders": found["encoder"], "objectives": found["objectives"], "masks": found["masks"]}
    context = BuildContext(texts=lambda: ["a red square moves to the left"])
    model = build_model(spec, lookup_in(host().registry), context)
    assert sum(parameter.numel() for parameter in model.parameters()) < 3_000_000
    assert found["task"].get("zero_shot", found["task"])["objective"] in model.objectives


def test_finetuning_holds_the_released_hyper_parameters():
    found = compose(["experiment=simvtp/eval_msrvtt_views"])  # the fine-tuning recipe and what evaluation adds
    train, data = found["train"], found["data"]
    assert TrainConfig(**train).validate() == []
    assert (train["lr"], train["global_batch"], train["epochs"]) == (3e-4 * 64 / 256, 64, 100)
    assert train["min_lr"] == 1e-6 * 64 / 256 and train["warmup"] * train["epochs"] == 5
    assert (train["betas"], train["weight_decay"], train["layer_decay"]) == ([0.9, 0.999], 0.05, 0.75)
    assert found["encoder"]["video"]["drop_path"] == found["encoder"]["text"]["drop_path"] == 0.1
    assert data["eval_clips"] * data["eval_crops"] == 45 and found["mode"] == "eval"


def test_pretraining_holds_the_released_hyper_parameters():
    found = compose(["experiment=simvtp/pretrain_webvid"])
    train = found["train"]
    assert train["lr"] == pytest.approx(1.5e-4 * 1024 / 256) and train["min_lr"] == pytest.approx(1e-5 * 1024 / 256)
    assert (train["epochs"], train["global_batch"], train["warmup"] * train["epochs"]) == (200, 1024, 40)
    assert (train["betas"], train["weight_decay"]) == ([0.9, 0.95], 0.05)
    assert found["masks"]["video"] == {"kind": "tube", "ratio": 0.9}
    assert {"probability": 0.75, "replace": "mask"}.items() <= found["masks"]["text"].items()


@pytest.mark.parametrize("name", ["simvtp", "simvtp_dual"])
def test_the_released_variant_is_one_word(name):
    common = ["task=msrvtt_retrieval", "dataset=shapes", "run_dir=x"]
    assert compose([f"model={name}_released", *common]) == compose([f"model={name}", "variant=released", *common])


@pytest.mark.parametrize(
    "argument, answer",
    [
        ("model=simvtp_legacy", "model=simvtp_legacy is now model=simvtp_released."),
        ("encoder.fusion.legacy=true", "encoder.fusion.legacy is now variant=released"),
        ("+encoder.fusion.legacy=true", "encoder.fusion.legacy is now variant=released"),
        ("encoder.fusion.pooling=mean_valid", "encoder.fusion.pooling=mean_valid is now pooling=mean"),
        ("objective=[simvtp_vtc]", "objective=simvtp_vtc is now objective=[simvtp/vtc], the built-in vtc"),
        ("objectives.simvtp_mlm.probability=0.5", "objective=simvtp_mlm is now objective=[simvtp/mlm]"),
        ("objectives.mvm.mask_ratio=0.5", "objectives.mvm.mask_ratio is now masks.video.ratio."),
        (
            "data.sampler=simvtp_pretrain_legacy",
            "data.sampler=simvtp_pretrain_legacy is now data.sampler=simvtp_pretrain_released.",
        ),
        ("variant=relased", "variant=relased: no part of this model knows it. Did you mean 'released'?"),
    ],
)
def test_old_options_answer_with_the_new_ones(argument, answer, tmp_path, capsys):
    model = [] if argument.startswith("model=") else ["model=simvtp"]
    model += [] if argument.startswith("objective=") else ["objective=[mvm]"]
    common = ["task=msrvtt_retrieval", "dataset=shapes", f"run_dir={tmp_path / 'run'}"]
    assert main(["run", *model, *common, argument]) == 2
    told = capsys.readouterr().err.strip()
    assert answer in told and "\n" not in told


def test_the_choices_are_shown_with_what_they_vary(capsys):
    assert main(["show", "objective", "simvtp/vtc"]) == 0
    shown = capsys.readouterr().out
    assert "directions: sum" in shown and "# class vtp_objectives.vtc.VTC" in shown and "directions: mean" in shown
    assert main(["show", "experiment", "simvtp/tiny_pretrain"]) == 0
