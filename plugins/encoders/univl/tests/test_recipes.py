"""Experiments: every one composes, is accepted as a whole and builds at small size."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pytest
from recipe_sizes import held, small

import vtp_univl
from vtp.cli.run import compose
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.plugins import host
from vtp.run.check import check
from vtp.train.config import TrainConfig
from vtp_univl import content_words

CONF = Path(vtp_univl.__file__).parent / "conf" / "experiment" / "univl"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml"))
TINY = [name for name in NAMES if name.startswith("tiny_")]

# backbone, frames, batch, learning rate, weight decay, steps or epochs, milestone
PUBLISHED = {
    "pretrain_coco_vg": ("pvt_v2_b2", 1, 128, 5e-5, 1e-3, 130_000, 110_000),
    "pretrain_coco_vg_swin": ("swin3d_s", 1, 128, 5e-5, 1e-3, 130_000, 110_000),
    "pretrain_coco_vg_resnet": ("resnet50", 1, 128, 5e-5, 1e-3, 400_000, 150_000),
    "pretrain_cc3m_swin": ("swin3d_s", 1, 128, 5e-5, 1e-3, 130_000, 110_000),
    "pretrain_coco_vg_cc_cnvid": ("pvt_v2_b2", 1, 128, 5e-5, 1e-3, 130_000, 110_000),
    "pretrain_webvid": ("swin3d_s", 4, 128, 5e-5, 1e-3, 10, 97_300),
    "pretrain_howto100m": ("swin3d_s", 4, 64, 5e-5, 1e-2, 220_000, 110_000),
    "pretrain_cnvid": ("swin3d_s", 4, 128, 5e-5, 1e-3, 1_093_000, 410_000),
    "finetune_msrvtt": ("pvt_v2_b2", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msrvtt_swin": ("swin3d_s", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msrvtt_resnet": ("resnet50", 16, 40, 5e-5, 1e-4, 25_000, 15_000),
    "finetune_didemo": ("pvt_v2_b2", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_didemo_swin": ("swin3d_s", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msvd": ("pvt_v2_b2", 16, 32, 1e-6, 1e-4, 16_000, 8_000),
    "finetune_msvd_swin": ("swin3d_s", 16, 32, 1e-6, 1e-4, 16_000, 8_000),
    "finetune_vatex_swin": ("swin3d_s", 4, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_vatex_zh": ("pvt_v2_b2", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_vatex_zh_swin": ("swin3d_s", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msrvtt_zh_swin": ("swin3d_s", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_didemo_zh_swin": ("swin3d_s", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msrvtt_qa": ("pvt_v2_b2", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msrvtt_qa_swin": ("swin3d_s", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_msvd_qa": ("pvt_v2_b2", 16, 32, 1e-5, 1e-4, 18_000, 10_000),
    "finetune_msvd_qa_swin": ("swin3d_s", 16, 32, 1e-5, 1e-4, 18_000, 10_000),
    "eval_msrvtt_mc": ("pvt_v2_b2", 16, 32, 1e-5, 1e-4, 25_000, 15_000),
    "finetune_ucf101": ("pvt_v2_b2", 8, 32, 1e-5, 1e-4, 25_000, 15_000),
    "dmae_phase1": ("pvt_v2_b2", 1, 160, 1e-5, 1e-4, 25_000, 15_000),
    "dmae_phase2": ("pvt_v2_b2", 10, 16, 1e-5, 1e-4, 25_000, 15_000),
}


@pytest.fixture
def no_tagger(monkeypatch):
    """Without NLTK and its data."""
    monkeypatch.setattr(content_words, "load_tagger", lambda name, owner: lambda text, words: [False] * len(words))


# The others differ from these in numbers alone, or in Video Swin, which takes seconds to build.
BUILT = {
    "pretrain_cnvid", "finetune_msrvtt_qa", "finetune_ucf101", "dmae_phase2", *TINY,
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in BUILT else pytest.mark.slow) for n in NAMES])
@pytest.mark.usefixtures("no_tagger")
def test_every_recipe_is_accepted_and_builds(name, tmp_path):
    found = compose([f"experiment=univl/{name}", f"run_dir={tmp_path / 'run'}"])
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
    if any(node["name"] == "univl_moco" for node in found["objectives"].values()):  # those start anew if they must
        lacking = [n for n in model.state_dict() if "vtc" in n and ("_queue" in n or "key_encoders" in n)]
        assert lacking and all(any(fnmatch(n, p) for p in found["init_allow_missing"]) for n in lacking)


def test_every_published_training_has_its_recipe():
    assert {*PUBLISHED, "tiny_pretrain", "tiny_finetune", "tiny_dmae", "tiny_qa"} == set(NAMES)
