"""``vtp import-config``: configurations of AntMMF as options of ``vtp run``."""

from __future__ import annotations

import pytest
import yaml

from vtp.cli.main import main
from vtp.cli.run import compose
from vtp_univl.config_import import translate

PRETRAINING = """
task_attributes:
  video_text_pretrain:
    dataset_attributes:
      annotations: {train: [cc.jsonl, webvid.jsonl], val: val.jsonl}
      videos: {train: data/mp4, val: data/mp4}
      mask_probability: 0.15
      random_truncate: true
      pyvideo_transform: {train: {size: 224}}
model_attributes:
  univl:
    training_head_type: video_pretraining
    training_stage: stage1+stage2
    hard_example_mining: true
    re_weight_method: median
    re_sample_method: nearliest
    change_iter: 5000
    change_rate: 0.15
    add_false_caption: true
    n_clips: 4
    num_frm: 1
    with_temporal_encoder: false
    text_encoder: {params: {hidden_size: 768, num_hidden_layers: 12}}
    cross_encoder: {params: {num_hidden_layers: 3}}
    img_encoder: {type: VideoSwinEncoder, params: {gradient_checkpointing: [true, true, true, true]}}
optimizer_attributes:
  type: AdamW
  params: {lr: 5e-5, weight_decay: 1e-3, betas: [0.9, 0.98], eps: 1e-8}
training_parameters:
  run_type: train
  batch_size: 128
  max_iterations: 130000
  lr_steps: [110000]
  lr_ratio: 0.1
  warmup_iterations: 2000
  warmup_factor: 0.1
  enable_amp: "True"
  snapshot_interval: 5000
  log_interval: 500
  max_ckpt_num: 10
  patience: 100
  should_early_stop: false
  resume_file: None
  frobnicate: 3
"""
RETRIEVAL = """
includes: [base.yml]
model_attributes:
  univl: {training_head_type: video_text_retrieval, img_encoder: {type: DetrBatchPVTImageEncoder}, n_clips: 16}
optimizer_attributes: {params: {lr: "1e-5"}}
training_parameters: {encoder_lr_decay: 0.01, resume_file: "models/best.ckpt", restart: true}
"""
BASE = """
optimizer_attributes: {type: AdamW, params: {lr: 1.0e-4, weight_decay: 1.0e-4}}
training_parameters:
  run_type: train+val+predict
  lr_steps: [15000]
  max_iterations: 25000
  batch_size: 160
  use_warmup: false
  monitored_metric: val/l2_simi_t2v-mean_recall
  metric_minimize: false
"""


def test_a_pretraining_configuration():
    config = yaml.safe_load(PRETRAINING)
    options, notes = translate(config)
    found = dict(line.split("=", 1) for line in options)
    want = {
        "task": "pretrain",
        "model": "univl",
        "objective": "[univl/moco,univl/hscl,univl/itm,univl/mlm]",
        "encoder.video.backbone": "swin3d_s",
        "encoder.video.frames": "4",
        "objectives.vtm.masked": "[text]",
        "objectives.vtm.change_iter": "5000",
        "objectives.vtm.re_weight_method": "mean",
        "train.lr": "5e-05",
        "train.weight_decay": "0.001",
        "train.global_batch": "128",
        "train.steps": "130000",
        "train.epochs": "null",
        "train.schedule": "step",
        "train.lr_milestones": "[110000]",
        "train.warmup": "2000",
        "train.warmup_lr": "5e-06",
        "train.precision": "fp16",
        "train.eval_every": "5000",
        "train.save_every": "5000",
        "train.keep": "10",
        "train.gradient_checkpointing": "true",
        "encoder.text.depth": "12",
        "masks.text.probability": "0.15",
        "dataset": "antmmf",
        "dataset.train_file": "cc.jsonl",
        "dataset.videos": "data/mp4",
        "mode": "train",
    }
    assert {key: found.get(key) for key in want} == want
    where = {key.rsplit(".", 1)[-1]: reason for key, reason in notes.items()}
    assert where["frobnicate"] == "unknown."
    assert "never read" in notes["model_attributes.univl.cross_encoder.params.num_hidden_layers"]
    assert where["patience"] == "has no effect without should_early_stop"
    assert "65000" in where["max_iterations"]
    assert {"random_truncate", "with_temporal_encoder", "size", "train"} <= where.keys()
    assert "train.patience" not in found and "resume" not in found and "init_from" not in found


def test_what_was_counted_twice_is_halved_on_demand():
    options, _ = translate(yaml.safe_load(PRETRAINING), released=True)
    found = dict(line.split("=", 1) for line in options)
    halved = {"train.steps": "65000", "objectives.vtm.change_iter": "2500", "train.log_every": "250"}
    assert {key: found[key] for key in halved} == halved
    assert found["train.lr_milestones"] == "[110000]" and found["train.warmup"] == "2000"  # true steps there too


