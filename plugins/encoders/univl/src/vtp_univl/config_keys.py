"""Keys of AntMMF's configurations by their last name, and what becomes of each: tables of
:mod:`vtp_univl.config_import`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["BACKBONES", "DATASETS", "HEADS", "INSIDE", "LEFT_OVER", "METRICS", "NUMBERS", "RUN_TYPES"]


def _as_is(value: Any) -> Any:
    return value


def _pair(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


# class of the image encoder -> backbone
BACKBONES = {
    "DetrBatchPVTImageEncoder": "pvt_v2_b2",
    "VideoSwinEncoder": "swin3d_s",
    "DetrImageEncoder": "resnet50",
    "VitImageEncoder": "clip",
}
# training_head_type -> task
HEADS = {
    "video_pretraining": "pretrain",
    "video_text_retrieval": "retrieval",
    "video_text_classification": "qa",
    "video_multi_choice_qa": "multiple_choice",
}
DATASETS = ("video_text_pretrain", "video_text_retrieval", "video_text_classification", "video_multi_choice_qa")
RUN_TYPES = {"train": "train", "predict": "eval", "inference": "eval", "val": "eval"}
# metric without its similarity -> vtp's
METRICS = {
    "t2v-mean_recall": "r_mean",
    "v2t-mean_recall": "r_mean",
    "t2v-r@1": "t2v/r1",
    "t2v-r@5": "t2v/r5",
    "t2v-r@10": "t2v/r10",
    "v2t-r@1": "v2t/r1",
    "v2t-r@5": "v2t/r5",
    "v2t-r@10": "v2t/r10",
    "accuracy": "accuracy",
    "total_loss": "loss",
}
Convert = Callable[[Any], Any]
# last name -> options, and what is done to the value
NUMBERS: dict[str, tuple[str, Convert]] = {
    "lr": ("train.lr", _as_is),
    "weight_decay": ("train.weight_decay", _as_is),
    "betas": ("train.betas", _pair),
    "eps": ("train.eps", _as_is),
    "max_grad_l2_norm": ("train.clip_norm", _as_is),
    "lr_ratio": ("train.lr_decay", _as_is),
    "batch_size": ("train.global_batch", _as_is),
    "test_batch_size": ("data.eval_batch", _as_is),
    "log_interval": ("train.log_every", _as_is),
    "snapshot_interval": ("train.eval_every train.save_every", _as_is),
    "val_interval": ("train.eval_every", _as_is),
    "eval_interval": ("train.eval_every", _as_is),
    "max_ckpt_num": ("train.keep", _as_is),
    "enable_amp": ("train.precision", lambda value: "fp16" if value else "fp32"),
    "seed": ("seed", _as_is),
    "num_workers": ("data.workers", _as_is),
    "save_dir": ("run_dir", _as_is),
    "mask_probability": ("masks.text.probability", _as_is),
    "whole_word_masking": ("masks.text.whole_words", bool),
    "max_seq_length": ("encoder.text.max_length", _as_is),
    "hidden_dropout_prob": ("encoder.text.dropout", _as_is),
    "attention_probs_dropout_prob": ("encoder.text.attention_dropout", _as_is),
    "num_hidden_layers": ("encoder.text.depth", _as_is),
    "num_attention_heads": ("encoder.text.heads", _as_is),
    "hidden_size": ("encoder.text.width encoder.video.width", _as_is),
    "max_position_embeddings": ("encoder.text.positions", _as_is),
    "freeze_bn": ("encoder.video.frozen_norm", bool),
    "drop_path_rate": ("encoder.video.drop_path", _as_is),
    "l3_interaction": ("objectives.dmae.interaction", _as_is),
    "l3_wti_arch": ("objectives.dmae.wti_arch", _as_is),
    "l3_with_nfc": ("objectives.dmae.with_nfc", bool),
    "l3_use_twm": ("objectives.dmae.use_twm", bool),
    "l3_loss_type": ("objectives.dmae.loss_type", _as_is),
    "l3_partial_type": ("objectives.dmae.partial_type", _as_is),
    "l3_cis_thresh": ("objectives.dmae.cis_thresh", _as_is),
    "l3_margin_loss_thresh": ("objectives.dmae.margin_loss_thresh", _as_is),
    "l3_sim_header": ("objectives.dmae.sim_header", _as_is),
    "l3_max_frames": ("objectives.dmae.max_frames", _as_is),
    "l3_max_words": ("objectives.dmae.max_words", _as_is),
}
_DEAD = "is never read by AntMMF"
_SS = "of SNP-S3 (vtp-plugin-snps3), and without effect in this configuration"
# last name -> why it has no option
LEFT_OVER = {
    "fps": _DEAD,
    "arch_type": "univl is the one that is translated",
    "type": "a class of AntMMF, which follows from the rest",
    "pretrained_mapping": "vtp import antmmf finds out what stands in front of the names",
    "amp_escapes": "autocast knows what to keep in float32",
    "lr_scheduler": "see lr_steps",
    "random_truncate": "long texts are cut at their end: encoder.text.max_length",
    "random_mask_chinese": "no such mask; masks.text.whole_words=true hides whole words",
    "annotations_loader": "tables are read by each process, memory-mapped; no option",
    "allow_video_miss": "clips that cannot be decoded are counted: data.max_bad_fraction, data.max_missing",
    "train_n_pairs": "spoken sentences: dataset=howto100m and dataset=cnvid grow them; see docs/datasets.md",
    "min_words": "spoken sentences: dataset=howto100m and dataset=cnvid; see docs/datasets.md",
    "min_time": "spoken sentences: dataset=howto100m and dataset=cnvid; see docs/datasets.md",
    "num_labels": "the task knows its answers: task.answers",
    "labels": "the task knows its answers: task.answers",
    "find_unused_parameters": "train.find_unused_parameters is on by default",
    "IW_MLM": _SS,
    "Vision_Word_Matching": _SS,
    "words_top_k": _SS,
    "Word_Chosen_Num": _SS,
    "VWM_count_stage": _SS,
    "trainer": "there is one",
    "datasets": "see dataset",
    "device": "device=auto",
    "world_size": "torchrun says it",
    "distributed": "torchrun says it",
}
# groups of keys that are left out as a whole
INSIDE = {
    "cross_encoder": "is never read by AntMMF: the cross encoder is the text encoder (encoder.fusion.share_with=text)",
    "img_embeddings": _DEAD,
    "temporal_encoder": "off in every configuration; objective=[univl/clip_order] is what it was for",
    "pretrained_mapping": "vtp import antmmf finds out what stands in front of the names",
    "pyvideo_transform": "augmentation: data.randaugment=[2,9] data.short_side=[268,336] data.flip=0.5, size 224",
    "custom_transforms": "augmentation: data.crop_scale, data.short_side, data.flip; frames are squares here",
}
