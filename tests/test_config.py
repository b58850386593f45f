"""The nodes ``data`` and ``media``: what is wrong is said in words, and what is asked for reaches the loader."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from torchvision.transforms import v2

from vtp.cli.run import compose
from vtp.config import AUGMENTATIONS, DataConfig, MediaConfig
from vtp.errors import ConfigError
from vtp.media.transforms import EvalTransform, TrainTransform
from vtp.run.check import check
from vtp.run.data import RunData
from vtp.types import VideoSpec


def test_defaults_are_valid() -> None:
    assert DataConfig().validate() == [] and MediaConfig().validate() == []


@pytest.mark.parametrize(
    "option",
    [
        {"workers": -1},
        {"group": 0},
        {"eval_batch": 0},
        {"eval_clips": 0},
        {"eval_crops": 0},
        {"eval_resize": 0},
        {"eval_resize": 256, "eval_crops": 3},
        {"limit_train": 0.0},
        {"limit_eval": 2.5},
        {"max_missing": -1.0},
        {"max_bad_fraction": 1.5},
        {"modality_dropout": {"sound": 0.3}},
        {"modality_dropout": {"audio": 1.0}},
        {"modality_dropout": {"audio": "often"}},
        {"modality_dropout": {"audio": 0.3}, "drop": ["audio"]},
        {"on_leak": "ignore"},
        {"drop": ["sound"]},
        {"val_share": 1.0},
        {"sampler": "denze"},
        {"crop_scale": [0.5]},
        {"crop_scale": [0.0, 1.0]},
        {"crop_scale": [0.9, 0.5]},
        {"crop_scale": [0.5, 1.5]},
        {"crop_scale": [float("nan"), 1.0]},
        {"crop_ratio": [4 / 3, 3 / 4]},
        {"crop_ratio": [0.0, 1.0]},
        {"crop_ratio": [1.0, float("inf")]},
        {"short_side": [256]},
        {"short_side": [320, 256]},
        {"short_side": [8, 256]},
        {"decode_size": -1},
        {"decode_size": 8},
        {"flip": 1.5},
        {"flip": float("nan")},
        {"erase": -0.1},
        {"randaugment": [2]},
        {"randaugment": [0, 9]},
        {"randaugment": [2, 31]},
    ],
    ids=str,
)
def test_each_wrong_value_of_data_is_refused_by_name(option: dict[str, Any]) -> None:
    (wrong,) = DataConfig(**option).validate()
    assert wrong.startswith(f"data.{next(iter(option))}") and "\n" not in wrong


@pytest.mark.parametrize(
    "other", [{"crop_scale": [0.3, 1.0]}, {"crop_ratio": [1.0, 1.0]}, {"decode_size": 256}], ids=str
)
def test_what_a_random_short_side_replaces_cannot_be_set_as_well(other: dict[str, Any]) -> None:
    (wrong,) = DataConfig(short_side=[256, 320], **other).validate()
    assert wrong.startswith(f"data.{next(iter(other))} has no effect with data.short_side=[256,320]")


@pytest.mark.parametrize(
    "option",
    [{"backend": "dcord"}, {"timeout_s": 0.0}, {"timeout_s": float("inf")}, {"memory_mb": 63}],
    ids=str,
)
def test_each_wrong_value_of_media_is_refused_by_name(option: dict[str, Any]) -> None:
    (wrong,) = MediaConfig(**option).validate()
    assert wrong.startswith(f"media.{next(iter(option))}") and "\n" not in wrong


def test_mistakes_in_both_nodes_are_told_together(tmp_path: Path) -> None:
    config = compose(["task=msrvtt_qa", "dataset=shapes"])
    config["data"] |= {"flip": 2, "sampler": "denze"}
    config["media"] |= {"timeout_s": -1, "memory_mb": 1}
    with pytest.raises(ConfigError) as error:
        check(config, tmp_path)
    words = ("data.flip=2", "data.sampler=denze", "media.timeout_s=-1", "media.memory_mb=1")
    lines = str(error.value).splitlines()
    assert all(sum(word in line for line in lines) == 1 for word in words)


def test_augmentation_has_one_set_of_defaults() -> None:
    """Those of the configuration are those of the transform, so a recipe that says nothing gets what it always got."""
    parameters = inspect.signature(TrainTransform).parameters
    assert set(AUGMENTATIONS) == set(parameters) - {"size"}
    plain = asdict(DataConfig())
    for name in AUGMENTATIONS:
        default = parameters[name].default
        assert plain[name] == (list(default) if isinstance(default, tuple) else default), name


def pipeline(train: bool = True, **options: Any) -> Any:
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), options))
    assert isinstance(config, DataConfig) and config.validate() == []
    data = RunData(config, MediaConfig(), SimpleNamespace(labels=None), seed=0, folder=Path(), wanted=("video",))
    return data._pipeline({"video": VideoSpec(frames=2, size=32)}, train=train)


def test_augmentation_of_the_configuration_reaches_the_clips() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (2, 37, 50, 3), dtype=np.uint8)
    for options in ({}, {"flip": 0.5, "erase": 1.0, "randaugment": [2, 9]}, {"crop_scale": [0.1, 0.2]}):
        expected = TrainTransform(32, **options)
        for seed in range(3):
            np.testing.assert_array_equal(pipeline(**options).transform(clip, seed), expected(clip, seed))
    assert [type(step) for step in pipeline(short_side=[40, 48], flip=1).transform.steps.transforms] == [
        v2.RandomResize,
        v2.RandomCrop,
        v2.RandomHorizontalFlip,
    ]


@pytest.mark.parametrize(
    "options, size",
    [({}, 37), ({"short_side": [40, 48]}, 48), ({"decode_size": 64}, 64), ({"decode_size": 0}, None)],
    ids=str,
)
def test_frames_are_decoded_at_the_size_that_the_crop_needs(options: dict[str, Any], size: int | None) -> None:
    assert pipeline(**options).transform.decode_size == size


def test_augment_false_switches_everything_off() -> None:
    for train, augment in ((True, False), (False, True)):
        quiet = pipeline(train, augment=augment, flip=1.0, erase=1.0, randaugment=[2, 9], short_side=[40, 48])
        assert type(quiet.transform) is EvalTransform and not quiet.train and quiet.transform.decode_size == 32


def test_mappings_take_keys_of_the_user() -> None:
    given = [
        "task=msrvtt_qa",
        "dataset=shapes",
        "data.modality_dropout={audio: 0.3}",
        "train.group_lr={encoders.video: 0.1}",
    ]
    composed = compose(given)
    assert composed["data"]["modality_dropout"] == {"audio": 0.3} and composed["train"]["group_lr"] == {
        "encoders.video": 0.1
    }
    assert compose([*given[:2], "data.modality_dropout.audio=0.2"])["data"]["modality_dropout"] == {"audio": 0.2}
    with pytest.raises(ConfigError, match="modality_dropuot"):
        compose([*given[:2], "data.modality_dropuot={audio: 0.3}"])