def test_a_file_with_includes_and_settings_of_a_script(tmp_path, capsys):
    (tmp_path / "base.yml").write_text(BASE)
    (tmp_path / "pvt.yml").write_text(RETRIEVAL)
    script = ["optimizer_attributes.params.weight_decay=1e-3", "training_parameters.encoder_lr_decay=1.0"]
    assert main(["import-config", str(tmp_path / "pvt.yml"), *script]) == 0
    said = capsys.readouterr()
    found = dict(line.split("=", 1) for line in said.out.splitlines())
    assert found["objective"] == "[univl/moco,univl/vtm]"
    assert found["train.lr"] == "1e-05" and found["train.weight_decay"] == "0.001"  # the script's, not the file's
    assert found["train.group_lr"] == "{encoders.text:1.0,encoders.video:1.0}"
    assert found["mode"] == "train+eval" and found["train.warmup"] == "0"
    assert found["train.monitor"] == "r_mean" and found["task.objective"] == "vtm"
    assert found["encoder.video.backbone"] == "pvt_v2_b2" and found["encoder.video.frames"] == "16"
    assert found["init_from"] == "models/best.ckpt"
    assert "vtp import antmmf models/best.ckpt NEW" in said.err


DMAE = """
model_attributes:
  univl:
    training_head_type: video_text_retrieval
    training_stage: stage1+stage2+stage3
    with_moco: false
    n_clips: 10
    l3_interaction: att_ti
    l3_loss_type: negNCE
    l3_with_nfc: true
    l3_use_twm: "False"
    l3_partial_type: -1
    l3_max_frames: 10
    l3_max_words: 30
    img_encoder: {type: DetrBatchPVTImageEncoder}
optimizer_attributes: {type: AdamW, params: {lr: 1e-5, weight_decay: 1e-4}}
training_parameters: {batch_size: 16, test_batch_size: 96, monitored_metric: val/l3_simi_t2v-mean_recall}
"""
QA = """
model_attributes:
  univl:
    training_head_type: video_text_classification
    num_labels: 1500
    img_encoder: {type: VideoSwinEncoder, params: {gradient_checkpointing: null}}
optimizer_attributes: {type: Adam, params: {lr: 1e-5}}
training_parameters: {run_type: predict, patience: 10, should_early_stop: true}
"""
FINETUNED = yaml.safe_dump(
    yaml.safe_load(BASE) | {k: v for k, v in yaml.safe_load(RETRIEVAL).items() if k != "includes"}
)


def test_configurations_of_dmae_and_of_question_answering():
    options, _ = translate(yaml.safe_load(DMAE))
    found = dict(line.split("=", 1) for line in options)
    assert found["objective"] == "[univl/vtc,univl/vtm,univl/dmae]" and found["task.objective"] == "dmae"
    assert found["objectives.dmae.use_twm"] == "false" and found["objectives.dmae.max_frames"] == "10"
    options, notes = translate(yaml.safe_load(QA))
    found = dict(line.split("=", 1) for line in options)
    assert found["objective"] == "[qa]" and found["mode"] == "eval" and found["train.patience"] == "10"
    assert notes["optimizer_attributes.type"] == "training is by AdamW, not by Adam"
    assert notes["model_attributes.univl.num_labels"] == "the task knows its answers: task.answers"


@pytest.mark.parametrize("text", [PRETRAINING, DMAE, QA, FINETUNED], ids=["pretraining", "dmae", "qa", "finetuning"])
def test_options_are_those_of_vtp_run(text):
    options, _ = translate(yaml.safe_load(text))
    composed = compose(options)
    assert composed["encoder"]["video"]["backbone"] in ("swin3d_s", "pvt_v2_b2")
    assert composed["train"]["lr"] in (5e-5, 1e-5)


def test_mistakes_are_told(tmp_path, capsys):
    (tmp_path / "a.yml").write_text("includes: [b.yml]\n")
    (tmp_path / "b.yml").write_text("includes: [a.yml]\n")
    (tmp_path / "c.yml").write_text("includes: [nowhere.yml]\n")
    (tmp_path / "d.yml").write_text("- 1\n")
    (tmp_path / "e.yml").write_text("a: [\n")
    for name, message in (
        ("a.yml", "includes itself"),
        ("c.yml", "includes nowhere.yml, which lies neither beside it nor"),
        ("d.yml", "holds a list, expected the keys"),
        ("e.yml", "cannot be read"),
        ("f.yml", "cannot be read"),
    ):
        assert main(["import-config", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err
    assert main(["import-config", "a", "b"]) == 2
    assert main(["import-config", "a", "--counter", "double"]) == 2
