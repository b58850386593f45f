"""Experiments: every one composes, is accepted as a whole and builds at small size; ablations differ in one thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recipe_sizes import held, small

import vtp_snps3
from vtp.cli.run import compose
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.plugins import host
from vtp.run.check import check
from vtp.train.config import TrainConfig

CONF = Path(vtp_snps3.__file__).parent / "conf" / "experiment" / "snps3"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml"))
TINY = [name for name in NAMES if name.startswith("tiny_")]
IMAGES = ("pvt_v2_b2", 1, 128, 5e-5, 1e-3, 130_000, 110_000)
# backbone, frames, batch, learning rate, weight decay, steps or epochs, milestone
PUBLISHED = {
    "pretrain_coco_vg": IMAGES,
    "ablation_mlm": IMAGES,
    "ablation_mssm": IMAGES,
    "ablation_lvwm": IMAGES,
    "pretrain_coco_vg_resnet": ("resnet50", 1, 128, 5e-5, 1e-3, 400_000, 150_000),
    "pretrain_cc3m_swin": ("swin3d_s", 1, 128, 5e-5, 1e-3, 130_000, 110_000),
    "pretrain_webvid": ("swin3d_s", 4, 128, 5e-5, 1e-3, 10, 97_300),
    "finetune_msrvtt": ("pvt_v2_b2", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msrvtt_7k": ("pvt_v2_b2", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msrvtt_swin": ("swin3d_s", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msrvtt_7k_swin": ("swin3d_s", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msrvtt_resnet": ("resnet50", 16, 40, 5e-5, 1e-4, 25_000, 15_000),
    "finetune_msrvtt_7k_resnet": ("resnet50", 16, 40, 5e-5, 1e-4, 25_000, 15_000),
    "finetune_didemo": ("pvt_v2_b2", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_didemo_swin": ("swin3d_s", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msvd": ("pvt_v2_b2", 16, 32, 1e-6, 1e-4, 16_000, 8_000),
    "finetune_msvd_swin": ("swin3d_s", 16, 32, 1e-6, 1e-4, 16_000, 8_000),
    "finetune_msrvtt_qa": ("pvt_v2_b2", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msrvtt_qa_swin": ("swin3d_s", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msvd_qa": ("pvt_v2_b2", 16, 32, 1e-5, 1e-4, 18_000, 10_000),
    "finetune_msvd_qa_swin": ("swin3d_s", 16, 32, 1e-5, 1e-4, 18_000, 10_000),
    "eval_msrvtt_mc": ("pvt_v2_b2", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
}
# The others differ from these in numbers and data sets alone, or in Video Swin, which takes seconds to build.
BUILT = {"pretrain_coco_vg", "tiny_pretrain"}


def objectives(name: str) -> list[str]:
    return sorted(compose([f"experiment=snps3/{name}"])["objectives"])


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in BUILT else pytest.mark.slow) for n in NAMES])
def test_every_recipe_is_accepted_and_builds(name: str, tmp_path: Path) -> None:
    found = compose([f"experiment=snps3/{name}", f"run_dir={tmp_path / 'run'}"])
    if name not in TINY:
        assert held(found) == PUBLISHED[name]
        train = found["train"]
        assert (train["betas"], train["eps"], train["clip_norm"], train["lr_decay"]) == ([0.9, 0.98], 1e-8, 5.0, 0.1)
    if found["mode"] == "eval":
        found["checkpoint"] = str(tmp_path)
    assert TrainConfig(**found["train"]).validate() == []
    check(found, tmp_path / "run")
    context = BuildContext(texts=lambda: ["a red square moves to the left"], answers=("red", "blue"))
    model = build_model(small(found), lookup_in(host().registry), context)
    scored = found["task"].get("zero_shot") or found["task"]
    assert scored.get("objective", "vtc") in model.objectives
    assert model.masks["text"].name.startswith("mssm") == ("mssm" in model.objectives)


def test_every_published_training_has_its_recipe() -> None:
    tiny = {f"tiny_{name}" for name in ("pretrain", "mlm", "mssm", "lvwm", "finetune", "qa")}
    assert {*PUBLISHED, *tiny} == set(NAMES)


@pytest.mark.parametrize(
    ("both", "prefix"),
    [pytest.param("pretrain_coco_vg", "ablation", marks=pytest.mark.slow), ("tiny_pretrain", "tiny")],
)
def test_ablations_differ_in_the_two_objectives_alone(both: str, prefix: str) -> None:
    """What masks, and whether words are matched; everything else is equal."""
    want = {"mlm": ({"mlm"}, set()), "mssm": ({"mssm"}, set()), "lvwm": ({"mlm"}, {"lvwm"})}
    whole = compose([f"experiment=snps3/{both}"])
    rest = set(whole["objectives"]) - {"mssm", "lvwm"}
    assert set(whole["objectives"]) == rest | {"mssm", "lvwm"}
    for name, (masks, matched) in want.items():
        found: dict[str, Any] = compose([f"experiment=snps3/{prefix}_{name}"])
        assert set(found["objectives"]) == rest | masks | matched
        for key in ("encoder", "train", "data", "masks", "task", "dataset"):
            assert found[key] == whole[key], (name, key)
        attentive = [node.get("attentive_masking", 0) for node in found["objectives"].values()]
        assert all(not share for share in attentive) or "mssm" in masks


@pytest.mark.slow
def test_the_two_training_lists_of_msrvtt() -> None:
    lists = [compose([f"experiment=snps3/{name}"])["dataset"] for name in ("finetune_msrvtt_7k", "finetune_msrvtt")]
    assert lists[0] == lists[1] | {"train_list": "7k"} != lists[1]
